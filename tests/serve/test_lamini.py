"""Lamini's API as its clients speak it: the requests of versions 2.0 to 3.4, and errors that they can read."""

import json
import time
from typing import Any

import pytest

from luthier.jobs.rows import JobError, JobRow
from luthier.serve.lamini import finetune_args, training
from luthier.serve.service import Service

from .conftest import ask_app

ROWS = [{"input": f"What is {number}?", "output": f"It is {number}."} for number in range(12)]


def ask(app: Any, path: str, body: object, **more: Any) -> Any:
    """The answer to a POST that succeeds."""
    answer = ask_app(app, "POST", path, json=body, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_one_prompt_gets_an_object_and_several_a_list(app: Any) -> None:
    alone = ask(app, "/v1/completions", {"model_name": "tiny", "prompt": "Why?", "out_type": None, "max_tokens": 5})
    both = ask(app, "/v1/completions", {"model_name": "tiny", "prompt": ["How?", "Why?"], "max_new_tokens": 5})
    assert list(alone) == ["output"] and len(both) == 2
    assert both[1] == alone  # greedy, whatever else is answered
    newer = ask(app, "/v2/completions", {"model_name": "tiny", "prompt": "Why?", "max_tokens": 5})
    assert newer == {"outputs": [alone["output"]], "finish_reason": ["length"]}


def test_the_shared_path_still_serves_openai(app: Any) -> None:
    answer = ask(app, "/v1/completions", {"model": "tiny", "prompt": "Why?", "max_tokens": 2})
    assert answer["object"] == "text_completion"


def test_a_typed_answer_has_the_fields_with_their_types(app: Any) -> None:
    types = {"fine": "boolean", "good": "bool"}
    for word in ("out_type", "output_type"):
        found = ask(app, "/v1/completions", {"model_name": "tiny", "prompt": "Who?", word: types, "max_tokens": 250})
        assert isinstance(found["fine"], bool) and isinstance(found["good"], bool)


def test_a_typed_answer_that_is_cut_says_so(app: Any) -> None:
    body = {"model_name": "tiny", "prompt": "Who?", "out_type": {"a": "str", "b": "str"}, "max_tokens": 2}
    answer = ask_app(app, "POST", "/v1/completions", json=body)
    assert answer.status_code == 400 and "did not end within max_tokens" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 404), ({"lamini-version": "3.4.6"}, 594)], ids=["old client", "new client"]
)
def test_an_unknown_model_is_told_as_each_client_knows_it(app: Any, headers: dict[str, str], status: int) -> None:
    answer = ask_app(app, "POST", "/v1/completions", json={"model_name": "no/such", "prompt": "Hi"}, headers=headers)
    assert answer.status_code == status
    assert "no/such" in answer.json()["detail"] and "tiny" in answer.json()["detail"]


def test_errors_have_the_form_that_the_clients_read(app: Any) -> None:
    for path, body in (
        ("/v1/completions", {"model_name": "tiny", "prompt": 5}),
        ("/v1/completions", {"model_name": "tiny", "prompt": "x", "max_tokens": 10**9}),
        ("/v1/train", {"model_name": "tiny", "data": ROWS, "nonsense": 1}),
    ):
        answer = ask_app(app, "POST", path, json=body)
        assert answer.status_code == 400 and list(answer.json()) == ["detail"], answer.text
    refused = ask_app(app, "GET", "/v1/train/jobs", headers={"authorization": "Bearer wrong"})
    assert refused.status_code == 401 and refused.json() == {"detail": "Incorrect API key provided."}


def test_streams_and_batches_are_fetched_by_who_began_them(server: Any) -> None:
    body = {"model_name": "tiny", "prompt": ["Why?", "How?"], "max_new_tokens": 4}
    whole = server.ask("POST", "/v2/completions", json=body).json()
    for path in ("/v3/streaming_completions", "/v1/batch_completions"):
        number = server.ask("POST", path, json=body).json()["id"]
        while True:
            found = server.ask("GET", f"{path}/{number}/result").json()
            if found and None not in found["finish_reason"]:
                break
        assert found == whole
    assert server.ask("GET", "/v3/streaming_completions/other/result").status_code == 404


def test_a_stream_whose_answer_is_empty_ends_too(server: Any) -> None:
    body = {"model_name": "tiny", "prompt": "Why?", "max_new_tokens": 1}  # a blank
    assert server.ask("POST", "/v2/completions", json=body).json() == {"outputs": [""], "finish_reason": ["length"]}
    number = server.ask("POST", "/v3/streaming_completions", json=body).json()["id"]
    for _ in range(200):
        if found := server.ask("GET", f"/v3/streaming_completions/{number}/result").json():
            break
        time.sleep(0.02)
    assert found == {"outputs": [""], "finish_reason": ["length"]}


def test_a_stream_of_the_clients_before_3_is_polled_by_the_same_request(server: Any) -> None:
    body = {"model_name": "tiny", "prompt": "Why?", "out_type": None, "max_tokens": None, "max_new_tokens": 4}
    whole = server.ask("POST", "/v2/completions", json=body).json()["outputs"]
    for sends_it_on in (True, False):  # one of them forgets to
        found = server.ask("POST", "/v1/streaming_completions", json=body).json()
        first = found["server"]
        while not found["status"][0]:
            more = {"server": found["server"]} if sends_it_on else {}
            found = server.ask("POST", "/v1/streaming_completions", json=body | more).json()
        assert (found["server"], found["data"]) == (first, whole)
    assert server.ask("POST", "/v1/streaming_completions", json=body).json()["server"] != first


def test_what_other_kinds_of_models_do_is_refused_with_what_there_is(app: Any) -> None:
    for path, body, words in (
        ("/v1/inference/embedding", {"prompt": "a"}, "no embeddings"),
        ("/v1/classifier/3/classification", {"prompt": "a", "top_n": 2}, "/v1/decisions"),
        ("/v2/classifier/initialize", {"name": "a", "classes": {}}, "/v1/decisions"),
    ):
        answer = ask_app(app, "POST", path, json=body)
        assert answer.status_code == 400 and words in answer.json()["detail"], answer.text


def test_rows_are_uploaded_once_and_trained_on_by_their_id(app: Any, service: Service) -> None:
    assert ask_app(app, "GET", "/v1/get-upload-base-path").json() == {"upload_base_path": "local"}
    first = ask(app, "/v1/local-data", {"upload_base_path": "local", "data": ROWS})
    assert ask(app, "/v1/local-data", {"upload_base_path": "local", "data": ROWS}) == first
    assert ask(app, "/v1/existing-data", {"dataset_id": first["dataset_id"]}) == {
        "upload_base_path": "local", "dataset_location": first["dataset_location"],
    }  # fmt: skip
    body = {
        "model_name": "tiny", "dataset_id": first["dataset_id"], "upload_file_path": first["dataset_location"],
        "finetune_args": {"max_steps": 3, "r_value": 8, "optim": "adafactor"}, "custom_model_name": "mine",
    }  # fmt: skip
    job = ask(app, "/v1/train", body)
    assert isinstance(job["job_id"], int) and job["status"] in training.STATUSES.values()
    [row] = [row for row in service.jobs.store.jobs.list(first_key(service)).rows if row.number == job["job_id"]]
    assert row.kind == "lamini" and row.settings["train.lora_rank"] == 8 and row.settings["train.max_steps"] == 3
    kept = service.jobs.store.files.path(row.key, row.training_file).read_text()
    assert json.loads(kept.splitlines()[0]) == {"question": "What is 0?", "answer": "It is 0."}
    assert ask_app(app, "GET", f"/v1/train/jobs/{job['job_id']}").json()["custom_model_name"] == "mine"
    early = ask_app(app, "GET", f"/v1/train/jobs/{job['job_id']}/eval")
    assert early.status_code == 400 and "has no evaluation" in early.json()["detail"]
    page = ask_app(app, "GET", f"/tune/{job['job_id']}")
    assert page.headers["content-type"].startswith("text/html") and f"Job {job['job_id']}" in page.text
    assert page.headers["content-security-policy"] == ask_app(app, "GET", "/").headers["content-security-policy"]
    assert ask(app, f"/v1/train/jobs/{job['job_id']}/cancel", {})["status"] == "CANCELLED"
    again = ask_app(app, "POST", f"/v1/train/jobs/{job['job_id']}/resume", json={})
    assert again.status_code == 400 and "detail" in again.json()


def test_rows_that_the_client_named_are_found_by_that_name(app: Any) -> None:
    told = ask(app, "/v1/data", {"dataset_id": "d1"})  # 2.0.16 asks where, and sends the rows with the training
    assert told["upload_base_path"] == "local"
    missing = ask_app(
        app, "POST", "/v1/train", json={"model_name": "tiny", "upload_file_path": told["dataset_location"]}
    )
    assert missing.status_code == 404 and "send rows with a training only" in missing.json()["detail"]
    body = {"model_name": "tiny", "data": ROWS, "dataset_id": "d1", "upload_file_path": told["dataset_location"]}
    first = ask(app, "/v1/train", body)
    place = ask(app, "/v1/existing-data", {"dataset_id": "d1"})["dataset_location"]
    again = ask(app, "/v1/train", {"model_name": "tiny", "dataset_id": "d1", "upload_file_path": place})
    assert again["dataset_id"] == first["dataset_id"]
    later = ask(app, "/v1/local-data", {"upload_base_path": "local", "dataset_id": "d2", "data": ROWS})  # 2.1 to 2.5
    assert later["dataset_id"] == "d2"
    assert ask(app, "/v1/train", {"model_name": "tiny", "dataset_id": "d2"})["job_id"]
    evil = {"dataset_id": "../x", "data": ROWS}
    assert ask_app(app, "POST", "/v1/local-data", json=evil).status_code == 400


def test_a_failed_job_goes_on_and_one_without_room_ends_the_clients_loop(app: Any, service: Service) -> None:
    number = ask(app, "/v1/train", {"model_name": "tiny", "data": ROWS, "finetune_args": {"seed": 9}})["job_id"]
    [row] = [row for row in service.jobs.store.jobs.list(first_key(service)).rows if row.number == number]
    queue = service.jobs.store.queue
    queue.accept(row.id, {}, row.settings)
    running = take(service, row.id)
    queue.fail(running, JobError("machine_error", "no memory"))
    assert ask_app(app, "GET", f"/v1/train/jobs/{number}").json()["error"] == "no memory"
    resumed = ask(app, f"/v1/train/jobs/{number}/resume", {})
    assert (resumed["status"], resumed["error"]) == ("QUEUED", None)
    queue.hold(take(service, row.id), JobError("quota_exceeded", "no room"))
    held = ask_app(app, "GET", f"/v1/train/jobs/{number}").json()
    assert (held["status"], held["error"]) == ("FAILED", "no room")
    assert ask(app, f"/v1/train/jobs/{number}/resume", {})["status"] == "QUEUED"
    ask(app, f"/v1/train/jobs/{number}/cancel", {})


def take(service: Service, job: str) -> JobRow:
    """The job as a worker has it; others that wait are taken before it and cancelled."""
    while row := service.jobs.store.queue.claim():
        if row.id == job:
            return row
        service.jobs.store.jobs.cancel(row.key, row.id)
    raise AssertionError(job)


def first_key(service: Service) -> str:
    key = service.jobs.store.keys.verify("sk-test-of-the-service")
    assert key
    return key


def test_all_jobs_are_cancelled_at_once(app: Any) -> None:
    for seed in (1, 2):
        ask(app, "/v1/train", {"model_name": "tiny", "data": ROWS, "finetune_args": {"seed": seed}})
    cancelled = ask(app, "/v1/train/jobs/cancel", {})
    assert {job["status"] for job in cancelled} == {"CANCELLED"}
    listed = ask_app(app, "GET", "/v1/train/jobs").json()
    assert not [job for job in listed if job["status"] not in ("CANCELLED", "COMPLETED", "FAILED")]


def test_every_state_of_a_job_has_a_word_and_only_ends_end_the_clients_loop() -> None:
    ends = {"COMPLETED", "FAILED", "CANCELLED"}
    known = set(JobRow.__annotations__["state"].__args__)
    assert known == training.STATUSES.keys()
    assert {state for state, word in training.STATUSES.items() if word in ends} == {"succeeded", "failed", "cancelled"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [(ROWS[:2], "Found 2 pairs in 'data', expected 10 at least"), (None, "Expected 'data', or the")],
    ids=["two pairs", "no data"],
)
def test_a_training_without_enough_rows_is_refused(app: Any, rows: object, message: str) -> None:
    answer = ask_app(app, "POST", "/v1/train", json={"model_name": "tiny", "data": rows})
    assert answer.status_code == 400 and message in answer.json()["detail"]


def test_arguments_of_trainings_are_settings_or_refused_by_name() -> None:
    found = finetune_args.settings(
        {"learning_rate": 9e-4, "max_steps": 100, "save_steps": 60, "early_stopping": False, "optim": "adamw_torch"},
        {"r_value": 64, "lora_alpha": 1},
        enable_peft=None,
    )
    assert found == {
        "train.method": "lora", "train.lora_rank": 64, "train.lora_alpha": 1, "train.learning_rate": 9e-4,
        "train.max_steps": 100, "train.optimizer": "adamw",
    }  # fmt: skip
    with pytest.raises(Exception, match=r"'finetune_args.learning_rat', did you mean 'learning_rate'\?"):
        finetune_args.settings({"learning_rat": 1}, {}, enable_peft=None)
    with pytest.raises(Exception, match="expected one of adafactor"):
        finetune_args.settings({"optim": "sgd"}, {}, enable_peft=None)


def test_a_disk_of_the_client_s_is_not_read(app: Any) -> None:
    answer = ask_app(app, "POST", "/v1/data", json={"dataset_id": "a", "blob_dir_name": "default"})
    assert answer.status_code == 400 and "more than 3,000 pairs" in answer.json()["detail"]
    assert ask_app(app, "POST", "/v1/existing-data", json={"dataset_id": "../../etc/passwd"}).status_code == 404


def test_a_reservation_never_says_that_there_is_no_room(app: Any) -> None:
    body = {"capacity": 100, "model_name": "tiny", "max_tokens": None, "batch_size": 16}
    assert ask(app, "/v1/reservation", body)["dynamic_max_batch_size"] > 0


def test_models_are_listed_as_the_newer_client_reads_them(app: Any) -> None:
    listed = ask_app(app, "GET", "/v1alpha/downloaded_models/").json()
    assert listed[0]["model_name"] == "tiny" and listed[0]["status"] == "available"
    assert ask(app, "/v1alpha/downloaded_models/", {"hf_model_name": "tiny", "model_type": "transformer"})["model_id"]
    assert "embeddings" in ask_app(app, "POST", "/v1/embedding", json={"prompt": "a"}).json()["detail"]


def test_the_version_of_the_server_is_told(app: Any) -> None:
    assert ask_app(app, "GET", "/v1/version").json()["server"].count(".") == 2
