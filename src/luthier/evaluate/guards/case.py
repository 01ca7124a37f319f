"""What a guard works with: a case to look into, and tasks to put to a model."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from luthier.chat import Message
from luthier.data.dataset import Item
from luthier.data.files import read_rows
from luthier.data.questions import read as read_questions
from luthier.data.values import as_text
from luthier.errors import UserError
from luthier.evaluate.guards.finding import Finding
from luthier.recipe import Evaluate

Line = Mapping[str, Any]
"""One line of guard-answers.jsonl or answers.jsonl."""

MATERIAL = files("luthier.evaluate.guards") / "material"
"""The texts and questions that are shipped, written for this purpose."""

BASE, TUNED = "base", "fine-tuned"
ANSWER_TOKENS = 48  # longest answer to a guard's question: refusing, and saying a fact, takes fewer


@dataclass(frozen=True)
class Passage:
    """A text to be predicted."""

    id: str
    kind: str
    text: str


@dataclass(frozen=True)
class Choice:
    """A question with choices, of which `right` is the index of the right one; scored by likelihood."""

    id: str
    question: str
    choices: Sequence[str]
    right: int


@dataclass(frozen=True)
class Question:
    """Something to answer. With a temperature the answer is drawn, `sample` telling one draw from another.

    `told` questions come with the instruction of the prompt arms when the base model answers them, as in the comparison
    itself. `note` is kept beside the answer for the assessment.
    """

    id: str
    messages: Sequence[Message]
    temperature: float = 0.0
    sample: int = 0
    told: bool = False
    note: Mapping[str, Any] = field(default_factory=dict)


Task = Passage | Choice | Question


@dataclass(frozen=True)
class Fact:
    """A fact that the tuned model should know, or with `neighbour`, one beside it that must stay as it was."""

    question: str
    answer: str
    old_answer: str = ""
    neighbour: bool = False


@dataclass(frozen=True)
class Own:
    """The user's material, read from the files that the recipe names."""

    out_of_scope: Sequence[str] = ()
    facts: Sequence[Fact] = ()

    def to_json(self) -> str:
        """As the run keeps it, so that it needs the user's files no longer."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def of(cls, path: Path) -> "Own":
        """What a run keeps; nothing where it has none."""
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"out_of_scope": [], "facts": []}
        return cls(tuple(kept["out_of_scope"]), tuple(Fact(**fact) for fact in kept["facts"]))


@dataclass(frozen=True)
class Case:
    """One run, as a guard sees it."""

    test: Sequence[Item]
    train: Sequence[Item]
    settings: Evaluate
    system: str | None
    seed: int
    own: Own = Own()

    @property
    def documents(self) -> bool:
        """Whether the data is text to continue: nothing is asked, so there are no answers to watch."""
        return self.test[0].conversation.is_document

    @property
    def fixed_form(self) -> bool:
        """Whether answers are read by a program (labels, JSON), so that a refusal could not be read either."""
        return self.settings.metric in {"accuracy", "field_accuracy", "json_valid", "exact_match"}

    def question(self, text: str) -> tuple[Message, ...]:
        """A question of ours as the model's conversations begin."""
        return (*((Message("system", self.system),) if self.system else ()), Message("user", text))


@dataclass(frozen=True)
class Guard:
    """What it watches, when it applies, what it asks, and how it reads the answers; all four without a model.

    `assess` gets the guard's own lines (of both models) and those of answers.jsonl; one finding for each thing it checks.
    """

    title: str
    applies: Callable[[Case], bool]
    material: Callable[[Case], Sequence[Task]]
    assess: Callable[[Case, Sequence[Line], Sequence[Line]], list[Finding]]


def of_arm(notes: Sequence[Line], arm: str) -> dict[str, Line]:
    """One model's lines by item, in the items' order."""
    lines = sorted((line for line in notes if line["arm"] == arm), key=lambda line: str(line["item"]))
    return {line["item"]: line for line in lines}


def read_own(settings: Evaluate) -> Own:
    """The user's out-of-scope questions and facts; raises a UserError that names the row which cannot be used."""
    asked: list[str] = []
    if settings.out_of_scope is not None:
        asked = [messages[-1].content for messages in read_questions(settings.out_of_scope)]
    return Own(tuple(dict.fromkeys(asked)), tuple(_facts(settings.facts)) if settings.facts is not None else ())


def _facts(path: Path) -> list[Fact]:
    """The rows of a file with `question`, `answer` and, where wanted, `old_answer` and `neighbour`."""
    facts = []
    for row in read_rows(path):
        values = {name: as_text(value).strip() for name, value in row.values.items()}
        if missing := [name for name in ("question", "answer") if not values.get(name)]:
            told = f"a fact needs a question and an answer; {' and '.join(missing)} missing here."
            raise UserError(f"{told} Further columns: old_answer, neighbour.", where=row.place)
        neighbour = values.get("neighbour", "").casefold()
        if neighbour not in {"", "true", "false", "1", "0", "yes", "no"}:
            raise UserError(f'neighbour should be true or false, found "{neighbour}".', where=row.place)
        old = values.get("old_answer", "")
        facts.append(Fact(values["question"], values["answer"], old, neighbour in {"true", "1", "yes"}))
    if not facts:
        raise UserError("no facts in it; expected a row for each, with question and answer.", where=str(path))
    return facts
