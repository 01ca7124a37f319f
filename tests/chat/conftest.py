"""Tokenizers as models bring them: byte-level with ChatML's control tokens, thought tags and headers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from luthier.chat import Conversation, Message, Template
from luthier.model.tokenizer import template_of

Make = Callable[..., Template]


@pytest.fixture(scope="session")
def make(tiny_model: Path) -> Make:
    """Makes templates: a source, and what `template_of` takes."""

    def made(source: str, **settings: object) -> Template:
        hub = AutoTokenizer.from_pretrained(tiny_model)
        hub.add_special_tokens({"additional_special_tokens": ["<|channel|>", "<|message|>", "<|return|>", "<|end|>"]})
        hub.add_tokens(["<think>", "</think>"])
        hub.chat_template = source
        return template_of(hub, **settings)  # type: ignore[arg-type]

    return made


def talk(*contents: str, system: str | None = None) -> Conversation:
    """A conversation in which user and assistant take turns."""
    head = [Message("system", system)] if system else []
    turns = [Message("assistant" if number % 2 else "user", text) for number, text in enumerate(contents)]
    return Conversation((*head, *turns))


def rows_as_text(template: Template, conversation: Conversation) -> list[tuple[str, ...]]:
    """Of each row the whole text, and what is learnt of it."""
    both = []
    for row in template.rows(conversation):
        learnt = [token for token, learn in zip(row.ids, row.loss_mask, strict=True) if learn]
        both.append(tuple(template.tokenizer.decode(ids, control=True) for ids in (row.ids, learnt)))
    return both
