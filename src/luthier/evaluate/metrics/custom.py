"""A user's own metric, found by its dotted name, with every result checked."""

import json
import math
from collections.abc import Callable
from numbers import Real

import numpy as np

from luthier.errors import UserError
from luthier.extensions import import_function


def load(name: str, *, where: str | None = "evaluate.metric") -> Callable[[str, str], float]:
    """The function (answer, reference) -> 0..1 behind "package.module:function".

    A call that gives anything but such a number raises a UserError that shows the answer; `score` adds the row's location.
    """
    return _checked(name, import_function(name, where=where))


def _checked(name: str, function: Callable[[str, str], object]) -> Callable[[str, str], float]:
    """The function with its results checked: anything but a number from 0 to 1 is a UserError that shows the answer."""

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
