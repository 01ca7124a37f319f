"""Forms of calls that chat templates write, each found from an example and read back from a reply."""

import json

import pytest

from luthier.chat.call_format import CALL_ID, EXAMPLE, NAME, find_format
from luthier.chat.call_format import CallFormat as Form

A = EXAMPLE.arguments
OBJECT = f'{{"name": "{NAME}", "arguments": {A}}}'
PYTHON = f'{NAME}(zqfirst="zq one", zqsecond="zq two")'
FENCED = f"<|call|>function<|sep|>{NAME}\n```json\n{A}\n```<|end|>"
NESTED = (
    f"<call>\n<function={NAME}>\n<parameter=zqfirst>\nzq one\n</parameter>\n<parameter=zqsecond>\nzq two\n</parameter>\n"
    "</function>\n</call>"
)
FLAT = f"<call>{NAME}\n<key>zqfirst</key>\n<value>zq one</value>\n<key>zqsecond</key>\n<value>zq two</value>\n</call>"
ONE, TWO = ("lamp", {"on": True, "room": "hall"}), ("door-2", {})


def form(one: str, two: str | None = None) -> Form:
    found = find_format(one, two)
    assert found is not None
    return found


def read(found: Form, text: str) -> tuple[str, list[tuple[str, object]]]:
    words, calls = found.read(text)
    return words, [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize(
    ("one", "two", "reply", "calls"),
    [
        (
            f"<c>\n{OBJECT}\n</c>",
            f"<c>\n{OBJECT}\n</c>\n<c>\n{OBJECT}\n</c>",
            '<c>{"name": "lamp", "arguments": {"room": "hall", "on": true}}</c><c>{"name": "door-2", "arguments": {}}</c>',
            [ONE, TWO],
        ),
        (
            OBJECT.replace("arguments", "parameters"),
            None,
            '{"name": "lamp", "parameters": {"on": true, "room": "hall"}}',
            [ONE],
        ),
        (
            f'[C][{OBJECT[:-1]}, "id": "{CALL_ID}"}}]',
            f"[C][{OBJECT}, {OBJECT}]",
            '[C][{"name": "door-2", "arguments": {}, "id": "x"}]',
            [TWO],
        ),
        (f"[C]{NAME}[ID]{CALL_ID}[ARGS]{A}", None, '[C]lamp[ID]abc123[ARGS]{"on": true, "room": "hall"}', [ONE]),
        (
            f"<|calls|>{FENCED}<|all|>",
            f"<|calls|>{FENCED}\n{FENCED}<|all|>",
            '<|calls|><|call|>function<|sep|>lamp\n```json\n{"on": true, "room": "hall"}\n```<|end|>\n'
            "<|call|>function<|sep|>door-2\n```json\n{}\n```<|end|><|all|>",
            [ONE, TWO],
        ),
        (
            f"<|s|>[{PYTHON}]<|e|>",
            None,
            '<|s|>[lamp(on=true, room="hall"), a.b(n=[1, true])]<|e|>',
            [ONE, ("a.b", {"n": [1, True]})],
        ),
        (f"[{PYTHON}]", None, "[lamp(on=True, room='hall')]", [ONE]),
        (f"<s>{PYTHON}</s>", f"<s>{PYTHON}\n{PYTHON}</s>", "<s>lamp(on=True, room='hall')\nb()</s>", [ONE, ("b", {})]),
        (
            NESTED,
            f"{NESTED}\n{NESTED}",
            "<call>\n<function=lamp>\n<parameter=on>\ntrue\n</parameter>\n<parameter=room>\nhall\n</parameter>\n</function>\n"
            "</call>\n<call>\n<function=door-2>\n</function>\n</call>",
            [ONE, TWO],
        ),
        (
            FLAT,
            None,
            "<call>lamp\n<key>on</key>\n<value>true</value>\n<key>room</key>\n<value>hall</value>\n</call>",
            [ONE],
        ),
        (
            f"<fc>call:{NAME}{{zqfirst:<q>zq one<q>,zqsecond:<q>zq two<q>}}</fc>",
            None,
            '<fc>call:lamp{on:true,room:<q>hall<q>}</fc><fc>call:b{o:{n:[1,None],t:<q>a: "b"<q>}}</fc>',
            [ONE, ("b", {"o": {"n": [1, None], "t": 'a: "b"'}})],
        ),
        (
            f' to={NAME}<m><do>\n<i name="{NAME}">\n<p k="zqfirst">zq one</p>\n<p k="zqsecond">zq two</p>\n</i>\n</do>',
            None,
            ' to=lamp<m><do>\n<i name="lamp">\n<p k="on">True</p>\n<p k="room">hall</p>\n</i>\n</do>',
            [ONE],
        ),
    ],
)
def test_each_form_reads_what_is_written_in_it(
    one: str, two: str | None, reply: str, calls: list[tuple[str, object]]
) -> None:
    assert read(form(one, two), reply) == ("", calls)


def test_words_before_a_call_are_kept_apart() -> None:
    assert read(form(NESTED), f"One moment.\n{NESTED.replace(NAME, 'b')}")[0] == "One moment."


@pytest.mark.parametrize(
    "reply", ["It is on.", '<c>{"name": "lamp", "argu', "<c>lamp</c>", '{"name": "lamp", "arguments": {}}']
)
def test_what_cannot_be_read_is_no_call(reply: str) -> None:
    assert read(form(f"<c>{OBJECT}</c>"), reply) == (reply, [])


@pytest.mark.parametrize(
    "reply", ["Yes (it is).", "f(1)", "x = f(a=1)", '{"name": "b", "arguments": {}, "price": 3}', "[" * 9000]
)
def test_without_a_mark_only_a_whole_call_is_one(reply: str) -> None:
    for found in (form(OBJECT), form(f"[{PYTHON}]")):
        assert read(found, reply) == (reply, [])


def test_an_infinite_number_makes_no_call() -> None:
    reply = '<c>{"name": "b", "arguments": {"n": 1e999}}</c>'
    assert read(form(f"<c>{OBJECT}</c>"), reply) == (reply, [])


def test_a_form_that_loses_numbers_is_none() -> None:
    assert find_format(f"<c>{OBJECT}</c>", None, f"<c>{OBJECT}</c>") is None


@pytest.mark.parametrize("one", ["", "zqfirst zqsecond", f"{NAME} did it", A])
def test_a_form_that_does_not_say_what_is_called_is_none(one: str) -> None:
    assert find_format(one, None) is None
