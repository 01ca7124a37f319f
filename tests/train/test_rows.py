"""Views of rows: some of them, or all of them seen in another way."""

from luthier.train.objectives import EveryToken
from luthier.train.rows import RowView, first_rows
from token_rows import counting


def test_the_first_rows_are_as_many_as_have_the_tokens_asked_for() -> None:
    rows = counting(10)
    view = first_rows(rows, [7, 3, 5, 1], tokens=rows.lengths[7] + rows.lengths[3])
    assert list(view.numbers) == [7, 3]
    assert view.lengths == [rows.lengths[7], rows.lengths[3]] and len(view) == 2
    assert view[1] is rows[3] and view.location(1) == rows.location(3)
    assert len(first_rows(rows, range(10), tokens=10**6)) == 10


def test_a_view_of_rows_that_are_no_pairs_has_no_rejected_answers_and_shares_nothing() -> None:
    view = RowView(counting(4), [2, 1])
    assert view.rejected(0) is None and list(view.shared_prefixes) == [0, 0]


def test_every_token_counts_where_whole_texts_are_trained_on() -> None:
    rows = counting(3)
    whole = EveryToken(rows, range(3))
    assert (whole[1].ids == rows[1].ids).all() and whole[1].loss_mask.all() and not rows[1].loss_mask.all()
    assert whole.lengths == list(rows.lengths) and whole.location(2) == rows.location(2)
