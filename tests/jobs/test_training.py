"""A job from the upload to the model that it makes, with real processes on the tiny model."""

import asyncio
import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from job_service import LEASE, SETTINGS, Client, chat_rows
from luthier.errors import MachineError
from luthier.jobs.errors import QuotaExceeded
from luthier.jobs.limits import Limits
from luthier.jobs.rows import JobRow
from luthier.jobs.service import Jobs
from luthier.model.identity import fingerprint
from luthier.runs import Run, durable

pytestmark = pytest.mark.timeout(900)  # each job starts a Python with torch, beside whatever else the machine does
STEPS, CHECKED = 150, [50, 100, 150]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Client]:
    with Jobs(tmp_path_factory.mktemp("service") / "home", lease_seconds=LEASE) as service:
        yield Client(service, tiny_model)


@pytest.fixture(scope="module")
def calm(client: Client) -> tuple[JobRow, list[str], str]:
    """A job that nothing disturbed: its row, its events as a client that follows hears them, and its weights."""
    job = client.create(suffix="My colours")

    async def all_events() -> list[str]:
        return [event.message async for event in client.service.follow(client.key, job.id)]

    followed = asyncio.run(all_events())
    done = client.get(job)
    assert done.state == "succeeded", (done.error, followed)
    return done, followed, fingerprint(client.store.run_folder(job.id) / "model")


@pytest.mark.slow
def test_a_paused_job_goes_on_and_ends_with_the_weights_of_one_that_never_was(
    client: Client, calm: tuple[JobRow, list[str], str]
) -> None:
    job = client.create()
    client.wait(job, lambda row: row.step > 0 or row.is_finished)
    asked = client.store.jobs.pause(client.key, job.id)
    assert asked.state == "running" and asked.wish == "pause"
    paused = client.wait(job, lambda row: row.state != "running")
    assert paused.state == "paused" and 0 < paused.step < STEPS, client.messages(job)
    kept = client.service.checkpoints(client.key, job.id)
    assert kept[0].step == paused.step and not Run(client.store.run_folder(job.id)).is_locked
    client.store.jobs.resume(client.key, job.id)
    done = client.wait(job)
    assert done.state == "succeeded", client.messages(job)
    assert fingerprint(client.store.run_folder(job.id) / "model") == calm[2]
    assert [event.data["step"] for event in client.store.events.since(job.id, 0) if event.data] == list(
        range(1, STEPS + 1)
    )
    assert done.trained_tokens == calm[0].trained_tokens


def test_a_job_ends_in_a_model_a_report_and_the_events_that_clients_know(
    client: Client, calm: tuple[JobRow, list[str], str]
) -> None:
    job, done, followed = calm[0], calm[0], calm[1]
    assert followed == client.messages(job)
    assert followed[:4] == [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {job.training_file}",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
    ]
    name = f"ft:tiny:luthier:my-colours:{job.id[-8:]}"
    assert followed[-2:] == [f"New fine-tuned model created: {name}", "The job has successfully completed"]
    steps = [event for event in client.store.events.since(job.id, 0) if event.type == "metrics"]
    assert [event.data["step"] for event in steps if event.data] == list(range(1, STEPS + 1))
    assert [event.message.startswith(f"Step {n}/{STEPS}: training loss=") for n, event in enumerate(steps, 1)] == [
        True
    ] * STEPS
    assert [n for n, event in enumerate(steps, 1) if "validation loss=" in event.message] == CHECKED
    assert done.hyperparameters["n_epochs"] == 3 and done.fine_tuned_model == name and done.trained_tokens

    # What it leaves
    run = Run(client.store.run_folder(job.id))
    assert run.state == "complete" and client.service.report(client.key, job.id) == run.folder / "report.html"
    checkpoints = client.service.checkpoints(client.key, job.id)
    names = [model.name for model in client.store.models.list(client.key) if model.job == job.id]
    assert sorted(names) == sorted([name, *(one.name for one in checkpoints)])
    assert checkpoints[0].step == STEPS and checkpoints[0].metrics["valid_loss"] == steps[-1].data["valid_loss"]  # type: ignore[index]
    best = min(checkpoints, key=lambda one: one.metrics["valid_loss"]).name
    folders = {model.name: client.store.model_folder(model) for model in client.store.models.list(client.key)}
    assert fingerprint(folders[best]) == fingerprint(folders[name]) == calm[2]
    assert not list((run.folder / "checkpoints").iterdir())
    (result,) = done.result_files
    rows = list(csv.DictReader(client.store.files.path(client.key, result).read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    assert [bool(row["valid_loss"]) for row in rows] == [n in CHECKED for n in range(1, STEPS + 1)]
    assert float(rows[0]["train_loss"]) == steps[0].data["train_loss"]  # type: ignore[index]
    accuracies = [float(row["train_accuracy"]) for row in rows]
    assert 0 <= min(accuracies) < max(accuracies) <= 1 and sum(accuracies[-10:]) > sum(accuracies[:10])
    assert [bool(row["valid_mean_token_accuracy"]) for row in rows] == [n in CHECKED for n in range(1, STEPS + 1)]

    # And how the room comes back
    assert client.store.used_bytes(client.key) > (before := done.disk_bytes) > 100_000
    for each in names:
        client.service.delete_model(client.key, each)
    assert client.get(job).disk_bytes < before / 3
    assert not (run.folder / "model").exists() and (run.folder / "report.html").exists()
    client.service.remove_run(client.key, job.id)
    assert not run.folder.exists() and client.get(job).state == "succeeded"


def test_seven_examples_are_too_few(client: Client) -> None:
    done = client.wait(client.create(chat_rows(7)))
    assert done.state == "failed" and done.error
    assert (done.error.code, done.error.param) == ("invalid_n_examples", "training_file")
    assert done.error.message == "Training file has 7 example(s), but must have at least 10 examples"


@pytest.mark.slow
def test_a_job_without_room_is_paused_with_a_checkpoint_and_goes_on_when_there_is_room(
    tmp_path: Path, tiny_model: Path
) -> None:
    with Jobs(tmp_path / "home", lease_seconds=LEASE) as service:
        client = Client(service, tiny_model)
        job = client.create(settings=SETTINGS | {"train.max_steps": 20_000})
        client.wait(job, lambda row: row.step > 60)  # there is a checkpoint
    store = service.store
    limits = Limits(bytes_per_key=durable.size(store.run_folder(job.id)) - 1)
    with Jobs(tmp_path / "home", lease_seconds=LEASE, limits=limits) as service:
        client = Client(service, tiny_model)
        held = client.wait(job, lambda row: row.state == "paused" or row.is_finished)
        assert (held.state, held.error and held.error.code) == ("paused", "quota_exceeded"), client.messages(job)
        assert "are allowed for this key" in client.messages(job)[-1]
        assert client.service.checkpoints(client.key, job.id)[0].step == held.step > 60
        with pytest.raises(QuotaExceeded, match="are allowed for this key"):
            client.store.jobs.resume(client.key, job.id)
    with Jobs(tmp_path / "home", lease_seconds=LEASE) as service:
        client = Client(service, tiny_model)
        assert client.store.jobs.resume(client.key, job.id).error is None
        client.wait(job, lambda row: row.step > held.step)
        client.store.jobs.cancel(client.key, job.id)


def test_a_home_has_one_service(client: Client, tiny_model: Path) -> None:
    with pytest.raises(MachineError, match="the service's home is in use by process"):
        Jobs(client.store.home).start()
