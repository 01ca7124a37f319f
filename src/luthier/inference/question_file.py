"""A file of questions → a JSONL file of answers; what was answered before a stop is kept, and not asked again."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from luthier import recipe as recipes
from luthier.chat import Message
from luthier.data import questions as file_questions
from luthier.errors import CorruptedState, Interrupted, UserError
from luthier.extensions import look_up
from luthier.inference.gguf_model import GgufModel
from luthier.inference.question import ChatModel, OnNote, ask, asked_model, ignore_notes, prompt
from luthier.model import tuned
from luthier.model.replies import THINKING, Answer
from luthier.runs import durable
from luthier.runs.durable import write_atomic
from luthier.runs.signals import stopping


def ask_file(
    name: str,
    questions: Path,
    output: Path,
    *,
    max_new_tokens: int,
    thinking_tokens: int | None = None,
    adapters: Mapping[str, Path] | None = None,
    on_note: OnNote = ignore_notes,
) -> tuple[int, int]:
    """Answer every row of a file of questions; writes JSONL with `question`, `answer` and, where the model thought, `thoughts`
    in file order. Counts the answers, and those that are empty because the model was still thinking.

    Until all are there, they are kept beside the output in a file that ends in `.part`; the same command continues from it.

    With `adapters` of runs beside the model, a row's column `adapter` says which one answers it; without a name, the model.
    """
    if not output.absolute().parent.is_dir():
        raise UserError("there is no such folder to write to; make it first.", where=str(output.absolute().parent))
    adapters = adapters or {}
    asked = file_questions.read(questions, _data_settings(next(iter(adapters.values()), Path(name))))
    who = _adapter_of_rows(questions, adapters) if adapters else [None] * len(asked)
    if adapters:
        shared = tuned.load_shared(name, adapters, thinking_tokens)
        model: ChatModel | GgufModel = ChatModel(shared.lm, None, shared.thinking)
    else:
        shared, model = None, asked_model(name, thinking_tokens=thinking_tokens, on_note=on_note)

    files = [model.file if isinstance(model, GgufModel) else model.lm.folder]
    files += [folder / "model" for folder in adapters.values()]
    first: list[int] = []  # contains the date, where the template writes one
    if not isinstance(model, GgufModel):
        first = model.lm.template.prompt(asked[0].messages, tools=asked[0].tools)
    limits = [max_new_tokens, model.thinking_tokens, version("luthier")]
    partial_answers = PartialAnswers.of(output, [repr(asked), who, first, limits, list(map(_file_stamps, files))])
    with stopping(lambda: on_note("stopping after these answers; Ctrl-C again stops at once")) as stop:
        for adapter in dict.fromkeys(who):
            rows = [row for row in range(len(asked)) if who[row] == adapter and row not in partial_answers.answers]
            on_batch = partial(partial_answers.add, rows, len(asked), stop)
            with shared.using(adapter) if shared else contextlib.nullcontext(model.system) as system:
                prompts = [_with_system(asked[row].messages, system) for row in rows]
                tools = [asked[row].tools for row in rows]
                ask(model, prompts, max_new_tokens=max_new_tokens, tools=tools, on_batch=on_batch)

    answers = [partial_answers.answers[row] for row in range(len(asked))]
    lines = [
        {
            "question": conversation.question,
            "answer": answer.said(tools=bool(conversation.tools)),
            **({} if answer.thoughts is None else {"thoughts": answer.thoughts}),
            **({"adapter": adapter or ""} if adapters else {}),
        }
        for conversation, answer, adapter in zip(asked, answers, who, strict=True)
    ]
    write_atomic(output, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    durable.remove(partial_answers.path)
    return len(lines), sum(answer.finish == THINKING for answer in answers)


def _data_settings(model: Path) -> recipes.Data | None:
    """How the run read its data, so that questions are read likewise; None where the model is no run's."""
    return recipes.load(model / "recipe.toml").data if (model / "run.json").is_file() else None


def _adapter_of_rows(questions: Path, adapters: Mapping[str, Path]) -> list[str | None]:
    """The adapter that answers each row; None is the base model."""
    known: dict[str, str | None] = {"": None, **{name: name for name in adapters}}
    words = file_questions.named(questions, "adapter")
    return [look_up("adapter", word, known, where=location) for word, location in words]


def _with_system(messages: Sequence[Message], system: str | None) -> Sequence[Message]:
    """The messages, behind the system message that the model's conversations start with unless they bring their own."""
    return messages if messages[0].role == "system" else (*prompt("", system)[:-1], *messages)


@dataclass(frozen=True)
class PartialAnswers:
    """The answers that are there already, by row, and the file that keeps them beside the output."""

    path: Path
    answers: dict[int, Answer]

    @classmethod
    def of(cls, output: Path, asked: object) -> "PartialAnswers":
        """Those of the command before, if it asked the same of the same models."""
        path = output.with_name(f"{output.name}.part")
        head = {"luthier ask": hashlib.sha256(json.dumps(asked).encode()).hexdigest()}
        if path.exists():
            first, *lines = _json_lines(path) or [{}]
            if first == head:
                return cls(path, {line["row"]: Answer(**line["said"]) for line in lines})
            if first.keys() != head.keys():
                raise UserError("already there, and no file of `luthier ask`; move it away.", where=str(path))
        write_atomic(path, json.dumps(head) + "\n")
        return cls(path, {})

    def add(self, rows: Sequence[int], of: int, stop: Callable[[], bool], batch: Mapping[int, Answer]) -> None:
        """Keep a batch of answers, numbered within `rows`; raises Interrupted if a stop was asked for and some are missing."""
        found = {rows[number]: answer for number, answer in batch.items()}
        self.answers.update(found)
        durable.append_json_lines(self.path, [{"row": row, "said": asdict(answer)} for row, answer in found.items()])
        if stop() and len(self.answers) < of:
            raise Interrupted(
                f"stopped with {len(self.answers):,} of {of:,} answers, which are kept; the same command continues.",
                where=str(self.path),
            )


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that may be ours, without what a crash cut short; nothing is changed in it."""
    try:
        lines = durable.read_json_lines(path)
    except CorruptedState:
        return []
    return lines if all(isinstance(line, dict) for line in lines) else []


def _file_stamps(model: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of a model's files: enough to see that it was exchanged."""
    files = [model] if model.is_file() else sorted(path for path in model.iterdir() if path.is_file())
    found = [(path.name, path.stat()) for path in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]
