"""The numbers in a text, each with its exact value, the relation before it and the unit beside it."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from luthier.data.words import plain_number

_MINUS = r"\u2010-\u2013\u2212\ufe63\uff0d\-"
_BLANK = " \u00a0\u2009\u202f"
_GROUPED = rf"\d{{1,3}}(?:[{_BLANK}'\u2019]\d{{3}})+(?!\d)(?:[.,]\d+)?"
_BODY = rf"[+{_MINUS}]?(?>{_GROUPED}|\d+(?:[.,]\d+)*|\.\d+)"
_INTEGER = rf"[+{_MINUS}]?\d{{1,3}}"
_NUMBER = re.compile(
    rf"(?<![\w.,])(?<![\d)][{_MINUS}:/\u2044^])(?P<number>{_BODY})"
    rf"(?:[eE](?P<exponent>{_INTEGER})(?!\w)|\s?[×x*·⋅]\s?10\^[({{]?(?P<ten>{_INTEGER})[)}}]?"
    rf"|\^[({{]?(?P<power>{_INTEGER})[)}}]?|[/\u2044](?P<below>[1-9]\d*)|[{_BLANK}](?P<above>\d+)[/\u2044](?P<under>[1-9]\d*))?"
    rf"(?P<joined>(?:[{_MINUS}:/\u2044]\d+)*)"
)
_RELATION = re.compile(r"(?<![-=<>])(<=|>=|[<>≤≥±])\s*(?:[$€£¥₹]\s?)?$")
_BEFORE = re.compile(rf"(?P<minus>(?<![\w)])[{_MINUS}])?(?P<unit>[$€£¥₹]|\b[A-Z]{{3}}\$?|\b[A-Z]{{2}}\$)\s?$")
_AFTER = re.compile(r"\s?(per cent|[%‰€$£¥₹]|°?[A-Za-zµμΩ][\w²³]*(?:/[A-Za-z]\w*[²³]?)?|°)")
_SCALES = {"k": 3, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SAME_UNITS = """
    % percent|‰|$ USD US$ dollar|€ EUR euro|£ GBP|¥ JPY yen|₹ INR rupee|CHF|CNY yuan|cent|°C|°F|K kelvin
    mm millimeter millimetre|cm centimeter centimetre|m meter metre|km kilometer kilometre|inch inches|ft foot feet|mi mile
    mg milligram|g gram|kg kilogram|t ton tonne|oz ounce|lb lbs|ml mL milliliter millilitre|l L liter litre|m² m2|m³ m3|km² km2
    ms millisecond|s sec second|min minute|h hr hour|day|week|month|year|km/h kmh|m/s|mph
    W watt|mW|kW|MW|V volt|mV|mA|Hz hertz|kHz|MHz|GHz|J joule|kJ|kcal|byte|KB kB|MB|GB|TB|mm² mm2|cm² cm2|cm³ cm3
"""
UNITS = {
    name: names.split()[0]
    for names in _SAME_UNITS.replace("\n", "|").split("|")
    for word in names.split()
    for name in {word, f"{word}s" if len(word) > 2 and word.islower() else word}
}
"""Each name of a unit → the unit's first name. Other words beside a number say what is counted."""


@dataclass(frozen=True)
class Quantity:
    """A number as it stands in a text."""

    value: Fraction
    relation: str
    """`<`, `>`, `≤`, `≥` or `±`, where one stands before it."""
    unit: str
    """By its first name in `UNITS`; empty where none of them stands beside it."""
    start: int
    end: int
    """Where number, relation and unit begin and end."""
    written: str


def quantities(text: str) -> Iterator[Quantity]:
    """The numbers of a text in order. What only looks like one is left out: dates, times, ranges, versions (1.2.3).

    Read are 1,200.50 and 1 200,50, fractions (3/4, 1 1/2, ½), powers (1.5e3, 2 × 10^5), digits of any script, and words for
    thousands to trillions behind a number. Zeros in front do not count.
    """
    line = _plain(text)
    for match in _NUMBER.finditer(line):
        value = None if match["joined"] else _value(match)
        if value is None:
            continue
        start, end = match.span()
        relation, before = (pattern.search(line, max(0, start - 8), start) for pattern in (_RELATION, _BEFORE))
        unit = UNITS.get(before["unit"], "") if before else ""
        if before and unit and before["minus"]:
            value = -value
        start = before.start() if before and unit else start
        after = _AFTER.match(line, end)
        if after and after[1] in _SCALES and (after[1] != "k" or after.start(1) == end):
            value, end = value * 10 ** _SCALES[after[1]], after.end()
            after = _AFTER.match(line, end)
        if after and not unit and after[1].replace("per cent", "%") in UNITS:
            unit, end = UNITS[after[1].replace("per cent", "%")], after.end()
        if relation:
            start = min(start, relation.start())
        sign = {"<=": "≤", ">=": "≥"}.get(relation[1], relation[1]) if relation else ""
        yield Quantity(value, sign, unit, start, end, match[0])


def single_quantity(text: str) -> tuple[Quantity, str] | None:
    """The number that a text consists of, and the one word of another kind that may follow it (5 apples); None for others.

    None too for what begins with a leading zero (007), and for a text with a relation (>5).
    """
    line = _plain(text).strip().rstrip(".")
    found = list(quantities(line))
    if len(found) != 1 or found[0].start or found[0].relation or re.match(rf"[+{_MINUS}]?0\d", found[0].written):
        return None
    rest = line[found[0].end :].strip()
    return (found[0], rest.casefold()) if re.fullmatch(r"(?:[^\W\d_]+)?", rest) else None


def _plain(text: str) -> str:
    """The text with ½ as 1/2, and 10² as 10^2."""
    line = unicodedata.normalize("NFC", text).translate({0x066B: ".", 0x066C: ","})
    line = re.sub(r"(\d?)([¼-¾⅐-⅞])", lambda match: f"{match[1] and match[1] + ' '}{_fraction(match[2])}", line)
    return re.sub("(?<=\\d)[⁻⁺]?[⁰¹²³⁴-⁹]+", lambda match: f"^{match[0].translate(_SUPERSCRIPTS)}", line)


def _fraction(sign: str) -> str:
    return unicodedata.normalize("NFKD", sign).replace("\u2044", "/")


def _value(match: re.Match[str]) -> Fraction | None:
    """The value of what `_NUMBER` has found; None for what is no number."""
    # The sign and zeros in front are taken off, since 007 is a name to `plain_number`.
    bare = re.sub(rf"^[+{_MINUS}]?0*(?=\d)", "", match["number"])
    sign = -1 if re.match(f"[{_MINUS}]", match["number"]) else 1
    number = plain_number(bare)
    if number is None:
        return None
    value = _exact(number)
    if power := match["exponent"] or match["ten"]:
        value *= Fraction(10) ** _integer(power)
    elif match["power"]:
        if value == 0 or abs(_integer(match["power"])) > 400:
            return None
        value **= _integer(match["power"])
    elif match["below"]:
        value /= _exact(match["below"])
    elif match["above"]:
        value += _exact(match["above"]) / _exact(match["under"])
    return sign * value


def _exact(written: str) -> Fraction:
    """A written number as a Fraction; through Decimal, because `int` refuses numbers with thousands of digits."""
    return Fraction(Decimal(written))


def _integer(written: str) -> int:
    return int(re.sub(f"[{_MINUS}]", "-", written))
