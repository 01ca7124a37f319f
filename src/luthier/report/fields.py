"""Values out of JSON that we wrote ourselves, perhaps an older version of us: what is missing is None or empty."""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier.errors import CorruptedState

Fields = Mapping[str, Any]


def places(values: Fields | None) -> dict[str, tuple[str, ...]]:
    """Reason → places, without the reasons that nothing has."""
    return {reason: tuple(map(str, places)) for reason, places in (values or {}).items() if places}


def json_object(path: Path) -> Fields:
    """The JSON object in a file of ours; empty where the file is not there yet."""
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_bytes())
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise CorruptedState("not a JSON object; restore the file from a copy or start a new run.", where=str(path))
    return values


def toml(content: str) -> dict[str, Any]:
    """The recipe's values; empty where a hand-edited recipe is not TOML: the page still shows its text."""
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError:
        return {}


def text(values: Fields, key: str) -> str:
    value = values.get(key)
    return "" if value is None else str(value)


def texts(values: Fields | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (values or {}).items()}


def number(values: Fields, key: str) -> float | None:
    """A finite number, or None: JSON from Python may hold NaN, and a page should not."""
    value = values.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def count(values: Fields, key: str) -> int | None:
    value = number(values, key)
    return None if value is None else round(value)


def interval(value: object) -> tuple[float, float] | None:
    """[low, high], or None where it was not measured."""
    if not isinstance(value, Sequence) or len(value) != 2:
        return None
    ends = dict(zip(("low", "high"), value, strict=True))
    low, high = number(ends, "low"), number(ends, "high")
    return None if low is None or high is None else (low, high)
