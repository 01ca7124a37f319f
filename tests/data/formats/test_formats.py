"""Which format columns make, what a row becomes in it, and what is said where they make none."""

import json
import sys
from pathlib import Path

import pytest

from luthier.chat import Conversation, Message
from luthier.data import FORMATS, Choice, Record, Unfit, Value
from luthier.data.formats import Table, reader, recognise
from luthier.data.messages import chat
from luthier.errors import UserError
from luthier.recipe import Data

Q, A = Message("user", "q"), Message("assistant", "a")
PLAIN = Conversation((Q, A))


def recipe(format: str | None = None, group: str | None = None, **columns: str) -> Data:
    return Data(path=Path("x.jsonl"), format=format, group=group, columns=columns)


def build(values: dict[str, Value], data: Data | None = None) -> Conversation:
    """A single row, by the format that its columns make."""
    return reader(recognise(Table.of([Record("x.jsonl:1", values)], path="x.jsonl"), data or recipe()))(
        Record("x.jsonl:1", values)
    )


def refusal(columns: list[str], data: Data) -> str:
    with pytest.raises(UserError) as caught:
        recognise(Table.named(columns, path="x.jsonl"), data)
    return str(caught.value)


# What the recipe says


def test_the_choice_is_a_sentence() -> None:
    choice = recognise(Table.named(["question", "id", "answer", "messages"]), recipe())
    assert choice.sentence() == (
        "read as messages (columns messages; not used: question, id, answer); "
        "could also be read as question-answer with data.format=question-answer"
    )


def test_the_sentence_names_renamed_columns() -> None:
    choice = recognise(
        Table.named(["Frage", "Antwort", "customer"]), recipe(group="customer", question="Frage", answer="Antwort")
    )
    assert choice.sentence() == "read as question-answer (columns Frage as question, Antwort as answer)"


def test_the_recipe_decides_the_format() -> None:
    choice = recognise(Table.named(["question", "text", "answer"]), recipe("text"))
    assert choice == Choice("text", {"text": "text"}, (), ("question", "answer"))


def test_one_named_column_is_enough_where_another_is_left() -> None:
    rows = [Record(f"x.jsonl:{n}", {"en": f"Good day {n}", "nl": f"Goedendag {n}"}) for n in range(4)]
    choice = recognise(Table.of(rows), recipe(answer="en"))
    assert reader(choice)(rows[0]) == Conversation.pair("Goedendag 0", "Good day 0")


def test_named_columns_decide_the_format() -> None:
    assert recognise(Table.named(["question", "answer", "body"]), recipe(text="body")).columns == {"text": "body"}


def test_a_system_column_is_used_where_it_holds_a_message() -> None:
    row: dict[str, Value] = {"question": "q", "answer": "a", "system": "Windows 10"}
    assert build(row) == PLAIN
    assert build(row, recipe(system="system")).messages[0] == Message("system", "Windows 10")
    assert build({**row, "system": "Answer like a captain."}).messages[0] == Message("system", "Answer like a captain.")


# Rows


@pytest.mark.parametrize(
    "values",
    [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"messages": json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"question": "q", "answer": "a"},
        {"instruction": "q", "output": "a"},
        {"instruction": "q", "input": None, "response": "a"},
        {"instruction": "q", "input": " ", "output": "a"},
        {"prompt": "q", "completion": "a"},
        {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
        {"prompt": [{"role": "user", "content": "q"}], "completion": "a"},
        {"input": "q", "output": "a"},
    ],
)
def test_a_row_becomes_a_conversation(values: dict[str, Value]) -> None:
    assert build(values) == PLAIN


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"instruction": "q", "input": "", "output": "c", "chosen": "a", "rejected": "b"},
        {"prompt": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": "b"},
        {
            "prompt": "q",
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
        },
        {
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
        },
    ],
)
def test_a_pair_of_answers_becomes_the_chosen_conversation_and_the_rejected_answer(values: dict[str, Value]) -> None:
    assert build(values) == Conversation((Q, A), rejected="b")


def test_answers_to_two_prompts_are_no_pair() -> None:
    chosen = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rejected: list[Value] = [{"role": "user", "content": "other"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(Unfit, match="chosen and rejected do not answer the same prompt"):
        build({"chosen": chosen, "rejected": rejected})


def test_an_instruction_and_its_input_are_parted_by_a_blank_line() -> None:
    assert build({"instruction": "Translate.", "input": "Hallo", "output": "Hello"}).question == "Translate.\n\nHallo"


def test_text_is_a_document() -> None:
    assert build({"text": "Once."}) == Conversation.document("Once.")


def test_text_is_not_changed() -> None:
    assert build({"question": " q\r\n", "answer": "a\u2028 "}) == Conversation.pair(" q\r\n", "a\u2028 ")


@pytest.mark.parametrize(
    ("word", "role"),
    [
        ("developer", "system"),
        ("System", "system"),
        ("human", "user"),
        ("gpt", "assistant"),
        ("model", "assistant"),
        ("bot", "assistant"),
    ],
)
def test_roles_have_other_names(word: str, role: str) -> None:
    assert chat([{"role": word, "content": "x"}]).messages[0].role == role


def test_text_parts_are_joined() -> None:
    parts: Value = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert chat([{"role": "user", "content": parts}]).messages[0].content == "one two"


@pytest.mark.parametrize(
    "told",
    [
        {"content": "4", "reasoning_content": "2 and 2."},
        {"content": "4", "reasoning": "2 and 2.", "reasoning_content": "2 and 2."},
        {"content": "4", "thinking": "2 and 2."},
        {"content": [{"type": "thinking", "thinking": "2 and 2."}, {"type": "text", "text": "4"}]},
        {"content": [{"type": "reasoning", "text": "2 and 2."}, {"type": "text", "text": "4"}]},
    ],
)
def test_thoughts_stand_beside_the_answer(told: dict[str, Value]) -> None:
    found = chat([{"role": "user", "content": "2+2?", "thinking": "mine"}, {"role": "assistant", **told}])
    assert found.messages == (Message("user", "2+2?"), Message("assistant", "4", reasoning="2 and 2."))


def test_an_answer_without_thoughts_has_none() -> None:
    found = chat([{"role": "assistant", "content": "4", "reasoning_content": None, "thinking": " "}])
    assert found.messages[0].reasoning is None


def test_a_blank_system_message_is_left_out() -> None:
    assert chat([{"role": "system", "content": " "}, {"role": "user", "content": "q"}]).messages == (Q,)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("hello", "messages are not a list"),
        ("[1] 2", "messages are not a list"),
        ({"role": "user"}, "messages are not a list"),
        (None, "messages are not a list"),
        (["hello"], "a message is not an object"),
        ([{"content": "x"}], "a message without a role"),
        ([{"role": "user"}], "a message without content"),
        ([{"role": "narrator", "content": "x"}], 'unknown role "narrator"'),
        ([{"role": "tool"}], "a message without content"),
        ([{"role": "assistant", "content": None, "tool_calls": [{}]}], "a call without a name"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "it needs a picture"),
        ([{"role": "user", "content": ["x"]}], "a content part that is not text"),
        (
            [{"role": "assistant", "content": "x", "weight": "0.5"}],
            "an answer with weight 0.5, where 1 (learnt) and 0 (not learnt) are known",
        ),
    ],
)
def test_messages_that_we_cannot_use_say_why(messages: Value, reason: str) -> None:
    with pytest.raises((Unfit, ValueError)) as caught:
        chat(messages)
    assert str(caught.value) == reason


def test_bytes_are_unfit() -> None:
    with pytest.raises(Unfit, match=r"^bytes that are not text$"):
        build({"text": b"\x89"})


def test_a_row_without_a_required_column_is_dropped_with_its_reason() -> None:
    choice = recognise(Table.named(["question", "answer"]), recipe())
    with pytest.raises(Unfit, match=r'^no column "answer"$'):
        reader(choice)(Record("x.jsonl:7", {"question": "q", "anwser": "a"}))


# Messages


def test_many_columns_are_cut_short() -> None:
    found = refusal([f"c{n}" for n in range(40)], recipe()).partition(";")[0]
    assert found == "x.jsonl: found the columns c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11 and 28 more"


def test_a_format_that_lacks_a_column_says_how_to_name_it() -> None:
    assert refusal(["question", "one", "two"], recipe("question-answer")) == (
        "x.jsonl: found the columns question, one, two; question-answer needs question, answer. "
        "Name yours: data.columns.answer=COLUMN"
    )


def test_words_of_two_formats_are_named() -> None:
    assert refusal(["a", "b"], recipe(chosen="a", label="b")).startswith(
        "data.columns: no format has all of these columns: chosen to preference, preference-chats; label to "
    )


def test_all_wrong_names_in_the_recipe_are_told_at_once() -> None:
    assert refusal(["Frage", "Antwort"], recipe("question-answer", question="Frag", reply="Antwort")) == (
        'data.columns.question: unknown column "Frag", did you mean "Frage"? Known: Frage, Antwort.\n'
        'data.columns.reply: unknown column of the format question-answer "reply". Known: question, answer, instruction, '
        "input, title, system, context, history, thoughts, references, tools."
    )


def test_an_unknown_format_names_the_nearest() -> None:
    assert refusal(["question"], recipe("question_answer")) == (
        'data.format: unknown data format "question_answer", did you mean "question-answer"? '
        f"Known: {', '.join(FORMATS)}."
    )


def test_an_unknown_group_column_names_the_nearest() -> None:
    assert refusal(["question", "answer", "customer"], recipe(group="custmer")) == (
        'data.group: unknown column "custmer", did you mean "customer"? Known: question, answer, customer.'
    )


# A function of the user's


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own."""
    (tmp_path / "own_format.py").write_text(
        "from luthier.chat import Conversation\n"
        "def build(row):\n"
        "    if row['q'] == 'none': return None\n"
        "    if row['q'] == 'other': return 3\n"
        "    return Conversation.pair(row['q'], row['a'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_format", raising=False)
    return "own_format:build"


def test_a_function_of_the_users_builds_the_conversation(own: str) -> None:
    choice = recognise(Table.named(["q", "a"]), recipe(own))
    read = reader(choice)
    assert choice.sentence() == "read as own_format:build"
    assert read(Record("x.jsonl:1", {"q": "q", "a": "a"})) == PLAIN
    with pytest.raises(Unfit, match=r"^left out by own_format:build$"):
        read(Record("x.jsonl:2", {"q": "none"}))


def test_what_is_wrong_with_the_users_function_is_told_with_the_row(own: str) -> None:
    read = reader(recognise(Table.named(["q", "a"]), recipe(own)))
    with pytest.raises(UserError) as caught:
        read(Record("x.jsonl:1", {"q": "q"}))
    assert str(caught.value) == "x.jsonl:1: own_format:build failed on this row: KeyError: 'a'."
    with pytest.raises(UserError) as caught:
        read(Record("x.jsonl:2", {"q": "other"}))
    assert str(caught.value) == (
        "x.jsonl:2: own_format:build returned int, expected a Conversation, or None to leave the row out."
    )


def test_a_function_that_cannot_be_imported_is_told(own: str) -> None:
    with pytest.raises(UserError) as caught:
        reader(recognise(Table.named(["q"]), recipe("own_fromat:build")))
    assert str(caught.value) == (
        "data.format: \"own_fromat:build\" cannot be imported: No module named 'own_fromat'. "
        "Expected package.module:function, with the folder that holds the package on PYTHONPATH."
    )
    with pytest.raises(UserError, match='own_format has no function "biuld", did you mean "build"'):
        reader(recognise(Table.named(["q"]), recipe("own_format:biuld")))


def test_columns_beside_a_function_have_no_effect(own: str) -> None:
    assert refusal(["q"], recipe(own, question="q")) == (
        "data.columns: has no effect: own_format:build reads the row itself. Leave it out."
    )
