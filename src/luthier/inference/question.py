"""A model that can be asked by name, and one question: to one model, or to several side by side."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from luthier import recipe as recipes
from luthier.chat import Message
from luthier.errors import UserError
from luthier.evaluate import context
from luthier.inference import gguf_model
from luthier.inference.gguf_model import GgufModel
from luthier.model import loading, replies
from luthier.model.loading import LanguageModel
from luthier.model.replies import Answer, TokenBudget
from luthier.runs import Run

OnNote = Callable[[str], object]
"""Hears what is worth knowing about a model's files."""


def ignore_notes(note: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class ChatModel:
    """A model with the system message that its conversations start with, and how long it may think before an answer."""

    lm: LanguageModel
    system: str | None = None
    thinking_tokens: int | None = None
    """None is the default of the model: none, unless its template lets it think."""

    def close(self) -> None:
        """Nothing is open; as `GgufModel` has it."""

    def room(self, max_new_tokens: int) -> TokenBudget:
        """How many tokens a reply may have."""
        return TokenBudget.of(self.lm, max_new_tokens, self.thinking_tokens)


def load_model(name: str, *, thinking_tokens: int | None = None, on_note: OnNote = ignore_notes) -> ChatModel:
    """A run's tuned model, or any other model by name; a run's model thinks as long as in the run, unless asked otherwise."""
    system = None
    if (Path(name) / "run.json").is_file():
        current = Run(Path(name))
        recipe = recipes.load(current.folder / "recipe.toml")
        lm, system = context.load_tuned(current), recipe.data.system
        thinking_tokens = recipe.evaluate.thinking_tokens if thinking_tokens is None else thinking_tokens
    else:
        lm = loading.load(name)
    return _noted(ChatModel(lm, system, thinking_tokens), on_note)


def asked_model(
    name: str, *, thinking_tokens: int | None = None, on_note: OnNote = ignore_notes
) -> ChatModel | GgufModel:
    """What answers questions by this name: a model as `load_model` has it, or a GGUF file in llama.cpp."""
    found = gguf_model.find(name, thinking_tokens, on_note)
    return found or load_model(name, thinking_tokens=thinking_tokens, on_note=on_note)


def load_base(current: Run, *, thinking_tokens: int | None = None, on_note: OnNote = ignore_notes) -> ChatModel:
    """The model that a run started from, under the template variables and the date of the run."""
    recipe = recipes.load(current.folder / "recipe.toml")
    lm = loading.load(recipe.model, variables=recipe.chat.variables, today=recipe.chat.date)
    tokens = recipe.evaluate.thinking_tokens if thinking_tokens is None else thinking_tokens
    return _noted(ChatModel(lm, None, tokens), on_note)


def _noted(model: ChatModel, on_note: OnNote) -> ChatModel:
    """The model, after the notes about its files were passed on."""
    for note in model.lm.notes:
        on_note(note)
    return model


def prompt(text: str, system: str | None) -> tuple[Message, ...]:
    """A question as messages, behind the system message that the model's conversations start with."""
    return (*((Message("system", system),) if system else ()), Message("user", text))


def ask(
    model: ChatModel | GgufModel,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    tools: Sequence[Sequence[str]] | None = None,
    on_batch: Callable[[dict[int, Answer]], None] | None = None,
) -> list[Answer]:
    """Answers in the order of the prompts; decoding is greedy, so an answer is the same alone and in any batch.

    `tools` are for each prompt the functions that it offers; an answer's text holds its calls (`ToolCall.text`).
    `on_batch` gets answers by the numbers of their prompts, batch by batch.
    """
    if isinstance(model, GgufModel):
        return model.ask(prompts, max_new_tokens=max_new_tokens, tools=tools, on_batch=on_batch)
    lm = model.lm
    offered = tools or [()] * len(prompts)
    ids = [lm.template.prompt(messages, tools=each) for messages, each in zip(prompts, offered, strict=True)]
    for messages, tokens in zip(prompts, ids, strict=True):
        expect_room(lm, tokens, messages[-1].content)
    return replies.ask(lm, ids, model.room(max_new_tokens), on_batch=on_batch)


def expect_room(lm: LanguageModel, tokens: Sequence[int], text: str) -> None:
    """Refuses a question that fills the context, so that no token is left for its answer."""
    if len(tokens) >= lm.context:
        message = f"the question has {len(tokens):,} tokens; the model's context holds {lm.context:,}. Shorten it."
        raise UserError(message, where=shorten(text, 60, placeholder="…"))


@dataclass(frozen=True)
class ModelAnswer:
    """One model's answer to one question."""

    model: str
    answer: Answer
    seconds: float


def compare(
    text: str,
    names: Sequence[str],
    *,
    max_new_tokens: int,
    thinking_tokens: int | None = None,
    on_note: OnNote = ignore_notes,
) -> Iterator[ModelAnswer]:
    """The answers of several models to one question, one model in memory at a time."""
    for name in names:
        model = asked_model(name, thinking_tokens=thinking_tokens, on_note=on_note)
        start = time.perf_counter()
        (answer,) = ask(model, [prompt(text, model.system)], max_new_tokens=max_new_tokens)
        yield ModelAnswer(name, answer, time.perf_counter() - start)
        del model
        gc.collect()
