"""The table of data formats: from which columns each builds a conversation, and by which names these are found.

A column is taken for a word of a format where its name is one that people use for it and what it holds can be that.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from luthier.chat import Conversation
from luthier.data import prompt_templates
from luthier.data.formats import building, checks, names
from luthier.data.formats.cells import Cells
from luthier.data.formats.table import Column, Table
from luthier.data.prompt_templates import ALPACA, ALPACA_WITH_INPUT, ANSWER, QUESTION, QUESTION_ANSWER, PromptTemplate
from luthier.extensions import look_up

Columns = dict[str, str]
"""The format's word → the user's column."""
Holds = Callable[[Column], bool]


def _as_bound(table: Table, columns: Columns) -> Columns | None:
    return columns


def _no_facts(table: Table, columns: Columns) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Format:
    """How to build a conversation, and from which columns: the format's word → the names it is recognised by."""

    build: Callable[[Cells], Conversation]
    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    holds: Mapping[str, Holds] = field(default_factory=dict)
    """What a column must hold to be taken for a word by its name."""
    adjust: Callable[[Table, Columns], Columns | None] = _as_bound
    """The columns that fit together, of those that were found by name; None where they make no such rows after all."""
    facts: Callable[[Table, Columns], dict[str, str]] = _no_facts
    """What building a row needs to know of the whole table, as further cells."""

    by_name_only: bool = False
    """Never recognised from the columns, since another format has the same ones."""

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        return {**self.required, **self.optional}


_SYSTEM: dict[str, tuple[str, ...]] = {"system": names.SYSTEM}
_BESIDE = {
    **_SYSTEM,
    "context": names.CONTEXT,
    "history": names.HISTORY,
    "thoughts": names.THOUGHTS,
    "references": names.MORE_ANSWERS,
    "tools": names.TOOLS,
}
_BESIDE_HOLDS: dict[str, Holds] = {
    "system": checks.system, "context": checks.context, "history": checks.history, "thoughts": checks.thoughts,
    "references": checks.lists, "tools": checks.tools, "instruction": checks.passage, "input": checks.passage,
    "title": checks.passage,
}  # fmt: skip
_CHOICE_COLUMNS = {f"choice{number}": () for number in range(1, 11)}


def _pair(
    question: str, answer: str, asked: tuple[str, ...], answered: tuple[str, ...], **more: tuple[str, ...]
) -> Format:
    return Format(
        building.pair(question, answer),
        {question: asked, answer: answered},
        {**more, **_BESIDE},
        {question: checks.question, answer: checks.answer, **_BESIDE_HOLDS},
        checks.pair(question, answer),
        checks.several_answers(answer),
    )


FORMATS: dict[str, Format] = {
    "preference": Format(
        building.preference,
        {"prompt": names.PREFERENCE_PROMPT, "chosen": names.CHOSEN, "rejected": names.REJECTED},
        {"input": names.INPUT, **_SYSTEM, "history": names.HISTORY},
        {"prompt": checks.question, "chosen": checks.reply, "rejected": checks.reply, **_BESIDE_HOLDS},
    ),
    "preference-chats": Format(
        building.preference,
        {"chosen": names.CHOSEN, "rejected": names.REJECTED},
        _SYSTEM,
        {"chosen": checks.whole_chats, "rejected": checks.whole_chats, **_BESIDE_HOLDS},
    ),
    "preference-votes": Format(
        building.votes,
        {"first": (), "second": (), "winner": names.WINNER},
        {
            "prompt": names.PREFERENCE_PROMPT, "input": names.INPUT, **_SYSTEM, "history": names.HISTORY,
            "second winner": (),
        },
        {"prompt": checks.question, **_BESIDE_HOLDS},
        checks.votes,
        checks.vote_ends,
    ),
    "unpaired-preference-chats": Format(
        building.unpaired(building.messages("messages")),
        {"messages": names.MESSAGES, "label": names.UNPAIRED_LABEL},
        _SYSTEM,
        {"messages": checks.answered_chats, "label": checks.truths, **_BESIDE_HOLDS},
    ),
    "unpaired-preference": Format(
        building.unpaired(building.pair("prompt", "completion")),
        {
            "prompt": (*names.PROMPT[:3], *names.INSTRUCTION, *names.QUESTION),
            "completion": names.COMPLETION[:8],
            "label": names.UNPAIRED_LABEL,
        },
        {"input": names.INPUT, **_BESIDE},
        {"prompt": checks.question, "completion": checks.reply, "label": checks.truths, **_BESIDE_HOLDS},
        checks.pair("prompt", "completion"),
    ),
    "messages": Format(
        building.messages("messages"),
        {"messages": names.MESSAGES[:1]},
        {**_SYSTEM, "tools": names.TOOLS},
        {"messages": checks.chats, **_BESIDE_HOLDS},
    ),
    "conversations": Format(
        building.messages("conversations"),
        {"conversations": names.MESSAGES[1:]},
        {**_SYSTEM, "tools": names.TOOLS},
        {"conversations": checks.chats, **_BESIDE_HOLDS},
    ),
    "choices": Format(
        building.choices,
        {"question": names.STEM, "choices": names.CHOICES, "answer": names.CHOICE_KEY},
        {"context": names.CONTEXT, **_SYSTEM},
        {"question": checks.question, "choices": checks.choices, **_BESIDE_HOLDS},
        checks.builds(building.choices),
        checks.first_choice,
    ),
    "choice-columns": Format(
        building.choices,
        {"question": names.STEM, "choice1": (), "choice2": (), "answer": names.CHOICE_KEY},
        {"context": names.CONTEXT, **_SYSTEM, **_CHOICE_COLUMNS},
        {"question": checks.question, **_BESIDE_HOLDS},
        checks.builds(building.choices),
        checks.first_choice,
    ),
    "question-answer": _pair(
        "question", "answer", (*names.QUESTION, *names.LATE_QUESTION), names.ANSWER,
        instruction=names.INSTRUCTION, input=names.INPUT, title=("question_title", "title", "subject"),
    ),
    "instruction": _pair("instruction", "output", names.INSTRUCTION, names.OUTPUT, input=names.INPUT),
    "prompt-completion": _pair("prompt", "completion", names.PROMPT, names.COMPLETION, input=names.INPUT),
    "classification": Format(
        building.classification,
        {"text": names.LABELLED, "label": names.LABEL},
        {"second": (), "title": names.TITLE, **_SYSTEM},
        {"text": checks.labelled, "label": checks.label, **_BESIDE_HOLDS},
        checks.classification,
        checks.names_of_texts,
    ),
    "input-output": _pair("input", "output", names.SOURCE, names.TARGET),
    "transcript": Format(
        building.transcript,
        {"transcript": names.TRANSCRIPT},
        _SYSTEM,
        {"transcript": checks.transcripts, **_BESIDE_HOLDS},
    ),
    "text": Format(building.document, {"text": names.TEXT}, {}, {"text": checks.document}),
    "question-answer-text": Format(
        prompt_templates.document(PromptTemplate(QUESTION_ANSWER), needed=("question", "answer")),
        {"question": names.QUESTION, "answer": names.ANSWER},
        by_name_only=True,
    ),
    "question-answer-prompt": Format(
        prompt_templates.question(PromptTemplate(QUESTION), "answer"),
        {"question": names.QUESTION, "answer": names.ANSWER},
        _SYSTEM,
        by_name_only=True,
    ),
    "alpaca-prompt": Format(
        prompt_templates.question(PromptTemplate(ALPACA_WITH_INPUT), "output", without_input=PromptTemplate(ALPACA)),
        {"instruction": names.INSTRUCTION, "output": names.OUTPUT},
        {"input": names.INPUT, **_SYSTEM},
        by_name_only=True,
    ),
}  # fmt: skip
"""Every data format by the word in `data.format`, in the order in which columns are recognised."""

RECOGNISED = {name: entry for name, entry in FORMATS.items() if not entry.by_name_only}


def format_of(word: str, columns: Mapping[str, str]) -> Format:
    """The format of this name, or what a user's template makes: a text, or with a column named `answer`, a question."""
    if not prompt_templates.is_template(word):
        return look_up("data format", word, FORMATS, where="data.format")
    template = PromptTemplate(word)
    gaps = {gap: (names.plain(gap), gap) for gap in template.gaps}
    if template.holds_answer or ANSWER not in columns:
        return Format(prompt_templates.document(template), gaps)
    return Format(prompt_templates.question(template, ANSWER), {**gaps, ANSWER: (ANSWER,)}, _SYSTEM)


def is_own(word: str) -> bool:
    """Whether a format is the user's function, "package.module:function"."""
    return ":" in word and not prompt_templates.is_template(word)


def named(word: str) -> str:
    """A format as a message names it: its word, or of a template its text, on one line."""
    return f"the template {json.dumps(word, ensure_ascii=False)}" if prompt_templates.is_template(word) else word
