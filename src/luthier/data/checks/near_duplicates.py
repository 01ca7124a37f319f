"""Rows that ask almost the same: n-grams as sets, MinHash to find candidates, and the exact Jaccard similarity to decide.

Each row is compared with those that it shares a band of its signature with, and of a band's rows only with the first and
the one before it: rows that are alike are found in a chain, and the work grows as the rows do (Broder 1997; Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, section 3.4). Candidates are chosen by an estimate, pairs are counted by
the similarity itself, with the measures of `luthier.data.leakage`.
"""

import hashlib
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace

import numpy as np

from luthier.data.checks.findings import Finding, Severity, Spot, plural, share
from luthier.data.checks.rows import Row, Scope
from luthier.data.dataset import Item
from luthier.data.leakage import COMMON, NEAR, NEAR_WITH_ANSWER, TELLING_ANSWER
from luthier.data.readers.values import normalise
from luthier.data.splits import MOST_TEST_ITEMS, SHARE, digest

GRAM = 5  # words
BANDS, ROWS_PER_BAND = 24, 3
"""A pair with Jaccard similarity s meets in a band with probability 1 − (1 − s³)²⁴: 0.96 for 0.5, 1 − 10⁻⁷ for 0.8."""
SLACK = 0.25
"""By how much the estimate of a similarity from a signature may be too low: 4 standard errors at 0.5."""
FEWEST_COMMON = 10
"""Rows that may share an n-gram in any case; of more than these and a tenth of all, it is the form and proves nothing."""
AT_ONCE = 1 << 15  # n-grams; of each all signatures are in memory, 576 bytes

_RANDOM = np.random.default_rng(20260101)
_FACTORS = _RANDOM.integers(1, 1 << 61, (BANDS * ROWS_PER_BAND, 1), dtype=np.uint64) | np.uint64(1)
_SUMMANDS = _RANDOM.integers(0, 1 << 61, (BANDS * ROWS_PER_BAND, 1), dtype=np.uint64)
_WORD_FACTORS = _RANDOM.integers(1, 1 << 61, GRAM, dtype=np.uint64) | np.uint64(1)


class Texts:
    """Texts as sets of hashed n-grams, one after the other, and which of them are almost the same."""

    def __init__(self) -> None:
        self._words: dict[str, int] = {}
        self._grams = array("I")
        self._ends = array("Q", [0])
        self._whole: dict[bytes, int] = {}  # all words of a text → the first such text
        self._same_as = array("Q")
        self._answers = array("Q")

    def __len__(self) -> int:
        return len(self._same_as)

    def add(self, words: Sequence[str], answer: str, *, telling: bool) -> None:
        """One more text; `answer` tells near questions apart, where it says enough."""
        number = len(self)
        whole = " ".join(words).encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(whole, digest_size=16).digest()
        self._same_as.append(self._whole.setdefault(key, number))
        self._answers.append(zlib.crc32(answer.encode("utf-8", "surrogatepass")) + 1 if telling else 0)
        if self._same_as[-1] == number:
            self._grams.frombytes(self._hashed(words).tobytes())
        self._ends.append(len(self._grams))

    def _hashed(self, words: Sequence[str]) -> "np.ndarray":
        known = self._words
        codes = [
            known.get(word) or known.setdefault(word, zlib.crc32(word.encode("utf-8", "surrogatepass")) + 1)
            for word in words
        ]
        codes += [0] * (GRAM - len(codes))
        found = np.array(codes, np.uint64)
        size = len(found) - GRAM + 1
        mixed = sum(
            (found[at : at + size] * value for at, value in enumerate(_WORD_FACTORS)), np.zeros(size, np.uint64)
        )
        return np.unique((mixed >> np.uint64(32)).astype(np.uint32))

    def pairs(self) -> Iterator[tuple[int, int, float]]:
        """Pairs of texts that are almost the same, the later one first, with their similarity; of a chain, its links."""
        chains = list(range(len(self)))

        def root(number: int) -> int:
            while chains[number] != number:
                chains[number] = chains[chains[number]]
                number = chains[number]
            return number

        for number, other in enumerate(self._same_as):
            if number != other:
                chains[number] = other
                yield number, other, 1.0
        grams, ends = self._telling_grams()
        for number, other in self._candidates(grams, ends):
            if root(number) == root(other):
                continue
            similarity = _jaccard(grams[ends[number] : ends[number + 1]], grams[ends[other] : ends[other + 1]])
            alike = self._answers[number] and self._answers[number] == self._answers[other]
            if similarity >= (NEAR_WITH_ANSWER if alike else NEAR):
                chains[root(number)] = root(other)
                yield number, other, similarity

    def _telling_grams(self) -> tuple["np.ndarray", "np.ndarray"]:
        """Each text's n-grams without those of so many texts that they are the form of all and tell nothing."""
        grams = np.frombuffer(self._grams, np.uint32) if len(self._grams) else np.zeros(0, np.uint32)
        ends = np.frombuffer(self._ends, np.uint64).astype(np.int64)
        values, counts = np.unique(grams, return_counts=True)
        common = values[counts > max(FEWEST_COMMON, COMMON * len(self))]
        kept = ~np.isin(grams, common)
        return grams[kept], np.concatenate(([0], np.cumsum(kept)))[ends]

    def _candidates(self, grams: "np.ndarray", ends: "np.ndarray") -> Iterator[tuple[int, int]]:
        """Pairs that meet in a band and whose signatures promise enough, each once."""
        filled = np.flatnonzero(np.diff(ends))
        if len(filled) < 2:
            return
        signatures = _signatures(grams, ends, filled)
        met = []
        for band in range(BANDS):
            key = signatures[:, band * ROWS_PER_BAND : (band + 1) * ROWS_PER_BAND] @ _WORD_FACTORS[:ROWS_PER_BAND]
            order = np.argsort(key, kind="stable")
            starts = np.concatenate(([True], key[order][1:] != key[order][:-1]))
            first = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
            later = np.flatnonzero(~starts)
            met.append(np.stack([order[later], order[later - 1]], 1))
            met.append(np.stack([order[later], first[later]], 1))
        pairs = np.unique(np.concatenate(met), axis=0)
        for chunk in range(0, len(pairs), 1 << 14):
            some = pairs[chunk : chunk + (1 << 14)]
            estimate = (signatures[some[:, 0]] == signatures[some[:, 1]]).mean(axis=1)
            for one, other in some[estimate >= NEAR_WITH_ANSWER - SLACK]:
                yield int(filled[one]), int(filled[other])


def _signatures(grams: "np.ndarray", ends: "np.ndarray", filled: "np.ndarray") -> "np.ndarray":
    """The MinHash signatures of the texts that have n-grams."""
    made = np.empty((len(filled), BANDS * ROWS_PER_BAND), np.uint64)
    at = 0
    while at < len(filled):
        last = max(at + 1, int(np.searchsorted(ends[filled], ends[filled[at]] + AT_ONCE)))
        start, end = ends[filled[at]], ends[filled[last - 1] + 1]
        mixed = (grams[start:end].astype(np.uint64) * _FACTORS + _SUMMANDS) >> np.uint64(29)
        made[at:last] = np.minimum.reduceat(mixed, ends[filled[at:last]] - start, axis=1).T
        at = last
    return made


def _jaccard(one: "np.ndarray", other: "np.ndarray") -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def add(texts: Texts, row: Row) -> None:
    """What a row asks, as one more text."""
    answer = normalise(row.answer).casefold()
    texts.add(row.asked_words, answer, telling=len(row.answer_words) >= TELLING_ANSWER)


class NearDuplicates:
    """Collects what rows ask, and finds in the end which ask almost the same."""

    def __init__(self, scope: Scope) -> None:
        self.texts = Texts()
        self.locations: list[str] = []
        self.groups: list[str] = []

    def see(self, row: Row) -> None:
        if row.held_out:
            return
        add(self.texts, row)
        self.locations.append(row.location)
        self.groups.append(row.item.group)

    def findings(self) -> Iterator[Finding]:
        clusters = Clusters(len(self.texts))
        spots, crossing = {}, 0
        for number, other, similarity in self.texts.pairs():
            clusters.join(number, other)
            detail = f"almost the same question as {self.locations[other]}, similarity {similarity:.2f}"
            spots[number] = Spot(self.locations[number], detail)
            crossing += self.groups[number] != self.groups[other]
        if not spots:
            return
        found = tuple(spots[number] for number in sorted(spots))
        severity: Severity = "note"
        sentence = (
            f"{plural(len(found), 'row')} ({share(len(found), len(self.texts))}) asking almost the same as another row"
        )
        yield Finding(
            "near-duplicate", severity, sentence,
            "They count twice in training, and in two splits they make the verdict too good. "
            "data.findings.near-duplicate=group keeps them in one split, =drop keeps the first of them."
            if crossing
            else "They are in one group, so no split parts them.",
            found,
        )  # fmt: skip
        yield from self._random_split(clusters)

    def _random_split(self, clusters: "Clusters") -> Iterator[Finding]:
        """What a split by chance would leak, as other tools make it."""
        rows = len(self.texts)
        held_out = max(1, min(round(SHARE * rows), MOST_TEST_ITEMS))
        part = held_out / rows
        leaked = sum(size * part * (1 - part ** (size - 1)) for size in clusters.sizes())
        if round(leaked):
            sentence = (
                f"A random split would put about {round(leaked):,} of {held_out:,} test rows beside a copy or near copy in "
                "training"
            )
            advice = (
                "A run keeps equal questions together; a split by groups (data.group=COLUMN, or "
                "data.findings.near-duplicate=group) keeps near ones together too."
            )
            yield Finding("random-split", "note", sentence, advice)


class Clusters:
    """Numbers that belong together, directly or by way of others."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def join(self, one: int, other: int) -> None:
        self._above[self.root(one)] = self.root(other)

    def root(self, number: int) -> int:
        while self._above[number] != number:
            self._above[number] = self._above[self._above[number]]
            number = self._above[number]
        return number

    def sizes(self) -> list[int]:
        """How many numbers each cluster has, of those that have more than one."""
        return list(self._counts().values())

    def shared(self) -> Set[int]:
        """The roots of clusters that have more than one number."""
        return self._counts().keys()

    def _counts(self) -> dict[int, int]:
        counts = Counter(map(self.root, range(len(self._above))))
        return {root: count for root, count in counts.items() if count > 1}


def clusters(items: Iterable[Item]) -> Clusters:
    """Which of the items ask almost the same or are in one group, by their numbers; no item is kept."""
    texts = Texts()
    first: dict[bytes, int] = {}
    same = array("q")
    for number, item in enumerate(items):
        add(texts, Row(item))
        same.append(first.setdefault(digest(item.group), number))
    found = Clusters(len(same))
    for number, other in enumerate(same):
        found.join(number, other)
    for number, other, _ in texts.pairs():
        found.join(number, other)
    return found


class SharedGroups:
    """The groups of items, asked for in their order: those of a cluster are in one, whose name is that of its first item."""

    def __init__(self, found: Clusters) -> None:
        self._found, self._shared = found, found.shared()
        self._names: dict[int, str] = {}
        self._number = -1

    def next(self, own: str) -> str | None:
        """The group of the next item, whose own one is this; None where it stays."""
        self._number += 1
        root = self._found.root(self._number)
        return self._names.setdefault(root, own) if root in self._shared else None


def in_groups(items: Iterable[Item], found: Clusters) -> Iterator[Item]:
    """The items, each in its shared group."""
    groups = SharedGroups(found)
    for item in items:
        group = groups.next(item.group)
        yield item if group is None else replace(item, group=group)
