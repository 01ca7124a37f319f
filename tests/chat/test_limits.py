"""A stranger's template runs under limits, and a tokenizer must know the end that it writes."""

from pathlib import Path

import pytest
from tests.chat.conftest import Make, talk

from luthier.chat import Message, limited_process, sandbox
from luthier.chat.limited_process import Limits, Outcome
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
    monkeypatch.setattr(limited_process.sys, "executable", "false")
    with pytest.raises(UserError, match="could not be tried: no reason given"):
        make(ranged + " ")
    monkeypatch.undo()
    monkeypatch.setattr(sandbox, "PATIENCE", 0.001)
    with pytest.raises(UserError, match=r"needs more than 0\.001 seconds for two short messages"):
        make(ranged + "  ")


GREEDY = """
def fill(text): return text * 10**10
def write(text): return text * 2000
def write_file(text):
    with open(text, "wb") as file: file.write(bytes(5000))
def spin(text):
    while True: pass
def fail(text): raise ValueError("no such thing")
def double(text): return text * 2
"""


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("double", Outcome("ßß")),
        ("fill", Outcome(met="memory")),
        ("write", Outcome(met="output")),
        ("write_file", Outcome(met="output")),
        ("spin", Outcome(met="processor")),
        ("fail", Outcome(failure="ValueError: no such thing")),
    ],
)
def test_a_call_ends_with_its_result_or_the_limit_that_it_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, outcome: Outcome
) -> None:
    (tmp_path / "greedy_functions.py").write_text(GREEDY)
    monkeypatch.syspath_prepend(tmp_path)
    argument = str(tmp_path / "file") if name == "write_file" else "ß"
    limits = Limits(seconds=1, memory=1 << 30, output=2000, clock=60)
    assert limited_process.call(f"greedy_functions:{name}", argument, limits) == outcome
