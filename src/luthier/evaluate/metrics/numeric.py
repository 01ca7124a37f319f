"""Numbers against numbers, with the tolerance that the user allows."""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction

from luthier.evaluate.metrics.quantities import quantities, single_quantity
from luthier.evaluate.metrics.texts import exact_match


def number(answer: str, reference: str, *, tolerance: float = 0.0) -> float:
    """1 if the last number of the answer is the reference's, 1,200.50 being 1200.5.

    The last, because answers that show their working end with the result. `tolerance` is a share of the reference:
    0.01 lets 99 and 101 pass for 100. A unit may be left out but not be another one (5 kg and 5 g), and >5 is neither 5
    nor <5. A reference without a number is compared as text.
    """
    wanted = list(quantities(reference))
    if not wanted:
        return exact_match(answer, reference)
    predicted = list(quantities(answer))
    if not predicted or predicted[-1].relation != wanted[-1].relation:
        return 0.0
    if predicted[-1].unit and wanted[-1].unit and predicted[-1].unit != wanted[-1].unit:
        return 0.0
    return float(close(predicted[-1].value, wanted[-1].value, tolerance))


def close(predicted: Decimal | Fraction, wanted: Decimal | Fraction, tolerance: float) -> bool:
    """Whether two numbers differ by at most this share of the wanted one; compared as they are written.

    A float of `tolerance` stands for the decimal number that it is printed as, so that 0.1 is a tenth.
    """
    first, second = Fraction(predicted), Fraction(wanted)
    return first == second or abs(first - second) <= Fraction(str(tolerance)) * abs(second)


def are_numbers(references: Sequence[str]) -> bool:
    """Whether these texts are one number each, at least 95 % of them.

    A unit, or one and the same word, may stand beside each. Dates, times, ranges and names such as 007 are no numbers, and
    texts that could all be dates (3/5) count as dates.
    """
    if not mostly(single_quantity, references):
        return False
    found = [each for reference in references if (each := single_quantity(reference))]
    kinds = {(bool(quantity.unit), rest) for quantity, rest in found}
    dates = all(_may_be_a_date(quantity.written) for quantity, _ in found)
    return len(kinds) == 1 and not dates


def mostly(holds: Callable[[str], object], texts: Sequence[str]) -> bool:
    """Whether something holds for 95 % of these texts at least; where it does not, that shows after a few of many."""
    others = 0
    for text in texts:
        others += not holds(text)
        if len(texts) - others < 0.95 * len(texts):
            return False
    return True


def _may_be_a_date(written: str) -> bool:
    match = re.fullmatch(r"(\d{1,2})/(\d{1,2})", written)
    low, high = sorted(int(part) for part in match.groups()) if match else (0, 0)
    return 1 <= low <= 12 and high <= 31
