"""Misspelt words, found with a frequency dictionary and the words of the user's own data.

The dictionaries are pyspellchecker's: pure Python, no dependencies, a dozen languages. To a dictionary
alone, every product name is a misspelling. So a word counts as misspelt only if it is in lower case, the data does not use
it often, and a word that the language uses often is one edit away.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from spellchecker import SpellChecker

from luthier.data.words import MARKS, one_spelling
from luthier.evaluate import text_features

LANGUAGES = ("en", "de", "fr", "es", "pt", "it", "nl", "ru", "lv", "eu", "ar", "fa")
COVERED = 0.8  # share of the data's words that a dictionary of its language knows, at least
SUBJECT_WORD_TEXTS = 3  # texts that a word must stand in to belong to the subject
FREQUENT = (
    50  # how often the right word stands in the dictionary's corpus, at least; rarer ones are unlikely to be meant
)
SHORTEST = 4  # letters; shorter words have too many neighbours

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\S*(?:://|@|[\w]\.[\w]|[\\/_=<>{}])\S*", re.DOTALL)
_LETTERS = re.compile(rf"[^\W\d_][^\W\d_{MARKS}]*(?:['-][^\W\d_][^\W\d_{MARKS}]*)*")


@dataclass(frozen=True)
class Spelling:
    """A language and the words that the data itself uses."""

    language: str
    subject_words: frozenset[str]
    """Words of several texts: they belong to the subject and are right by definition."""
    all_words: frozenset[str]
    """Words of any text: where two words could be meant, the one among these is."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Spelling | None":
        """The spelling of these texts, which should be mostly right; None where no dictionary knows their language."""
        texts_with: Counter[str] = Counter()
        for text in texts:
            # In order of appearance: a set's order would differ from run to run.
            texts_with.update(dict.fromkeys(text_features.words(text), 1))
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
        subject_words = frozenset(word for word, count in texts_with.items() if count >= SUBJECT_WORD_TEXTS)
        return cls(best, subject_words, frozenset(texts_with)) if share >= COVERED else None

    def misspelt(self, text: str, known_texts: Iterable[str] = ()) -> dict[str, str]:
        """Each misspelt word with the word that was meant; words of `known_texts` (question, reference) are right."""
        known = {word for other in known_texts for word in text_features.words(other)}
        found = {}
        for word in _candidates(text):
            if word in known or word in self.subject_words:
                continue
            near = _near(self.language, word)
            likely = [one for one in near if one[1] in self.all_words] or [one for one in near if one[0] >= FREQUENT]
            if likely:
                found[word] = max(likely)[1]
        return found


def _candidates(text: str) -> list[str]:
    """Words in lower case, or with a capital at the beginning of a line; not names, code or addresses."""
    found: list[str] = []
    for line in _CODE.sub(" ", one_spelling(text)).splitlines():
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
