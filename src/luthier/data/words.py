"""What a word is, in any script: the one place that cuts texts, for scores, retrieval, error analysis and leakage alike.

Texts are taken in Unicode's composed form (NFC) and without case. Combining marks belong to the letter before them, as the
vowels of Hindi and the points of Hebrew do. Scripts written without blanks (Chinese, Japanese, Thai, Lao, Burmese, Khmer)
have no words that a rule could find, so each of their characters counts as one.
"""

import re
import unicodedata


def _ranges(*categories: str) -> str:
    """The characters of these general categories, for a bracket of a regular expression."""
    runs: list[list[int]] = []
    for code in range(0x21, 0x20000):
        category = unicodedata.category(chr(code))
        if category in categories or category[0] in categories:
            if runs and runs[-1][1] == code - 1:
                runs[-1][1] = code
            else:
                runs.append([code, code])
    return "".join(rf"\U{first:08x}-\U{last:08x}" for first, last in runs)


MARKS = _ranges("M")
"""Combining marks, for a bracket of a regular expression."""

_PUNCTUATION = _ranges("P")
_UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\uff66-\uff9f\U00020000-\U0003ffff"
)
_FULL_WIDTH = re.compile("[\uff01-\uff5e]")
# Soft hyphen, word joiner, variants of a glyph.
_IGNORED = re.compile("[\u00ad\u2060\ufeff\ufe0e\ufe0f\U000e0100-\U000e01ef]")

_LETTER = rf"[^\W_{_UNSPACED}]"
_RUN = rf"{_LETTER}+(?:[{MARKS}]+{_LETTER}*|[\u200c\u200d_]+{_LETTER}+)*"  # joiners are spelling in Persian and Hindi
_WORD = rf"[{_UNSPACED}][{MARKS}]*|{_RUN}"
_WORDS = re.compile(_WORD)
_WITH_APOSTROPHES = re.compile(rf"[{_UNSPACED}][{MARKS}]*|{_RUN}(?:['\u2019]{_RUN})*")
_PIECES = re.compile(rf"{_WORD}|[^\w\s.,;:!?'\"()…{MARKS}]")

_MINUS = r"\u2010-\u2013\u2212\ufe63\uff0d\-"
_NUMBER = rf"(?<![\w.,])[+{_MINUS}]?(?>\d+(?:[.,:/{_MINUS}]\d+)*|\.\d+)(?:{_RUN})?"
_JOINED = rf"{_RUN}(?:(?<=\d)[.,:/-](?=\d){_RUN})+"  # v2.5, gpt4.1
_EMOJI = "\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"  # skin colours, and the letters of a flag's country
_SIGN = rf"[^\w\s{_PUNCTUATION}{MARKS}\u200b-\u200f`|~]"
_CLUSTER = rf"[\U0001f1e6-\U0001f1ff]{{2}}|{_SIGN}[{MARKS}{_EMOJI}]*(?:\u200d{_SIGN}[{MARKS}{_EMOJI}]*)*"
_TELLING = "|".join(
    (
        r"[%‰‱&\u2032\u2033]",
        r"(?<=\w)#(?!\w)",  # C#
        r"(?<=\w)\*(?![\w*])",  # A*
        r"!(?==)",  # a != b
        r"~(?=\d)",
        rf"(?<=\s)[{_MINUS}](?=[^\W\d_]\W|[$€£¥₹]\d)",  # -x, -$5
        rf"(?:(?<=\d )|(?<=\W[^\W_] ))[*/|\\:{_MINUS}](?= (?:\d|[^\W_]\W))",  # x / y, 3 - 4
        rf"(?<=\W[^\W_])[*/|\\:{_MINUS}](?=[^\W_]\W)|(?<=\d)[*/](?=\w)",  # x/y, 12*3
    )
)
_TOKENS = re.compile(f"{_NUMBER}|{_JOINED}|{_WORD}|{_CLUSTER}|{_TELLING}")
_INSIDE = re.compile(  # between two letters, or a letter and a digit; not x-y
    rf"(?<=[\w{MARKS}])(?!(?<=\W[^\W_])[*/|\\:{_MINUS}][^\W_]\W)(?:(?<!\d)X+(?=\w)|(?<=\d)X+(?=[^\W\d]))".replace(
        "X", rf"(?:(?![%‰&\u2032\u2033])[{_PUNCTUATION}])"
    )
)
_DASHES = re.compile(f"[{_MINUS}]")
_WRITTEN = re.compile(rf"[+{_MINUS}]?(?:\d+(?:[.,]\d+)*|\.\d+)")
_GROUPING = re.compile(r"(?<=\d)[ \u00a0\u2009\u202f'\u2019](?=\d)")
_GROUPED = re.compile(r"\d{1,3}(?:[.,]\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}")
_ARABIC = str.maketrans("\u066b\u066c", ".,")
_TAG = re.compile(r"<(/?[^\W\d][^<>\n]*)>")
_CONTENT = r"\1"
_SENTENCE_END = re.compile("(?<=[.!?\u2026\u3002\uff01\uff1f])[\"'\u201d\u2019)\\]]*\\s+|\\n+")
_EMPHASIS = re.compile(r"(?<!\w)(\*{1,3}|~~)(?=\S)(.+?)(?<=\S)\1(?!\w)")


def normalised(text: str) -> str:
    """The text in one Unicode form and without the difference of upper and lower case."""
    if text.isascii():
        return text.lower()
    composed = _IGNORED.sub("", unicodedata.normalize("NFC", text))
    # Chinese and Japanese type Latin in two widths.
    narrow = _FULL_WIDTH.sub(lambda match: chr(ord(match[0]) - 0xFEE0), composed)
    return unicodedata.normalize("NFC", narrow.casefold())


def one_spelling(text: str) -> str:
    """The text in Unicode's NFKC form with straight apostrophes, so that a rule needs one spelling."""
    return unicodedata.normalize("NFKC", text).replace("\u2019", "'").replace("\u2018", "'")


def sentences(text: str) -> list[str]:
    """The text cut behind closing marks and at line ends; blanks around a sentence are left out."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def words(text: str, *, apostrophes: bool = False) -> list[str]:
    """The words and digits of a text, normalised; with `apostrophes` "don't" is one of them, else two."""
    return (_WITH_APOSTROPHES if apostrophes else _WORDS).findall(normalised(text))


def pieces(text: str) -> list[str]:
    """The words of a text and every mark but those of prose, each by itself: code and sums differ by their marks."""
    return _PIECES.findall(normalised(text))


def joined(text: str) -> str:
    """The text without punctuation inside words, as SQuAD counts them: wellknown, dont, usa."""
    return _INSIDE.sub("", f" {_TAG.sub(_CONTENT, text)} ").strip()


def tokens(text: str) -> list[str]:
    """What tells two answers apart: words, numbers in one spelling with their sign and point, and signs that mean something.

    Punctuation, quotes, brackets, bullets and Markdown do not count. `<`, `%`, `$`, emoji, the marks of `C#` and `C++`, and
    operators between numbers or single letters do. 1,200.50 is 1200.5; 10:30, 5-10 and 2026-03-05 stay whole.
    """
    line = _TAG.sub(r" \1 ", _EMPHASIS.sub(r"\2", normalised(text)))
    return [
        _spelled(token) if token[0].isdigit() or token[1:2].isdigit() else token
        for token in _TOKENS.findall(f" {line.translate(_ARABIC)} ")
    ]


def _spelled(token: str) -> str:
    """A token that begins with a number, or with its sign, with that number in its one spelling."""
    match = _WRITTEN.match(token)
    if match is None:
        return token
    number, rest = match[0], token[match.end() :]
    if rest[:1] and not rest[0].isalpha():  # 10:30, 5-10
        return _DASHES.sub("-", token)
    return (plain_number(number) or number) + rest


def plain_number(written: str) -> str | None:
    """A number with a point for decimals, no grouping and no idle zeros; None for what is none, such as 1.2.3 or 007.

    One comma before exactly three digits groups thousands, any other comma is a decimal one; a point is a decimal one,
    unless it groups threes more than once or a comma follows it. Blanks and apostrophes group threes too, and commas may
    group as in India (12,34,567).
    """
    sign = "-" if _DASHES.match(written) else ""
    digits = "".join(str(int(char)) if char.isdecimal() else char for char in written if char != "+")
    digits = _GROUPING.sub("", _DASHES.sub("", digits))
    marks = [char for char in digits if char in ".,"]
    decimal = ""
    if len(set(marks)) == 2:
        if marks[-1] in marks[:-1]:
            return None
        decimal = marks[-1]
    elif marks == ["."] or (marks == [","] and not re.fullmatch(r"[1-9]\d{0,2},\d{3}", digits)):
        decimal = marks[0]
    whole, _, rest = digits.rpartition(decimal) if decimal else (digits, "", "")
    parts = re.split(r"[.,]", whole)
    if len(parts) > 1 and not _GROUPED.fullmatch(whole):
        return None
    joined = "".join(parts) or "0"
    if len(joined) > 1 and joined.startswith("0"):
        return None
    rest = rest.rstrip("0")
    number = joined + (f".{rest}" if rest else "")
    return number if number == "0" else sign + number
