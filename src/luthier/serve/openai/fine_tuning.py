"""Fine-tuning jobs: what OpenAI's `client.fine_tuning.jobs` sends and reads."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, Field

from luthier.jobs.model_table import ORGANIZATION
from luthier.jobs.rows import CheckpointRow, EventRow, JobRow, JobSpec
from luthier.jobs.service import Jobs
from luthier.serve.errors import bad_request, not_found
from luthier.serve.openai.answering import EventStream
from luthier.serve.openai.shapes import JOB_ID, After, Asked, JobId, Listed, key_of, known_id, page
from luthier.serve.service import service_of

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])

Auto = Literal["auto"]
Epochs = Annotated[int, Field(ge=1, le=50)] | Auto | None
BatchSize = Annotated[int, Field(ge=1, le=4096)] | Auto | None
Multiplier = Annotated[float, Field(gt=0, le=1000)] | Auto | None
Limit = Annotated[int, Query(ge=1, le=1000)]


class Hyperparameters(Asked):
    n_epochs: Epochs = None
    batch_size: BatchSize = None
    learning_rate_multiplier: Multiplier = None

    def chosen(self) -> dict[str, Any]:
        """Those that the client named."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class DPOHyperparameters(Hyperparameters):
    beta: Annotated[float, Field(gt=0, le=2)] | Auto | None = None


class Supervised(Asked):
    hyperparameters: Hyperparameters | None = None


class DPO(Asked):
    hyperparameters: DPOHyperparameters | None = None


class Method(Asked):
    type: Literal["supervised", "dpo"]
    supervised: Supervised | None = None
    dpo: DPO | None = None

    def chosen(self) -> dict[str, Any]:
        """The hyperparameters of the method that was chosen."""
        method = self.supervised if self.type == "supervised" else self.dpo
        return method.hyperparameters.chosen() if method and method.hyperparameters else {}


class JobRequest(Asked):
    model: Annotated[str, Field(max_length=256)]
    training_file: Annotated[str, Field(max_length=200)]
    validation_file: Annotated[str | None, Field(max_length=200)] = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    """As older clients send them, beside no method."""
    suffix: Annotated[str | None, Field(min_length=1, max_length=64)] = None
    seed: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(
        None, max_length=16
    )
    integrations: Annotated[list[Any], Field(max_length=0)] | None = None
    """Nothing is sent to other services, so there are none to name."""


class JobFault(BaseModel):
    code: str
    message: str
    param: str | None


class Job(BaseModel):
    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    error: JobFault | None
    estimated_finish: int | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: dict[str, Any]
    integrations: list[Any] = []
    metadata: dict[str, str]
    method: dict[str, Any]
    model: str
    organization_id: str = ORGANIZATION
    result_files: list[str]
    seed: int
    status: str
    trained_tokens: int | None
    training_file: str
    validation_file: str | None

    @classmethod
    def of(cls, row: JobRow) -> "Job":
        error = JobFault(**vars(row.error)) if row.error else None
        values = {
            **dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier"), "auto"),
            **row.hyperparameters,
        }
        known = {name: value for name, value in values.items() if name != "beta"}
        return cls(
            id=row.id, created_at=row.created_at, error=error, estimated_finish=row.estimated_finish,
            fine_tuned_model=row.fine_tuned_model, finished_at=row.finished_at, hyperparameters=known,
            metadata=dict(row.metadata), method={"type": row.method, row.method: {"hyperparameters": values}},
            model=row.model, result_files=list(row.result_files), seed=row.seed, status=row.state,
            trained_tokens=row.trained_tokens, training_file=row.training_file, validation_file=row.validation_file,
        )  # fmt: skip


class Event(BaseModel):
    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]

    @classmethod
    def of(cls, row: EventRow) -> "Event":
        return cls(
            id=row.id, created_at=row.created_at, level=row.level, message=row.message, type=row.type,
            data=dict(row.data or {}),
        )  # fmt: skip


class Checkpoint(BaseModel):
    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, float]
    step_number: int

    @classmethod
    def of(cls, row: CheckpointRow) -> "Checkpoint":
        return cls(
            id=row.id, created_at=row.created_at, fine_tuned_model_checkpoint=row.name, fine_tuning_job_id=row.job,
            metrics=dict(row.metrics), step_number=row.step,
        )  # fmt: skip


@router.post("")
def create(
    request: Request,
    asked: JobRequest,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Job:
    """Queue a job. The same Idempotency-Key with the same request gives the same job."""
    service, key = service_of(request), key_of(request)
    if asked.method and asked.hyperparameters:
        message = "Invalid 'hyperparameters': they belong into the method where one is named."
        raise bad_request(message, "hyperparameters", "invalid_value")
    hyperparameters = (
        asked.method.chosen() if asked.method else asked.hyperparameters.chosen() if asked.hyperparameters else {}
    )
    spec = JobSpec(
        key=key, model=asked.model, reference=service.catalogue.trainable(asked.model, key),
        training_file=asked.training_file, validation_file=asked.validation_file,
        method=asked.method.type if asked.method else "supervised", hyperparameters=hyperparameters, suffix=asked.suffix,
        seed=asked.seed, metadata=asked.metadata or {},
    )  # fmt: skip
    return Job.of(service.jobs.store.jobs.create(spec, idempotency_key=idempotency_key))


@router.get("")
def list_jobs(request: Request, after: After = None, limit: Limit = 20) -> Listed[Job]:
    """The key's jobs, newest first; `metadata[NAME]=VALUE` picks those with that."""
    found = service_of(request).jobs.store.jobs.list(
        key_of(request), after=after, limit=limit, metadata=_metadata_filter(request.query_params)
    )
    return Listed[Job](**page([Job.of(row) for row in found.rows], found.has_more))


def _metadata_filter(query: Mapping[str, str]) -> dict[str, str]:
    return {
        name[len("metadata[") : -1]: value
        for name, value in query.items()
        if name.startswith("metadata[") and name.endswith("]")
    }


@router.get("/{job_id}")
def retrieve(request: Request, job_id: JobId) -> Job:
    """The job as it stands."""
    return Job.of(service_of(request).jobs.store.jobs.get(key_of(request), _known(job_id)))


@router.post("/{job_id}/cancel")
def cancel(request: Request, job_id: JobId) -> Job:
    """Stop the job for good, at its step's end."""
    return Job.of(service_of(request).jobs.store.jobs.cancel(key_of(request), _known(job_id)))


@router.post("/{job_id}/pause")
def pause(request: Request, job_id: JobId) -> Job:
    """Stop the job at its step's end, until it is resumed."""
    return Job.of(service_of(request).jobs.store.jobs.pause(key_of(request), _known(job_id)))


@router.post("/{job_id}/resume")
def resume(request: Request, job_id: JobId) -> Job:
    """Let a paused job go on from its last checkpoint."""
    return Job.of(service_of(request).jobs.store.jobs.resume(key_of(request), _known(job_id)))


@router.get("/{job_id}/events", response_model=Listed[Event])
async def events(
    request: Request, job_id: JobId, after: After = None, limit: Limit = 20, stream: bool = False
) -> Listed[Event] | EventStream:
    """What happened, newest first; with `stream`, from the first event on as server-sent events, until the job rests."""
    jobs, key, job = service_of(request).jobs, key_of(request), _known(job_id)
    await asyncio.to_thread(jobs.store.jobs.get, key, job)
    if stream:
        return EventStream(request, _followed(jobs, key, job), contextlib.AsyncExitStack())
    found = await asyncio.to_thread(lambda: jobs.store.events.newest(job, after=after, limit=limit))
    return Listed[Event](**page([Event.of(row) for row in found.rows], found.has_more))


async def _followed(jobs: Jobs, key: str, job: str) -> AsyncGenerator[dict[str, Any]]:
    async for row in jobs.follow(key, job):
        yield Event.of(row).model_dump()


@router.get("/{job_id}/checkpoints")
def checkpoints(request: Request, job_id: JobId, after: After = None, limit: Limit = 10) -> Listed[Checkpoint]:
    """The checkpoints that are on the disk, newest first; each answers by its name."""
    found = list(service_of(request).jobs.checkpoints(key_of(request), _known(job_id)))
    if after is not None:
        ids = [row.id for row in found]
        if after not in ids:
            raise not_found("checkpoint", after[:80], param="after")
        found = found[ids.index(after) + 1 :]
    return Listed[Checkpoint](**page([Checkpoint.of(row) for row in found[:limit]], len(found) > limit))


def _known(job_id: str) -> str:
    return known_id(JOB_ID, job_id, "fine-tuning job", "fine_tuning_job_id")
