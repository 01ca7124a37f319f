"""Questions to models: once, from a file, side by side, and in conversations that remember.

A model is a run or any other model by name; several adapters can share one base, switched per question.
"""

import contextlib
import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import shorten

from luthier import proof
from luthier import recipe as recipes
from luthier.chat import Message
from luthier.data import questions as file_questions
from luthier.errors import Mistake, choose
from luthier.model import generate, loading, tuned
from luthier.model.loading import LanguageModel
from luthier.runs import Run, write_atomic

Tell = Callable[[str], object]
"""Hears what is worth knowing about a model's files."""


def load_model(name: str, tell: Tell = lambda note: None) -> tuple[LanguageModel, str | None]:
    """A run's tuned model or any other model by name, with the system message that its conversations start with."""
    current = Run(Path(name)) if (Path(name) / "run.json").is_file() else None
    lm = proof.load_tuned(current) if current else loading.load(name)
    for note in lm.notes:
        tell(note)
    return lm, recipes.load(current.folder / "recipe.toml").data.system if current else None


def ask(lm: LanguageModel, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int) -> list[str]:
    """Answers in the order of the prompts; greedy, so each is the same alone and in company."""
    ids = [lm.template.prompt(prompt) for prompt in prompts]
    for prompt, tokens in zip(prompts, ids, strict=True):
        _expect_room(lm, tokens, prompt[-1].content)
    return [lm.template.reply(reply.ids) for reply in generate.answer(lm, ids, max_new_tokens=max_new_tokens)]


def _expect_room(lm: LanguageModel, tokens: Sequence[int], text: str) -> None:
    """Refuses a question that leaves no token of the context for its answer."""
    if len(tokens) >= lm.context:
        told = f"the question has {len(tokens):,} tokens; the model looks back on {lm.context:,}. Shorten it."
        raise Mistake(told, where=shorten(text, 60, placeholder="…"))


def question(text: str, system: str | None) -> tuple[Message, ...]:
    """A question as a prompt, after the system message that the model's conversations start with."""
    return (*((Message("system", system),) if system else ()), Message("user", text))


@dataclass(frozen=True)
class Answer:
    """One model's answer to one question."""

    model: str
    text: str
    seconds: float


def compare(
    text: str, names: Sequence[str], *, max_new_tokens: int, tell: Tell = lambda note: None
) -> Iterator[Answer]:
    """The answers of several models to one question, one model in memory at a time."""
    for name in names:
        lm, system = load_model(name, tell)
        start = time.perf_counter()
        (answer,) = ask(lm, [question(text, system)], max_new_tokens=max_new_tokens)
        yield Answer(name, answer, time.perf_counter() - start)
        del lm
        gc.collect()


def ask_file(
    name: str,
    questions: Path,
    output: Path,
    *,
    max_new_tokens: int,
    adapters: Mapping[str, Path] | None = None,
    tell: Tell = lambda note: None,
) -> int:
    """Answer every row of a file of questions; writes JSONL with `question` and `answer` in file order, and counts them.

    With `adapters` of runs beside the model, a row's column `adapter` says which one answers it; without a name, the model.
    """
    if not output.absolute().parent.is_dir():
        raise Mistake("there is no such folder to write to; make it first.", where=str(output.absolute().parent))
    like = next(iter(adapters.values())) if adapters else Path(name)
    is_run = (like / "run.json").is_file()
    asked = file_questions.read(questions, recipes.load(like / "recipe.toml").data if is_run else None)
    names: list[str | None] = [None] * len(asked)
    if adapters:
        known: dict[str, str | None] = {"": None, **{each: each for each in adapters}}
        places = file_questions.named(questions, "adapter")
        names = [choose("adapter", word, known, where=place) for word, place in places]
        answers = _shared_answers(tuned.load_shared(name, adapters), names, asked, max_new_tokens)
    else:
        lm, system = load_model(name, tell)
        answers = ask(lm, _headed(asked, system), max_new_tokens=max_new_tokens)
    lines = [
        {"question": prompt[-1].content, "answer": answer, **({"adapter": who or ""} if adapters else {})}
        for prompt, answer, who in zip(asked, answers, names, strict=True)
    ]
    write_atomic(output, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return len(lines)


def _shared_answers(
    shared: tuned.Shared, names: Sequence[str | None], asked: Sequence[Sequence[Message]], max_new_tokens: int
) -> list[str]:
    """The answer of each question's adapter; None lets the base answer."""
    answers = [""] * len(asked)
    for name in dict.fromkeys(names):
        rows = [row for row, wanted in enumerate(names) if wanted == name]
        with shared.switched(name) as system:
            found = ask(shared.lm, _headed([asked[row] for row in rows], system), max_new_tokens=max_new_tokens)
        for row, answer in zip(rows, found, strict=True):
            answers[row] = answer
    return answers


def _headed(asked: Sequence[Sequence[Message]], system: str | None) -> list[Sequence[Message]]:
    """The prompts, those without a system message behind the one that the model's conversations start with."""
    head = question("", system)[:-1]
    return [prompt if prompt[0].role == "system" else (*head, *prompt) for prompt in asked]


@dataclass
class Chat:
    """A conversation with a model that remembers what was said."""

    lm: LanguageModel
    system: str | None = None
    max_new_tokens: int = 512
    on: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    """Entered while the model answers: switches to the adapter that this conversation is with."""

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start afresh."""
        self.history: list[Message] = [Message("system", self.system)] if self.system else []

    def say(self, text: str) -> Iterator[str]:
        """The answer, piece by piece; the oldest turns are forgotten when the context is full.

        Raises a Mistake for a message that does not fit even alone; it is then as if it had not been said.
        """
        before = list(self.history)
        self.history.append(Message("user", text))
        head = [message for message in self.history if message.role == "system"]
        while len(prompt := self.lm.template.prompt(self.history)) + self.max_new_tokens > self.lm.context:
            turns = self.history[len(head) :]
            if len(turns) <= 1:
                break
            self.history = [*head, *turns[2:]]
        try:
            _expect_room(self.lm, prompt, text)
        except Mistake:
            self.history = before
            raise
        ids: list[int] = []
        shown = ""
        with self.on():
            for token in generate.stream(self.lm, prompt, max_new_tokens=self.max_new_tokens):
                ids.append(token)
                text_now = self.lm.template.reply(ids)
                if text_now.startswith(shown) and not text_now.endswith(
                    "\ufffd"
                ):  # a character may need several tokens
                    yield text_now[len(shown) :]
                    shown = text_now
        self.history.append(Message("assistant", self.lm.template.reply(ids)))


def shared_chats(base: str, adapters: Mapping[str, Path], max_new_tokens: int) -> dict[str, Chat]:
    """A conversation with each adapter and, by its own name, with the base: one model in memory, switched per question."""
    shared = tuned.load_shared(base, adapters)
    names: dict[str, str | None] = {Path(base).name: None, **{name: name for name in adapters}}
    return {
        name: Chat(
            shared.lm, shared.systems.get(wanted) if wanted else None, max_new_tokens, partial(shared.switched, wanted)
        )
        for name, wanted in sorted(names.items(), key=lambda each: each[1] is None)
    }
