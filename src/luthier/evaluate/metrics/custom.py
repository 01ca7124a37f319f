"""A user's own metric, reached by its dotted name and watched at every call."""

import importlib
import json
import math
from collections.abc import Callable
from numbers import Real

import numpy as np

from luthier.errors import UserError, unknown


def load(name: str, *, where: str | None = "evaluate.metric") -> Callable[[str, str], float]:
    """The function (answer, reference) -> 0..1 behind "package.module:function".

    Whatever else than such a number comes of a call is a UserError that shows the answer; `score` adds the row's place.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        found = f'cannot import "{module_name}" for the metric "{name}": {type(error).__name__}: {error}.'
        next_step = "Check the spelling, and that the folder it lies in is on PYTHONPATH."
        raise UserError(f"{found} {next_step}", where=where) from error
    members = vars(module)
    if function_name not in members:
        public = [member for member, value in members.items() if callable(value) and not member.startswith("_")]
        raise unknown(f"function of {module_name}", function_name, public, where=where)
    function = members[function_name]
    if not callable(function):
        raise UserError(
            f'"{name}" is a {type(function).__name__}; a metric is a function (answer, reference).', where=where
        )
    return _watched(name, function)


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
