"""Which languages the rows are in, as far as a small model of letters can tell; short texts and code stay undecided."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from luthier.data.checks.findings import Finding, Spot, plural, share
from luthier.data.checks.rows import Row, Scope

LETTERS = 60
"""Fewest letters of a text whose language is decided."""
SURE = 0.95
CHARACTERS = 300
FIRST_ROWS = 500
"""Rows from which the commonest language's commonest words are taken, by which the others are known without the model."""
EVERY = 10
"""Where most rows are in no language that is known (code, ids), one in so many is still looked at."""
IN_MANY = 0.15
"""Share of these rows that have such a word."""
USUAL_WORDS = 0.25
"""Share of a row's words that are such words from which on it is in that language."""
MIXED = 0.005
"""Share of the rows in another language from which on it counts, if there are three of them."""
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`]*`|https?://\S+|[{}<>|\\=_/@#\[\]]+|\d+", re.DOTALL)


@cache
def _identifier() -> Any:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language(text: str) -> str | None:
    """The ISO 639-1 code of a text's language; None where that is not sure."""
    plain = " ".join(_CODE.sub(" ", text[: 2 * CHARACTERS]).split())[:CHARACTERS]
    if sum(map(str.isalpha, plain)) < (LETTERS if plain.isascii() or plain[0] < "\u0900" else LETTERS // 4):
        return None
    found, probability = _identifier().classify(plain)
    return str(found) if probability >= SURE else None


class Languages:
    """Counts languages, and remembers the rows in each."""

    def __init__(self, scope: Scope) -> None:
        self.main = ""
        self.undecided = 0
        self.usual: set[str] | None = None
        self.words: dict[str, Counter[str]] = {}
        self.found: dict[str, list[Spot]] = {}
        self.count: Counter[str] = Counter()

    def see(self, row: Row) -> None:
        words = [*row.asked_words, *row.answer_words]
        if self.usual and sum(word in self.usual for word in words) >= USUAL_WORDS * len(words):
            self.count[self.main] += 1
            return
        if self.undecided > max(FIRST_ROWS, self.count.total()) and self.undecided % EVERY:
            self.undecided += 1
            return
        found = language("\n".join(text for text in (row.answer, row.asked) if text))
        self.undecided += not found
        if found:
            self.count[found] += 1
            if self.usual is None or found != self.main:
                self.found.setdefault(found, []).append(Spot(row.location, found))
            if self.usual is None:
                self._take_words(found, words)

    def _take_words(self, language: str, words: Sequence[str]) -> None:
        """Counts the words of the first rows, and from enough of them takes the commonest language's commonest words."""
        self.words.setdefault(language, Counter()).update(set(words))
        if self.count.total() == FIRST_ROWS:
            self.main, rows = self.count.most_common(1)[0]
            self.usual = {
                word for word, count in self.words[self.main].items() if count >= IN_MANY * rows and word.isalpha()
            }

    def findings(self) -> Iterator[Finding]:
        decided = self.count.total()
        others = [name for name, count in self.count.most_common()[1:] if count >= max(3, MIXED * decided)]
        if not others:
            return
        main = self.count.most_common(1)[0][0]
        listed = ", ".join(f"{name} {share(self.count[name], decided)}" for name in (main, *others))
        spots = tuple(spot for name in others for spot in self.found[name])
        sentence = f"{len(others) + 1} languages: {listed} of {plural(decided, 'row')} whose language is plain"
        yield Finding("language", "note", sentence, "Rows in the rarer languages are listed; are they meant?", spots)
