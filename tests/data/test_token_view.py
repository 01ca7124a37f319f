"""Tokens are drawn with their part in training, and nothing in them is invisible or alike."""

import doctest
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import tiny_tokenizers
from luthier.chat import Conversation, Message, Template
from luthier.data import token_view
from luthier.data.token_view import BatchPosition, RowsView, ViewedRow, ViewedToken, shortened, view_tokens, visible
from luthier.model.tokenizer import HubTokenizer, template_of

THOUGHTFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def template(tiny_model: Path) -> Template:
    return template_of(AutoTokenizer.from_pretrained(tiny_model))


def drawn(template: Template, conversation: Conversation) -> list[tuple[str, str]]:
    """Runs of one role, with their text."""
    [row] = template.rows(conversation)
    runs: list[list[str]] = []
    for token in view_tokens(row.ids, row.loss_mask, template):
        if not runs or runs[-1][0] != token.role:
            runs.append([token.role, ""])
        runs[-1][1] += token.text
    return [(role, text) for role, text in runs]


def test_the_examples_hold() -> None:
    assert doctest.testmod(token_view).failed == 0


# What is invisible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a  b\t\n", "a··b⇥↵"),
        ("\r\x00\x1b[31m", "[U+000D][U+0000][U+001B][31m"),
        ("\u200b\ufeff\u00a0\u00ad\u202e", "[U+200B][U+FEFF][U+00A0][U+00AD][U+202E]"),
        ("·↵⇥", "[U+00B7][U+21B5][U+21E5]"),
        ("é 日 🙂", "é·日·🙂"),
        ("\u0301e", "◌\u0301e"),
        ("\ue000\U000e0041\u2028\ufe0f", "[U+E000][U+E0041][U+2028][U+FE0F]"),
    ],
)
def test_what_has_no_picture_gets_one(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_long_run_of_blanks_is_counted() -> None:
    assert (shortened("·" * 12), shortened("·" * 13), shortened("·" * 12 + "a")) == ("·" * 12, "·×13", "·" * 12 + "a")


# What tokens stand for


def test_parts_of_a_character_are_shown_as_bytes(template: Template) -> None:
    ids, _ = template.tokenizer.encode("a 🙂")
    pieces = template.tokenizer.pieces(ids)
    assert b"".join(pieces) == "a 🙂".encode()
    assert "".join(token_view.visible_pieces(pieces)) == "a·⟨F0⟩⟨9F⟩⟨99⟩⟨82⟩"


@pytest.mark.parametrize("kind", tiny_tokenizers.KINDS)
def test_the_pieces_of_a_text_are_its_bytes(kind: tiny_tokenizers.Kind) -> None:
    backend = Tokenizer.from_str(tiny_tokenizers._trained(kind))
    hub = HubTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>"))
    text = "The  capital\n\tis Zürich 🙂 ▁"
    ids, _ = hub.encode(text)
    blank = b" " if kind == "metaspace" else b""  # SentencePiece puts one before a text
    expected = text.replace("▁", " ") if kind == "metaspace" else text  # and has no other letter for it
    assert b"".join(hub.pieces(ids)) == blank + expected.encode()
    assert hub.pieces([hub.control["<e>"]]) == [b"<e>"]


# What tokens are for


def test_an_answer_has_a_loss_and_an_end_and_the_rest_is_context(template: Template) -> None:
    assert drawn(template, Conversation.pair("Why?", "So it is.")) == [
        ("context", "<|im_start|>user↵Why?<|im_end|>↵<|im_start|>assistant↵"),
        ("loss", "So·it·is."),
        ("end", "<|im_end|>"),
    ]


def test_thoughts_are_told_apart_from_their_answer(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = THOUGHTFUL
    said = Conversation((Message("user", "1+1?"), Message("assistant", "2", reasoning="one and one")))
    assert drawn(template_of(tokenizer), said) == [
        ("context", "<|im_start|>user↵1+1?<|im_end|>↵<|im_start|>assistant↵"),
        ("thought", "<think>↵one·and·one↵</think>"),
        ("loss", "↵↵2"),
        ("end", "<|im_end|>"),
    ]


def test_all_of_a_document_has_a_loss(template: Template) -> None:
    assert drawn(template, Conversation.document("Once.")) == [("loss", "Once."), ("end", "<|im_end|>")]


# Sentences


def test_a_row_says_where_it_is_and_what_it_is_made_of() -> None:
    position = BatchPosition(step=2, steps=40, batch=1, batches=4, rows=3, tokens=1200, computed=1100)
    assert position.sentence() == (
        "first in step 2 of 40, micro-batch 1 of 4, with 2 other rows: 1,200 tokens, 1,100 of them computed"
    )
    alone = BatchPosition(step=1, steps=1, batch=1, batches=1, rows=1, tokens=5, computed=5)
    assert alone.sentence() == "first in step 1 of 1, micro-batch 1 of 1, alone: 5 tokens"
    tokens = (
        ViewedToken(1, "a", "context", shared=True), ViewedToken(2, "b", "thought"), ViewedToken(3, "c", "end"),
    )  # fmt: skip
    row = ViewedRow("x.jsonl:2", "train", tokens, position=position, shared_with="x.jsonl:1")
    assert row.sentence() == (
        "3 tokens: 1 context, 2 with a loss, 1 of these in thoughts; the first 1 are computed in x.jsonl:1"
    )
    view = RowsView("m", "t", (row,))
    assert (view.roles, view.shares, view.views) == (["context", "thought", "end"], True, (view,))
