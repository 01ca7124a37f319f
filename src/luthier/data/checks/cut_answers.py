"""Answers that stop in the middle: of a sentence, of a block of code, of JSON, or at a length where many others stop too.

Sentences end with a mark in most data, but not in all: titles, labels, lists and some scripts do without. So an answer that
ends without one is suspected only where nearly all answers of the data that could have a mark have one; and then its last
word is looked at. A writer who forgets the full stop still ends with a word that ends sentences, and a limit cuts anywhere:
the share of a word's occurrences that end a sentence tells the two apart (a likelihood ratio against all words together).
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from luthier.data.checks.findings import Finding, Spot, plural, share
from luthier.data.checks.rows import Row, Scope

Ending = Literal["whole", "open", "other"]

_FINAL = re.compile(
    "[.!?\u2026\u3002\uff01\uff1f\u0964\u0965\u061f\u06d4:;>|*_~`=%°€$£\\])}\u300d\u300f\ufe0f\u2705\U0001f300-\U0001faff0-9]"
    "[\"'\u201d\u2019\u00bb\u203a)\\]}*_`\u300d\u300f]*\\s*$"
)
_ITEM = re.compile(r"\s*(?:[-*+•–·>|#]|\(?\w{1,3}[.)])\s")
_MARKED = re.compile("[.!?\u2026\u3002\uff01\uff1f\u0964\u061f](?:[\"'\u201d\u2019\u00bb)\\]]*)(?=\\s|$)")
_HANGING = frozenset(
    """a an the and or but of to in on at for with by from as that which who is are was were be been can will would should could
    may might must has have had not if when while because so than then its their your our my this these into onto about
    between through over under such also very more most
    der die das den dem des ein eine einen einem einer und oder aber von zu im mit für auf als dass ist sind wird werden kann
    le la les un une du et ou mais de dans pour avec sur que qui est sont el los las una y o pero para con por
    il lo gli uno e ma di da nel per che è sono os um uma mas do em com é são""".split()  # noqa: SIM905
)
"""Words that hardly ever end a sentence."""
PROSE = 8
"""Words of a last line from which on it is prose that ends with a mark."""
USUAL = 0.9
"""Share of the answers in prose that must end with a mark before one without counts as cut."""
FEWEST = 20
SAME_LENGTH = 5
"""Answers of one length, the longest of all, that make it a limit, if they are several times those of each length below."""
SPIKE = 4
BELOW = 8
LONG = {"characters": 200, "words": 40}
SMOOTHING = 5
"""Occurrences of a word, with as many ends as a word has on average, that are added to what was counted."""
UNLIKELY = 0.4
"""Likelihood ratio under which a last word ends no sentence."""
_ENDING_WORD = re.compile("([^\\W_]+)[\"'\u201d\u2019)\\]]*[.!?\u2026\u3002\uff01\uff1f\u0964\u061f](?=\\s|$)")


def ending(answer: str) -> tuple[Ending, str]:
    """How an answer ends: whole, open (with what is wrong), or as what has no end of its own, such as a label."""
    text = answer.rstrip()
    if text.count("```") % 2:
        return "open", "a block of code is not closed"
    if text[:1] in ("{", "["):
        return _json_ending(text)
    last = text.rpartition("\n")[2]
    words = last.split()
    if len(words) < PROSE or _ITEM.match(last):
        # A short last line is part of longer text, or a label: only a word that cannot end anything says that it is cut.
        hangs = bool(_MARKED.search(text[:-1])) and len(text.split()) >= PROSE and _hangs(words)
        return ("open", f"ends with “{words[-1]}”") if hangs else ("other", "")
    if _FINAL.search(last):
        return "whole", ""
    if re.search(r"[/.@_=\\]\w|://", words[-1]):  # an address, a path, a name in code
        return "other", ""
    if last[-1].isalpha() or last[-1] in ",-–—(“\"'&":
        return "open", f"ends with “{words[-1][-20:]}”"
    return "other", ""


def _json_ending(text: str) -> tuple[Ending, str]:
    try:
        json.loads(text)
    except ValueError:
        opened = sum(map(text.count, "{[")) - sum(map(text.count, "}]"))
        return ("open", "JSON is not closed") if opened > 0 and text[-1] not in "}]" else ("other", "")
    except RecursionError:
        return "other", ""
    return "whole", ""


def _hangs(words: list[str]) -> bool:
    return bool(words) and (words[-1].casefold() in _HANGING or words[-1].endswith(","))


CUT = "A model learns to stop there too. Get the whole answers, or take the rows out."


class Limit:
    """The longest answers, and whether so many have that very length that something cut them there."""

    def __init__(self, unit: str, least: int) -> None:
        self.unit, self.least = unit, least
        self.counts: Counter[int] = Counter()
        self.longest = 0
        self.spots: list[Spot] = []
        self.answers: set[str] = set()

    def see(self, length: int, answer: str, location: str) -> None:
        """Count an answer; one that is given again and again is one."""
        self.counts[length] += 1
        if length > self.longest:
            self.longest, self.spots, self.answers = length, [], set()
        if length == self.longest:
            self.answers.add(answer)
            self.spots.append(Spot(location, f"{length:,} {self.unit}, as the longest answers have"))

    def is_one(self) -> bool:
        below = sum(self.counts[self.longest - less] for less in range(1, BELOW + 1)) / BELOW
        return self.longest >= self.least and len(self.answers) >= max(SAME_LENGTH, SPIKE * below)

    def __str__(self) -> str:
        return f"{len(self.spots):,} have exactly {self.longest:,} {self.unit}, which looks like a limit"


class CutAnswers:
    """Collects how answers end, and which length is the longest."""

    def __init__(self, scope: Scope) -> None:
        self.whole = self.rows = 0
        self.sure: list[Spot] = []
        self.open: list[Spot] = []
        self.limits = [Limit(unit, least) for unit, least in LONG.items()]
        self.words: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.last: list[str] = []

    def see(self, row: Row) -> None:
        if row.item.conversation.is_document:
            return
        self.rows += 1
        for limit, length in zip(self.limits, (len(row.answer.rstrip()), len(row.answer.split())), strict=True):
            limit.see(length, row.answer, row.location)
        self.words.update(row.answer_words)
        self.ends.update(_ENDING_WORD.findall(row.answer.casefold()))
        how, why = ending(row.answer)
        if how == "whole":
            self.whole += 1
        elif how == "open":
            if why.startswith("ends with"):
                self.open.append(Spot(row.location, why))
                self.last.append(row.answer_words[-1] if row.answer_words else "")
            else:
                self.sure.append(Spot(row.location, why))

    def findings(self) -> Iterator[Finding]:
        usual = self.whole + len(self.open) >= FEWEST and self.whole >= USUAL * (self.whole + len(self.open))
        limits = [limit for limit in self.limits if limit.is_one()]
        spots = self.sure + (self._stopped_anywhere() if usual or limits else [])
        for limit in limits:
            known = {spot.location for spot in spots}
            spots += [spot for spot in limit.spots if spot.location not in known]
        if not spots:
            return
        sentence = f"{plural(len(spots), 'answer')} ({share(len(spots), self.rows)}) stopping in the middle"
        if limits:
            sentence += "; " + "; ".join(map(str, limits))
        yield Finding("cut-answer", "warning", sentence, CUT, tuple(spots))

    def _stopped_anywhere(self) -> list[Spot]:
        """The answers without a mark at their end that do not look as if only the mark was forgotten."""
        mean = self.ends.total() / (self.words.total() or 1)
        ratios = [
            (self.ends[word] / mean + SMOOTHING) / (self.words[word] + SMOOTHING) if mean else 0.0 for word in self.last
        ]
        if sum(ratio < 1 for ratio in ratios) >= len(ratios) / 2:
            return self.open
        return [spot for spot, ratio in zip(self.open, ratios, strict=True) if ratio < UNLIKELY]
