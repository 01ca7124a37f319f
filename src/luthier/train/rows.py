"""Rows of tokens as a training takes them, and views of them: some of the rows, or rows seen in another way."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from luthier.data import prefixes
from luthier.model.packed import TokenRow


class TokenRows(Protocol):
    """Rows by number, with their lengths and where they came from."""

    @property
    def lengths(self) -> Sequence[int]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, number: int) -> TokenRow: ...
    def location(self, number: int) -> str: ...


@runtime_checkable
class ConversationRows(Protocol):
    """Rows of which several may be of one conversation, one for each of its answers."""

    @property
    def shared_prefixes(self) -> Sequence[int]:
        """With how many tokens each row begins like the one before it, where both are of one conversation; else 0."""


@runtime_checkable
class PairRows(Protocol):
    """Rows whose answer was chosen, each with the row of the same question whose answer was rejected."""

    def rejected(self, number: int) -> TokenRow | None: ...


@runtime_checkable
class LabelledRows(Protocol):
    """Rows of which people said whether they like the answer; None where they did not say."""

    def label(self, number: int) -> bool | None: ...


def shared_prefixes(rows: TokenRows) -> Sequence[int]:
    """The same of any rows: where nothing is known of conversations, each row is one."""
    return rows.shared_prefixes if isinstance(rows, ConversationRows) else [0] * len(rows)


@dataclass(frozen=True)
class RowView:
    """Rows of another object under numbers of their own; a view that changes what it shows overrides that alone."""

    rows: TokenRows
    numbers: Sequence[int]

    @property
    def lengths(self) -> list[int]:
        lengths = self.rows.lengths
        return [lengths[number] for number in self.numbers]

    @property
    def shared_prefixes(self) -> Sequence[int]:
        if not isinstance(self.rows, ConversationRows):
            return [0] * len(self)
        return prefixes.shared_with_previous(map(self.location, range(len(self))), lambda number: self[number].ids)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> TokenRow:
        return self.rows[self.numbers[number]]

    def location(self, number: int) -> str:
        return self.rows.location(self.numbers[number])

    def rejected(self, number: int) -> TokenRow | None:
        return self.rows.rejected(self.numbers[number]) if isinstance(self.rows, PairRows) else None

    def label(self, number: int) -> bool | None:
        return self.rows.label(self.numbers[number]) if isinstance(self.rows, LabelledRows) else None


class MixedRows:
    """Texts, and behind them other rows as often as their weight says: at 2 twice in a pass, at 0.5 every other one."""

    def __init__(self, texts: TokenRows, rows: TokenRows, weight: float) -> None:
        self._texts, self._rows = texts, rows
        whole, rest = divmod(round(len(rows) * weight), len(rows)) if len(rows) else (0, 0)
        self._numbers = [*range(len(rows))] * whole + [at * len(rows) // rest for at in range(rest)]

    def __len__(self) -> int:
        return len(self._texts) + len(self._numbers)

    def __getitem__(self, number: int) -> TokenRow:
        rows, at = self._find(number)
        return rows[at]

    @property
    def lengths(self) -> list[int]:
        lengths = self._rows.lengths
        return [*self._texts.lengths, *(lengths[number] for number in self._numbers)]

    @property
    def shared_prefixes(self) -> Sequence[int]:
        """Rows of one conversation stay together where both are taken."""
        shared, before = shared_prefixes(self._rows), [None, *self._numbers]
        of_rows = [shared[at] if last == at - 1 else 0 for last, at in zip(before, self._numbers, strict=False)]
        return [0] * len(self._texts) + of_rows

    def location(self, number: int) -> str:
        rows, at = self._find(number)
        return rows.location(at)

    def _find(self, number: int) -> tuple[TokenRows, int]:
        number = range(len(self))[number]
        at = number - len(self._texts)
        return (self._texts, number) if at < 0 else (self._rows, self._numbers[at])


def first_rows(rows: TokenRows, numbers: Iterable[int], *, tokens: int) -> RowView:
    """The first of these rows, until they have about as many tokens as asked for."""
    lengths, chosen, total = rows.lengths, [], 0
    for number in numbers:
        chosen.append(number)
        total += lengths[number]
        if total >= tokens:
            break
    return RowView(rows, chosen)


def following_other(prompts: Sequence[Hashable]) -> list[int]:
    """Of each row, by its prompt, the next row that has another one, the first following the last; if none has, the next."""
    count = len(prompts)
    found = [(number + 1) % count for number in range(count)]
    if len(set(prompts)) > 1:
        for number in [*reversed(range(count))] * 2:  # twice, because the last rows learn of the first ones only then
            following = (number + 1) % count
            found[number] = found[following] if prompts[number] == prompts[following] else following
    return found
