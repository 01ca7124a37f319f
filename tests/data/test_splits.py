"""Splits are a function of the groups alone: nothing crosses, and new rows leave old ones where they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.chat import Conversation
from luthier.data import Item, Splits, split
from luthier.errors import UserError


def items(*groups: str) -> list[Item]:
    return [
        Item(f"{n:016x}", f"x.jsonl:{n}", group, Conversation.pair(group, f"answer {n}"))
        for n, group in enumerate(groups, start=1)
    ]


def singles(count: int) -> list[Item]:
    return items(*(f"question {n}" for n in range(count)))


def parts(splits: Splits) -> dict[str, str]:
    """Group → the split it is in."""
    named = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    return {item.group: name for name, content in named.items() for item in content}


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.dev), len(splits.test)


def refusal(rows: list[Item], *, test_items: int | None = None, dev_items: int | None = None) -> str:
    with pytest.raises(UserError) as caught:
        split(rows, test_items=test_items, dev_items=dev_items)
    return str(caught.value)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (3, (1, 1, 1)),
        (4, (2, 1, 1)),
        (19, (15, 2, 2)),
        (100, (80, 10, 10)),
        (2500, (2050, 200, 250)),
        (5000, (4500, 200, 300)),
    ],
)
def test_a_tenth_is_held_out_for_test_and_for_dev_up_to_a_limit(count: int, expected: tuple[int, int, int]) -> None:
    assert sizes(split(singles(count), test_items=None, dev_items=None)) == expected


def test_the_numbers_can_be_given() -> None:
    assert sizes(split(singles(100), test_items=40, dev_items=59)) == (1, 59, 40)


@given(
    groups=st.lists(st.sampled_from("abcdefghij"), min_size=3, max_size=60).filter(lambda names: len(set(names)) > 2),
    test_items=st.none() | st.integers(1, 20),
    dev_items=st.none() | st.integers(1, 20),
)
def test_no_group_and_no_item_is_in_two_splits(
    groups: list[str], test_items: int | None, dev_items: int | None
) -> None:
    rows = items(*groups)
    try:
        splits = split(rows, test_items=test_items, dev_items=dev_items)
    except UserError:
        assert (test_items or 6) + (dev_items or 6) >= len(rows)
        return
    contents = [splits.train, splits.dev, splits.test]
    assert all(contents)
    assert sum(len({item.group for item in content}) for content in contents) == len(set(groups))
    assert sorted(item.id for content in contents for item in content) == [item.id for item in rows]
    assert all(content == sorted(content, key=lambda item: item.id) for content in contents), "file order"


@given(count=st.integers(30, 120), more=st.integers(1, 10))
def test_new_rows_move_old_ones_only_as_far_as_the_numbers_shift(count: int, more: int) -> None:
    before = parts(split(singles(count), test_items=10, dev_items=10))
    after = parts(split(singles(count + more), test_items=10, dev_items=10))
    moved = [group for group in before if before[group] != after[group]]
    assert len(moved) <= 2 * more
    assert all(
        (before[group], after[group]) in {("test", "dev"), ("dev", "train"), ("test", "train")} for group in moved
    )


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows = singles(50)
    assert parts(split(rows, test_items=None, dev_items=None)) == parts(
        split(rows[::-1], test_items=None, dev_items=None)
    )


def test_the_split_of_a_group_is_fixed_for_good() -> None:
    # printf a | b2sum -l 128, and so on: d 0df3…, a 27c3…, e 91ff…, b 9617…, c caec…
    splits = split(items(*"abcde"), test_items=1, dev_items=2)
    assert parts(splits) == {"d": "test", "a": "dev", "e": "dev", "b": "train", "c": "train"}


def test_a_group_larger_than_a_part_goes_to_train() -> None:
    rows = items(*["big"] * 60, *(f"question {n}" for n in range(40)))
    splits = split(rows, test_items=10, dev_items=10)
    assert parts(splits)["big"] == "train"
    assert sizes(splits) == (80, 10, 10)


def test_where_only_large_groups_exist_the_smallest_ones_are_held_out() -> None:
    splits = split(items(*"a" * 50, *"b" * 30, *"c" * 20), test_items=None, dev_items=None)
    assert parts(splits) == {"a": "train", "b": "dev", "c": "test"}


def test_each_part_is_left_a_group() -> None:
    splits = split(items(*"a" * 98, "b", "c"), test_items=None, dev_items=None)
    assert sorted(sizes(splits)) == [1, 1, 98]


def test_a_single_usable_row_is_too_few() -> None:
    assert refusal(singles(1)) == (
        "data.path: found 1 usable row in 1 group, expected at least 3 groups: train, dev and test need one each. "
        "Rows with the same question, or the same value of data.group, are one group. Add rows, or leave data.group "
        "out."
    )


def test_many_rows_in_two_groups_are_too_few() -> None:
    assert refusal(items(*"a" * 50, *"b" * 50)).startswith(
        "data.path: found 100 usable rows in 2 groups, expected at least 3"
    )


@pytest.mark.parametrize(
    ("test_items", "dev_items", "start"),
    [
        (90, None, "data.test_items: 90 items for test and 10 for dev leave none of the 100 usable rows to train on."),
        (None, 95, "data.dev_items: 10 items for test and 95 for dev leave none of the 100 usable rows to train on."),
        (
            100,
            None,
            "data.test_items: 100 items for test and 10 for dev leave none of the 100 usable rows to train on.",
        ),
    ],
)
def test_numbers_that_leave_nothing_to_train_on_are_a_mistake(
    test_items: int | None, dev_items: int | None, start: str
) -> None:
    message = refusal(singles(100), test_items=test_items, dev_items=dev_items)
    assert message == f"{start} Lower data.test_items or data.dev_items, or add rows."


@given(
    groups=st.lists(st.sampled_from("abcdefghijklmnop"), min_size=6, max_size=80).filter(
        lambda each: len(set(each)) > 3
    ),
    shares=st.lists(st.floats(0.01, 1), min_size=2, max_size=2),
)
def test_a_smaller_share_of_the_training_rows_is_part_of_a_larger_one(groups: list[str], shares: list[float]) -> None:
    rows = items(*groups)
    small, large = (split(rows, test_items=1, dev_items=1, share=share) for share in sorted(shares))
    assert {item.id for item in small.train} <= {item.id for item in large.train}
    assert small.train and (small.test, small.dev) == (large.test, large.dev)
    assert not {item.group for item in large.train} & {item.group for item in (*large.test, *large.dev)}


def test_a_share_is_that_many_rows() -> None:
    counts = [
        len(split(singles(100), test_items=10, dev_items=10, share=share).train) for share in (0.12, 0.25, 0.5, 1)
    ]
    assert counts == [10, 20, 40, 80]
