"""Kappa against the worked examples of its authors."""

import pytest

from luthier.evaluate.judge.agreement import Agreement, among, cohen, fleiss


def test_cohens_kappa_by_hand() -> None:
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: observed 0.7; shares .5 and .6: expected .5·.6 + .5·.4 = 0.5
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert cohen(pairs) == pytest.approx(0.4)


def test_fleiss_kappa_by_hand() -> None:
    # aaa, abb, bbb: agreement 1, 1/3, 1: observed 7/9; shares 4/9 and 5/9: expected 41/81
    assert fleiss(["aaa", "abb", "bbb"]) == pytest.approx((7 / 9 - 41 / 81) / (1 - 41 / 81))


def test_two_reviewers_get_cohens_and_three_get_fleiss_over_what_all_have_marked() -> None:
    first, second = {"1": "a", "2": "b", "3": "a"}, {"1": "a", "2": "a", "4": "b"}
    assert among({"x": first, "y": second}) == Agreement("Cohen's kappa", 0.0, 0.5, 2)
    three = among({"x": first, "y": second, "z": {"1": "a", "2": "b"}})
    assert three and (three.kind, three.items, three.same) == ("Fleiss' kappa", 2, pytest.approx(2 / 3))


def test_where_all_marks_are_alike_kappa_is_not_defined_and_that_is_said() -> None:
    shared = among({"x": {"1": "a"}, "y": {"1": "a"}})
    assert shared and shared.value is None and "is not defined" in shared.sentence()


def test_one_reviewer_or_nothing_in_common_has_no_agreement() -> None:
    assert among({"x": {"1": "a"}}) is None
    assert among({"x": {"1": "a"}, "y": {"2": "a"}}) is None
    assert among({}) is None
