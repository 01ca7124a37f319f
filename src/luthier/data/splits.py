"""Which items are learnt, which decide between choices, and which are opened once, for the verdict."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.data.dataset import Item
from luthier.errors import Mistake

SHARE = 0.1
MOST_TEST_ITEMS = 300
MOST_DEV_ITEMS = 200


@dataclass(frozen=True)
class Splits:
    """Items to learn, to choose by, and to judge by; each in file order, no group in two of them."""

    train: list[Item]
    dev: list[Item]
    test: list[Item]


def split(items: Sequence[Item], *, test_items: int | None, dev_items: int | None) -> Splits:
    """The items in three parts, by a stable hash of their group: no seed, and the same from every file format.

    Groups come in the order of their hash; test takes those that fit into its number, then dev, and train has the rest.
    So new rows move old ones only as far as the numbers shift. A group larger than a part's number goes to train, or
    where none fits, the smallest one to the part. Numbers not given are 10 % of the items, at most 300 and 200.
    """
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.group] = sizes.get(item.group, 0) + 1
    if len(sizes) < 3:
        raise Mistake(
            f"found {len(items)} usable row{'s' * (len(items) != 1)} in {len(sizes)} group{'s' * (len(sizes) != 1)}, "
            "expected at least 3 groups: train, dev and test need one each. Rows with the same question, or the same "
            "value of data.group, are one group. Add rows, or leave data.group out.",
            where="data.path",
        )
    share = max(1, round(len(items) * SHARE))
    test_number = test_items or min(share, MOST_TEST_ITEMS)
    dev_number = dev_items or min(share, MOST_DEV_ITEMS)
    _expect_rest(len(items), test_number, dev_number, key="data.test_items" if test_items else "data.dev_items")
    order = sorted(sizes, key=lambda group: (_hash(group), group))
    test = _take(order, sizes, test_number, leave=2)
    dev = _take([group for group in order if group not in test], sizes, dev_number, leave=1)
    return Splits(
        [item for item in items if item.group not in test and item.group not in dev],
        [item for item in items if item.group in dev],
        [item for item in items if item.group in test],
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
        raise Mistake(
            f"{test} items for test and {dev} for dev leave none of the {items} usable rows to train on. "
            "Lower data.test_items or data.dev_items, or add rows.",
            where=key,
        )


def _hash(group: str) -> bytes:
    return hashlib.blake2b(group.encode("utf-8"), digest_size=16).digest()
