"""Whether a passage holds what a pair says: the answer's words and numbers stand in it, and the question is about it.

Strict on purpose: what a rule cannot see to be supported is dropped. Words agree up to their endings; numbers must be the same
number, a negation must stand on both sides or on none. The quote must hold all that the answer says, be about what is asked,
and be of the kind that is asked for: no amount answers who, and no yes or no answers when.
"""

import re
from collections.abc import Sequence
from pathlib import PurePath

from luthier.data.documents.pairs import Pair
from luthier.data.words import tokens

QUESTION_SHARE = 0.5
"""Share of the question's words that passage, headings and the document's name must hold."""

_FUNCTION_WORDS = """
a an the this that these those it its they them their he him his she her we us our you your i me my one ones
and or but nor so yet if then else than as of in on at to into onto from by with within about above below over under
for through during before after between among per via up down out off again here there where when while until since
is are was were be been being am do does did done doing has have had having will would shall should can could may
might must ought need let get gets got
what which who whom whose how why whether
all any both each few more most other others some such only own same very too also just even still already ever
yes ok okay please thanks
s t d ll re ve
"""
_NEGATIONS = "no not never none nobody nothing neither nor without cannot cant dont doesnt isnt arent wont"
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English words that say nothing by themselves; in another language all words count, which is stricter."""
NEGATIONS = frozenset(_NEGATIONS.split())
_UNITS = """
euro euros eur dollar dollars usd cent cents pound pounds percent hour hours minute minutes second seconds day days week weeks
month months year years o'clock am pm metre metres meter meters kilometre kilometres km cm mm m kg g gram grams kilo kilos
litre litres ton tons degree degrees gb mb kb token tokens piece pieces time times unit units item items
"""
_TIMES = """
today tomorrow yesterday daily weekly monthly yearly hourly always never once twice noon midnight morning afternoon evening
night spring summer autumn winter monday tuesday wednesday thursday friday saturday sunday january february march april may
june july august september october november december immediately soon later first last until before after during when while
free nothing none half one two three four five six seven eight nine ten eleven twelve hundred thousand million several every
each
"""
_AMOUNT_WORDS = frozenset(_UNITS.split())
_AMOUNTS_IN_WORDS = frozenset(_TIMES.split()) | _AMOUNT_WORDS
_AMOUNT = re.compile(
    r"\W*(?:when|at what time|what time|how (?:many|much|long|old|often|far|high|deep|large|big|heavy|fast))\b", re.I
)
_NO_AMOUNT = re.compile(r"\W*(?:who|whose|whom|by whom|where|why)\b", re.I)
_WHETHER = re.compile(
    r"\W*(?:is|are|was|were|do|does|did|can|could|may|must|might|has|have|had|will|would|shall|should)\b", re.I
)
_OPEN = re.compile(r"\W*(?:\w+ )?(?:what|when|where|who|whose|whom|why|how|which)\b", re.I)
_SENTENCE_END = re.compile(r"(?<=[.!?。])\s+|\n+")
_PARTICLE = re.compile(r"\s*(?:(yes|no)\b)?(.*)", re.IGNORECASE | re.DOTALL)
_NEGATED = re.compile(r"n['\u2019]t\b", re.IGNORECASE)
_ENDINGS = ("ings", "ing", "ies", "ed", "es", "ly", "er", "s", "e", "y")
_SHORTEST_STEM = 4


def fault(pair: Pair, context: Sequence[str] = ()) -> str | None:
    """Why the passage does not support the pair, or None; `context` is what else the question may speak of, such as a title."""
    held = content(pair.passage.text)
    if pair.answer != pair.quote and (reason := _answer_fault(pair, held)):
        return reason
    if not pair.by.startswith("rule:") and (reason := _relevance_fault(pair, held, context)):
        return reason
    asked = content(pair.question)
    known = asked & (held | content(" ".join([*context, pair.passage.heading, pair.document])))
    if len(known) < QUESTION_SHARE * len(asked):
        return "a question about something else than the passage"
    return None


def _relevance_fault(pair: Pair, held: frozenset[str], context: Sequence[str]) -> str | None:
    """Why the quote does not answer this question, as far as the question's kind and the quote's sentences tell."""
    asked, said = content(pair.question), content(pair.answer)
    subject = content(" ".join([*context, pair.passage.heading, PurePath(pair.document).stem]))
    telling = (asked & held) - subject or asked & held
    if telling and not telling & (content(_sentences_of(pair)) | said):
        return "a quote whose sentence is about something else than the question"
    particle = _PARTICLE.fullmatch(pair.answer)
    has_particle = bool(particle and particle[1])
    if _OPEN.match(pair.question):
        if has_particle:
            return "yes or no to a question that asks for something else"
    elif _WHETHER.match(pair.question) and not has_particle and not said & asked and not _negates(pair.answer):
        return "neither yes nor no to a question that asks for it"
    words = set(tokens(pair.answer)) - FUNCTION_WORDS - NEGATIONS
    is_amount = all(word in _AMOUNT_WORDS or any(sign.isdigit() for sign in word) for word in words)
    if _NO_AMOUNT.match(pair.question) and is_amount:
        return "an amount for a question that asks for something else"
    spoken = set(tokens(pair.answer))
    has_amount = any(any(sign.isdigit() for sign in word) for word in spoken) or bool(spoken & _AMOUNTS_IN_WORDS)
    if _AMOUNT.match(pair.question) and not has_amount:
        return "no time or amount for a question that asks for one"
    return None


def _sentences_of(pair: Pair) -> str:
    """The sentences of the passage that hold the quote, in part or as a whole."""
    text, start = pair.passage.text, 0
    found = []
    for end in [*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]:
        if start < pair.end and end > pair.start:
            found.append(text[start:end])
        start = end
    return " ".join(found)


def numbers(text: str) -> frozenset[str]:
    """The numbers in a text, and words with digits in them."""
    return _numbers(content(text))


def _answer_fault(pair: Pair, held: frozenset[str]) -> str | None:
    """Why an answer that is not its quote does not follow from it."""
    if not (said := content(pair.answer)):
        return "an answer without words or numbers of its own"
    if not said & content(pair.quote):
        return "an answer that shares no word with its quote"
    quoted = content(pair.quote)
    if _numbers(said) - held:
        return "an answer with a number that is not in the passage"
    if said - held - content(pair.question):
        return "an answer with words that are not in the passage"
    if said - quoted - content(pair.question):
        return "an answer with more than its quote says"
    match = _PARTICLE.fullmatch(pair.answer)
    assert match, "it matches any text"
    particle, rest = match[1], match[2]
    negated = _negates(pair.quote)
    if _negates(rest) != negated or (particle and negated != (particle.lower() == "no")):
        return "an answer that negates what its quote does not, or the other way round"
    return None


def content(text: str) -> frozenset[str]:
    """The stems of the words that say something, and the numbers."""
    plain = text.replace("`", " ").replace("_", " ")
    return frozenset(_stem(word) for word in tokens(plain) if word not in FUNCTION_WORDS | NEGATIONS)


def agreement(one: str, other: str) -> float:
    """How much two answers share: harmonic mean of precision and recall over content; 0 where their numbers differ."""
    first, second = content(one), content(other)
    if not first or not second or _numbers(first) != _numbers(second) or _negates(one) != _negates(other):
        return 0.0
    return 2 * len(first & second) / (len(first) + len(second))


def _numbers(stems: frozenset[str]) -> frozenset[str]:
    return frozenset(stem for stem in stems if any(char.isdigit() for char in stem))


def _negates(text: str) -> bool:
    return bool(_NEGATED.search(text)) or bool(NEGATIONS & set(tokens(text)))


def _stem(word: str) -> str:
    """The word without its ending, where enough is left; a word with a digit or sign in it as it stands."""
    if not word.isalpha():
        return word
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word
