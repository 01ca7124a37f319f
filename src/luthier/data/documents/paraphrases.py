"""Questions in other words by rules, for the forms where that is safe, and questions that the documents do not answer."""

import re
from collections.abc import Iterable, Sequence

from luthier.data.documents import support
from luthier.data.documents.pairs import Pair
from luthier.data.documents.passages import Passage

_THING = r"((?:(?:an?|the|my|your|our) |[A-Z0-9`\"])[^,;]*)"
FORMS = (
    (rf"What (is|are) {_THING}\?", r"Can you tell me what \2 \1?"),
    (rf'In "(.+?)", what (is|are) {_THING}\?', r'Can you tell me what \3 \2, in "\1"?'),
    (r"What (?:does|do) (.+) mean\?", r"What is meant by \1?"),
    (r"What does (.+) do\?", r"What is the effect of \1?"),
    (r"What should I do about (.+)\?", r"What is to be done about \1?"),
    (r"How do I (.+)\?", r"What do I have to do to \1?"),
    (r"How can I (.+)\?", r"What can I do to \1?"),
    (rf"Where (is|are) {_THING}\?", r"In which place \1 \2?"),
    (r"Can I (.+)\?", r"Is it possible for me to \1?"),
)
"""A question, and the same question in other words."""
KNOWN_SHARE = 0.5
"""A passage that holds so much of a question and its answer may answer it."""


def by_rule(question: str) -> str | None:
    """The question in other words; None for a form that no rule knows."""
    for pattern, other in FORMS:
        if match := re.fullmatch(pattern, question):
            return match.expand(other)
    return None


def out_of_scope(others: Iterable[Pair], here: Sequence[Passage]) -> list[Pair]:
    """The pairs of other documents that are not answered here: no passage has half of the words of question and answer."""
    held = [support.content(f"{passage.heading}\n{passage.text}") for passage in here]
    found = []
    for pair in others:
        asked, answer = support.content(pair.question), support.content(pair.answer)
        words = asked | answer
        near = any(len(words & passage) >= KNOWN_SHARE * len(words) for passage in held)
        stands = any(answer <= passage and asked & passage for passage in held)
        if answer and not near and not stands:
            found.append(pair)
    return found
