"""A conversation that is too long loses its oldest turns and keeps its beginning and its end; nothing else is touched."""

from dataclasses import replace
from pathlib import Path

import pytest

from luthier.chat import Conversation, Message, Role, Template, ToolCall
from luthier.data import prepared
from luthier.data.dataset import Item
from luthier.data.encoding import encode_all, pieces
from luthier.data.ledger import Ledger
from luthier.data.prepared import Prepared
from luthier.data.shortening import cuts, without_oldest

from .test_encoding import Letters

SAY: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def chat(text: str) -> Conversation:
    """A message a word, whose first letter is its role."""
    return Conversation(tuple(Message(SAY[word[0]], word) for word in text.split()))


def words(conversation: Conversation) -> str:
    return " ".join(message.content for message in conversation.messages)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("u1 a1 u2 a2 u3 a3", ["u2 a2 u3 a3", "u3 a3"]),
        ("s0 u1 a1 u2 a2", ["s0 u2 a2"]),
        ("s0 s1 u1 u2 a2 u3 a3", ["s0 s1 u3 a3"]),
        ("a0 u1 a1", ["u1 a1"]),
        ("u1 a1 t1 a2 u2 a3 t2 a4", ["u2 a3 t2 a4"]),
        ("u1 a1", []),
        ("s0 u1 a1 t1 a2", []),
    ],
)
def test_whole_turns_go_the_oldest_first(text: str, left: list[str]) -> None:
    found = cuts(chat(text))
    assert [words(without_oldest(chat(text), count)) for count in found] == left


@pytest.fixture
def template() -> Template:
    """A token a letter."""
    return Template("{% for message in messages %}{{ message.content }}{% endfor %}", Letters(), "letters")


def item(number: int, text: str, *, rejected: str | None = None) -> Item:
    return Item(str(number), f"chats.jsonl:{number}", str(number), replace(chat(text), rejected=rejected))


def kept(items: list[Item], template: Template, limit: int, ledger: Ledger, *, pairs: bool = False) -> dict[str, str]:
    """By place, what each item's last row says."""
    named = {one.location for one in items} if pairs else set()
    rows = encode_all(items, template, limit, ledger, pairs=named)
    return {place: "".join(map(chr, found[-1].ids)) for place, found in rows.items() if found}


def test_as_few_turns_go_as_make_it_fit_and_the_ledger_says_so(template: Template) -> None:
    ledger = Ledger(read=4)
    chats = [
        item(1, "s0 u1 a1 u2 a2 u3 a3 u4 a4"),
        item(2, "u1 a1 u2 a2"),
        item(3, "s0 u1 a1"),
        item(4, "s0 u1 a1 u23456789 a2"),
    ]
    assert kept(chats, template, 10, ledger) == {
        "chats.jsonl:1": "s0u3a3u4a4",
        "chats.jsonl:2": "u1a1u2a2",
        "chats.jsonl:3": "s0u1a1",
    }
    assert ledger.notes == {
        "without its oldest turns, because all of it is too long": [
            "chats.jsonl:1 (4 of 9 messages; 18 tokens, 10 fit)"
        ]
    }
    assert ledger.dropped == {"too long to keep its answer": ["chats.jsonl:4 (17 tokens, 10 fit)"]}


def test_many_chats_are_tokenized_together(template: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    rows_of = template.rows_of
    monkeypatch.setattr(template, "rows_of", lambda many: (calls.append(len(many)), rows_of(many))[1])
    turns = " ".join(f"u{turn} a{turn}" for turn in range(8))
    assert len(kept([item(number, turns) for number in range(100)], template, 8, Ledger())) == 100
    assert (
        calls.count(100) <= 1 + 3 and len(calls) <= 1 + 3 + 1
    )  # whole, seven cuts halved, and a trial of the template


def test_both_answers_of_a_pair_get_the_same_cut(template: Template) -> None:
    ledger = Ledger()
    pair = item(1, "u1 a1 u2 a2 u3 a3", rejected="a3456")
    [row] = encode_all([pair], template, 9, ledger, pairs={pair.location})[pair.location]
    assert row.rejected and ("".join(map(chr, row.ids)), "".join(map(chr, row.rejected.ids))) == ("u3a3", "u3a3456")
    assert ledger.notes["without its oldest turns, because all of it is too long"] == [
        "chats.jsonl:1 (4 of 6 messages; 15 tokens, 9 fit)"
    ]


def test_what_is_asked_is_what_the_row_begins_with(template: Template, tmp_path: Path) -> None:
    long = item(1, "s0 u1 a1 u2 a2")
    rows = pieces(long, encode_all([long], template, 6, Ledger(), pairs=set())[long.location])
    prepared.write(tmp_path / "dev.arrow", rows)
    [found] = Prepared(tmp_path / "dev.arrow").items()
    assert words(found.conversation) == "s0 u2 a2" and (found.id, found.group) == ("1", "1")


def test_where_each_answer_has_a_row_the_turns_that_are_left_have_one_each(template: Template) -> None:
    long = item(1, "u1 a1 u2 a2 u3 a3")
    rows = pieces(long, encode_all([long], template, 8, Ledger(), pairs=set())[long.location])
    assert [(one.id, words(one.conversation), "".join(map(chr, row.ids))) for one, row in rows] == [
        ("1.0", "u2 a2", "u2a2"),
        ("1", "u2 a2 u3 a3", "u2a2u3a3"),
    ]


def test_calls_and_their_results_go_with_their_turn(template: Template) -> None:
    call = Message("assistant", "a1", tool_calls=(ToolCall("add", "{}"),))
    said = Conversation((*chat("u1").messages, call, *chat("t1 a2 u2 a3").messages))
    assert cuts(said) == [4] and words(without_oldest(said, 4)) == "u2 a3"
