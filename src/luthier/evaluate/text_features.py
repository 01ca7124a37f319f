"""What rules can read off an answer: its words, what it repeats, which names and numbers it states.

Rules, not models: each can be read, tested and argued about, and gives the same result tomorrow. They see characters and
know nothing of meaning. `luthier.data.refusals` tells whether an answer refuses.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from luthier.data import words as word_rules
from luthier.data.words import one_spelling, sentences


def words(text: str) -> list[str]:
    """The words and numbers in lower case, punctuation left out; "don't" is one."""
    return word_rules.words(one_spelling(text), apostrophes=True)


def normalised(text: str) -> str:
    """Equal for answers that say the same in the same order, whatever their case, punctuation and white space.

    Signs that mean something count (-5, C++, an emoji), and so does all of a text that is nothing but punctuation.
    """
    return " ".join(word_rules.tokens(text)) or word_rules.normalised(text).strip()


def repeated_share(text: str, *, width: int = 4) -> float:
    """The share of runs of `width` words that the text has had before: 0 for fresh text, near 1 for a loop.

    A text shorter than 3 · `width` words has no room for a loop and counts as fresh.
    """
    found = words(text)
    runs = [tuple(found[at : at + width]) for at in range(len(found) - width + 1)]
    return 1 - len(set(runs)) / len(runs) if len(found) >= 3 * width else 0.0


def longest_loop(text: str) -> int:
    """How many times in a row the most repeated passage stands; 1 where nothing is repeated directly.

    A passage is 1 to 40 words, or an unbroken run of characters ("hahaha").
    """
    found = words(text)
    most = 1
    for width in range(1, min(40, len(found) // 2) + 1):
        same = run = 0
        for at in range(width, len(found)):
            same = same + 1 if found[at] == found[at - width] else 0
            run = max(run, same)
        most = max(most, 1 + run // width)
    characters = re.search(r"(\S{1,8}?)\1{11,}", text)
    return max(most, len(characters[0]) // len(characters[1]) if characters else 1)


def is_looping(answer: str, reference: str = "") -> bool:
    """Whether the answer runs in circles: a passage four times in a row, or a third of its word runs said before.

    What the reference repeats as well (rows of a table, fields of a list) is no loop.
    """
    if longest_loop(answer) >= 4 and longest_loop(answer) > longest_loop(reference):
        return True
    return repeated_share(answer) >= 1 / 3 and repeated_share(answer) > repeated_share(reference) + 0.15


_NUMBER = re.compile(r"(?<![\w.,])(?<![^\W\d]-)[-−]?\d(?:[\d.,:/]*\d)?")
_LIST_MARK = re.compile(r"^\s*(?:[-*•#>]+\s*|\(?\d{1,2}[.):]\s+|\*\*)*", re.MULTILINE)
_NAME = re.compile(rf"[^\W\d_][\w{word_rules.MARKS}'.\-]*")
_NEVER_NAMES = {"i", "i'm", "i've", "i'll", "i'd", "ok", "okay"}


def stated_facts(text: str) -> list[str]:
    """The numbers and capitalised names in a text, in order: what a reader could look up.

    A word that opens a sentence or a line is capitalised anyway and counts only if it has a second capital or a digit
    ("NASA", "GPT-4"). The numbers of a list are no facts.
    """
    found: list[str] = []
    body = _LIST_MARK.sub("", one_spelling(text))
    for sentence in sentences(body):
        for number in _NUMBER.finditer(sentence):
            found.append(number.group())
        for position, match in enumerate(_NAME.finditer(sentence)):
            word = match.group().rstrip(".'-").removesuffix("'s")
            opens = position == 0 or sentence[: match.start()].rstrip()[-1:] in ('"', ":", "\u201c", "(")
            capitals = sum(sign.isupper() for sign in word)
            if word.casefold() in _NEVER_NAMES or not capitals or (len(word) < 2):
                continue
            if not opens or capitals > 1 or any(sign.isdigit() for sign in word):
                found.append(word)
    return list(dict.fromkeys(found))


def unsupported_facts(answer: str, support: Iterable[str]) -> list[str]:
    """The numbers and names of an answer that none of the supporting texts (reference, prompt) contains.

    Compared as strings: numbers by their digits (1,000 is 1000), names by their letters, also as a part of a longer word.
    A true fact that happens to stand in neither text counts as unsupported.
    """
    texts = [one_spelling(text) for text in support]
    numbers = {_digits(number.group()) for text in texts for number in _NUMBER.finditer(text)}
    letters = " ".join(texts).casefold()
    return [
        fact
        for fact in stated_facts(answer)
        if (_digits(fact) not in numbers if _NUMBER.fullmatch(fact) else fact.casefold() not in letters)
    ]


def _digits(number: str) -> str:
    bare = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", number.replace("−", "-"))
    return bare.rstrip("0").rstrip(".") if re.fullmatch(r"-?\d+\.\d+", bare) else bare


def contains_words(answer: str, wanted: str) -> bool:
    """Whether the answer contains the wanted words in a row, whatever their case and punctuation."""
    tokens, sought = word_rules.tokens(answer), word_rules.tokens(wanted)
    if not sought:
        return bool(wanted.strip()) and wanted.strip() in answer
    return any(tokens[at : at + len(sought)] == sought for at in range(len(tokens) - len(sought) + 1))


def quantiles(values: Sequence[float]) -> Iterator[float]:
    """The 10th, 50th and 90th percentile, by the nearest rank."""
    ranked = sorted(values)
    for share in (0.1, 0.5, 0.9):
        yield ranked[min(len(ranked) - 1, max(0, round(share * len(ranked)) - 1))]


def word_overlap(left: str, right: str) -> float:
    """Token F1 of two answers, which tells near agreement from none."""
    ours, theirs = Counter(word_rules.tokens(left)), Counter(word_rules.tokens(right))
    if not ours or not theirs:
        return float(normalised(left) == normalised(right))
    return 2 * (ours & theirs).total() / (ours.total() + theirs.total())
