"""Which rows form which step: a pure function."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from luthier.train.order import Step, Steps, by_length


def epoch_steps(
    lengths: list[int], *, epoch: int, seed: int, tokens_per_step: int, tokens_per_batch: int
) -> list[Step]:
    """The steps of one pass over the rows (from 0)."""
    steps = Steps(
        lengths, epochs=epoch + 1, max_steps=None, seed=seed, tokens_per_step=tokens_per_step,
        tokens_per_batch=tokens_per_batch,
    )  # fmt: skip
    return [step for step in steps if step.epoch > epoch]


LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=200)


@given(
    LENGTHS, st.integers(0, 5), st.integers(0, 5), st.sampled_from([64, 256, 1024]), st.sampled_from([64, 256, 4096])
)
def test_an_epoch_has_each_row_once(lengths: list[int], epoch: int, seed: int, step: int, batch: int) -> None:
    steps = epoch_steps(lengths, epoch=epoch, seed=seed, tokens_per_step=step, tokens_per_batch=batch)
    assert Counter(row for s in steps for b in s.batches for row in b) == Counter(range(len(lengths)))


@given(LENGTHS, st.sampled_from([64, 256, 1024]), st.sampled_from([64, 256, 4096]))
def test_batches_and_steps_keep_their_budgets(lengths: list[int], step: int, batch: int) -> None:
    for s in epoch_steps(lengths, epoch=0, seed=0, tokens_per_step=step, tokens_per_batch=batch):
        for rows in s.batches:
            assert len(rows) == 1 or sum(lengths[row] for row in rows) <= min(batch, step)
        assert len(s.batches) == 1 or sum(lengths[row] for rows in s.batches for row in rows) <= step


def test_the_same_seed_and_epoch_give_the_same_order_and_others_do_not() -> None:
    lengths = list(range(1, 200))
    budget = {"tokens_per_step": 512, "tokens_per_batch": 512}
    first = epoch_steps(lengths, epoch=0, seed=3, **budget)
    assert first == epoch_steps(lengths, epoch=0, seed=3, **budget)
    assert first != epoch_steps(lengths, epoch=0, seed=4, **budget)
    assert [s.batches for s in first] != [s.batches for s in epoch_steps(lengths, epoch=1, seed=3, **budget)]


def test_the_batches_of_a_step_hold_rows_of_like_length() -> None:
    lengths = [20 + (number * 37) % 180 for number in range(1000)]
    for step in epoch_steps(lengths, epoch=0, seed=0, tokens_per_step=4096, tokens_per_batch=1024):
        rows = [lengths[row] for batch in step.batches for row in batch]
        assert rows == sorted(rows)


def test_max_steps_repeats_the_data_or_cuts_it_short() -> None:
    budget = {"seed": 0, "tokens_per_step": 40, "tokens_per_batch": 40}
    assert len(Steps([10] * 8, epochs=1, max_steps=None, **budget)) == 2
    assert [s.epoch for s in Steps([10] * 8, epochs=1, max_steps=5, **budget)] == [0.5, 1, 1.5, 2, 2.5]


def test_looking_without_learning_sees_each_row_once() -> None:
    assert by_length([5, 100, 7, 6], 11) == [(0, 3), (2,), (1,)]


@given(LENGTHS)
def test_the_size_of_batches_does_not_change_which_rows_make_a_step(lengths: list[int]) -> None:
    large, small = (
        epoch_steps(lengths, epoch=0, seed=0, tokens_per_step=1024, tokens_per_batch=batch) for batch in (1024, 100)
    )
    assert [sum(step.batches, ()) for step in large] == [sum(step.batches, ()) for step in small]


def plain_steps(lengths: list[int], epoch: int, seed: int, step: int, batch: int) -> list[list[list[int]]]:
    """The same order written down row by row."""

    def cut(rows: list[int], budget: int) -> list[list[int]]:
        pieces: list[list[int]] = [[]]
        for row in rows:
            if pieces[-1] and sum(lengths[one] for one in pieces[-1]) + lengths[row] > budget:
                pieces.append([])
            pieces[-1].append(row)
        return pieces

    rows = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(len(lengths)).tolist()
    return [cut(sorted(one, key=lambda row: (lengths[row], row)), batch) for one in cut(rows, step)]


@given(LENGTHS, st.integers(0, 5), st.integers(0, 5), st.sampled_from([64, 256]), st.sampled_from([64, 4096]))
def test_the_order_is_the_plain_one(lengths: list[int], epoch: int, seed: int, step: int, batch: int) -> None:
    steps = epoch_steps(lengths, epoch=epoch, seed=seed, tokens_per_step=step, tokens_per_batch=batch)
    assert [[list(rows) for rows in one.batches] for one in steps] == plain_steps(lengths, epoch, seed, step, batch)


@given(LENGTHS, st.integers(1, 4), st.data())
def test_a_step_is_the_same_whichever_was_asked_for_before(
    lengths: list[int], epochs: int, data: st.DataObject
) -> None:
    budget: dict[str, int] = {"seed": 1, "tokens_per_step": 256, "tokens_per_batch": 64}
    whole = list(Steps(lengths, epochs=epochs, max_steps=None, **budget))
    again = Steps(lengths, epochs=epochs, max_steps=len(whole) + 3, **budget)
    for number in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)):
        assert again[number] == whole[number]
    assert len(again) == len(whole) + 3


def test_a_step_of_a_late_epoch_needs_no_step_before_it() -> None:
    steps = Steps([10] * 8, epochs=1, max_steps=1000, seed=0, tokens_per_step=40, tokens_per_batch=40)
    assert steps[999].epoch == 500
    assert steps[-1] == steps[999]


@given(
    st.lists(st.tuples(st.integers(17, 300), st.booleans()), min_size=1, max_size=80), st.sampled_from([64, 256, 4096])
)
def test_rows_of_a_conversation_stay_together_as_far_as_they_fit(rows: list[tuple[int, bool]], batch: int) -> None:
    lengths = [length for length, _ in rows]
    shared = [0] + [16 if goes_on else 0 for _, goes_on in rows[1:]]  # with the row before it
    budget: dict[str, int] = {"seed": 1, "tokens_per_step": 1024, "tokens_per_batch": batch}
    steps = list(Steps(lengths, epochs=1, max_steps=None, shared=shared, **budget))
    batches = [one for step in steps for one in step.batches]
    assert Counter(row for one in batches for row in one) == Counter(range(len(rows)))
    for step in steps:
        assert sum(map(len, step.batches)) == 1 or sum(lengths[row] for one in step.batches for row in one) <= 1024
    cost = {number: lengths[number] - 16 + 4 if shared[number] else lengths[number] for number in range(len(rows))}
    where = {row: (at, place) for at, one in enumerate(batches) for place, row in enumerate(one)}
    of_step = {row: at for at, step in enumerate(steps) for one in step.batches for row in one}
    for one in batches:
        computed = [cost[row] if at and one[at - 1] == row - 1 else lengths[row] for at, row in enumerate(one)]
        assert len(one) == 1 or sum(computed) <= batch
    for row in range(1, len(rows)):
        if shared[row] and where[row][0] != where[row - 1][0]:  # they were cut apart, since all of them would not fit
            first = max(number for number in range(row) if not shared[number])
            end = next((number for number in range(row, len(rows)) if not shared[number]), len(rows))
            whole = sum(lengths[first:end])
            assert whole > 1024 or (
                of_step[row] == of_step[row - 1] and sum(cost[at] for at in range(first, end)) > batch
            )


def test_a_conversation_is_cut_where_a_batch_is_full_and_its_beginning_counts_again_then() -> None:
    budget: dict[str, int] = {"epochs": 1, "seed": 0, "tokens_per_step": 2000, "tokens_per_batch": 200}
    lengths, shared = [100, 160, 220, 280], [0, 80, 140, 200]
    (step,) = Steps(lengths, max_steps=None, shared=shared, **budget)  # type: ignore[arg-type]
    assert step.batches == ((0, 1), (2,), (3,))  # 100 + 80 + 20 fit; 220 does not, and 220 + 80 + 50 neither
    (step,) = Steps(lengths, max_steps=None, shared=shared, computed_once=False, **budget)  # type: ignore[arg-type]
    assert step.batches == ((0,), (1,), (2,), (3,))
    cut = Steps(lengths, max_steps=None, shared=shared, **(budget | {"tokens_per_step": 300}))  # type: ignore[arg-type]
    assert sorted(step.batches for step in cut) == [((0, 1),), ((2,),), ((3,),)]
