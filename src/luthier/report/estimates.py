"""The memory and time that a training was estimated to take, beside what it took."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from luthier.report import json_fields
from luthier.report.json_fields import JsonObject

PARTS = {"step": "updating", "dev": "looking", "checkpoint": "saving"}
"""Kinds of events that took time → their field in the event "forecast"."""


@dataclass(frozen=True)
class Estimate:
    """A quantity in bytes or seconds, estimated and measured."""

    what: str
    basis: str
    """What the estimate was made from, and when."""
    unit: str
    estimated: float
    measured: float

    @property
    def off(self) -> float:
        """How far the estimate was off, as a share of what was measured: 0.1 is 10 % too high."""
        return self.estimated / self.measured - 1

    def to_json(self) -> dict[str, str | float]:
        """As report.json holds it under "foretold"."""
        return {
            "what": self.what,
            "told_by": self.basis,
            "unit": self.unit,
            "foretold": self.estimated,
            "measured": self.measured,
            "off": self.off,
        }


def read(events: Sequence[JsonObject]) -> tuple[Estimate, ...]:
    """Memory and time of a training that has ended; nothing before that."""
    ended = _last(events, "trained")
    return tuple(found for found in (_memory(events, ended), _time(events, ended)) if found) if ended else ()


def _memory(events: Sequence[JsonObject], ended: JsonObject) -> Estimate | None:
    estimated, measured = (
        json_fields.number(_last(events, "needs"), "training"),
        json_fields.number(ended, "peak_bytes"),
    )
    if not estimated or not measured:
        return None
    return Estimate("memory", "from the model's configuration, before the run", "bytes", estimated, measured)


def _time(events: Sequence[JsonObject], ended: JsonObject) -> Estimate | None:
    """The estimate for the steps that were made, as a training may end early. Steps repeated after a stop count once."""
    forecast, made = _last(events, "forecast"), json_fields.count(ended, "step") or 0
    if not forecast or not made:
        return None
    share = made / (json_fields.count(forecast, "steps") or made)
    estimated = share * sum(json_fields.number(forecast, part) or 0.0 for part in PARTS.values())
    seconds = {(kind, step): spent for kind, step, spent in _spent(events)}
    measured = sum(seconds.values())
    return Estimate("time", "from the first three steps", "seconds", estimated, measured) if measured else None


def _spent(events: Sequence[JsonObject]) -> Iterator[tuple[str, int, float]]:
    """Kind, step and seconds of every step, validation and checkpoint."""
    for event in events:
        kind = json_fields.text(event, "kind")
        if kind not in PARTS:
            continue
        seconds = json_fields.number(event, "seconds")
        if kind == "step" and (throughput := json_fields.number(event, "tokens_per_second")):
            seconds = (json_fields.number(event, "tokens") or 0.0) / throughput
        yield kind, json_fields.count(event, "step") or 0, seconds or 0.0


def _last(events: Sequence[JsonObject], kind: str) -> JsonObject:
    return next((event for event in reversed(events) if event.get("kind") == kind), {})
