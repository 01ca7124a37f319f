"""Texts with gaps, `### Question:\\n{question}`, which a row's columns fill: those of the course by name, or a user's own.

A template that holds the answer too makes a document, all of which is trained on; one that ends where the answer is to come
makes a question, and the answer comes from a column of its own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from luthier.chat import Conversation
from luthier.data.readers.values import Value, as_text

QUESTION = "### Question:\n{question}\n\n### Answer:"
QUESTION_ANSWER = QUESTION + "\n{answer}"
_ALPACA_END = "\n\n### Response:"
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}" + _ALPACA_END
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}" + _ALPACA_END
)

PROMPT_TEMPLATES: dict[str, str] = {
    "question": QUESTION,
    "question-answer": QUESTION_ANSWER,
    "alpaca": ALPACA,
    "alpaca-with-input": ALPACA_WITH_INPUT,
}
"""The templates that the course "Finetuning Large Language Models" trains with; Stanford Alpaca has the last two (Taori et al.
2023). Models that were tuned with them expect them to the last byte."""

ANSWER = "answer"
_GAP = re.compile(r"\{([^\W\d][\w -]*)\}")


@dataclass(frozen=True)
class PromptTemplate:
    """A text with gaps. Only `{word}` is a gap, so braces of JSON stay as they are."""

    text: str

    @property
    def gaps(self) -> tuple[str, ...]:
        """The words that it needs values for, in the order in which they first stand in it."""
        return tuple(dict.fromkeys(_GAP.findall(self.text)))

    @property
    def holds_answer(self) -> bool:
        """Whether the answer has a gap, so that what is filled is a whole text."""
        return ANSWER in self.gaps

    def fill(self, values: Mapping[str, Value]) -> str:
        """The text with values in its gaps, blanks and all; a gap without a value is a KeyError.

        >>> PromptTemplate(QUESTION).fill({"question": "Where is it?"})
        '### Question:\\nWhere is it?\\n\\n### Answer:'
        """
        return _GAP.sub(lambda gap: as_text(values[gap[1]]), self.text)


def is_template(word: str) -> bool:
    """Whether a word of the recipe is a text with gaps, and no name."""
    return bool(_GAP.search(word))


def document(template: PromptTemplate, *, needed: Sequence[str] = ()) -> Callable[[Mapping[str, Value]], Conversation]:
    """What builds of a row the filled text, to be trained on as it is; not where a needed value is blank, or all are."""

    def build(cells: Mapping[str, Value]) -> Conversation:
        blank = [gap for gap in template.gaps if not as_text(cells[gap]).strip()]
        if len(blank) == len(template.gaps) or any(gap in needed for gap in blank):
            raise ValueError(f"empty {' and '.join(blank)}")
        return Conversation.document(template.fill(cells))

    return build


def question(
    template: PromptTemplate, answer: str, *, without_input: PromptTemplate | None = None
) -> Callable[[Mapping[str, Value]], Conversation]:
    """What builds of a row a question, the filled text, with the answer of a column; not where nothing fills the text.

    `without_input` is used where the row's `input` is blank, or there is none.
    """

    def build(cells: Mapping[str, Value]) -> Conversation:
        used = without_input if without_input and not as_text(cells.get("input")).strip() else template
        if not any(as_text(cells[gap]).strip() for gap in used.gaps):
            raise ValueError("empty question" if as_text(cells[answer]).strip() else "empty question and answer")
        return Conversation.pair(used.fill(cells), as_text(cells[answer]), system=as_text(cells.get("system")) or None)

    return build
