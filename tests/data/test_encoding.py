"""Of every training row something is learnt; an item of which nothing would be is noted in the ledger."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from luthier.chat import Conversation, Encoded, Template
from luthier.data import prepared
from luthier.data.dataset import Item, Ledger
from luthier.data.encoding import encode
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
    assert all(row.learnt for row in rows) and not ledger.dropped


def test_a_text_of_one_token_has_nothing_to_learn_and_is_dropped_by_name(template: Template) -> None:
    ledger = Ledger()
    assert encode(document("a"), template, 3, ledger) == []
    assert ledger.dropped == {"nothing to learn in it": ["texts.txt:1"]}


def test_prepared_rows_know_whether_they_are_texts(template: Template, tmp_path: Path) -> None:
    asked = Item("2", "rows.jsonl:1", "2", Conversation.pair("ab", "cd"))
    for item, texts in ((document("abc"), True), (asked, False)):
        path = tmp_path / f"{item.id}.arrow"
        prepared.write(path, [(item, Encoded([1, 2], [False, True]))])
        assert Prepared(path).documents is texts
