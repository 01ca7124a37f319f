"""Every chat template in TRL's wheel, on many conversations and three kinds of tokenizer, held against transformers itself."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from abroad import CASES, FOLDER, Abroad, templates
from luthier.chat import Conversation, Encoded, Message, Template, ToolCall
from luthier.model.tokenizer import template_of
from oracle import CHECKS, Judgement, Oracle, Row, judge
from tiny_tokenizers import KINDS, Kind, is_special, spelled, tokenizer_for

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "templates.md"
FOUND = {abroad.name: abroad for abroad in templates()}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND, reason=f"needs TRL's templates: scripts/test-slow unpacks them and sets {FOLDER}"),
]


def conversation_of(messages: Sequence[Row], tools: Sequence[Row]) -> Conversation:
    """Luthier's conversation from messages as transformers takes them."""
    return Conversation(
        tuple(
            Message(
                message["role"],
                message["content"],
                reasoning=message.get("reasoning_content"),
                tool_calls=tuple(
                    ToolCall(call["function"]["name"], json.dumps(call["function"]["arguments"]), call["id"])
                    for call in message.get("tool_calls", ())
                ),
                name=message.get("name"),
                tool_call_id=message.get("tool_call_id"),
            )
            for message in messages
        ),
        tools=tuple(json.dumps(tool) for tool in tools),
    )


def prepared(abroad: Abroad, kind: Kind) -> tuple[Template, Oracle]:
    """A template with a tokenizer that knows its control tokens, and its judge."""
    hub = tokenizer_for(abroad.source, kind, eos=abroad.eos, more=(*abroad.ends, "<think>", "</think>"))
    ends = [hub.convert_tokens_to_ids(end) for end in abroad.ends]
    variables = dict(abroad.variables)
    return template_of(hub, ends=ends, variables=variables), Oracle(hub, abroad.ends, variables)


@cache
def judged(name: str, kind: Kind) -> dict[str, Judgement]:
    """What came of each conversation with one template."""
    abroad = FOUND[name]
    template, oracle = prepared(abroad, kind)
    opened = next(token for token in spelled(abroad.source) if is_special(token) and token not in abroad.ends)
    found = {}
    for case in CASES:
        messages = case.filled(abroad.ends[0], opened)
        found[case.name] = judge(
            template,
            oracle,
            conversation_of(messages, case.tools),
            messages,
            tools=case.tools,
            spelled=[abroad.ends[0], opened, "<think>", "</think>"] if case.spells else [],
            exact=kind != "metaspace",
        )
    return found


@pytest.mark.parametrize("name", FOUND)
def test_calls_are_read_back_wherever_they_are_shown(name: str) -> None:
    template, _ = prepared(FOUND[name], KINDS[0])
    call = ToolCall("lamp_on", '{"n": 7, "s": "x y", "l": [1, true]}')
    said = Conversation((Message("user", "Light?"), Message("assistant", "", tool_calls=(call,))))
    if not template.takes_tools_of(said):
        return
    row = template.rows(said)[-1]
    reply = template.parse_reply([token for token, learnt in zip(row.ids, row.loss_mask, strict=True) if learnt])
    (found,) = reply.calls
    assert (found.name, json.loads(found.arguments)) == ("lamp_on", json.loads(call.arguments))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FOUND)
def test_rows_and_prompts_are_transformers_own(name: str, kind: Kind) -> None:
    found = judged(name, kind)
    assert [
        f"{case}, {check}: {words}"
        for case, judgement in found.items()
        for check in CHECKS
        for words in judgement.faults.get(check, ())
    ] == []


@pytest.mark.timeout(1800)  # alone it judges all of them
def test_the_counts_stand_in_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    counts = Counter[str]()
    for name in FOUND:
        for kind in KINDS:
            for one in judged(name, kind).values():
                counts["conversations"] += 1
                counts["rows and prompts as transformers has them"] += not one.refused and not one.faults
                counts["refused by both"] += bool(one.refused and one.theirs)
                counts["with faults"] += bool(one.faults)
    with capsys.disabled():
        print(f"\n{len(FOUND)} templates, {len(KINDS)} kinds of tokenizer:", dict(counts))
    told = dict(re.findall(r"^\| ([a-z ]+?) \| ([\d,]+) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    assert {what: int(told[what].replace(",", "")) for what in counts} == dict(counts)


def test_the_judge_finds_what_is_wrong() -> None:
    """A row that learns one token less, and one with another prompt, do not pass."""
    template, oracle = prepared(FOUND["qwen3"], "byte-level")
    messages = [dict(message) for message in CASES[0].messages]

    class Wrong:
        def __init__(self, rows: list[Encoded]) -> None:
            self._rows, self.prompt = rows, template.prompt

        def rows(self, conversation: Conversation) -> list[Encoded]:
            return self._rows

    said = conversation_of(messages, ())
    (row,) = template.rows(said)
    first = row.loss_mask.index(True)
    wrong = {
        "loss": replace(row, loss_mask=[place > first for place in range(len(row.ids))]),
        "prompt": replace(row, ids=[row.ids[1], *row.ids[1:]]),
    }
    for check, other in wrong.items():
        assert check in judge(Wrong([other]), oracle, said, messages).faults  # type: ignore[arg-type]
    assert judge(Wrong([row]), oracle, said, messages).faults == {}  # type: ignore[arg-type]
