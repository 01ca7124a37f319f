"""One spelling for each number and each date, so that the same answer in other clothes is the same answer."""

from decimal import Decimal

import pytest

from luthier.evaluate import metrics
from luthier.evaluate.metrics import forms


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("It's 1,200.50", "its 1200.5"),
        ("1.200,50", "1200.5"),
        ("1.200.000", "1200000"),
        ("12,5 %", "12.5"),
        ("+5", "5"),
        ("\u22125.0", "-5"),
        (".5", "0.5"),
        ("2.50kg", "2.5 kg"),
        ("5 March 2026", "2026-03-05"),
        ("the 5th of March, 2026", "March 5, 2026"),
        ("Mar. 5 2026", "05.03.2026"),
        ("2026/3/5", "5. 3. 2026"),
        ("25/12/2026", "12/25/2026"),
        ("Sept 2026", "September 2026"),
        ("Due on 5 March 2026, at 10:30.", "due on 2026-03-05 at 10:30"),
    ],
)
def test_spelling_does_not_matter(answer: str, reference: str) -> None:
    assert metrics.normalised_match(answer, reference) == 1
    assert metrics.exact_match(answer, reference) == 0


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("1.5", "15"),
        ("-5", "5"),
        ("007", "7"),  # a number that begins with zeros is a name
        ("1,200", "1.200"),  # a thousand, and a bit more than one
        ("0,125", "125"),
        ("2.5.1", "251"),  # a version
        ("2.5kg", "25kg"),
        ("3/5/2026", "5/3/2026"),  # either could be the third of May
        ("2026-03-05", "2026-05-03"),
        ("31.2.2026", "2026-02-31x"),  # no such day: left as it is
        ("March 2026", "5 March 2026"),
        ("not refunded", "refunded"),
        ("v2.5", "v25"),
    ],
)
def test_what_differs_stays_different(answer: str, reference: str) -> None:
    assert metrics.normalised_match(answer, reference) == 0


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("1,200", "1200"), ("1,20", "1.2"), ("0,125", "0.125"), ("1.200", "1.2"), ("1,200,300", "1200300"),
        ("1.234.567,80", "1234567.8"), ("1,234,567.80", "1234567.8"), ("10.00", "10"), ("-0", "0"), ("0", "0"),
        ("1,2,3", None), ("1.2,3.4", None), ("12.3.4", None), ("0012", None), ("1234,567.8", None),
    ],
)  # fmt: skip
def test_plain_numbers(written: str, plain: str | None) -> None:
    assert forms.plain_number(written) == plain


def test_numbers_are_read_where_they_stand() -> None:
    text = "From 3 boxes at 1,250.50 each, less 1.5e3 and 007, not v2 or 1.2.3, makes -40."
    assert list(forms.numbers(text)) == [Decimal(text) for text in ("3", "1250.5", "1500", "7", "-40")]


@pytest.mark.parametrize(
    ("answer", "reference", "tolerance", "score"),
    [
        ("3 + 4 makes 7.", "7", 0, 1),
        ("7 is 3 + 4", "7", 0, 0),  # the last number counts
        ("1,000.0", "1000", 0, 1),
        ("99", "100", 0.01, 1),
        ("98.9", "100", 0.01, 0),
        ("0.3", "0.30000000000000004", 0, 0),  # as written, not as a processor rounds it
        ("1234567891", "1234567890", 0, 0),
        ("0.001", "0", 0.5, 0),  # a share of nothing is nothing
        ("seven", "7", 0, 0),
        ("none", "none", 0, 1),  # a reference without a number is compared as text
    ],
)
def test_numbers_within_a_tolerance(answer: str, reference: str, tolerance: float, score: float) -> None:
    assert metrics.number(answer, reference, tolerance=tolerance) == score


def test_the_recipes_tolerance_reaches_the_metric() -> None:
    assert metrics.resolve("number")("99", "100") == 0
    assert metrics.resolve("number", settings=metrics.Settings(tolerance=0.01))("99", "100") == 1
