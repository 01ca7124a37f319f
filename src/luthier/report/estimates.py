"""What was foretold of a training beside what it took: a forecast that is never held against the facts is worth nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from luthier.report import fields
from luthier.report.fields import Fields

PARTS = {"step": "updating", "dev": "looking", "checkpoint": "saving"}
"""Kinds of events that took time, and what the forecast calls it."""


@dataclass(frozen=True)
class Foresight:
    """A quantity in bytes or seconds, foretold and measured."""

    what: str
    told_by: str
    unit: str
    foretold: float
    measured: float

    @property
    def off(self) -> float:
        """How far it was off, as a share of what was measured: 0.1 is 10 % too much."""
        return self.foretold / self.measured - 1


def read(events: Sequence[Fields]) -> tuple[Foresight, ...]:
    """Memory and time of a training that has ended."""
    ended = _last(events, "trained")
    return tuple(found for found in (_memory(events, ended), _time(events, ended)) if found) if ended else ()


def _memory(events: Sequence[Fields], ended: Fields) -> Foresight | None:
    foretold, measured = fields.number(_last(events, "needs"), "training"), fields.number(ended, "peak_bytes")
    if not foretold or not measured:
        return None
    return Foresight("memory", "from the model's configuration, before the run", "bytes", foretold, measured)


def _time(events: Sequence[Fields], ended: Fields) -> Foresight | None:
    """For the steps that were made: a training may end early. Steps that were repeated after a stop count once."""
    forecast, made = _last(events, "forecast"), fields.count(ended, "step") or 0
    if not forecast or not made:
        return None
    share = made / (fields.count(forecast, "steps") or made)
    foretold = share * sum(fields.number(forecast, part) or 0.0 for part in PARTS.values())
    seconds = {(kind, step): spent for kind, step, spent in _spent(events)}
    measured = sum(seconds.values())
    return Foresight("time", "by the first three steps", "seconds", foretold, measured) if measured else None


def _spent(events: Sequence[Fields]) -> Iterator[tuple[str, int, float]]:
    """Kind, step and seconds of everything that took time."""
    for event in events:
        kind = fields.text(event, "kind")
        if kind not in PARTS:
            continue
        seconds = fields.number(event, "seconds")
        if kind == "step" and (pace := fields.number(event, "tokens_per_second")):
            seconds = (fields.number(event, "tokens") or 0.0) / pace
        yield kind, fields.count(event, "step") or 0, seconds or 0.0


def _last(events: Sequence[Fields], kind: str) -> Fields:
    return next((event for event in reversed(events) if event.get("kind") == kind), {})
