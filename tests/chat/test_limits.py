"""A stranger's template runs under limits, and a tokenizer must know the end that it writes."""

import pytest
from tests.chat.conftest import Make, talk

from luthier.chat import Message, sandbox
from luthier.errors import UserError

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (LOOP, "needs more than 2 seconds of processor time"),
        ("{{ 'a' * 10 ** 10 }}", "needs more than 1 GiB of memory"),
    ],
)
def test_a_template_that_would_hang_or_fill_the_memory_is_refused(make: Make, source: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(TURNS + source)


def test_a_template_that_writes_without_end_for_some_contents_is_stopped(make: Make) -> None:
    line = "{% for n in range(9999) %}{{ '" + "y" * 999 + "' }}{% endfor %}"
    template = make(TURNS + "{% for m in messages %}{% if m.content == 'x' %}" + line + "{% endif %}{% endfor %}")
    with pytest.raises(UserError, match="writes more than 1,000,000 characters beyond the messages' own"):
        template.rows(talk("x", "a"))
    assert template.rows(talk("q", "a"))


def test_a_template_whose_end_token_the_tokenizer_lacks_is_refused_by_name(make: Make) -> None:
    with pytest.raises(UserError, match=r"ends answers with <\|eot\|>, which this tokenizer does not know"):
        make(TURNS.replace("<|im_end|>", "<|eot|>"))
    roles_as_letters = make(TURNS.replace("<|im_start|>", "<|role|>"))
    assert roles_as_letters.unknown == ("<|role|>",)


def test_a_template_that_is_no_jinja_is_refused_with_its_line(make: Make) -> None:
    with pytest.raises(UserError, match=r"not valid Jinja: line 2: .*endfor"):
        make("{% for m in messages %}\n{% endif %}")


def test_the_sandbox_keeps_templates_from_python(make: Make) -> None:
    template = make("{{ messages.__class__.__mro__ }}" + TURNS)
    with pytest.raises(UserError, match="refuses message 1"):
        template.prompt([Message("user", "q")])


def test_a_trial_that_cannot_be_held_is_a_refusal(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ranged = TURNS + "{% for n in range(3) %}{% endfor %}"
    monkeypatch.setattr(sandbox.sys, "executable", "false")
    with pytest.raises(UserError, match="could not be tried: no reason given"):
        make(ranged + " ")
    monkeypatch.undo()
    monkeypatch.setattr(sandbox, "PATIENCE", 0.001)
    with pytest.raises(UserError, match=r"needs more than 0\.001 seconds for two short messages"):
        make(ranged + "  ")
