"""Typed values from the JSON of a run folder; a field that is missing, as in older runs, gives None or an empty value."""

import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from luthier.errors import CorruptedState

JsonObject = Mapping[str, Any]


@dataclass(frozen=True)
class Locations(Sequence[str]):
    """Rows that share a reason: how many, and where the first of them are, such as tickets.jsonl:118."""

    first: tuple[str, ...]
    rows: int

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[str]:
        return iter(self.first)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[str, ...]: ...
    def __getitem__(self, number: int | slice) -> str | tuple[str, ...]:
        return self.first[number]


def locations_by_reason(values: JsonObject | None, counts: JsonObject | None) -> dict[str, Locations]:
    """Reason → locations; reasons without any are left out. Older runs list all, and have no counts."""
    found = {reason: tuple(map(str, first)) for reason, first in (values or {}).items() if first}
    return {reason: Locations(first, int((counts or {}).get(reason, len(first)))) for reason, first in found.items()}


def read_json_object(path: Path) -> JsonObject:
    """The JSON object in a file of the run; empty where the file does not exist yet."""
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
    """A recipe's values; empty where it is not TOML (the page still shows its text)."""
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError:
        return {}


def text(values: JsonObject, key: str) -> str:
    value = values.get(key)
    return "" if value is None else str(value)


def texts(values: JsonObject | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (values or {}).items()}


def number(values: JsonObject, key: str) -> float | None:
    """A finite number, or None: JSON from Python may hold NaN, and a page should not."""
    value = values.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def count(values: JsonObject, key: str) -> int | None:
    value = number(values, key)
    return None if value is None else round(value)


def interval(value: object) -> tuple[float, float] | None:
    """[low, high], or None where it was not measured."""
    if not isinstance(value, Sequence) or len(value) != 2:
        return None
    ends = dict(zip(("low", "high"), value, strict=True))
    low, high = number(ends, "low"), number(ends, "high")
    return None if low is None or high is None else (low, high)
