"""What is filled into a pattern is what the template renders, for templates of every kind and contents made to trip it."""

from itertools import product

import pytest
from tests.chat.conftest import Make, talk
from tests.chat.test_features import FEATURES, Feature, letters, made  # noqa: F401 — letters is a fixture
from tests.conftest import CHATML
from transformers import PreTrainedTokenizerFast

from luthier.chat import BASE_TEMPLATE, Conversation, Message, Template
from luthier.errors import UserError

CONTENTS = (
    "Yes",
    " leading and trailing \n",
    "\n\ntwo\n\nlines\n\n",
    "a <think> opens",
    "<think>I count.</think>\n\nFour",
    "no </think> before",
    "<tool_response>42</tool_response>",
    "<e>",
    "half a token <",
    "e> and its end",
    '"quotes" and \\ and {{ braces }}',
    "ÄÖ \U0001f600 \ue002",
    "0",
)
ROLES = ("ua", "sua", "uaua", "suaua", "sa")


def conversations() -> list[Conversation]:
    """Conversations of some orders of roles, each with many contents."""
    names = {"s": "system", "u": "user", "a": "assistant"}
    found = []
    for roles in ROLES:
        for start, step in product(range(len(CONTENTS)), (1, 5)):
            contents = [CONTENTS[(start + step * at) % len(CONTENTS)] for at in range(len(roles))]
            messages = [Message(names[role], text) for role, text in zip(roles, contents, strict=True)]  # type: ignore[arg-type]
            found.append(Conversation(tuple(messages)))
    return found


def expect_the_same(template: Template) -> int:
    """Rows with patterns equal rows without; how many conversations had a pattern."""
    said = conversations()
    found = template.rows_of(said)
    patterns, template._patterns = template._patterns, None
    try:
        for row, other in zip(found, template.rows_of(said), strict=True):
            assert str(row) == str(other) if isinstance(row, UserError) else row == other
    finally:
        template._patterns = patterns
    return sum(pattern.used for known in patterns._known.values() for pattern in known) if patterns else 0


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_filled_in_rows_are_the_rendered_ones(feature: Feature, letters: PreTrainedTokenizerFast) -> None:  # noqa: F811
    expect_the_same(made(feature.source, letters, variables=feature.variables))


def test_a_plain_template_is_rendered_a_few_times_only(make: Make) -> None:
    template = make(CHATML)
    assert expect_the_same(template) > 40
    rendered = []
    real = template._renderer.render
    template._renderer.render = lambda *given, **named: rendered.append(1) or real(*given, **named)  # type: ignore[func-returns-value,method-assign]
    template.rows_of([talk(f"How many are {number}?", f"{number}, of course") for number in range(90)])
    assert len(rendered) < 10


@pytest.mark.parametrize(
    ("body", "followed"),
    [
        ("{{ m.content | trim }}", True),
        ("{% if '7' in m.content %}seven{% endif %}{{ m.content }}", True),
        ("{% if m.content | length > 3 %}long{% endif %}{{ m.content }}", False),
        ("{{ m.content | tojson }}", False),
        ("{{ m.content | upper }}", False),
        ("{% if (m.content ~ '!') == '7!' %}seven{% endif %}{{ m.content }}", False),
        ("{% set text %}{{ m.content }}{% endset %}{% if text == '7' %}seven{% endif %}{{ text }}", False),
        (
            "{% macro show(x) %}{{ x }}{% endmacro %}{% if show(m.content) == '7' %}seven{% endif %}{{ m.content }}",
            False,
        ),
        ("{% macro show(x) %}{{ x }}{% endmacro %}{{ show(m.content) }}", True),
        ("{% if m.content is lower %}small{% endif %}{{ m.content }}", False),
    ],
)
def test_what_a_template_asks_of_contents_is_followed_or_rendered(make: Make, body: str, followed: bool) -> None:
    source = "{% for m in messages %}<|im_start|>{{ m.role }}\n" + body + "<|im_end|>\n{% endfor %}"
    template = make(source + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    said = [talk(f"{number}", f"{number % 8}") for number in range(40)]
    filled = template.rows_of(said)
    patterns, template._patterns = template._patterns, None
    assert filled == template.rows_of(said)
    assert bool(patterns and any(patterns._known.values())) == followed


def test_the_template_of_base_models_has_patterns(make: Make) -> None:
    assert expect_the_same(make(BASE_TEMPLATE)) > 40
