"""What a template does in words, and transformers as the judge of what we make of it."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from luthier.chat import Conversation, Encoded, Template
from luthier.model.conformance import examine
from luthier.model.tokenizer import template_of
from tiny_tokenizers import Kind, tokenizer_for

ASK = "{% if add_generation_prompt %}<|a|>{% endif %}"
NAMED = "{% for m in messages %}<|{{ m.role[0] }}|>"
PLAIN = "{# <|s|><|u|><|a|><|t|><|e|> #}" + NAMED + "{{ m.content }}<|e|>{% endfor %}" + ASK
LOSES_SYSTEM = PLAIN.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
TRIMS = PLAIN.replace("m.content", "m.content | trim")
DROPS_THOUGHTS = PLAIN.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}",
)
OPENS = PLAIN.replace("<|a|>{% endif %}", "<|a|><think>\n{% endif %}") + "{# </think> #}"
DATED = PLAIN.replace("{% for", "{{ strftime_now('%d') }}{% for", 1)
SWITCHED = PLAIN.replace(ASK, ASK.replace("{% endif %}", "{% if not loud %}<think></think>{% endif %}{% endif %}"))


def template(source: str, kind: Kind = "byte-level") -> Template:
    return template_of(tokenizer_for(source, kind, eos="<|e|>"))


@pytest.mark.parametrize(
    ("source", "what", "told"),
    [
        (PLAIN, "system message", "stands first"),
        (LOSES_SYSTEM, "system message", "has no place of its own; it opens the first user message"),
        (PLAIN, "contents", "kept as they are"),
        (TRIMS, "contents", "outer blanks of questions and answers are cut"),
        (PLAIN, "thoughts", "are never shown"),
        (DROPS_THOUGHTS, "thoughts", "are shown with the last answer only; replies may begin with some"),
        (OPENS, "thoughts", "are never shown; the prompt opens one; replies may begin with some"),
        (SWITCHED, "thoughts", "are never shown; the prompt closes an empty one"),
        (PLAIN, "earlier turns", "are not changed by later turns: one row holds a conversation"),
        (DROPS_THOUGHTS, "earlier turns", "are changed by later turns: a row for each answer"),
        (PLAIN, "begins with", "no <bos>, which the tokenizer knows"),
        ("{{ bos_token }}" + PLAIN, "begins with", "<bos>"),
        (PLAIN, "ends with", "<|e|>"),
        (PLAIN, "date", "not used"),
        (DATED, "date", "used; fixed to "),
        (SWITCHED, "variables", "uses loud"),
        (PLAIN, "variables", "none"),
    ],
)
def test_what_a_template_does_is_told_in_words(source: str, what: str, told: str) -> None:
    assert examine(template(source)).behaviour[what].startswith(told)


@pytest.mark.parametrize("kind", ["byte-level", "metaspace"])
@pytest.mark.parametrize("source", [PLAIN, LOSES_SYSTEM, TRIMS, DROPS_THOUGHTS, OPENS, DATED, SWITCHED])
def test_our_rows_are_transformers_own(source: str, kind: Kind) -> None:
    result = examine(template(source, kind))
    assert [check.faults for check in result.checks] == [[], [], [], []]
    assert result.clean and "rows and prompts of" in result.sentence


def late(row: Encoded) -> Encoded:
    """Learns the answer without its first token."""
    return replace(row, loss_mask=[learn and at > row.loss_mask.index(True) for at, learn in enumerate(row.loss_mask)])


def endless(row: Encoded) -> Encoded:
    """Learns the answer without its end."""
    return replace(row, loss_mask=[*row.loss_mask[:-1], False])


def other(row: Encoded) -> Encoded:
    """Has another token in the question."""
    return replace(row, ids=[*row.ids[:2], row.ids[0], *row.ids[3:]])


@pytest.mark.parametrize(("wrong", "check"), [(late, "prompt"), (endless, "loss"), (other, "text")])
def test_a_wrong_row_is_found(wrong: Callable[[Encoded], Encoded], check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Template.rows

    def rows(self: Template, said: Conversation) -> list[Encoded]:
        return [wrong(row) for row in right(self, said)]

    monkeypatch.setattr(Template, "rows", rows)
    result = examine(template(PLAIN))
    assert {found.name for found in result.checks if found.faults} >= {check}
    assert result.sentence.startswith("not as transformers ")


def test_the_checks_cost_a_fifth_of_a_second_at_most() -> None:
    found = template(PLAIN)
    before = time.process_time()
    examine(found)
    assert time.process_time() - before < 0.2
