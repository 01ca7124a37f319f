"""Which items are trained on, which decide between choices, and which are opened once, for the verdict."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from luthier.data.dataset import Item
from luthier.data.labels import Sides, liked
from luthier.errors import UserError

SHARE = 0.1
MOST_TEST_ITEMS = 300
MOST_DEV_ITEMS = 200

DIGEST_BYTES = 16
Group = TypeVar("Group", str, int)
_DIGEST = np.dtype([("high", ">u8"), ("low", ">u8")])
"""16 bytes as two numbers that compare as the bytes do."""


@dataclass(frozen=True)
class Splits:
    """Items to train on, to choose by, and to judge by; each in file order, no group in two of them."""

    train: Sequence[Item]
    dev: Sequence[Item]
    test: Sequence[Item]


class Groups:
    """The groups of items in their order, by digests: which one each is in, and how many items each has.

    Groups are numbered in the order of their digests, which depends on nothing but their names.
    """

    def __init__(self, digests: bytes, shares: bytes) -> None:
        keys = np.frombuffer(digests, _DIGEST)
        order = np.lexsort((keys["low"], keys["high"]))
        ordered = keys[order]
        new = np.append(True, ordered[1:] != ordered[:-1]) if len(keys) else np.zeros(0, bool)
        self.of_items = np.empty(len(keys), np.int64)
        self.of_items[order] = np.cumsum(new) - 1
        self.sizes: list[int] = np.bincount(self.of_items).tolist()
        self._shares, self._one_of_each = shares, order[new]

    @classmethod
    def of(cls, items: Sequence[Item]) -> "Groups":
        """The groups of these items."""
        return cls(b"".join(digest(item.group) for item in items), b"".join(share_digest(item.group) for item in items))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def items(self) -> int:
        return len(self.of_items)

    def members(self, groups: Collection[int]) -> np.ndarray:
        """The numbers of the items in these groups."""
        return np.flatnonzero(self._are_in(groups))

    def others(self, *groups: Collection[int]) -> np.ndarray:
        """The numbers of the items in none of these groups."""
        return np.flatnonzero(~self._are_in(set().union(*groups)))

    def _are_in(self, groups: Collection[int]) -> np.ndarray:
        chosen = np.zeros(len(self), bool)
        chosen[list(groups)] = True
        return chosen[self.of_items] if len(self) else np.zeros(0, bool)

    def reduced(self, items: np.ndarray, share: float) -> np.ndarray:
        """The share of the items in whole groups: the first ones by another digest, so that smaller shares are in larger."""
        if share >= 1:
            return items
        keys = np.frombuffer(self._shares, _DIGEST)[self._one_of_each]
        sizes = np.bincount(self.of_items[items], minlength=len(self))
        order = np.lexsort((keys["low"], keys["high"]))
        order = order[sizes[order] > 0]
        taken = order[: max(1, int(np.sum(np.cumsum(sizes[order]) < share * len(items) - 0.5)) + 1)]
        return items[np.isin(self.of_items[items], taken)]


@dataclass(frozen=True)
class Numbers:
    """The same as numbers of items: train of the data, dev and test of it or of files of their own."""

    train: np.ndarray
    dev: np.ndarray
    test: np.ndarray


def split(
    items: Sequence[Item],
    *,
    test_items: int | None,
    dev_items: int | None,
    test: Sequence[Item] | None = None,
    dev: Sequence[Item] | None = None,
    share: float = 1.0,
) -> Splits:
    """The items in three parts; see `choose`. `test` and `dev` are rows from files of their own."""
    own = {name: None if part is None else Groups.of(part) for name, part in (("test", test), ("dev", dev))}
    numbers = choose(
        Groups.of(items), test_items=test_items, dev_items=dev_items, share=share, test=own["test"], dev=own["dev"]
    )
    return Splits(
        [items[number] for number in numbers.train],
        [(items if dev is None else dev)[number] for number in numbers.dev],
        [(items if test is None else test)[number] for number in numbers.test],
    )


def choose(
    groups: Groups,
    *,
    test_items: int | None,
    dev_items: int | None,
    test: Groups | None = None,
    dev: Groups | None = None,
    share: float = 1.0,
) -> Numbers:
    """Three parts of items, by a stable hash of their group: no seed, and the same from every file format.

    Groups come in the order of their hash; test takes those that fit into its number, then dev, and train has the rest.
    So new rows move old ones only as far as the numbers shift. A group larger than a part's number goes to train, or
    where none fits, the smallest one to the part. Numbers not given are 10 % of the items, at most 300 and 200.

    `test` and `dev` are those of files of their own: then nothing is taken from the items, and a number takes so many
    of theirs. Of train, `share` is kept.
    """
    items, needed = groups.items, 3 - (test is not None) - (dev is not None)
    if len(groups) < needed:
        raise _too_few(items, len(groups), needed)
    tenth = max(1, round(items * SHARE))
    test_number = 0 if test is not None else test_items or min(tenth, MOST_TEST_ITEMS)
    dev_number = 0 if dev is not None else dev_items or min(tenth, MOST_DEV_ITEMS)
    _expect_rest(
        items, test_number, dev_number, key="data.test_items" if test_items and test_number else "data.dev_items"
    )
    order = range(len(groups))
    in_test = _take(order, groups.sizes.__getitem__, test_number, leave=1 + (dev is None)) if test is None else set()
    rest = [group for group in order if group not in in_test]
    in_dev = _take(rest, groups.sizes.__getitem__, dev_number, leave=1) if dev is None else set()
    return Numbers(
        groups.reduced(groups.others(in_test, in_dev), share),
        groups.members(in_dev) if dev is None else _some(dev, dev_items),
        groups.members(in_test) if test is None else _some(test, test_items),
    )


def split_labelled(
    items: Sequence[Item],
    *,
    test_items: int | None,
    dev_items: int | None,
    test: Sequence[Item] | None = None,
    dev: Sequence[Item] | None = None,
    share: float = 1.0,
) -> Splits:
    """The same where disliked answers are learnt from: train and dev have both sides, test has liked answers only.

    Liked answers are split as if there were no others, so that each objective is asked the same questions. A disliked one
    goes where the liked answers to its question are, and none into test. Of the other disliked ones dev gets as many as
    it would of liked ones, and train the rest.
    """
    known = liked(items)
    plain = split(known, test_items=test_items, dev_items=dev_items, test=test, dev=dev)
    in_test = {item.group for item in plain.test} if test is None else set()
    in_dev = {item.group for item in plain.dev} if dev is None else set()
    groups = {item.group for item in known}
    alone = _sizes([item for item in items if item.group not in groups])
    if dev is None and len(alone) > 1:
        tenth = max(1, round(sum(alone.values()) * SHARE))
        in_dev |= _take(_ordered(alone), alone.__getitem__, dev_items or min(tenth, MOST_DEV_ITEMS), leave=1)
    train = [item for item in items if item.group not in in_test | in_dev]
    kept = Groups.of(train).reduced(np.arange(len(train)), share)
    found = Splits(
        [train[number] for number in kept],
        plain.dev if dev is not None else [item for item in items if item.group in in_dev],
        plain.test,
    )
    for name, part in (("train", found.train), ("dev", found.dev)):
        if 0 in (sides := Sides.of(part)):
            raise UserError(
                f"of {Sides.of(items)}, {name} got {sides.liked:,} and {sides.disliked:,}: kto needs both in train, to learn, "
                "and in dev, to check. Add rows of the kind that is rare, or name a file for dev (data.dev_path).",
                where="data.path",
            )
    return found


def _some(groups: Groups, number: int | None) -> np.ndarray:
    """As many of a file's items as asked for, whole groups in the order of their hash; all where no number is given."""
    if number is None or number >= groups.items:
        return np.arange(groups.items)
    return groups.members(_take(range(len(groups)), groups.sizes.__getitem__, number, leave=0))


def _sizes(items: Sequence[Item]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.group] = sizes.get(item.group, 0) + 1
    return sizes


def _ordered(sizes: dict[str, int]) -> list[str]:
    return sorted(sizes, key=lambda group: (digest(group), group))


def _too_few(items: int, groups: int, needed: int) -> UserError:
    parts = "train, dev and test need" if needed == 3 else "train, and what has no file of its own, need"
    return UserError(
        f"found {items} usable row{'s' * (items != 1)} in {groups} group{'s' * (groups != 1)}, expected at least "
        f"{needed} group{'s' * (needed != 1)}: {parts} one each. Rows with the same question, or the same value "
        "of data.group, are one group. Add rows, or leave data.group out.",
        where="data.path",
    )


def _take(order: Sequence[Group], size: Callable[[Group], int], number: int, *, leave: int) -> set[Group]:
    """The groups, in this order, that fit into the number of items, but for the last `leave` groups; at least one."""
    taken: set[Group] = set()
    for group in order:
        if len(order) - len(taken) == leave or (taken and number <= 0):
            break
        if size(group) <= number:
            taken.add(group)
            number -= size(group)
    return taken or {min(order, key=size)}


def _expect_rest(items: int, test: int, dev: int, *, key: str) -> None:
    if test + dev >= items:
        raise UserError(
            f"{test} items for test and {dev} for dev leave none of the {items} usable rows to train on. "
            "Lower data.test_items or data.dev_items, or add rows.",
            where=key,
        )


def digest(group: str) -> bytes:
    """16 bytes by whose order groups come."""
    return hashlib.blake2b(group.encode("utf-8"), digest_size=DIGEST_BYTES).digest()


def share_digest(group: str) -> bytes:
    """16 bytes by whose order groups are kept where a share of train is."""
    return digest(f"share\n{group}")
