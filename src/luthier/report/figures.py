"""The signs of numbers on a page."""

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def signed(value: float, digits: int) -> str:
    """With its sign and so many digits; a zero has no sign."""
    rounded = round(value, digits)
    return f"{MINUS if rounded < 0 else '+' if rounded > 0 else ''}{abs(rounded):.{digits}f}"
