"""Beginnings of prompts that come again, such as a system message: their keys and values, computed once, in bounded memory."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

from luthier.model.decoding import SHARED_AT_LEAST, Batch

REMEMBERED = 64  # prompts that a new one is compared with


class _Key(NamedTuple):
    adapter: str | None
    ids: tuple[int, ...]


class Prefixes:
    """Beginnings by the adapter that they were read with; the one used longest ago goes first.

    A beginning is kept when a second prompt has it, since nobody can tell from one where what is common ends.
    """

    def __init__(self, most_tokens: int) -> None:
        self.most_tokens = most_tokens
        self.hits = self.tokens_saved = 0
        self._kept: OrderedDict[_Key, Batch] = OrderedDict()
        self._seen: deque[_Key] = deque(maxlen=REMEMBERED)

    @property
    def tokens(self) -> int:
        """Of keys and values that are kept."""
        return sum(len(key.ids) for key in self._kept)

    def note(self, adapter: str | None, ids: Sequence[int]) -> None:
        """A prompt was asked."""
        self._seen.append(_Key(adapter, tuple(ids)))

    def find(self, adapter: str | None, ids: Sequence[int]) -> Batch | None:
        """The longest kept beginning of a prompt that leaves it a token of its own."""
        ids = tuple(ids)
        fitting = [
            key
            for key in self._kept
            if key.adapter == adapter and len(key.ids) < len(ids) and ids[: len(key.ids)] == key.ids
        ]
        if not fitting:
            return None
        best = max(fitting, key=lambda key: len(key.ids))
        self._kept.move_to_end(best)
        return self._kept[best]

    def common_beginning(self, adapter: str | None, ids: Sequence[int]) -> int:
        """How many first tokens of a prompt that was read another prompt has too, if they are not kept yet; else 0."""
        ids = tuple(ids)
        others = [other.ids for other in list(self._seen) if other.adapter == adapter]
        if ids in others:
            others.remove(ids)  # itself
        common = max((_common(ids, other) for other in others), default=0)
        known = self.find(adapter, ids)
        enough = common >= SHARED_AT_LEAST + (known.columns if known else 0)
        return common if enough and common <= self.most_tokens else 0

    def keep(self, adapter: str | None, ids: Sequence[int], batch: Batch) -> None:
        """Remember the keys and values of a beginning."""
        self._kept[_Key(adapter, tuple(ids))] = batch
        while self.tokens > self.most_tokens:
            self._kept.popitem(last=False)

    def used(self, tokens: int) -> None:
        """So many tokens need not be read, thanks to a kept beginning."""
        self.hits += 1
        self.tokens_saved += tokens

    def forget(self, adapter: str | None = None, *, everything: bool = False) -> None:
        """Drop what was read with an adapter that is gone, or all of it to free memory."""
        gone = [key for key in self._kept if everything or key.adapter == adapter]
        for key in gone:
            del self._kept[key]
        self._seen = deque((key for key in self._seen if key.adapter != adapter or everything), maxlen=REMEMBERED)


def _common(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """How many first tokens two prompts have in common, leaving each a token of its own."""
    limit = min(len(first), len(second)) - 1
    if first[:limit] == second[:limit]:
        return max(0, limit)
    return next(index for index in range(limit) if first[index] != second[index])
