"""Numbers, dates and lists as text, the same on the page, in the Markdown and in the charts."""

from collections.abc import Sequence
from datetime import UTC, datetime

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def signed(value: float, digits: int) -> str:
    """With its sign and this many digits; a zero has no sign."""
    rounded = round(value, digits)
    return f"{MINUS if rounded < 0 else '+' if rounded > 0 else ''}{abs(rounded):.{digits}f}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """3 h 05 min, 14 min 02 s, 9 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def gigabytes(count: float) -> str:
    """3.42 GB."""
    return f"{count / 1e9:.2f} GB"


def moment(text: str) -> str:
    """24 November 2026, 13:03 UTC; as it stands where it is not a time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    time = time.astimezone(UTC) if time.tzinfo else time
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def rounded(count: int) -> str:
    """135 M, 1.24 B, 999."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= 0.9995 * size and count >= 1000:
            return f"{count / size:.3g} {letter}"
    return str(count)


def or_dash(value: float | int | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def p_value(value: float | None) -> str:
    """0.0213, 0.41, < 0.0001."""
    if value is None:
        return DASH
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"
