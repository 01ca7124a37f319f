"""Numbers against numbers, with the tolerance that the user allows."""

from decimal import Decimal

from luthier.evaluate.metrics import forms
from luthier.evaluate.metrics.texts import exact_match


def number(answer: str, reference: str, *, tolerance: float = 0.0) -> float:
    """1 if the last number of the answer is the reference's, 1,200.50 being 1200.5.

    The last, because answers that show their working end with the result. `tolerance` is a share of the reference:
    0.01 lets 99 and 101 pass for 100. A reference without a number is compared as text.
    """
    wanted = list(forms.numbers(reference))
    if not wanted:
        return exact_match(answer, reference)
    given = list(forms.numbers(answer))
    return float(bool(given) and close(given[-1], wanted[-1], tolerance))


def close(given: Decimal | float | int, wanted: Decimal | float | int, tolerance: float) -> bool:
    """Whether two numbers differ by no more than this share of the wanted one; compared as they are written.

    A float stands for the decimal number that it is printed as, so that 0.1 is a tenth.
    """
    first, second = (value if isinstance(value, Decimal) else Decimal(str(value)) for value in (given, wanted))
    return first == second or abs(first - second) <= Decimal(str(tolerance)) * abs(second)
