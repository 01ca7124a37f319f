"""Which format columns make, what a row becomes in it, and what is said where they make none."""

import json
import sys
from pathlib import Path

import pytest

from luthier.chat import Conversation, Message
from luthier.data import FORMATS, Choice, Record, Unfit, Value
from luthier.data.formats import reader, recognise
from luthier.data.messages import chat
from luthier.errors import UserError
from luthier.recipe import Data

Q, A = Message("user", "q"), Message("assistant", "a")
PLAIN = Conversation((Q, A))
KNOWN = (
    "preference (prompt, chosen, rejected); preference-chats (chosen, rejected); messages (messages); "
    "conversations (conversations); transcript (system, chat); question-answer (question, answer); "
    "instruction (instruction, output); "
    "prompt-completion (prompt, completion); input-output (input, output); text (text)"
)


def recipe(format: str | None = None, group: str | None = None, **columns: str) -> Data:
    return Data(path=Path("x.jsonl"), format=format, group=group, columns=columns)


def build(values: dict[str, Value], data: Data | None = None) -> Conversation:
    """A single row, by the format that its columns make."""
    return reader(recognise(list(values), data or recipe()))(Record("x.jsonl:1", values))


def refusal(columns: list[str], data: Data) -> str:
    with pytest.raises(UserError) as caught:
        recognise(columns, data)
    return str(caught.value)


# Recognition


@pytest.mark.parametrize(
    ("columns", "format", "alternatives"),
    [
        ("prompt chosen rejected", "preference", ("preference-chats",)),
        ("instruction input output chosen rejected", "preference", ("preference-chats", "instruction", "input-output")),
        ("chosen rejected", "preference-chats", ()),
        ("messages", "messages", ()),
        ("id conversations", "conversations", ()),
        ("question answer", "question-answer", ()),
        ("ANSWER Question", "question-answer", ()),
        ("instruction output", "instruction", ()),
        ("instruction input response", "instruction", ()),
        ("instruction input output", "instruction", ("input-output",)),
        ("prompt completion", "prompt-completion", ()),
        ("input output", "input-output", ()),
        ("text meta", "text", ()),
        ("text question answer", "question-answer", ("text",)),
        ("text output input answer question messages", "messages", ("question-answer", "input-output", "text")),
    ],
)
def test_columns_make_a_format(columns: str, format: str, alternatives: tuple[str, ...]) -> None:
    choice = recognise(columns.split(), recipe())
    assert (choice.format, choice.alternatives) == (format, alternatives)


def test_the_choice_is_a_sentence() -> None:
    choice = recognise(["question", "text", "answer"], recipe())
    assert choice.sentence() == (
        "read as question-answer (columns question, answer; not used: text); "
        "could also be read as text with data.format=text"
    )


def test_the_sentence_names_renamed_columns() -> None:
    choice = recognise(["Frage", "Antwort", "customer"], recipe(group="customer", question="Frage", answer="Antwort"))
    assert choice.sentence() == "read as question-answer (columns Frage as question, Antwort as answer)"


def test_the_recipe_decides_the_format() -> None:
    choice = recognise(["question", "text", "answer"], recipe("text"))
    assert choice == Choice("text", {"text": "text"}, (), ("question", "answer"))


def test_named_columns_decide_the_format() -> None:
    assert recognise(["question", "answer", "body"], recipe(text="body")).columns == {"text": "body"}


def test_a_system_column_is_used_only_where_it_is_named() -> None:
    row: dict[str, Value] = {"question": "q", "answer": "a", "system": "Windows 10"}
    assert build(row) == PLAIN
    assert build(row, recipe(system="system")).messages[0] == Message("system", "Windows 10")


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


def test_every_format_is_tested_above() -> None:
    assert [name for name, entry in FORMATS.items() if not entry.by_name_only] == [
        "preference", "preference-chats", "messages", "conversations", "transcript", "question-answer", "instruction",
        "prompt-completion", "input-output", "text",
    ]  # fmt: skip


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
        ([{"role": "user", "content": [{"type": "image_url"}]}], "a content part that is not text"),
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


def test_a_required_column_that_a_row_lacks_is_a_mistake_with_its_place() -> None:
    choice = recognise(["question", "answer"], recipe())
    with pytest.raises(UserError) as caught:
        reader(choice)(Record("x.jsonl:7", {"question": "q", "anwser": "a"}))
    assert str(caught.value) == (
        'x.jsonl:7: the column "answer" is missing; this row has question, anwser ("anwser" perhaps?). Every row '
        "needs it: add it, null or empty where there is nothing to say."
    )


# Messages


def test_unknown_columns_show_the_formats_and_how_to_name_them() -> None:
    assert refusal(["Frage", "Antwort"], recipe()) == (
        f"x.jsonl: found the columns Frage, Antwort; expected those of a format: {KNOWN}. "
        "Name yours: data.format=question-answer data.columns.question=Frage data.columns.answer=Antwort"
    )


def test_near_names_and_names_with_blanks_are_proposed() -> None:
    assert refusal(["id", "question", "the answer"], recipe()).endswith(
        "Name yours: data.format=question-answer 'data.columns.answer=the answer'"
    )
    assert refusal(["body"], recipe()).endswith("Name yours: data.format=text data.columns.text=body")


def test_many_columns_are_cut_short() -> None:
    found = refusal([f"c{n}" for n in range(40)], recipe()).partition(";")[0]
    assert found == "x.jsonl: found the columns c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11 and 28 more"


def test_a_format_that_lacks_a_column_says_how_to_name_it() -> None:
    assert refusal(["question", "reply"], recipe("question-answer")) == (
        "x.jsonl: found the columns question, reply; question-answer needs question, answer. "
        "Name yours: data.format=question-answer data.columns.answer=reply"
    )
    assert refusal(["question"], recipe("question-answer")).endswith(
        "data.format=question-answer data.columns.answer=COLUMN"
    )


def test_a_half_named_format_says_what_is_left_to_name() -> None:
    assert refusal(["Frage", "Antwort"], recipe(question="Frage")).endswith(
        "Name yours: data.format=question-answer data.columns.question=Frage data.columns.answer=Antwort"
    )


def test_all_wrong_names_in_the_recipe_are_told_at_once() -> None:
    assert refusal(["Frage", "Antwort"], recipe("question-answer", question="Frag", reply="Antwort")) == (
        'data.columns.question: unknown column "Frag", did you mean "Frage"? Known: Frage, Antwort.\n'
        'data.columns.reply: unknown column of the format question-answer "reply". Known: question, answer, system.'
    )


def test_an_unknown_format_names_the_nearest() -> None:
    assert refusal(["question"], recipe("question_answer")) == (
        'data.format: unknown data format "question_answer", did you mean "question-answer"? '
        "Known: preference, preference-chats, messages, conversations, transcript, question-answer, instruction, "
        "prompt-completion, input-output, text, question-answer-text, question-answer-prompt, alpaca-prompt."
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
    choice = recognise(["q", "a"], recipe(own))
    read = reader(choice)
    assert choice.sentence() == "read as own_format:build"
    assert read(Record("x.jsonl:1", {"q": "q", "a": "a"})) == PLAIN
    with pytest.raises(Unfit, match=r"^left out by own_format:build$"):
        read(Record("x.jsonl:2", {"q": "none"}))


def test_what_is_wrong_with_the_users_function_is_told_with_the_row(own: str) -> None:
    read = reader(recognise(["q", "a"], recipe(own)))
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
        reader(recognise(["q"], recipe("own_fromat:build")))
    assert str(caught.value) == (
        "data.format: \"own_fromat:build\" cannot be imported: No module named 'own_fromat'. "
        "Expected package.module:function, with the folder that holds the package on PYTHONPATH."
    )
    with pytest.raises(UserError, match='own_format has no function "biuld", did you mean "build"'):
        reader(recognise(["q"], recipe("own_format:biuld")))


def test_columns_beside_a_function_have_no_effect(own: str) -> None:
    assert refusal(["q"], recipe(own, question="q")) == (
        "data.columns: has no effect: own_format:build reads the row itself. Leave it out."
    )
