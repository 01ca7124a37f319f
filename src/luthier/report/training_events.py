"""A training as its events record it: steps, validations on dev, the sanity check before the first step, the end."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from luthier.report import json_fields
from luthier.report.json_fields import JsonObject


@dataclass(frozen=True)
class Step:
    """One optimizer step; `loss` is None where it was not finite."""

    step: int
    steps: int
    epoch: float | None
    loss: float | None
    tokens_per_second: float | None


PREFERENCE_FIELDS = ("accuracy", "margin", "chosen_reward", "kl")
"""Fields of a dev check that only preference training (DPO, KTO) has."""


@dataclass(frozen=True)
class DevCheck:
    """One validation on the dev items."""

    step: int
    loss: float | None
    best: bool
    accuracy: float | None = None
    """Share of dev pairs whose chosen answer gained more likelihood than the rejected one, or of single answers that gained if
    people liked them and lost if not; preference training only."""
    margin: float | None = None
    chosen_reward: float | None = None
    kl: float | None = None
    """How far the model has moved from where it started; with unpaired preferences (KTO) only."""


@dataclass(frozen=True)
class Trained:
    """How training ended."""

    step: int
    best_step: int | None
    best_loss: float | None
    seconds: float | None
    reason: str


@dataclass(frozen=True)
class SanityCheck:
    """What was checked on the first rows before the first step; see `luthier.train.sanity_check`."""

    rows: int
    loss_tokens: int
    ends_with_end_token: bool
    rows_isolated: bool
    """Whether rows of one batch leave each other alone; where not, each row gets a batch of its own."""


Event = TypeVar("Event")
StepEvent = TypeVar("StepEvent", Step, DevCheck)


def step(values: JsonObject) -> Step:
    return Step(
        step=json_fields.count(values, "step") or 0,
        steps=json_fields.count(values, "steps") or 0,
        epoch=json_fields.number(values, "epoch"),
        loss=json_fields.number(values, "loss"),
        tokens_per_second=json_fields.number(values, "tokens_per_second"),
    )


def dev_check(values: JsonObject) -> DevCheck:
    return DevCheck(
        json_fields.count(values, "step") or 0,
        json_fields.number(values, "loss"),
        bool(values.get("best")),
        accuracy=json_fields.number(values, "accuracy"),
        margin=json_fields.number(values, "margin"),
        chosen_reward=json_fields.number(values, "chosen_reward"),
        kl=json_fields.number(values, "kl"),
    )


def training_end(values: JsonObject) -> Trained:
    return Trained(
        step=json_fields.count(values, "step") or 0,
        best_step=json_fields.count(values, "best_step"),
        best_loss=json_fields.number(values, "best_loss"),
        seconds=json_fields.number(values, "seconds"),
        reason=json_fields.text(values, "reason"),
    )


def sanity_check(values: JsonObject) -> SanityCheck:
    return SanityCheck(
        rows=json_fields.count(values, "rows") or 0,
        loss_tokens=json_fields.count(values, "learnt") or 0,
        ends_with_end_token=bool(values.get("ends")),
        rows_isolated=bool(values.get("apart")),
    )


def last(events: Sequence[JsonObject], kind: str, parse: Callable[[JsonObject], Event]) -> Event | None:
    """The latest event of a kind, or None."""
    return next((parse(event) for event in reversed(events) if event.get("kind") == kind), None)


def by_step(events: Iterable[StepEvent]) -> tuple[StepEvent, ...]:
    """One event for each step, in order: the last one where a step was repeated after a stop."""
    latest = {event.step: event for event in events}
    return tuple(latest[step] for step in sorted(latest))
