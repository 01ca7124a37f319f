"""Which runs a sweep is made of, checked before anything starts."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier import recipe as recipes
from luthier.errors import UserError, nearest, together
from luthier.recipe import Recipe, Train

AMOUNTS = (12.0, 25.0, 50.0, 100.0)


@dataclass(frozen=True)
class Point:
    """One run of the sweep: a base model, settings of its own, and its share of the training rows in per cent."""

    name: str
    model: str
    amount: float
    settings: dict[str, Any]

    def recipe(self, asked: Recipe, fixed: Mapping[str, Any]) -> Recipe:
        """What this point's run is asked to do."""
        own = {"model": self.model, "data.train_share": self.amount / 100, **self.settings}
        return recipes.replace(asked, {**fixed, **own})


def plan_points(
    asked: Recipe, *, amounts: Sequence[float] | None, models: Sequence[str], settings: Mapping[str, Sequence[Any]]
) -> list[Point]:
    """Every combination, the largest amount of a model first; raises one UserError of all that is wrong.

    Without amounts it is the curve, unless models or settings are compared: these learn from all the rows.
    """
    if amounts is None:
        amounts = (100.0,) if models or settings else AMOUNTS
    _check(amounts, models, settings)
    models = models or (asked.model,)
    names = short_names(models)
    points = []
    for model in models:
        for amount in sorted(amounts, reverse=True):
            for values in itertools.product(*settings.values()):
                own = dict(zip(settings, values, strict=True))
                parts = [names[model]] if len(models) > 1 or asked.model != model else []
                parts += [f"{key.rpartition('.')[2]}={value}" for key, value in own.items()]
                name = _safe("-".join([*parts, f"{amount:g}pct"]))
                point = Point(name, model, amount, own)
                point.recipe(asked, {})  # a value that does not fit its key is refused before anything starts
                points.append(point)
    return points


def _check(amounts: Sequence[float], models: Sequence[str], settings: Mapping[str, Sequence[Any]]) -> None:
    errors = []
    for amount in amounts:
        if not 0 < amount <= 100:
            message = f"found {amount:g}; an amount is a share of the training rows, above 0 and at most 100 per cent."
            errors.append(UserError(message, where="--amounts"))
    if amounts and max(amounts) < 1:
        share = f"{100 * max(amounts):g}"
        errors.append(
            UserError(f"amounts are per cent; for a share of {max(amounts):g} write {share}.", where="--amounts")
        )
    for option, values in (("--amounts", amounts), ("--models", models), *settings.items()):
        twice = [value for at, value in enumerate(values) if value in values[:at]]
        if twice:
            value = f"{twice[0]:g}" if isinstance(twice[0], float) else str(twice[0])
            errors.append(UserError(f"{value} is named twice.", where=option))
        if not values and option not in ("--models",):
            errors.append(UserError("no value given.", where=option))
    keys = [f"train.{name}" for name in Train.model_fields]
    for key in settings:
        if key not in keys:
            guess = nearest(key, keys)
            hint = f', did you mean "{guess}"?' if guess else "."
            expected = (
                f'a sweep varies settings of train, found "{key}"{hint} Data and questions are the same for all points'
            )
            errors.append(UserError(f"{expected}; models have an option of their own, --models.", where="--set"))
    if errors:
        raise together(errors)


def short_names(models: Sequence[str]) -> dict[str, str]:
    """Model → the last part of its name, numbered where two would be the same."""
    lasts = [Path(model).name or model for model in models]
    return {
        model: last if lasts.count(last) == 1 else f"{last}-{at}"
        for at, (model, last) in enumerate(zip(models, lasts, strict=True), start=1)
    }


def _safe(name: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", name).strip("-.")
