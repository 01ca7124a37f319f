"""Rows of one length out of files of tokens, which are read through a memory map.

A row begins with the token that the row before ends with, so that each token is predicted once. Which row has which number is a
pure function of the files' sizes and the weights of the sources: a training that goes on needs to replay nothing.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from luthier.data.corpora.token_files import ENTRY, MANIFEST
from luthier.data.prepared import PreparedRow
from luthier.errors import UserError, unknown


@dataclass(frozen=True)
class Shard:
    """A file of tokens, where its passages begin, and how many rows it has."""

    tokens: np.ndarray[Any, Any]
    entries: np.ndarray[Any, Any]
    context: int

    @property
    def rows(self) -> int:
        """The last one may be shorter; a single token that is left over is none."""
        return -(-(len(self.tokens) - 1) // (self.context - 1)) if len(self.tokens) > 1 else 0

    def row(self, number: int) -> np.ndarray[Any, Any]:
        start = number * (self.context - 1)
        return self.tokens[start : start + self.context].astype(np.int32)

    def length(self, number: int) -> int:
        return min(self.context, len(self.tokens) - number * (self.context - 1))


@dataclass(frozen=True)
class _Part:
    """The rows of a source, as often as its weight says."""

    shards: tuple[Shard, ...]
    firsts: tuple[int, ...]
    """The number of each shard's first row, then that of all rows."""
    count: int

    @classmethod
    def of(cls, shards: tuple[Shard, ...], weight: float) -> "_Part":
        firsts = [0]
        for shard in shards:
            firsts.append(firsts[-1] + shard.rows)
        return cls(shards, tuple(firsts), round(firsts[-1] * weight))

    def find(self, number: int) -> tuple[Shard, int]:
        """The shard of a row and its number there. A pass that is no whole one takes rows from all over the source."""
        of = self.firsts[-1]
        whole, at = divmod(number, of)
        rest = self.count - whole * of
        if rest < of:
            at = at * of // rest
        shard = bisect_right(self.firsts, at) - 1
        return self.shards[shard], at - self.firsts[shard]


class CorpusRows:
    """The rows of a split by number, sources one after the other. A weight of 2 has a source come twice in a pass."""

    documents = True

    def __init__(self, folder: Path, split: str, *, context: int, weights: Mapping[str, float] | None = None) -> None:
        self.context = context
        self._manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        dtype = np.dtype(self._manifest["dtype"])
        streams = {
            key.partition("/")[2]: each
            for key, each in self._manifest["streams"].items()
            if key.startswith(f"{split}/")
        }
        if split == "train":
            _expect_known(weights or {}, list(streams))
        self._parts = []
        for source, stream in streams.items():
            shards = tuple(
                _shard(folder / f"{stream['name']}-{number:04}", dtype, context)
                for number in range(len(stream["shards"]))
            )
            self._parts.append(_Part.of(shards, (weights or {}).get(source, 1.0) if split == "train" else 1.0))
        self._firsts = [0]
        for part in self._parts:
            self._firsts.append(self._firsts[-1] + part.count)
        self._mask = np.ones(context, dtype=bool)

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, number: int) -> PreparedRow:
        shard, at = self._find(number)
        ids = shard.row(at)
        return PreparedRow(ids, self._mask[: len(ids)])

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [length for part in self._parts for length in _lengths(part, self.context)]

    @property
    def tokens(self) -> int:
        """Tokens that a pass over all rows predicts."""
        return sum(self.lengths) - len(self)

    def location(self, number: int) -> str:
        """The document that the row begins in."""
        shard, at = self._find(number)
        entry = shard.entries[np.searchsorted(shard.entries["start"], at * (self.context - 1), side="right") - 1]
        name = self._manifest["files"][int(entry["file"])][1]
        return f"{name}, document {int(entry['document'])}"

    def passages(self) -> Iterator[tuple[str, np.ndarray[Any, Any], int]]:
        """Each passage's document, its tokens, which end where the next begins, and its bytes."""
        for part in self._parts:
            for shard in part.shards:
                ends = [*shard.entries["start"][1:].tolist(), len(shard.tokens)]
                for entry, end in zip(shard.entries, ends, strict=True):
                    name = self._manifest["files"][int(entry["file"])][1]
                    ids = shard.tokens[int(entry["start"]) : end].astype(np.int64)
                    yield f"{name}, document {int(entry['document'])}", ids, int(entry["bytes"])

    def _find(self, number: int) -> tuple[Shard, int]:
        number = range(len(self))[number]
        at = bisect_right(self._firsts, number) - 1
        return self._parts[at].find(number - self._firsts[at])


def _shard(stem: Path, dtype: np.dtype[Any], context: int) -> Shard:
    tokens = np.memmap(stem.with_suffix(".tokens"), dtype, mode="r")
    return Shard(tokens, np.memmap(stem.with_suffix(".passages"), ENTRY, mode="r"), context)


def _lengths(part: _Part, context: int) -> Iterator[int]:
    """Only the last row of a file may be shorter."""
    short = {
        first + shard.rows - 1: shard.length(shard.rows - 1)
        for first, shard in zip(part.firsts[:-1], part.shards, strict=True)
        if shard.rows
    }
    of = part.firsts[-1]
    for number in range(part.count):
        whole, at = divmod(number, of)
        rest = part.count - whole * of
        yield short.get(at * of // rest if rest < of else at, context)


def _expect_known(weights: Mapping[str, float], sources: list[str]) -> None:
    for source in weights:
        if source not in sources:
            raise unknown("source", source, sources, where="pretrain.weights")
    if sources and weights and not any(weights.get(source, 1.0) > 0 for source in sources):
        raise UserError("every source has the weight 0, so nothing would be trained on.", where="pretrain.weights")
