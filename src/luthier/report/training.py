"""How a training went, from a run's events: its steps, its looks at dev, what was tried before it and how it ended."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from luthier.report import fields
from luthier.report.fields import Fields


@dataclass(frozen=True)
class Step:
    """One optimizer step; `loss` is None where it was not finite."""

    step: int
    steps: int
    epoch: float | None
    loss: float | None
    tokens_per_second: float | None


PAIR_FIGURES = ("accuracy", "margin", "chosen_reward")  # of a look at dev, where preferences are learnt


@dataclass(frozen=True)
class DevCheck:
    """One look at the dev loss."""

    step: int
    loss: float | None
    best: bool
    accuracy: float | None = None
    """Of held-out pairs, the share where the chosen answer gained more than the rejected; only where preferences are learnt."""
    margin: float | None = None
    chosen_reward: float | None = None


@dataclass(frozen=True)
class Trained:
    """How training ended."""

    step: int
    best_step: int | None
    best_loss: float | None
    seconds: float | None
    reason: str


@dataclass(frozen=True)
class SelfTest:
    """What was tried on the first rows before the first step; see `luthier.train.sanity_check`."""

    rows: int
    learnt: int
    ends: bool
    apart: bool


Shape = TypeVar("Shape")
Stepwise = TypeVar("Stepwise", Step, DevCheck)


def step(values: Fields) -> Step:
    return Step(
        step=fields.count(values, "step") or 0,
        steps=fields.count(values, "steps") or 0,
        epoch=fields.number(values, "epoch"),
        loss=fields.number(values, "loss"),
        tokens_per_second=fields.number(values, "tokens_per_second"),
    )


def look(values: Fields) -> DevCheck:
    return DevCheck(
        fields.count(values, "step") or 0,
        fields.number(values, "loss"),
        bool(values.get("best")),
        accuracy=fields.number(values, "accuracy"),
        margin=fields.number(values, "margin"),
        chosen_reward=fields.number(values, "chosen_reward"),
    )


def end(values: Fields) -> Trained:
    return Trained(
        step=fields.count(values, "step") or 0,
        best_step=fields.count(values, "best_step"),
        best_loss=fields.number(values, "best_loss"),
        seconds=fields.number(values, "seconds"),
        reason=fields.text(values, "reason"),
    )


def selftest(values: Fields) -> SelfTest:
    return SelfTest(
        rows=fields.count(values, "rows") or 0,
        learnt=fields.count(values, "learnt") or 0,
        ends=bool(values.get("ends")),
        apart=bool(values.get("apart")),
    )


def last(events: Sequence[Fields], kind: str, shape: Callable[[Fields], Shape]) -> Shape | None:
    """The latest event of a kind, or None."""
    return next((shape(event) for event in reversed(events) if event.get("kind") == kind), None)


def by_step(events: Iterable[Stepwise]) -> tuple[Stepwise, ...]:
    """One event for each step, in order; of a step that was repeated after a stop, the last."""
    latest = {event.step: event for event in events}
    return tuple(latest[step] for step in sorted(latest))
