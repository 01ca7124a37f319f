"""Of every training row something is learnt; an item of which nothing would be is noted in the ledger."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from luthier.chat import Conversation, Encoded, Message, Template, ToolCall
from luthier.data import prepared
from luthier.data.dataset import Item
from luthier.data.encoding import encode, encode_all, pieces, why_none
from luthier.data.ledger import Ledger
from luthier.data.prepared import Prepared


@dataclass
class Letters:
    """A tokenizer of one token a letter, without any that starts or ends a text."""

    control: dict[str, int] = field(default_factory=dict)
    spoken: frozenset[str] = frozenset()
    named: dict[str, str] = field(default_factory=dict)
    bos: str = ""
    eos: str = ""

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        return [ord(letter) for letter in text], list(range(len(text)))

    def between(self, before: str, text: str, after: str) -> list[int]:
        return self.encode(text)[0]

    def render(self, texts: list[str]) -> list[list[int]]:
        return [self.encode(text)[0] for text in texts]

    def decode(self, ids: list[int], *, control: bool = False) -> str:
        return "".join(map(chr, ids))


@pytest.fixture
def template() -> Template:
    return Template("{% for message in messages %}{{ message.content }}{% endfor %}", Letters(), "letters")


def document(text: str) -> Item:
    return Item("1", "texts.txt:1", "1", Conversation.document(text))


def test_the_last_piece_of_a_long_text_is_left_out_where_it_is_one_token(template: Template) -> None:
    ledger = Ledger()
    rows = encode(document("abcdefg"), template, 3, ledger)
    assert [row.ids for row in rows] == [[97, 98, 99], [100, 101, 102]]
    assert all(row.loss_tokens for row in rows) and not ledger.dropped


def test_a_text_of_one_token_has_nothing_to_learn_and_is_dropped_by_name(template: Template) -> None:
    ledger = Ledger()
    assert encode(document("a"), template, 3, ledger) == []
    assert ledger.dropped == {"no loss tokens in it": ["texts.txt:1"]}


def test_prepared_rows_know_whether_they_are_texts(template: Template, tmp_path: Path) -> None:
    asked = Item("2", "rows.jsonl:1", "2", Conversation.pair("ab", "cd"))
    for item, texts in ((document("abc"), True), (asked, False)):
        path = tmp_path / f"{item.id}.arrow"
        prepared.write(path, [(item, Encoded([1, 2], [False, True]))])
        assert Prepared(path).documents is texts


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' or m.content == 'bad' %}{{ raise_exception('Not that.') }}{% endif %}"
    "{{ m.content }};{% endfor %}"
)


def item(number: int, conversation: Conversation) -> Item:
    return Item(str(number), f"rows.jsonl:{number}", str(number), conversation)


def test_a_template_that_refuses_all_rows_is_the_reason_and_not_their_length() -> None:
    ledger = Ledger()
    refused = [item(number, Conversation.pair("bad", "a")) for number in (1, 2)]
    rows = encode_all(refused, Template(NO_SYSTEM, Letters(), "letters"), 99, ledger, pairs=frozenset())
    assert rows == {"rows.jsonl:1": [], "rows.jsonl:2": []}
    words = why_none(ledger, 99)
    assert "the model's chat template refuses them, the first at rows.jsonl:1" in words and '"Not that"' in words


def test_rows_that_are_too_long_or_teach_nothing_are_the_reason_where_they_are() -> None:
    letters = Template("{% for m in messages %}{{ m.content }}{% endfor %}", Letters(), "letters")
    for conversation, words in (
        (Conversation.pair("q", "aaaa"), "with 3 tokens"),
        (document("a").conversation, "no loss tokens"),
    ):
        ledger = Ledger()
        encode_all([item(1, conversation)], letters, 3, ledger, pairs=frozenset())
        assert words in why_none(ledger, 3)


def test_what_is_kept_otherwise_than_it_was_given_is_noted() -> None:
    ledger = Ledger()
    messages = (Message("system", "s"), Message("user", "q"), Message("assistant", "a", reasoning="Hm."))
    encode_all(
        [item(1, Conversation(messages))], Template(NO_SYSTEM, Letters(), "letters"), 99, ledger, pairs=frozenset()
    )
    assert list(ledger.notes.values()) == [["rows.jsonl:1"]] * 2
    assert "its system message opens the question" in " ".join(ledger.notes)


def test_earlier_answers_in_rows_of_their_own_are_learnt_and_not_asked() -> None:
    turns = Conversation.pair("q", "a").messages + Conversation.pair("p", "b").messages
    rows = [Encoded([1, 2], [False, True]), Encoded([1, 3], [False, True])]
    whole = item(1, Conversation(turns))
    both = [(one.id, len(one.conversation.messages), row) for one, row in pieces(whole, rows)]
    assert both == [("1.0", 2, rows[0]), ("1", 4, rows[1])]
    assert pieces(whole, rows, last=True) == [(whole, rows[1])]


def test_prepared_rows_keep_thoughts_calls_and_tools(tmp_path: Path) -> None:
    call = ToolCall("add", '{"a": 1}', "c1")
    messages = (Message("user", "q"), Message("assistant", "", "Hm.", (call,)), Message("tool", "1", name="add"))
    said = Conversation((*messages, Message("assistant", "a")), tools=('{"name": "add"}',))
    prepared.write(tmp_path / "rows.arrow", [(item(1, said), Encoded([1, 2], [False, True]))])
    assert Prepared(tmp_path / "rows.arrow").items()[0].conversation == said


def test_equal_tokens_are_one_object_in_all_rows(template: Template) -> None:
    """Numbers above 256 are objects of their own in Python, 28 bytes each."""
    items = [replace(document("ĀāĂā"), location=str(number)) for number in range(3)]
    rows = encode_all(items, template, 9, Ledger(), pairs=set())
    tokens = [token for found in rows.values() for row in found for token in row.ids]
    assert len(tokens) == 12 and len({id(token) for token in tokens}) == 3
