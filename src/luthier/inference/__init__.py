"""Questions to models: once, from a file, side by side, and in conversations that remember.

A model is a run or any other model by name; several adapters can share one base, switched per question.
"""

import contextlib
import gc
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

from luthier import recipe as recipes
from luthier.chat import Message
from luthier.data import questions as file_questions
from luthier.errors import CorruptedState, Interrupted, UserError, choose
from luthier.evaluate import context
from luthier.model import loading, replies, tuned
from luthier.model.loading import LanguageModel
from luthier.model.replies import THINKING, Room, Said
from luthier.runs import Run, durable
from luthier.runs.durable import write_atomic
from luthier.runs.signals import stopping

Tell = Callable[[str], object]
"""Hears what is worth knowing about a model's files."""


@dataclass(frozen=True)
class Speaker:
    """A model that can be asked, with the system message that its conversations start with and its room for thoughts."""

    lm: LanguageModel
    system: str | None = None
    thinking: int | None = None
    """Tokens; None is the usual room, where the model's template lets it think."""

    def room(self, max_new_tokens: int) -> Room:
        return Room.of(self.lm, max_new_tokens, self.thinking)


def _unheard(note: str) -> None:
    """Nobody listens."""


def load_model(name: str, thinking: int | None = None, tell: Tell = _unheard) -> Speaker:
    """A run's tuned model or any other model by name; unless told otherwise with the room for thoughts that the run had."""
    system = None
    if (Path(name) / "run.json").is_file():
        current = Run(Path(name))
        recipe = recipes.load(current.folder / "recipe.toml")
        lm, system = context.load_tuned(current), recipe.data.system
        thinking = recipe.evaluate.thinking_tokens if thinking is None else thinking
    else:
        lm = loading.load(name)
    return _heard(Speaker(lm, system, thinking), tell)


def load_base(current: Run, thinking: int | None = None, tell: Tell = _unheard) -> Speaker:
    """The model that a run started from, under the template variables and the date of the run."""
    recipe = recipes.load(current.folder / "recipe.toml")
    lm = loading.load(recipe.model, variables=recipe.chat.variables, today=recipe.chat.date)
    return _heard(Speaker(lm, None, recipe.evaluate.thinking_tokens if thinking is None else thinking), tell)


def _heard(speaker: Speaker, tell: Tell) -> Speaker:
    """The speaker, when what is worth knowing about its files has been told."""
    for note in speaker.lm.notes:
        tell(note)
    return speaker


def ask(
    speaker: Speaker,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    on_batch: Callable[[dict[int, Said]], None] | None = None,
) -> list[Said]:
    """Answers in the order of the prompts; greedy, so each is the same alone and in company.

    `on_batch` sees answers by the numbers of their prompts, as soon as they are there.
    """
    lm = speaker.lm
    ids = [lm.template.prompt(prompt) for prompt in prompts]
    for prompt, tokens in zip(prompts, ids, strict=True):
        _expect_room(lm, tokens, prompt[-1].content)
    return replies.ask(lm, ids, speaker.room(max_new_tokens), on_batch=on_batch)


def _expect_room(lm: LanguageModel, tokens: Sequence[int], text: str) -> None:
    """Refuses a question that leaves no token of the context for its answer."""
    if len(tokens) >= lm.context:
        told = f"the question has {len(tokens):,} tokens; the model looks back on {lm.context:,}. Shorten it."
        raise UserError(told, where=shorten(text, 60, placeholder="…"))


def question(text: str, system: str | None) -> tuple[Message, ...]:
    """A question as a prompt, after the system message that the model's conversations start with."""
    return (*((Message("system", system),) if system else ()), Message("user", text))


@dataclass(frozen=True)
class Answer:
    """One model's answer to one question."""

    model: str
    said: Said
    seconds: float


def compare(
    text: str, names: Sequence[str], *, max_new_tokens: int, thinking: int | None = None, tell: Tell = _unheard
) -> Iterator[Answer]:
    """The answers of several models to one question, one model in memory at a time."""
    for name in names:
        speaker = load_model(name, thinking, tell)
        start = time.perf_counter()
        (said,) = ask(speaker, [question(text, speaker.system)], max_new_tokens=max_new_tokens)
        yield Answer(name, said, time.perf_counter() - start)
        del speaker
        gc.collect()


def ask_file(
    name: str,
    questions: Path,
    output: Path,
    *,
    max_new_tokens: int,
    thinking: int | None = None,
    adapters: Mapping[str, Path] | None = None,
    tell: Tell = _unheard,
) -> tuple[int, int]:
    """Answer every row of a file of questions; writes JSONL with `question`, `answer` and, where the model thought, `thoughts`
    in file order. Counts the answers, and those that never came, because the model was still thinking.

    Until all are there they are kept in a file beside it that ends in `.part`, from which the same command goes on.

    With `adapters` of runs beside the model, a row's column `adapter` says which one answers it; without a name, the model.
    """
    if not output.absolute().parent.is_dir():
        raise UserError("there is no such folder to write to; make it first.", where=str(output.absolute().parent))
    like = next(iter(adapters.values())) if adapters else Path(name)
    is_run = (like / "run.json").is_file()
    asked = file_questions.read(questions, recipes.load(like / "recipe.toml").data if is_run else None)
    names: list[str | None] = [None] * len(asked)
    if adapters:
        known: dict[str, str | None] = {"": None, **{each: each for each in adapters}}
        places = file_questions.named(questions, "adapter")
        names = [choose("adapter", word, known, where=place) for word, place in places]
        shared = tuned.load_shared(name, adapters, thinking)
        speaker = Speaker(shared.lm, None, shared.thinking)
    else:
        shared, speaker = None, load_model(name, thinking, tell)
    models = [speaker.lm.folder, *(folder / "model" for folder in (adapters or {}).values())]
    first = speaker.lm.template.prompt(asked[0])  # which holds the day, where the template tells it
    room = [max_new_tokens, speaker.thinking, version("luthier")]
    kept = _Kept.of(output, [repr(asked), names, first, room, list(map(_files, models))])
    with stopping(lambda: tell("stopping after these answers; Ctrl-C again stops at once")) as stop:
        for wanted in dict.fromkeys(names):
            rows = [row for row, who in enumerate(names) if who == wanted and row not in kept.answers]
            with shared.switched(wanted) if shared else contextlib.nullcontext(speaker.system) as system:
                prompts = _headed([asked[row] for row in rows], system)
                ask(speaker, prompts, max_new_tokens=max_new_tokens, on_batch=partial(kept.add, rows, len(asked), stop))
    answers = [kept.answers[row] for row in range(len(asked))]
    lines = [
        {
            "question": prompt[-1].content,
            "answer": said.text,
            **({} if said.thoughts is None else {"thoughts": said.thoughts}),
            **({"adapter": who or ""} if adapters else {}),
        }
        for prompt, said, who in zip(asked, answers, names, strict=True)
    ]
    write_atomic(output, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    durable.remove(kept.path)
    return len(lines), sum(said.finish == THINKING for said in answers)


@dataclass(frozen=True)
class _Kept:
    """The answers of a file of questions that are there already, by row, and the file that keeps them beside the output."""

    path: Path
    answers: dict[int, Said]

    @classmethod
    def of(cls, output: Path, asked: object) -> "_Kept":
        """Those of the command before, if it asked the same of the same models."""
        path = output.with_name(f"{output.name}.part")
        head = {"luthier ask": hashlib.sha256(json.dumps(asked).encode()).hexdigest()}
        if path.exists():
            first, *lines = _readable(path) or [{}]
            if first == head:
                return cls(path, {line["row"]: Said(**line["said"]) for line in lines})
            if first.keys() != head.keys():
                raise UserError("already there, and no file of `luthier ask`; move it away.", where=str(path))
        write_atomic(path, json.dumps(head) + "\n")
        return cls(path, {})

    def add(self, rows: Sequence[int], of: int, stop: Callable[[], bool], answers: Mapping[int, Said]) -> None:
        """Keep the answers to some of the prompts, which were those of these rows; raises Interrupted if asked to stop."""
        found = {rows[number]: said for number, said in answers.items()}
        self.answers.update(found)
        durable.append_json_lines(self.path, [{"row": row, "said": asdict(said)} for row, said in found.items()])
        if stop() and len(self.answers) < of:
            raise Interrupted(
                f"stopped with {len(self.answers):,} of {of:,} answers, which are kept; the same command goes on.",
                where=str(self.path),
            )


def _readable(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that may be ours, without what a crash cut short; nothing is changed in it."""
    try:
        lines = durable.read_json_lines(path)
    except CorruptedState:
        return []
    return lines if all(isinstance(line, dict) for line in lines) else []


def _files(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of a model's files: enough to see that it was exchanged."""
    found = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]


def _headed(asked: Sequence[Sequence[Message]], system: str | None) -> list[Sequence[Message]]:
    """The prompts, those without a system message behind the one that the model's conversations start with."""
    head = question("", system)[:-1]
    return [prompt if prompt[0].role == "system" else (*head, *prompt) for prompt in asked]


class Piece(NamedTuple):
    """Some more of a reply, of its thoughts or of its answer."""

    text: str
    thought: bool = False


@dataclass
class Chat:
    """A conversation with a model that remembers what was said."""

    speaker: Speaker
    max_new_tokens: int = 512
    on: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    """Entered while the model answers: switches to the adapter that this conversation is with."""

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start afresh."""
        system = self.speaker.system
        self.history: list[Message] = [Message("system", system)] if system else []

    def say(self, text: str) -> Iterator[Piece]:
        """The reply, piece by piece; the oldest turns are forgotten when the context is full.

        Raises a UserError for a message that does not fit even alone; it is then as if it had not been said.
        """
        before = list(self.history)
        self.history.append(Message("user", text))
        lm, room = self.speaker.lm, self.speaker.room(self.max_new_tokens)
        head = [message for message in self.history if message.role == "system"]
        while len(prompt := lm.template.prompt(self.history)) + room.tokens > lm.context:
            turns = self.history[len(head) :]
            if len(turns) <= 1:
                break
            self.history = [*head, *turns[2:]]
        try:
            _expect_room(lm, prompt, text)
        except UserError:
            self.history = before
            raise
        said = None
        shown = {True: "", False: ""}
        with self.on():
            for said in replies.stream(lm, prompt, room):
                for thought, now in ((True, said.thoughts or ""), (False, said.text)):
                    # a character may need several tokens, and blanks at the end may turn out to be outer ones
                    if now.startswith(shown[thought]) and not now.endswith("\ufffd") and now != shown[thought]:
                        yield Piece(now[len(shown[thought]) :], thought)
                        shown[thought] = now
        if said is not None:
            self.history.append(Message("assistant", said.text, reasoning=said.thoughts))


def shared_chats(
    base: str, adapters: Mapping[str, Path], max_new_tokens: int, thinking: int | None = None
) -> dict[str, Chat]:
    """A conversation with each adapter and, by its own name, with the base: one model in memory, switched per question."""
    shared = tuned.load_shared(base, adapters, thinking)
    names: dict[str, str | None] = {Path(base).name: None, **{name: name for name in adapters}}
    return {
        name: Chat(
            Speaker(shared.lm, shared.systems.get(wanted) if wanted else None, shared.thinking),
            max_new_tokens,
            partial(shared.switched, wanted),
        )
        for name, wanted in sorted(names.items(), key=lambda each: each[1] is None)
    }
