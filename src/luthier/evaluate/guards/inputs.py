"""What a guard reads (a run, the user's own material) and what it makes: tasks for a model to do."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from luthier.chat import Message
from luthier.data.dataset import Item
from luthier.data.questions import read as read_questions
from luthier.data.readers.files import read_rows
from luthier.data.readers.values import as_text
from luthier.errors import UserError
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.guards.check_result import CheckResult
from luthier.recipe import Evaluate

MATERIAL = files("luthier.evaluate.guards") / "material"
"""Texts and questions that come with Luthier, written for this purpose."""

BASE, TUNED = "base", "fine-tuned"
ANSWER_TOKENS = 48
"""Longest answer to a guard's question: a refusal or a fact takes fewer tokens."""


@dataclass(frozen=True)
class Passage:
    """A text; the model is scored by how well it predicts it."""

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
    """Something to answer. Above temperature 0 the answer is sampled, and `sample` numbers the draws.

    `with_instruction`: the base model gets it with the prompt arms' instruction, as in the comparison itself.
    `extra` fields are written beside the answer, for `assess` to read.
    """

    id: str
    messages: Sequence[Message]
    temperature: float = 0.0
    sample: int = 0
    with_instruction: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[str] = ()


Task = Passage | Choice | Question


@dataclass(frozen=True)
class Fact:
    """A fact that the tuned model should know; with `neighbour`, a related one that it must not forget."""

    question: str
    answer: str
    old_answer: str = ""
    neighbour: bool = False


@dataclass(frozen=True)
class UserMaterial:
    """The user's own questions and facts, read from the files that the recipe names."""

    out_of_scope: Sequence[str] = ()
    facts: Sequence[Fact] = ()

    def to_json(self) -> str:
        """The run's copy of it: a later evaluation does not need the user's files."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def of(cls, path: Path) -> "UserMaterial":
        """Read a run's copy; empty where there is no such file."""
        values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"out_of_scope": [], "facts": []}
        return cls(tuple(values["out_of_scope"]), tuple(Fact(**fact) for fact in values["facts"]))


@dataclass(frozen=True)
class GuardInputs:
    """What a guard reads of a run."""

    test: Sequence[Item]
    train: Sequence[Item]
    settings: Evaluate
    system: str | None
    seed: int
    user_material: UserMaterial = UserMaterial()

    @property
    def documents(self) -> bool:
        """Whether the data is text to continue, so that there are no questions and no answers."""
        return self.test[0].conversation.is_document

    @property
    def fixed_form(self) -> bool:
        """Whether a program reads the answers (labels, JSON); it could not read a refusal."""
        return self.settings.metric in {"accuracy", "field_accuracy", "json_valid", "exact_match"}

    def question(self, text: str) -> tuple[Message, ...]:
        """A question as a conversation, behind the run's system message where it has one."""
        return (*((Message("system", self.system),) if self.system else ()), Message("user", text))


@dataclass(frozen=True)
class Guard:
    """When a guard applies, the tasks that it makes, and how it reads the answers; all three without a model.

    `assess` gets the guard's own answers by both models, and all of answers.jsonl. It gives one result for each check.
    """

    applies: Callable[[GuardInputs], bool]
    make_tasks: Callable[[GuardInputs], Sequence[Task]]
    assess: Callable[[GuardInputs, Sequence[AnswerRecord], Sequence[AnswerRecord]], list[CheckResult]]


def records_by_item(records: Sequence[AnswerRecord], arm: str) -> dict[str, AnswerRecord]:
    """One model's records by item, sorted by item."""
    of_arm = sorted((each for each in records if each["arm"] == arm), key=lambda each: str(each["item"]))
    return {each["item"]: each for each in of_arm}


def read_user_material(settings: Evaluate) -> UserMaterial:
    """The user's out-of-scope questions and facts; raises a UserError that names a row that cannot be used."""
    asked: list[str] = []
    if settings.out_of_scope is not None:
        asked = [each.messages[-1].content for each in read_questions(settings.out_of_scope)]
    return UserMaterial(
        tuple(dict.fromkeys(asked)), tuple(_facts(settings.facts)) if settings.facts is not None else ()
    )


def _facts(path: Path) -> list[Fact]:
    """The rows of a file with the columns `question` and `answer`; `old_answer` and `neighbour` are optional."""
    facts = []
    for row in read_rows(path):
        values = {name: as_text(value).strip() for name, value in row.values.items()}
        if missing := [name for name in ("question", "answer") if not values.get(name)]:
            message = f"a fact needs a question and an answer; {' and '.join(missing)} missing here."
            raise UserError(f"{message} Optional columns: old_answer, neighbour.", where=row.location)
        neighbour = values.get("neighbour", "").casefold()
        if neighbour not in {"", "true", "false", "1", "0", "yes", "no"}:
            raise UserError(f'neighbour should be true or false, found "{neighbour}".', where=row.location)
        old = values.get("old_answer", "")
        facts.append(Fact(values["question"], values["answer"], old, neighbour in {"true", "1", "yes"}))
    if not facts:
        raise UserError("no facts in it; expected a row for each, with question and answer.", where=str(path))
    return facts
