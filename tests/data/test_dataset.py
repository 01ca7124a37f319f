"""Every row is accounted for, and an item is the same whatever file it came from."""

import json
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.chat import Conversation, Message
from luthier.data import Dataset, Ledger, load
from luthier.data.dataset import conversation_id, fault, normalised_prompt
from luthier.errors import UserError
from luthier.recipe import Data

Write = Callable[[str, str | bytes], Path]
REASONS = {"empty question and answer", "empty question", "empty answer", "exact duplicate"}


def jsonl(*records: Mapping[str, object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def pairs(*texts: tuple[str, str]) -> str:
    return jsonl(*({"question": question, "answer": answer} for question, answer in texts))


def read(write: Write, content: str, **settings: object) -> Dataset:
    return load(Data.model_validate({"path": write("x.jsonl", content), **settings}))


# The ledger


def test_rows_are_dropped_with_a_reason_and_a_place(write: Write) -> None:
    data = read(write, pairs(("q", "a"), ("", ""), (" \n", "a"), ("q2", "\t"), ("Q", "b"), (" q", "a ")))
    assert data.ledger.dropped == {
        "empty question and answer": ["x.jsonl:2"],
        "empty question": ["x.jsonl:3"],
        "empty answer": ["x.jsonl:4"],
        "exact duplicate": ["x.jsonl:6 (same as x.jsonl:1)"],
    }
    assert data.ledger.notes == {"same question, different answer": ["x.jsonl:5 (as x.jsonl:1)"]}
    assert (data.ledger.read, data.ledger.kept) == (6, 2)
    assert [item.location for item in data.items] == ["x.jsonl:1", "x.jsonl:5"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    texts=st.lists(st.tuples(st.sampled_from(["", " ", "q", "q ", "é", "e\u0301"]), st.sampled_from(["", "a", "b"])))
)
def test_the_ledger_adds_up(write: Write, texts: list[tuple[str, str]]) -> None:
    data = read(write, pairs(("always", "kept"), *texts))
    places = [place for reason in data.ledger.dropped.values() for place in reason]
    assert data.ledger.dropped.keys() <= REASONS
    assert data.ledger.read == len(texts) + 1 == len(data.items) + len(places)
    assert data.ledger.kept == len(data.items)
    assert len({place.split()[0] for place in places} | {item.location for item in data.items}) == data.ledger.read


def test_later_stages_drop_into_the_same_ledger() -> None:
    ledger = Ledger(read=3)
    ledger.drop("too long to keep its answer", "x.jsonl:2")
    assert ledger.kept == 2
    assert ledger.summary() == "3 rows read, 2 kept; dropped: 1 too long to keep its answer (x.jsonl:2)"


def test_the_two_spellings_of_an_accent_are_one_question(write: Write) -> None:
    nfc, nfd = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    assert read(write, pairs((nfc, "a"), (nfd, "a"))).ledger.kept == 1


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no messages"),
        ([("user", "q")], "no answer at the end"),
        ([("user", "q"), ("assistant", "a"), ("user", "q")], "no answer at the end"),
        ([("system", "s"), ("assistant", "a")], "no question"),
        ([("user", " "), ("assistant", "")], "empty question and answer"),
        ([("user", "q"), ("assistant", " ")], "empty answer"),
        ([("user", "q"), ("assistant", "a"), ("user", ""), ("assistant", "a")], "empty question"),
        (
            [("user", "q"), ("assistant", ""), ("user", "q"), ("assistant", "a")],
            "empty message before the last question",
        ),
        ([("user", "q"), ("assistant", "\ud83d")], "half a character (a lone surrogate)"),
        ([("text", "\n")], "empty text"),
        ([("text", "t")], None),
        ([("assistant", "Hello!"), ("user", "q"), ("assistant", "a")], None),
    ],
)
def test_what_cannot_be_learnt_or_asked_has_a_reason(messages: list[tuple[str, str]], reason: str | None) -> None:
    roles = {"system", "user", "assistant", "text"}
    conversation = Conversation(tuple(Message(role, content) for role, content in messages if role in roles))  # type: ignore[arg-type]
    assert fault(conversation) == reason


def test_messages_that_we_cannot_use_are_in_the_ledger(write: Write) -> None:
    good = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    data = read(write, jsonl({"messages": good}, {"messages": [{"role": "narrator", "content": "x"}, *good]}))
    assert data.ledger.dropped == {'unknown role "narrator"': ["x.jsonl:2"]}


def test_a_chat_that_ends_with_the_user_loses_what_nobody_answered(write: Write) -> None:
    def chat(*roles: str) -> dict[str, object]:
        return {"messages": [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles)]}

    rows = chat("user", "assistant", "user", "user"), chat("user", "user"), chat("user", "assistant", "tool", "user")
    data = read(write, jsonl(*rows))
    assert [item.conversation.answer for item in data.items] == ["assistant 1"]
    assert len(data.items[0].conversation.messages) == 2
    assert data.ledger.notes == {"without the user's last message, which has no answer": ["x.jsonl:1"]}
    assert data.ledger.dropped == {"no answer at the end": ["x.jsonl:2", "x.jsonl:3"]}


def test_files_that_are_no_data_are_named_apart_from_remarks_on_rows(write: Write) -> None:
    write("d/README.md", "Read me")
    write("d/a.jsonl", pairs(("q", "a")))
    data = load(Data(path=Path("d")))
    assert data.ledger.ignored == ["d/README.md"] and not data.ledger.notes
    assert data.files == ["d/a.jsonl"]


# Items


def test_an_id_is_the_hash_of_roles_and_contents() -> None:
    # printf '%s' '[["user","Grün?"],["assistant","ja"]]' | sha256sum
    assert conversation_id(Conversation.pair("Grün?", "ja")) == "75340ccd75637e33"


def test_an_id_does_not_depend_on_file_or_place(write: Write) -> None:
    ids = [
        [item.id for item in load(Data(path=write(name, content))).items]
        for name, content in {
            "x.jsonl": pairs(("q", "007"), ("q2", "a\nb")),
            "y.csv": 'n,answer,question\n1,007,q\n\n2,"a\nb",q2\n',
            "z.json": '{"rows": [{"messages": [{"role": "user", "content": "q"}, {"role": "bot", "content": "007"}]}, '
            '{"messages": [{"role": "human", "content": "q2"}, {"role": "gpt", "content": "a\\nb"}]}]}',
        }.items()
    ]
    assert ids[0] == ids[1] == ids[2]


def test_the_group_is_the_question_but_for_case_and_blanks(write: Write) -> None:
    data = read(write, pairs((" What  is\nÉ?", "a"), ("what is é?", "b")))
    assert [item.group for item in data.items] == ["what is é?"] * 2


def test_the_group_of_a_document_is_its_text() -> None:
    assert normalised_prompt(Conversation.document("Once\nupon")) == "once upon"


def test_the_group_column_decides_the_group(write: Write) -> None:
    data = read(
        write,
        jsonl(
            {"question": "q", "answer": "a", "customer": 7},
            {"question": "q", "answer": "b", "customer": "8"},
            {"question": "Other", "answer": "c", "customer": None},
        ),
        group="customer",
    )
    assert [item.group for item in data.items] == ["7", "8", "other"]
    assert data.ledger.notes == {
        "same question, different answer": ["x.jsonl:2 (as x.jsonl:1)"],
        "same question in two groups": ["x.jsonl:2 (as x.jsonl:1)"],
        "no group given, grouped by its question": ["x.jsonl:3"],
    }


def test_a_row_without_the_group_column_is_a_mistake(write: Write) -> None:
    content = jsonl({"question": "q", "answer": "a", "customer": "7"}, {"question": "q2", "answer": "a"})
    with pytest.raises(UserError) as caught:
        read(write, content, group="customer")
    assert str(caught.value) == (
        'x.jsonl:2: the column "customer" is missing; this row has question, answer. Every row needs it: '
        "add it, null or empty where there is nothing to say."
    )


def test_a_group_is_text_that_can_be_written(write: Write) -> None:
    (item,) = read(write, jsonl({"question": "q", "answer": "a", "customer": "x\ud83d"}), group="customer").items
    assert item.group == "x\ufffd"
    pq.write_table(pa.table({"question": ["q"], "answer": ["a"], "picture": [b"\x89"]}), "x.parquet")
    with pytest.raises(UserError) as caught:
        load(Data(path=Path("x.parquet"), group="picture"))
    assert str(caught.value) == (
        'x.parquet:row 1: the column "picture" cannot name a group: bytes that are not text. Choose another.'
    )


def test_the_recipes_system_message_stands_before_conversations_without_one(write: Write) -> None:
    own = [{"role": r, "content": c} for r, c in (("system", "own"), ("user", "q"), ("assistant", "a"))]
    data = read(write, jsonl({"messages": own}, {"messages": own[1:]}), system="Be brief.")
    assert [item.conversation.messages[0].content for item in data.items] == ["own", "Be brief."]
    assert [item.group for item in data.items] == ["own q", "q"]


def test_documents_get_no_system_message(write: Write) -> None:
    (item,) = read(write, jsonl({"text": "Once."}), system="Be brief.").items
    assert item.conversation == Conversation.document("Once.")


def test_the_dataset_hash_sees_content_and_order(write: Write) -> None:
    one, two = ("q", "a"), ("q2", "a2")
    hashes = {read(write, pairs(*rows)).sha256 for rows in ((one, two), (two, one), (one,), (one, ("q2", "a3")))}
    assert len(hashes) == 4
    assert read(write, pairs(one, one, two)).sha256 == read(write, pairs(one, two)).sha256


def test_columns_are_looked_for_in_the_first_rows_not_only_in_the_first(write: Write) -> None:
    content = jsonl({"instruction": "i", "output": "o"}, {"instruction": "i", "input": "x", "output": "o2"})
    assert [item.conversation.question for item in read(write, content).items] == ["i", "i\n\nx"]


def test_a_row_that_lacks_a_column_is_dropped_and_the_others_are_kept(write: Write) -> None:
    lines = [("q" + str(n), "a") for n in range(150)]
    data = read(write, pairs(*lines) + '{"question": "q"}\n')
    assert data.ledger.dropped == {'no column "answer"': ["x.jsonl:151"]} and data.ledger.kept == 150


# Messages


def test_no_path_is_a_mistake() -> None:
    with pytest.raises(UserError) as caught:
        load(Data())
    assert str(caught.value) == "data.path: no data given; name a file or folder: luthier run tickets.jsonl."


@pytest.mark.parametrize(("name", "content"), [("x.csv", "question,answer\n"), ("x.json", "[]"), ("x.jsonl", "\n\n")])
def test_a_file_without_rows_is_a_mistake(write: Write, name: str, content: str) -> None:
    with pytest.raises(UserError) as caught:
        load(Data(path=write(name, content)))
    assert str(caught.value) == (
        f"{name}: no rows in it. Expected at least three: one each to train, to choose and to test."
    )


def test_no_usable_row_shows_the_ledger(write: Write) -> None:
    with pytest.raises(UserError) as caught:
        read(write, pairs(("", ""), *[(f"q{n}", " ") for n in range(5)]))
    assert str(caught.value) == (
        "x.jsonl: no usable row: 6 rows read, 0 kept; dropped: 1 empty question and answer (x.jsonl:1), "
        "5 empty answer (x.jsonl:2, x.jsonl:3, x.jsonl:4 and 2 more). The rows were read as question-answer "
        "(columns question, answer)."
    )
