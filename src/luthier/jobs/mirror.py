"""A run's events → events of its job, in the words that OpenAI's clients know.

How far the run's log is read stands in the job's row and changes with the events in one transaction, so a crash between them
neither repeats nor loses one. A run that was continued makes some steps again; each counts once, for it comes out the same.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from luthier import recipe as recipes
from luthier.errors import UserError
from luthier.jobs.rows import CheckpointRow, JobRow, NewEvent
from luthier.runs import manifest
from luthier.runs.events import Event, EventLog

COLUMNS = {
    "step": "step", "train_loss": "train_loss", "train_accuracy": "train_mean_token_accuracy", "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}  # fmt: skip
"""Of OpenAI's result files, and what the metrics of events are called."""
CHECKPOINT_MODELS = "checkpoint-models"
"""The folder in a finished job's run with its checkpoints as models."""


@dataclass
class News:
    """What a part of a run's log says: events for the job, and what changes in its row."""

    events: list[NewEvent] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


class Mirror:
    """Reads the log of a job's run on from where its row says."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self._home = f"{home}/"
        self._every: int | None = None

    def read(self, job: JobRow, *, last: bool = False) -> News:
        """What is new since the row was written; nothing but the `last` reading takes a step whose dev check is to come."""
        lines, news = _lines(self.folder / "events.jsonl", job.log_offset), News()
        step = job.step
        for number, (event, end) in enumerate(lines):
            following = lines[number + 1][0] if number + 1 < len(lines) else None
            if event["kind"] == "step":
                if following is None and not last and self._is_checked(event):
                    break
                if event["step"] > step:
                    step = event["step"]
                    check = following if following and following["kind"] == "dev" else None
                    news.events.append(_step(event, check))
                    news.values |= {"step": step, "steps": event["steps"]}
            else:
                self._other(event, news)
            news.values["log_offset"] = end
        return news

    def _is_checked(self, step: Event) -> bool:
        """Whether the dev check after this step belongs to its event."""
        if self._every is None:
            try:
                self._every = recipes.load(self.folder / "recipe.toml").train.check_every or 1
            except UserError:
                return False
        return bool(step["step"] % self._every == 0 or step["step"] == step["steps"])

    def _other(self, event: Event, news: News) -> None:
        match event["kind"]:
            case "data":
                parts = ", ".join(f"{event[name]:,} for {name}" for name in ("train", "dev", "test") if name in event)
                news.events.append(NewEvent(f"Prepared the examples: {parts}"))
            case "warning":
                news.events.append(NewEvent(self.without_home(str(event["message"])), "warn"))
            case "resumed":
                news.events.append(NewEvent(f"Went on from the checkpoint of step {event['step']}"))
            case "forecast":
                seconds = sum(event[name] for name in ("updating", "looking", "saving"))
                news.values["estimated_finish"] = int(datetime.fromisoformat(event["time"]).timestamp() + seconds)
            case "checkpoint" | "stopping":
                news.values["attempts"] = 1  # it comes forward, so what killed it before was not the job itself
            case "trained":
                news.events.append(NewEvent(f"Trained {event['step']} steps: {event['reason']}"))

    def without_home(self, text: str) -> str:
        """A message without the paths of the service's own folder, which are nobody else's business."""
        return text.replace(f"{self._home}files/", "").replace(self._home, "")


def _lines(path: Path, offset: int) -> list[tuple[Event, int]]:
    """The whole events behind an offset, each with the offset behind it."""
    if not path.exists():
        return []
    found: list[tuple[Event, int]] = []
    with path.open("rb") as file:
        offset = min(offset, file.seek(0, 2))  # a power cut can take passing events
        file.seek(offset)
        for line in file:
            offset += len(line)
            try:
                found.append((json.loads(line), offset))
            except ValueError:
                break  # not whole yet, or what a crash left; that is cut away before the run goes on
    return found if not found or line.endswith(b"\n") else found[:-1]


def _step(event: Event, check: Event | None) -> NewEvent:
    data = {"step": event["step"], "total_steps": event["steps"], **_figures("train", event)}
    words = f"Step {event['step']}/{event['steps']}: training loss={event['loss']:.2f}"
    if check is not None:
        words += f", validation loss={check['loss']:.2f}"
        data |= _figures("valid", check)
    return NewEvent(words, data=data)


def _figures(which: str, event: Event) -> dict[str, float]:
    """The loss, and the accuracy of tokens, which objectives over pairs and labels have not."""
    accuracy = event.get("token_accuracy")
    more = {} if accuracy is None else {f"{which}_mean_token_accuracy": accuracy}
    return {f"{which}_loss": event["loss"], **more}


# What is read of the whole log, once the run has ended


def metrics(folder: Path) -> dict[int, dict[str, float]]:
    """The metrics of each step, as the job's events have them."""
    found: dict[int, dict[str, float]] = {}
    for event in _events(folder):
        if event["kind"] == "step":
            found[event["step"]] = dict(_step(event, None).data or {})
        elif event["kind"] == "dev" and event["step"] in found:
            found[event["step"]] |= _figures("valid", event)
    return dict(sorted(found.items()))


def trained_tokens(folder: Path) -> int:
    """The tokens of all steps, each counted once."""
    return sum({event["step"]: int(event["tokens"]) for event in _events(folder) if event["kind"] == "step"}.values())


def result_file(rows: Mapping[int, Mapping[str, float]]) -> bytes:
    """The metrics as OpenAI's result files have them: CSV, a row for each step."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([[row.get(name, "") for name in COLUMNS.values()] for row in rows.values()])
    return text.getvalue().encode()


def checkpoints(job: JobRow, folder: Path, name: str) -> Sequence[CheckpointRow]:
    """The checkpoints on the disk, the newest first; `name` is that of the job's model."""
    found, known = [], metrics(folder)
    kept = {step: path for root in ("checkpoints", CHECKPOINT_MODELS) for step, path in by_step(folder / root).items()}
    for step, path in sorted(kept.items(), reverse=True):
        try:
            made = int(path.stat().st_mtime)
        except FileNotFoundError:  # removed at this moment, for a newer one
            continue
        values = {key: value for key, value in known.get(step, {}).items() if key != "total_steps"}
        id = f"ftckpt-{job.id.removeprefix('ftjob-')}-{step}"
        found.append(CheckpointRow(id, job.id, step, made, f"{name}:ckpt-step-{step}", values))
    return found


def by_step(root: Path) -> dict[int, Path]:
    """The checkpoints in a folder by their steps."""
    return {int(path.name.removeprefix("step-")): path for path in manifest.folders(root)}


def _events(folder: Path) -> Iterator[Event]:
    path = folder / "events.jsonl"
    if path.exists():
        yield from EventLog(path).tail()[0]
