"""A table as the recogniser sees it: all of its columns, and what a sample of rows spread over the whole of it holds.

The sample is every n-th row, with n doubled whenever it has grown too large: sorted files (all good reviews first) show
every label, and a file of any size costs one pass.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from luthier.data.formats import names
from luthier.data.formats.chats import as_messages, spoken, sure_messages
from luthier.data.readers.values import JSONFault, Number, Record, Unusable, Value, as_text, decode_only
from luthier.errors import UserError

SAMPLE = 2048
"""Rows that are looked at, at most; of a smaller table, all are kept and the file is read once."""
LOOKED_AT = 4000
"""Characters of a cell that are looked at."""
LABEL_WORDS, LABEL_LETTERS, LABELS, LABELS_EACH = 6, 48, 200, 8
"""A label has at most so many words and characters, a table so many different ones, and a row so many at once."""
CHECKED = 256
"""Values of a column that are looked into, spread over the sample."""
_LINK = re.compile(r"(https?://|www\.|s3://|gs://)\S+$")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?$|\d{1,2}[./]\d{1,2}[./]\d{2,4}([ ,].*)?$")
_CODED = re.compile(r"[0-9a-fA-F]{8,}$|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}$")
_TRUTHS = ({"true", "false"}, {"0", "1"}, {"up", "down"}, {"-1", "1"}, {"0.0", "1.0"})


@dataclass(frozen=True)
class Column:
    """What a column is called and holds. Without rows (`values` empty) only its name speaks."""

    name: str
    values: Sequence[Value] = ()
    """Those of the sample that are not null or blank."""
    known: bool = True
    """Whether rows have been looked at."""

    @cached_property
    def texts(self) -> list[str]:
        """The values as text, as far as they are looked at."""
        return [text_of(value)[:LOOKED_AT] for value in self.values]

    @cached_property
    def kinds(self) -> set[str]:
        """The different texts."""
        return {text.strip() for text in self.texts}

    @cached_property
    def words(self) -> float:
        """Words in a value, on average; languages without blanks count two characters as a word."""
        return sum(_words(text) for text in self.texts) / max(len(self.texts), 1)

    @property
    def empty(self) -> bool:
        return self.known and not self.values

    @cached_property
    def constant(self) -> bool:
        """One value in all rows, of at least three."""
        return self.known and len(self.values) >= 3 and len(self.kinds) == 1

    @cached_property
    def structured(self) -> bool:
        """Lists, objects, or text that spells one."""
        return self.mostly(lambda value: isinstance(value, list | dict) or _spells_structure(value))

    @cached_property
    def objects(self) -> bool:
        return self.mostly(lambda value: isinstance(value, dict))

    @cached_property
    def lists(self) -> bool:
        return self.mostly(lambda value: isinstance(value, list) or (_spells_structure(value) and _is_list(value)))

    def lists_of(self, keys: set[str]) -> bool:
        """Lists of objects with one of these keys."""

        def has_key(value: Value) -> bool:
            return isinstance(value, list) and any(isinstance(item, dict) and item.keys() & keys for item in value)

        return self.mostly(has_key)

    @cached_property
    def links(self) -> bool:
        return self.mostly(lambda value: bool(_LINK.match(text_of(value).strip())))

    @cached_property
    def numbers(self) -> bool:
        return self.mostly(lambda value: isinstance(value, Number) or _number(text_of(value)))

    @cached_property
    def dates(self) -> bool:
        return self.mostly(lambda value: bool(_DATE.match(text_of(value).strip())))

    @cached_property
    def truths(self) -> bool:
        """True and false, however they are spelled; both occur, or they are JSON's own."""
        lowered = {kind.casefold() for kind in self.kinds}
        return bool(lowered) and (
            any(lowered == truth for truth in _TRUTHS) or self.mostly(lambda value: isinstance(value, bool))
        )

    @cached_property
    def chats(self) -> bool:
        """Lists of messages, in any spelling that is known."""
        return self.mostly(lambda value: bool(as_messages(value)))

    @cached_property
    def spoken(self) -> bool:
        """Chats whose speakers are written down; lists of texts that only alternate are none."""
        return self.mostly(lambda value: bool(spoken(value)))

    @cached_property
    def sure_messages(self) -> bool:
        """Lists of messages that nothing else could be."""
        return self.mostly(lambda value: bool(sure_messages(value)))

    @cached_property
    def identifiers(self) -> bool:
        """Codes that are all different, or numbers that only count."""
        named = bool(set(names.plain(self.name).split("_")) & names.IDENTIFIER)
        if not self.known or not self.values:
            return named
        texts = [text.strip() for text in self.texts]
        one_word = all(len(text.split()) == 1 for text in texts)
        if named and one_word:
            return True
        counts = [int(text) for text in texts if text.isdecimal()]
        if len(counts) == len(texts) > 2 and all(b - a == 1 for a, b in pairwise(counts)):
            return True
        return one_word and len(self.kinds) == len(texts) and all(_CODED.match(text) for text in texts)

    @cached_property
    def one_word(self) -> bool:
        """Nearly all values are a single word."""
        return self.known and self.mostly(lambda value: _words(text_of(value)) <= 1)

    @cached_property
    def labels(self) -> set[str]:
        """The different labels in the cells, of lists each element; nothing where a cell holds none, or they are too many."""
        found: set[str] = set()
        for value in self.values:
            own = _labels(value)
            found.update(own)
            if not own or len(found) > LABELS:
                return set()
        return found

    @cached_property
    def closed(self) -> bool:
        """A short closed vocabulary, as labels are: at least two words that come again and again."""
        if not self.values or self.links or self.dates:
            return False
        kinds = self.labels
        if not 2 <= len(kinds) <= LABELS:
            return False
        if any(len(kind.split()) > LABEL_WORDS or len(kind) > LABEL_LETTERS for kind in kinds):
            return False
        count = len(self.values)
        return len(kinds) <= (count * 2 / 3 if count < 12 else count / 2 if count < 100 else count / 5)

    @cached_property
    def prose(self) -> bool:
        """Texts of more than a word that say something of their own: neither links, dates, codes nor one text for all."""
        if not self.known:
            return True
        if not self.values or self.links or self.dates or self.identifiers or self.structured or self.numbers:
            return False
        return not self.constant and not self.one_word

    @property
    def metadata(self) -> bool:
        """Whether the name tells about the row."""
        parts = names.plain(self.name).split("_")
        return "_".join(parts) in names.METADATA or (len(parts) > 1 and parts[-1] in names.METADATA_ENDS)

    def what(self) -> str:
        """What the column holds, in a word for a message."""
        kinds = (
            (self.empty, "empty"), (self.links, "links"), (self.identifiers, "ids"), (self.constant, "always the same"),
            (self.chats, "messages"), (self.lists, "lists"), (self.structured, "objects"), (self.dates, "dates"),
            (self.closed, f"{len(self.kinds)} different values"), (self.numbers, "numbers"), (self.one_word, "single words"),
        )  # fmt: skip
        return next((word for holds, word in kinds if holds), "texts")

    def mostly(self, holds: Callable[[Value], bool]) -> bool:
        """Whether it holds of at least nine in ten values, by some hundreds of them."""
        return bool(self.some) and sum(holds(value) for value in self.some) >= 0.9 * len(self.some)

    @cached_property
    def some(self) -> Sequence[Value]:
        """Some hundreds of the values, spread over them."""
        return self.values[:: max(1, len(self.values) // CHECKED)]


@dataclass(frozen=True)
class Table:
    """The columns in order, the rows of the sample, how many rows there are, and whether the sample is all of them."""

    columns: dict[str, Column]
    sample: Sequence[Record] = ()
    rows: int = 0
    whole: bool = False
    path: str = field(default="", compare=False)

    @classmethod
    def of(cls, rows: Iterable[Record], *, path: str = "") -> "Table":
        """Look at all rows once; SAMPLE of them, spread evenly, are kept."""
        found: dict[str, None] = {}
        sample: list[Record] = []
        stride, count = 1, 0
        for row in rows:
            if count % stride == 0:
                sample.append(row)
                if len(sample) > SAMPLE:
                    sample, stride = sample[::2], stride * 2
            count += 1
            if not row.values.keys() <= found.keys():
                found.update(dict.fromkeys(row.values))
        return cls._from(list(found), sample, count, whole=stride == 1, path=path)

    @classmethod
    def named(cls, columns: Iterable[str], *, path: str = "") -> "Table":
        """Columns of which only the names are known."""
        return cls({name: Column(name, known=False) for name in columns}, path=path)

    @classmethod
    def _from(cls, found: list[str], sample: list[Record], count: int, *, whole: bool, path: str) -> "Table":
        columns = {
            name: Column(name, [value for row in sample if not _blank(value := row.values.get(name))]) for name in found
        }
        return cls(columns, sample, count, whole, path)

    def where(self, rows: Sequence[Record]) -> "Table":
        """The table of these rows of the sample alone."""
        found = list(dict.fromkeys(name for row in rows for name in row.values))
        return self._from(found, list(rows), len(rows), whole=False, path=self.path)

    def with_column(self, name: str) -> "Table":
        """The table with one more column, of which nothing is known."""
        return Table({**self.columns, name: Column(name, known=False)}, self.sample, self.rows, self.whole, self.path)

    def without(self, unwanted: Iterable[str]) -> "Table":
        """The table without some columns."""
        left = {name: column for name, column in self.columns.items() if name not in set(unwanted)}
        return Table(left, self.sample, self.rows, self.whole, self.path)

    def pairs(self, one: str, other: str) -> Iterator[tuple[Value, Value]]:
        """The values of two columns where a row of the sample has both."""
        for row in self.sample:
            first, second = row.values.get(one), row.values.get(other)
            if not _blank(first) and not _blank(second):
                yield first, second


def _blank(value: Value) -> bool:
    return value is None or isinstance(value, Unusable) or (isinstance(value, str) and not value.strip())


def text_of(value: Value) -> str:
    """The value as text, empty where it has none."""
    try:
        return as_text(value)
    except (ValueError, UserError):
        return ""


def _words(text: str) -> float:
    words = text.split()
    return len(words) if len(words) > 1 or text.isascii() else max(len(words), len(text) / 4)


def _number(text: str) -> bool:
    try:
        float(text.strip().replace(",", "."))
    except ValueError:
        return False
    return True


def _labels(value: Value) -> list[str]:
    """The labels in a cell, a text or a list of some; nothing where it holds something else."""
    if isinstance(value, list):
        plain = all(isinstance(item, str | bool) for item in value) and len(value) <= LABELS_EACH
        return [text_of(item).strip() for item in value] if plain else []
    return [] if isinstance(value, dict | bytes) else [text_of(value).strip()]


def _spells_structure(value: Value) -> bool:
    if not isinstance(value, str) or value.strip()[:1] not in ("{", "["):
        return False
    try:
        return isinstance(decode_only(value), list | dict)
    except JSONFault:
        return value.strip()[:2] in ("[{", "['", '["', "{'")


def _is_list(value: Value) -> bool:
    return isinstance(value, str) and value.strip().startswith("[")
