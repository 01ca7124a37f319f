"""Jobs as Lamini's clients start, watch and end them, and the answers of the tuned model beside those of its base."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from luthier.jobs.errors import RequestError
from luthier.jobs.rows import FileRow, JobRow, JobSpec
from luthier.runs.durable import read_json_lines
from luthier.serve.errors import APIError, bad_request
from luthier.serve.lamini import data, finetune_args
from luthier.serve.lamini.shapes import TrainRequest
from luthier.serve.openai.shapes import key_of
from luthier.serve.service import service_of

router = APIRouter(prefix="/v1/train", tags=["lamini"])

Number = Annotated[int, Path(ge=1, le=1 << 53)]
FEWEST_ROWS = 10
"""A job needs rows to train on, to choose by and to judge by."""
STATUSES = {
    "validating_files": "LOADING DATA",
    "queued": "QUEUED",
    "running": "TRAINING MODEL",
    "paused": "SCHEDULED",
    "succeeded": "COMPLETED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
}
"""The clients' loops end at the last three and at no other words; a job that waits for room is FAILED to them."""
TUNED, BASE = "fine-tuned", "zero-shot"
"""The arms of the run whose answers are compared."""


@router.post("")
def train(request: Request, asked: TrainRequest) -> dict[str, Any]:
    """Queue a training on rows that come along, or that were uploaded before."""
    service, key = service_of(request), key_of(request)
    reference = service.catalogue.trainable(asked.model_name, key)
    arguments, peft = asked.finetune_args or {}, asked.peft_args or {}
    settings = finetune_args.settings(arguments, peft, enable_peft=asked.enable_peft)
    file = _rows(request, asked)
    settings.setdefault("evaluate.arms", [BASE, TUNED])
    spec = JobSpec(
        key=key, model=asked.model_name, reference=reference, training_file=file.id, kind="lamini",
        suffix=asked.custom_model_name, seed=arguments.get("seed"), settings=settings,
    )  # fmt: skip
    return _status(service.jobs.store.jobs.create(spec))


def _rows(request: Request, asked: TrainRequest) -> FileRow:
    """The rows that come along, under the client's name for them where it gave one, or those that were uploaded before."""
    dataset = asked.dataset_id or asked.upload_file_path
    if asked.data is not None:
        _expect_enough(len(asked.data))
        return data.keep(request, asked.data, dataset=asked.dataset_id)
    if dataset is None:
        raise bad_request("Expected 'data', or the 'dataset_id' of uploaded rows.", "data", "invalid_value")
    file = data.find(request, dataset)
    with service_of(request).jobs.store.files.location(file.id).open("rb") as lines:
        _expect_enough(sum(1 for _ in itertools.islice(lines, FEWEST_ROWS)))
    return file


def _expect_enough(rows: int) -> None:
    if rows < FEWEST_ROWS:
        message = f"Found {rows} pairs in 'data', expected {FEWEST_ROWS} at least: some are kept to judge by."
        raise bad_request(message, "data", "invalid_n_examples")


@router.get("/jobs")
def jobs(request: Request) -> list[dict[str, Any]]:
    """The key's jobs, newest first."""
    found = service_of(request).jobs.store.jobs.list(key_of(request), limit=1000)
    return [_status(row) for row in found.rows]


@router.post("/jobs/cancel")
def cancel_all(request: Request) -> list[dict[str, Any]]:
    """Cancel every job of the key that has not ended."""
    return list(_cancelled(request))


def _cancelled(request: Request) -> Iterator[dict[str, Any]]:
    store = service_of(request).jobs.store
    for row in store.jobs.list(key_of(request), limit=1000).rows:
        if not row.is_finished:
            try:
                yield _status(store.jobs.cancel(key_of(request), row.id))
            except RequestError:  # it has just ended
                continue


@router.get("/jobs/{number}")
def status(request: Request, number: Number) -> dict[str, Any]:
    return _status(_job(request, number))


@router.post("/jobs/{number}/cancel")
def cancel(request: Request, number: Number) -> dict[str, Any]:
    return _status(service_of(request).jobs.store.jobs.cancel(key_of(request), _job(request, number).id))


@router.post("/jobs/{number}/resume")
def resume(request: Request, number: Number) -> dict[str, Any]:
    """Let a job go on from its last checkpoint that is paused or has failed; one that was cancelled has ended for good."""
    return _status(service_of(request).jobs.store.jobs.resume(key_of(request), _job(request, number).id, failed=True))


@router.get("/jobs/{number}/eval")
def evaluation(request: Request, number: Number) -> dict[str, Any]:
    """The answers to the test questions: the tuned model's first, its base's second."""
    job = _job(request, number)
    if job.state != "succeeded":
        message = f"Job {number} has no evaluation: it is {STATUSES[job.state]}."
        raise APIError(400, message, "job_id", "not_ready")
    folder = service_of(request).jobs.store.run_folder(job.id)
    answers: dict[str, dict[str, str]] = {}
    for line in read_json_lines(folder / "evaluation" / "answers.jsonl"):
        answers.setdefault(str(line["item"]), {"question": str(line["question"])})[str(line["arm"])] = str(
            line["answer"]
        )
    names = {TUNED: str(job.fine_tuned_model), BASE: job.model}
    return {
        "job_id": number,
        "eval_results": [
            {
                "input": item["question"],
                "outputs": [{"model_name": name, "output": item[arm]} for arm, name in names.items()],
            }
            for item in answers.values()
            if item.keys() >= names.keys()
        ],
    }


def _job(request: Request, number: int) -> JobRow:
    return service_of(request).jobs.store.jobs.get_by_number(key_of(request), number)


def _status(job: JobRow) -> dict[str, Any]:
    """A job as the clients read it; `error` is ours."""
    started = datetime.fromtimestamp(job.started_at or job.created_at, UTC).replace(tzinfo=None)
    return {
        "job_id": job.number,
        "status": "FAILED" if job.state == "paused" and job.error else STATUSES[job.state],
        "start_time": started.isoformat(),
        "model_name": job.fine_tuned_model or job.model,
        "custom_model_name": job.suffix,
        "resume_count": max(0, job.attempts - 1),
        "resume_limit": None,
        "dataset_id": job.training_file,
        "step": job.step,
        "steps": job.steps,
        "error": job.error and job.error.message,
    }
