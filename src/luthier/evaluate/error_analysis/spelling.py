"""Misspelt words, found with a frequency dictionary and the words of the user's own data.

The dictionaries are pyspellchecker's: pure Python, no dependencies, a dozen languages. A dictionary alone would call every
product name a mistake, so a word counts as misspelt only if it is written small, the data does not use it often, and one
edit away stands a word that the language uses often.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from spellchecker import SpellChecker

from luthier.data.words import MARKS
from luthier.evaluate import text_features

LANGUAGES = ("en", "de", "fr", "es", "pt", "it", "nl", "ru", "lv", "eu", "ar", "fa")
COVERED = 0.8  # share of the references' words that a dictionary of their language knows
OWN_WORD_TEXTS = 3  # texts of the data in which a word stands that belongs to its subject
FREQUENT = 50  # how often the right word stands in the dictionary's corpus; rarer ones are no likely meaning
SHORTEST = 4  # letters; shorter words have too many neighbours

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\S*(?:://|@|[\w]\.[\w]|[\\/_=<>{}])\S*", re.DOTALL)
_LETTERS = re.compile(rf"[^\W\d_][^\W\d_{MARKS}]*(?:['-][^\W\d_][^\W\d_{MARKS}]*)*")


@dataclass(frozen=True)
class Spelling:
    """A language and the words that the data itself uses."""

    language: str
    own: frozenset[str]
    """Words that stand in several texts: those of the subject, right by definition."""
    seen: frozenset[str]
    """Words that stand anywhere in them: of two words that could be meant, the one that is seen."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Spelling | None":
        """For these texts, which are taken to be well spelt in the main; None where no dictionary knows their language."""
        texts_with: Counter[str] = Counter()
        for text in texts:
            texts_with.update(
                dict.fromkeys(text_features.words(text), 1)
            )  # in order: a set's would differ from run to run
        common = [word for word, _ in texts_with.most_common() if word.isalpha()][:2000]
        weight = sum(texts_with[word] for word in common)
        if not weight:
            return None
        best, share = "", 0.0
        for language in LANGUAGES:
            known = _dictionary(language).known(common)
            covered = sum(texts_with[word] for word in known) / weight
            if covered > share:
                best, share = language, covered
            if share >= 0.95:
                break
        own = frozenset(word for word, count in texts_with.items() if count >= OWN_WORD_TEXTS)
        return cls(best, own, frozenset(texts_with)) if share >= COVERED else None

    def misspelt(self, text: str, given: Iterable[str] = ()) -> dict[str, str]:
        """Each misspelt word with the word that was meant; words of the `given` texts (question, reference) are right."""
        known = {word for other in given for word in text_features.words(other)}
        found = {}
        for word in _candidates(text):
            if word in known or word in self.own:
                continue
            near = _near(self.language, word)
            likely = [one for one in near if one[1] in self.seen] or [one for one in near if one[0] >= FREQUENT]
            if likely:
                found[word] = max(likely)[1]
        return found


def _candidates(text: str) -> list[str]:
    """Words written small, or with a capital where a line begins; not names, code or addresses."""
    found: list[str] = []
    for line in _CODE.sub(" ", text_features.plain(text)).splitlines():
        for number, match in enumerate(_LETTERS.finditer(line)):
            for part in match.group().removesuffix("'s").split("-"):
                small = part.islower() or (number == 0 and part[1:].islower())
                if small and len(part) >= SHORTEST and part.isalpha():
                    found.append(part.lower())
    return list(dict.fromkeys(found))


@cache
def _dictionary(language: str) -> SpellChecker:
    return SpellChecker(language=language, distance=1)


@cache
def _near(language: str, word: str) -> tuple[tuple[int, str], ...]:
    """The words one edit away from a word that is not in the dictionary, each with its frequency there."""
    dictionary = _dictionary(language)
    if dictionary.known([word]):
        return ()
    return tuple((dictionary[other], other) for other in dictionary.known(dictionary.edit_distance_1(word)))
