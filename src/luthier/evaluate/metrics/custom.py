"""A user's own metric, reached by its dotted name and watched at every call."""

import json
import math
from collections.abc import Callable
from numbers import Real

import numpy as np

from luthier.errors import UserError
from luthier.extensions import import_function


def load(name: str, *, where: str | None = "evaluate.metric") -> Callable[[str, str], float]:
    """The function (answer, reference) -> 0..1 behind "package.module:function".

    Whatever else than such a number comes of a call is a UserError that shows the answer; `score` adds the row's place.
    """
    return _watched(name, import_function(name, where=where))


def _watched(name: str, function: Callable[[str, str], object]) -> Callable[[str, str], float]:
    """A user's function, with everything but a number from 0 to 1 turned into a UserError that shows the answer."""

    def metric(answer: str, reference: str) -> float:
        shown = f"for the answer {json.dumps(answer[:60], ensure_ascii=False)}"
        try:
            value = function(answer, reference)
        except Exception as error:
            raise UserError(f'the metric "{name}" failed {shown}: {type(error).__name__}: {error}.') from error
        number = float(value) if isinstance(value, Real | np.bool_) else math.nan
        if not 0 <= number <= 1:  # NaN is neither
            raise UserError(f'the metric "{name}" returned {value!r} {shown}; expected a number from 0 to 1.')
        return number

    return metric
