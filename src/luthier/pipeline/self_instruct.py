"""New tasks from a few: a model writes tasks like those that it is shown, and what is too like one that is there is left out.

Self-Instruct (Wang et al. 2023), with several tasks a reply as Alpaca does it (Taori et al. 2023): three tasks are shown, two
of the user's and one new; a task whose ROUGE-L with any other reaches 0.7 is dropped.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier.data import reading, similarity
from luthier.data.documents import generation
from luthier.data.documents.pairs import Dropped
from luthier.data.words import tokens
from luthier.errors import UserError
from luthier.pipeline.pairs import Account, Listener, Writer, beside, write_account, write_rows
from luthier.recipe import Data

TOO_ALIKE = 0.7
SHOWN_SEEDS, SHOWN_NEW = 2, 1
A_REPLY = 5
"""Tasks that are asked for at once."""
PATIENCE = 8
"""Replies in a row without a new task, after which the model has no more to say."""
FEWEST_WORDS, MOST_WORDS = 3, 150
NOT_FOR_TEXT = re.compile(
    r"\b(?:images?|pictures?|photos?|graphs?|diagrams?|charts?|flowcharts?|videos?|audio|music|draw|plot|go to|files?|maps?)\b",
    re.I,
)
KEYS = ("instruction", "input", "output")


@dataclass(frozen=True)
class Task:
    """What is to be done, with what (perhaps nothing), and how it is done right."""

    instruction: str
    input: str
    output: str

    def shown(self) -> str:
        """The task as a line of JSON."""
        return json.dumps(
            {"instruction": self.instruction, "input": self.input, "output": self.output}, ensure_ascii=False
        )


def grow(seeds: Path, out: Path, *, model: str, count: int, listen: Listener = lambda what, done, of: None) -> Account:
    """Write `count` new tasks as JSON Lines, marked as synthetic, or as many as the model has; killed, it goes on later."""
    own = _seeds(seeds)
    account = Account(documents=0)
    writer = Writer(model, beside(out, "replies.jsonl"), lambda what, done, of: None)
    by = f"model: {writer.name}"
    new: list[Task] = []
    words = [tokens(task.instruction) for task in own]
    number = idle = 0
    while len(new) < count and idle < PATIENCE:
        shown = _sample(own, new, number)
        prompt = generation.prompt("self-instruct").filled(
            count=A_REPLY, tasks="\n".join(task.shown() for task in shown)
        )
        (reply,) = writer.ask([prompt], "tasks")
        number, before = number + 1, len(new)
        found = [Task(**each) for each in generation.objects(reply, KEYS)]
        if not found:
            account.drop(Dropped("a reply that could not be read", f"reply {number}", by))
        for task in found[: count - len(new)]:
            instruction = tokens(task.instruction)
            if reason := fault(task, instruction, words):
                account.drop(Dropped(reason, f"reply {number}", by))
            else:
                new.append(task)
                words.append(instruction)
        idle = 0 if len(new) > before else idle + 1
        listen("new tasks", len(new), count)
    if not new:
        raise UserError(f"the model wrote no new task in {number} replies. Name another model.", where="--with")
    account.kept[by] = len(new)
    write_rows(out, [{**vars(task), "synthetic": True, "by": by} for task in new], account)
    write_account(out, account)
    return account


def fault(task: Task, instruction: Sequence[str], others: Sequence[Sequence[str]]) -> str | None:
    """Why a task is of no use, or None."""
    if not task.output or task.output == task.input:
        return "no output of its own"
    if not FEWEST_WORDS <= len(instruction) <= MOST_WORDS:
        return f"an instruction of fewer than {FEWEST_WORDS} or more than {MOST_WORDS} words"
    if NOT_FOR_TEXT.search(task.instruction):
        return "a task that text alone cannot do"
    if any(similarity.rouge_l(instruction, other) >= TOO_ALIKE for other in others):
        return "too like a task that is there"
    return None


def _seeds(path: Path) -> list[Task]:
    """The user's tasks, in any format of questions and answers."""
    items = reading.load(Data(path=path)).items
    if items[0].conversation.is_document:
        raise UserError(
            "it holds texts; expected tasks with their answers, such as instruction and output.", where=str(path)
        )
    return [Task(item.conversation.question, "", item.conversation.answer) for item in items]


def _sample(own: Sequence[Task], new: Sequence[Task], number: int) -> list[Task]:
    """The tasks that the `number`th prompt shows: the same when asked again."""
    draw = random.Random(f"self-instruct {number}")
    shown = draw.sample(own, min(SHOWN_SEEDS, len(own))) + draw.sample(new, min(SHOWN_NEW, len(new)))
    draw.shuffle(shown)
    return shown
