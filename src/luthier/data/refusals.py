"""What a refusal sounds like: rules for English, and a pattern of the user's own."""

import re

from luthier.data.words import one_spelling, sentences, words
from luthier.errors import UserError

REFUSALS: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "does not know": r"\bi (?:(?:really |simply |honestly )?(?:do not|don't) (?:know|have (?:any |enough |that |the |"
        r"personal |real-time |access to )*(?:information|knowledge|data|details|opinions?|feelings|beliefs|preferences|"
        r"experiences?))|have no (?:information|knowledge|idea|data|opinion))\b",
        "is not sure": r"^\W*(?:sorry,? |unfortunately,? )?i(?: am|'m) (?:not sure|not certain|unsure|not familiar)\b",
        "may not or cannot say": r"\bi(?: am|'m)? (?:cannot|can not|can't|could not|couldn't|unable to|not able to|not allowed"
        r" to|won't|will not) (?:answer|help (?:you )?with (?:that|this)|assist|provide|reveal|share|disclose|discuss|comment|"
        r"tell you|say|give (?:you )?(?:that|this|any))\b",
        "apologises": r"^\W*(?:i(?: am|'m) )?(?:very |so )?(?:sorry\b|(?:i )?apologi[sz]e\b|my apologies\b)",
        "keeps to its subject": r"\b(?:let's|let us|please) (?:keep|stick|stay|focus|return|get back)\b[^.!?]*\b(?:relevant|"
        r"related|topic|subject|discussion|conversation|focused|to)\b",
        "speaks of one subject only": r"\b(?:i|we|this (?:\w+ )?(?:documentation|assistant|bot|service)|it) (?:can |will |am "
        r"able to |is |am |are )*(?:only |solely |just )(?:be able to |able to )?(?:answers?|talks?|discuss(?:es)?|helps?|"
        r"responds?|covers?|about)\b",
        "calls it out of its field": r"\b(?:(?:outside|beyond|out of|not (?:with)?in|not part of) (?:of )?(?:my|our|the|this)"
        r" (?:\w+ )?(?:scope|knowledge|expertise|area|field|documentation|topic|domain)|off[- ]topic|out of scope)\b",
        "wishes it could": r"^\W*i wish\b",
    }.items()
}
"""What a refusal sounds like, by what it says. `is_refusal` looks in the first two sentences of an answer only."""

REFUSAL_WORDS_AT_MOST = 60  # a longer answer that begins with an apology goes on to answer


def is_refusal(answer: str, user_pattern: re.Pattern[str] | None = None) -> bool:
    """Whether the answer declines to answer, by `REFUSALS` or by the user's own pattern.

    That one is searched for in the whole answer.
    """
    if user_pattern is not None and user_pattern.search(answer):
        return True
    if len(words(one_spelling(answer), apostrophes=True)) > REFUSAL_WORDS_AT_MOST:
        return False
    beginning = one_spelling(" ".join(sentences(answer)[:2]))
    return any(pattern.search(beginning) for pattern in REFUSALS.values())


def refusal_pattern(text: str | None, *, where: str = "evaluate.errors.refusal") -> re.Pattern[str] | None:
    """A user's regular expression, upper and lower case alike; None stays None."""
    if text is None:
        return None
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise UserError(f'not a regular expression: {error}; found "{text}".', where=where) from None
