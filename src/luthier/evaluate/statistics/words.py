"""Numbers as text: a zero has no sign, and no other number is written as zero."""

from luthier.evaluate.statistics.units import SAME

_MOST_DIGITS = 7  # after the point; what is smaller is written as zero


def signed(value: float, digits: int = 1, *, sign: str = "+") -> str:
    """+8.1, -0.04 (with more digits where fewer would give zero), and 0.0 for zero; `sign` "-" leaves the plus out."""
    for decimals in range(digits, _MOST_DIGITS + 1):
        if abs(value) > SAME and float(text := f"{value:{sign}.{decimals}f}"):
            return text
    return f"{0:.{digits}f}"


def p_in_words(p_value: float) -> str:
    """p = 0.0213, p = 0.41, p < 0.0001."""
    if p_value < 0.0001:
        return "p < 0.0001"
    return f"p = {p_value:.4f}" if p_value < 0.1 else f"p = {p_value:.2f}"
