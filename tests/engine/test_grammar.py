"""Answers that are JSON of a schema from their first token to their last, even of a model that knows nothing."""

import contextlib
import json
import time

import jsonschema
import pytest

from luthier.engine import grammar
from luthier.engine.engine import Engine
from luthier.engine.requests import AnswerFailed, GenerationRequest, Grammar
from luthier.errors import UserError

pytest.importorskip("llguidance")
TICKET = {
    "type": "object",
    "properties": {
        "topic": {"enum": ["refund", "invoice"]},
        "urgent": {"type": "boolean"},
        "count": {"type": "integer"},
    },
    "required": ["topic", "urgent", "count"],
    "additionalProperties": False,
}


def test_drawn_and_greedy_answers_follow_the_schema(engine: Engine, prompts: list[tuple[int, ...]]) -> None:
    schema = Grammar(json.dumps(TICKET))
    asked = [
        GenerationRequest(prompt, 300, temperature=float(number % 3), seed=number, grammar=schema)
        for number, prompt in enumerate(prompts[:9])
    ]
    plain = engine.submit(GenerationRequest(prompts[0], 12))
    for found in [stream.result() for stream in [engine.submit(request) for request in asked]]:
        if found.finished.finish == "stop":
            jsonschema.validate(json.loads(found.text), TICKET)
    assert len(plain.result().ids) <= 12
    assert len(engine._loop.grammars._kept) == 1, "compiled once"


def test_any_object_is_an_object(engine: Engine) -> None:
    found = [
        engine.submit(GenerationRequest((9, 9), 200, temperature=1.0, seed=seed, grammar=Grammar())).result()
        for seed in range(4)
    ]
    ended = [one for one in found if one.finished.finish == "stop"]
    assert ended and all(isinstance(json.loads(one.text), dict) for one in ended)


def nested(levels: int) -> str:
    return '{"properties":{"a":' * levels + "{}" + "}}" * levels


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is a JSON list, expected an object"),
        ('{"type": "object", "format": 3', "is no JSON"),
        (json.dumps({"type": "string", "format": "no such"}), "cannot be used: Unknown format"),
        (json.dumps({"type": "object", "properties": {"a": False}, "required": ["a"]}), "unsatisfiable"),
        (nested(40), "nested 81 deep, at most 64"),
        (nested(100_000)[:60_000], "is no JSON"),
        (json.dumps({"enum": ["x" * 70_000]}), "at most 65,536"),
    ],
)
def test_what_cannot_be_followed_is_said_before_anything_is_computed(engine: Engine, schema: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        engine.submit(GenerationRequest((5,), 5, grammar=Grammar(schema)))


@pytest.mark.parametrize(
    "bomb",
    [
        {"enum": [f"{number:06}" * 4 for number in range(2000)]},
        {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(2500)}},
        {"allOf": [{"anyOf": [{"properties": {f"x{a}{b}": {}}} for b in range(6)]} for a in range(12)]},
        {"type": "string", "pattern": "^(.*a.{60}){30}$"},
        {"type": "array", "minItems": 10**9, "items": {"type": "string", "minLength": 10**9}},
    ],
)
def test_a_schema_that_explodes_is_bounded_in_time(engine: Engine, bomb: dict[str, object]) -> None:
    start = time.process_time()
    with contextlib.suppress(UserError, AnswerFailed):
        engine.submit(GenerationRequest((5,), 8, grammar=Grammar(json.dumps(bomb)))).result()
    assert time.process_time() - start < 10


def test_compiled_grammars_are_few(engine: Engine) -> None:
    for number in range(grammar.KEPT + 5):
        engine._loop.grammars.begin(Grammar(json.dumps({"const": number})))
    assert len(engine._loop.grammars._kept) == grammar.KEPT
