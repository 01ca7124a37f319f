"""Which items are trained on, which decide between choices, and which are opened once, for the verdict."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.data.dataset import Item
from luthier.data.labels import Sides, liked
from luthier.errors import UserError

SHARE = 0.1
MOST_TEST_ITEMS = 300
MOST_DEV_ITEMS = 200


@dataclass(frozen=True)
class Splits:
    """Items to train on, to choose by, and to judge by; each in file order, no group in two of them."""

    train: list[Item]
    dev: list[Item]
    test: list[Item]


def split(
    items: Sequence[Item],
    *,
    test_items: int | None,
    dev_items: int | None,
    test: Sequence[Item] | None = None,
    dev: Sequence[Item] | None = None,
    share: float = 1.0,
) -> Splits:
    """The items in three parts, by a stable hash of their group: no seed, and the same from every file format.

    Groups come in the order of their hash; test takes those that fit into its number, then dev, and train has the rest.
    So new rows move old ones only as far as the numbers shift. A group larger than a part's number goes to train, or
    where none fits, the smallest one to the part. Numbers not given are 10 % of the items, at most 300 and 200.

    `test` and `dev` are rows from files of their own: then nothing is taken from the items, and a number takes so many
    of theirs. Of train, `share` is kept.
    """
    sizes = _sizes(items)
    own_files = {name: part for name, part in (("test", test), ("dev", dev)) if part is not None}
    needed = 3 - len(own_files)
    if len(sizes) < needed:
        raise _too_few(len(items), len(sizes), needed)
    tenth = max(1, round(len(items) * SHARE))
    test_number = 0 if test is not None else test_items or min(tenth, MOST_TEST_ITEMS)
    dev_number = 0 if dev is not None else dev_items or min(tenth, MOST_DEV_ITEMS)
    _expect_rest(
        len(items), test_number, dev_number, key="data.test_items" if test_items and test_number else "data.dev_items"
    )
    order = _ordered(sizes)
    in_test = _take(order, sizes, test_number, leave=1 + (dev is None)) if test is None else set()
    rest = [group for group in order if group not in in_test]
    in_dev = _take(rest, sizes, dev_number, leave=1) if dev is None else set()
    return Splits(
        _reduced([item for item in items if item.group not in in_test and item.group not in in_dev], share),
        _some(dev, dev_items) if dev is not None else [item for item in items if item.group in in_dev],
        _some(test, test_items) if test is not None else [item for item in items if item.group in in_test],
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
        in_dev |= _take(_ordered(alone), alone, dev_items or min(tenth, MOST_DEV_ITEMS), leave=1)
    train = [item for item in items if item.group not in in_test | in_dev]
    found = Splits(
        _reduced(train, share),
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


def _some(items: Sequence[Item], number: int | None) -> list[Item]:
    """As many of a file's items as asked for, whole groups in the order of their hash; all where no number is given."""
    if number is None or number >= len(items):
        return list(items)
    sizes = _sizes(items)
    taken = _take(_ordered(sizes), sizes, number, leave=0)
    return [item for item in items if item.group in taken]


def _reduced(items: list[Item], share: float) -> list[Item]:
    """The share of the items in whole groups: the first ones by another hash, so that smaller shares are inside larger."""
    taken: set[str] = set()
    wanted, count = share * len(items), 0
    sizes = _sizes(items)
    for group in sorted(sizes, key=lambda group: (_hash(f"share\n{group}"), group)):
        if taken and count >= wanted - 0.5:
            break
        taken.add(group)
        count += sizes[group]
    return [item for item in items if item.group in taken]


def _sizes(items: Sequence[Item]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.group] = sizes.get(item.group, 0) + 1
    return sizes


def _ordered(sizes: dict[str, int]) -> list[str]:
    return sorted(sizes, key=lambda group: (_hash(group), group))


def _too_few(items: int, groups: int, needed: int) -> UserError:
    parts = "train, dev and test need" if needed == 3 else "train, and what has no file of its own, need"
    return UserError(
        f"found {items} usable row{'s' * (items != 1)} in {groups} group{'s' * (groups != 1)}, expected at least "
        f"{needed} group{'s' * (needed != 1)}: {parts} one each. Rows with the same question, or the same value "
        "of data.group, are one group. Add rows, or leave data.group out.",
        where="data.path",
    )


def _take(order: Sequence[str], sizes: dict[str, int], number: int, *, leave: int) -> set[str]:
    """The groups, in this order, that fit into the number of items, but for the last `leave` groups; at least one."""
    taken: set[str] = set()
    for group in order:
        if len(order) - len(taken) == leave:
            break
        if sizes[group] <= number:
            taken.add(group)
            number -= sizes[group]
    return taken or {min(order, key=lambda group: sizes[group])}


def _expect_rest(items: int, test: int, dev: int, *, key: str) -> None:
    if test + dev >= items:
        raise UserError(
            f"{test} items for test and {dev} for dev leave none of the {items} usable rows to train on. "
            "Lower data.test_items or data.dev_items, or add rows.",
            where=key,
        )


def _hash(group: str) -> bytes:
    return hashlib.blake2b(group.encode("utf-8"), digest_size=16).digest()
