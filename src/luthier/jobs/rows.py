"""Files, jobs, events and models as everybody outside of the database sees them: frozen, and plain values throughout."""

import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

State = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
TERMINAL: tuple[State, ...] = ("succeeded", "failed", "cancelled")
"""States in which a job has ended; a failed one can be resumed where its client's API knows that."""
ACTIVE: tuple[State, ...] = ("validating_files", "queued", "running", "paused")
"""States in which a job still needs its files and the model that it starts from."""
Kind = Literal["openai", "lamini"]
Method = Literal["supervised", "dpo"]
Order = Literal["asc", "desc"]
Level = Literal["info", "warn", "error"]
RESULTS = "fine-tune-results"
"""The purpose of files that a job leaves behind."""

_LETTERS = string.ascii_lowercase + string.digits
Row = TypeVar("Row")


def new_id(prefix: str) -> str:
    """A fresh id that nobody can guess, such as file-6qk2…"""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(24))


def storable(text: str) -> str:
    """The text without what some databases cannot hold: NUL and halves of surrogate pairs, which become U+FFFD."""
    return re.sub("[\0\ud800-\udfff]", "\ufffd", text)


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows of a list, and whether more follow behind the last one."""

    rows: tuple[Row, ...]
    has_more: bool


@dataclass(frozen=True)
class FileRow:
    """An uploaded file, or one that a job left; its name is what the client called it and never a path."""

    id: str
    key: str
    filename: str
    purpose: str
    bytes: int
    sha256: str
    created_at: int
    expires_at: int | None = None


@dataclass(frozen=True)
class JobError:
    """Why a job failed, or was paused by itself, in an API's words."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True)
class JobSpec:
    """What a client asks for; `luthier.jobs.hyperparameters.check` says whether its values are allowed."""

    key: str
    model: str
    """The base, as the client named it."""
    reference: str
    """The same for a recipe: a known name, or a folder; whoever takes the request resolves it."""
    training_file: str
    validation_file: str | None = None
    kind: Kind = "openai"
    method: Method = "supervised"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """n_epochs, batch_size, learning_rate_multiplier, beta: a number or "auto"."""
    suffix: str | None = None
    seed: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the recipe by their dotted names, which come before what is derived from the hyperparameters."""


@dataclass(frozen=True)
class JobRow:
    """A job as it stands."""

    number: int
    """Counts all jobs of this database; for APIs whose ids are numbers."""
    id: str
    key: str
    kind: Kind
    state: State
    model: str
    reference: str
    training_file: str
    validation_file: str | None
    method: Method
    hyperparameters: Mapping[str, Any]
    suffix: str | None
    seed: int
    metadata: Mapping[str, str]
    settings: Mapping[str, Any]
    created_at: int
    started_at: int | None
    finished_at: int | None
    estimated_finish: int | None
    step: int
    """The last step whose event is written down, of `steps`."""
    steps: int
    trained_tokens: int | None
    fine_tuned_model: str | None
    result_files: tuple[str, ...]
    error: JobError | None
    wish: str
    """What was asked of a running job and is done at a step's end: "pause", or nothing."""
    attempts: int
    """How often it was started since it last came forward."""
    event_count: int
    disk_bytes: int
    fence: int
    """Counts the workers that had it; only the last one may write."""
    log_offset: int
    """How many bytes of the run's events are written down as events of the job."""

    @property
    def is_finished(self) -> bool:
        return self.state in TERMINAL


@dataclass(frozen=True)
class NewEvent:
    """An event before it has its number; `data` makes it one of metrics."""

    message: str
    level: Level = "info"
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class EventRow:
    """An event of a job; `number` counts from 1 without a gap."""

    job: str
    number: int
    created_at: int
    level: Level
    message: str
    data: Mapping[str, Any] | None

    @property
    def id(self) -> str:
        """The same for ever."""
        return f"ftevent-{self.job.removeprefix('ftjob-')}-{self.number}"

    @property
    def type(self) -> Literal["message", "metrics"]:
        return "message" if self.data is None else "metrics"


@dataclass(frozen=True)
class CheckpointRow:
    """A checkpoint of a job that is on the disk and can answer by its name."""

    id: str
    job: str
    step: int
    created_at: int
    name: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ModelRow:
    """A tuned model: its name, its base as the client named it, and its folder relative to the service's home."""

    name: str
    key: str
    job: str
    base: str
    folder: str
    created_at: int
    step: int | None = None
    """Of a checkpoint's."""
