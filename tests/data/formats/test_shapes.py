"""Public shapes of chats, preferences, choices and exports, a row or two of each, and the conversations that they are."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from luthier.chat import Conversation, Message, ToolCall
from luthier.data import Dataset, load
from luthier.errors import UserError
from luthier.recipe import Data

Write = Callable[[str, "str | bytes"], Path]
Q, A = "When does the ferry leave?", "At noon."
PLAIN = Conversation.pair(Q, A)
SYSTEM = Conversation.pair(Q, A, system="You are a captain.")
ASK, SAY = {"role": "user", "content": Q}, {"role": "assistant", "content": A}
NOT = "Never."


def read(write: Write, *rows: Mapping[str, Any]) -> Dataset:
    return load(Data(path=write("x.jsonl", "".join(json.dumps(row) + "\n" for row in rows))))


CHATS: dict[str, Mapping[str, Any]] = {
    "openai": {"messages": [ASK, SAY]},
    "upper case": {"conversations": [{"from": "USER", "value": Q}, {"from": "ASSISTANT", "value": A}]},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": Q}]}, {"role": "model", "parts": [{"text": A}]}]},
    "nova": {"messages": [{"role": "user", "content": [{"text": Q}]}, {"role": "assistant", "content": [{"text": A}]}]},
    "pairs": {"conversation": [{"human": Q, "assistant": A}]},
    "texts that alternate": {"dialog": [Q, A]},
    "parallel lists": {"conversations": {"from": ["human", "gpt"], "value": [Q, A]}},
    "sender and text": {"chat_messages": [{"sender": "human", "text": Q}, {"sender": "assistant", "text": A}]},
    "names": {"dialogue": [{"speaker": "Ann", "text": Q}, {"speaker": "Bo", "text": A}]},
    "json in a cell": {"messages": json.dumps([ASK, SAY])},
    "python in a cell": {"messages": str([ASK, SAY])},
    "numpy in a cell": {"messages": f"[{ASK}\n {SAY}]"},
    "a transcript": {"conversation": f"User: {Q}\n\nBot: {A}"},
    "a transcript as text": {"text": f"### Human: {Q}### Assistant: {A}"},
    "answers at the end": {"messages": [ASK, SAY, {"role": "user", "content": "Thanks!"}]},
    "prompt as chat": {"prompt": [ASK], "completion": [SAY]},
    "eval samples": {"input": [ASK], "ideal": A},
    "messages beside ready-made text": {"text": f"<|user|>{Q}<|assistant|>{A}", "messages": [ASK, SAY]},
    "instruction beside ready-made text": {"instruction": Q, "input": "", "output": A, "text": f"# {Q}\n# {A}"},
    "no input": {"instruction": Q, "input": "<noinput>", "output": A},
    "chatgpt": {
        "title": "Ferry",
        "mapping": {
            "a": {"message": None, "parent": None},
            "b": {"message": {"author": {"role": "user"}, "content": {"parts": [Q]}}, "parent": "a"},
            "x": {"message": {"author": {"role": "assistant"}, "content": {"parts": [NOT]}}, "parent": "b"},
            "c": {"message": {"author": {"role": "assistant"}, "content": {"parts": [A]}}, "parent": "b"},
        },
        "current_node": "c",
    },
    "oasst tree": {
        "message_tree_id": "t",
        "prompt": {
            "text": Q,
            "role": "prompter",
            "replies": [{"text": NOT, "role": "assistant", "rank": 1}, {"text": A, "role": "assistant", "rank": 0}],
        },
    },
    "batch with answers": {
        "custom_id": "1",
        "body": {"messages": [ASK]},
        "response": {"body": {"choices": [{"message": SAY}]}},
    },
    "argilla": {"id": "0", "fields": {"prompt": Q}, "responses": {"answer": [{"value": A}]}},
    "seed tasks": {"instruction": Q, "instances": [{"input": "", "output": A}]},
    "label studio's text": {
        "data": {"question": Q},
        "annotations": [{"result": [{"type": "textarea", "value": {"text": [A]}}]}],
    },
    "dataset viewer": {"row_idx": 0, "row": {"question": Q, "answer": A}, "truncated_cells": []},
    "tickets": {"id": 1, "subject": Q, "description": Q, "comments": [{"body": A}]},
}


@pytest.mark.parametrize("name", CHATS)
def test_a_question_and_its_answer_in_many_spellings(write: Write, name: str) -> None:
    (item,) = read(write, CHATS[name]).items
    assert item.conversation == PLAIN


@pytest.mark.parametrize(
    "row",
    [
        {"system": "You are a captain.", "messages": [ASK, SAY]},
        {"system": [{"text": "You are a captain."}], "messages": [ASK, SAY]},
        {"systemInstruction": {"parts": [{"text": "You are a captain."}]}, "contents": [ASK, SAY]},
        {"id": "n.1", "system_prompt": "You are a captain.", "question": Q, "response": A},
        {"system": "You are a captain.", "question": Q, "answer": A},
        {"system": "SYSTEM: You are a captain.", "chat": f"USER: {Q}\n\n\nASSISTANT: {A} <|endoftext|>\n\n\n"},
    ],
)
def test_a_system_message_stands_in_a_column(write: Write, row: Mapping[str, Any]) -> None:
    assert [item.conversation for item in read(write, row).items] == [SYSTEM]


@pytest.mark.parametrize(
    "history", [[["Ahoy", "Welcome."]], [{"role": "user", "content": "Ahoy"}, {"role": "bot", "content": "Welcome."}]]
)
def test_history_is_earlier_turns(write: Write, history: Any) -> None:
    (item,) = read(write, {"instruction": Q, "output": A, "history": history}).items
    assert [message.content for message in item.conversation.messages] == ["Ahoy", "Welcome.", Q, A]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": Q, "chosen": A, "rejected": NOT},
        {"chosen": f"\n\nHuman: {Q}\n\nAssistant: {A}", "rejected": f"\n\nHuman: {Q}\n\nAssistant: {NOT}"},
        {
            "conversations": [{"from": "human", "value": Q}],
            "chosen": {"from": "gpt", "value": A},
            "rejected": {"from": "gpt", "value": NOT},
        },
        {"chosen_messages": [ASK, SAY], "rejected_messages": [ASK, {"role": "assistant", "content": NOT}]},
        {
            "input": {"messages": [ASK], "tools": []},
            "preferred_output": [SAY],
            "non_preferred_output": [{"role": "assistant", "content": NOT}],
        },
        {"prompt": Q, "response_chosen": A, "response_rejected": NOT},
        {
            "prompt": Q,
            "prompt_id": "7",
            "chosen": [ASK, SAY],
            "rejected": [ASK, {"role": "assistant", "content": NOT}],
            "messages": [ASK, SAY],
            "score_chosen": 8.5,
        },
        {"prompt": f"\n\nHuman: {Q}\n\nAssistant:", "chosen": A, "rejected": NOT},
    ],
)
def test_preferences_in_many_spellings(write: Write, row: Mapping[str, Any]) -> None:
    assert [item.conversation for item in read(write, row).items] == [Conversation.pair(Q, A, rejected=NOT)]


@pytest.mark.parametrize("vote", ["response_b", "B", "model_b"])
def test_a_vote_chooses_one_of_two_answers(write: Write, vote: str) -> None:
    two = {"prompt": Q, "response_a": NOT, "response_b": A}
    data = read(write, {**two, "winner": vote}, {**two, "winner": "tie (both bad)"})
    assert [item.conversation for item in data.items] == [Conversation.pair(Q, A, rejected=NOT)]
    assert data.ledger.dropped == {"neither answer was preferred": ["x.jsonl:2"]}


@pytest.mark.parametrize(
    "names", [("response_1", "response_2", "preference_strength"), ("response1", "response2", "overall_preference")]
)
def test_a_signed_strength_is_below_0_for_the_first_answer(write: Write, names: tuple[str, str, str]) -> None:
    rows: list[dict[str, Any]] = [
        dict(zip(names, (NOT, A, strength), strict=True)) | {"prompt": Q} for strength in (2, -3, 0)
    ]
    data = read(write, *rows)
    first, second = (item.conversation for item in data.items)
    assert first == Conversation.pair(Q, A, rejected=NOT) and second == Conversation.pair(Q, NOT, rejected=A)
    assert data.ledger.dropped == {"neither answer was preferred": ["x.jsonl:3"]}


def test_a_column_for_each_winner_chooses_between_answers_in_lists(write: Write) -> None:
    def battle(asked: list[str], first: list[str], second: list[str], *, won: str) -> dict[str, Any]:
        winner = {f"winner_{one}": int(won == one) for one in ("model_a", "model_b", "tie")}
        texts = {"prompt": asked, "response_a": first, "response_b": second}
        return {"id": won, **{name: json.dumps(value) for name, value in texts.items()}, **winner}

    rows = [
        battle([Q], [NOT], [A], won="model_b"),
        battle([Q], [NOT], [A], won="model_a"),
        battle([Q], [NOT], [A], won="tie"),
        battle([Q, "And?"], [A, "So"], [NOT, "No"], won="model_a"),
    ]
    data = read(write, *rows)
    first, second = (item.conversation for item in data.items)
    assert first == Conversation.pair(Q, A, rejected=NOT) and second == Conversation.pair(Q, NOT, rejected=A)
    assert data.ledger.dropped == {
        "neither answer was preferred": ["x.jsonl:3"],
        "chosen and rejected do not answer the same prompt": ["x.jsonl:4"],
    }


def test_a_label_of_shp_is_1_for_the_first_answer(write: Write) -> None:
    rows = [
        {"post_id": f"p{n}", "history": f"{Q} {n}", "human_ref_A": NOT, "human_ref_B": A, "labels": n % 2, "score_A": n}
        for n in range(6)
    ]
    first, second, *_ = (item.conversation for item in read(write, *rows).items)
    assert first == Conversation.pair(f"{Q} 0", A, rejected=NOT) and second.answer == NOT and second.rejected == A


@pytest.mark.parametrize("row", [{"messages": [ASK, SAY]}, {"prompt": Q, "completion": A}])
def test_answers_that_people_did_not_like_carry_it(write: Write, row: Mapping[str, Any]) -> None:
    data = read(write, {**row, "label": True}, {**row, "label": False})
    assert [item.conversation.label for item in data.items] == [True, False]


@pytest.mark.parametrize(
    "rows",
    [
        [
            {"question": Q, "choices": ["Now.", A], "answer": 1},
            {"question": "Where?", "choices": ["Here.", "There."], "answer": 0},
        ],
        [{"question": Q, "choices": {"text": ["Now.", A], "label": ["1", "2"]}, "answerKey": "2"}],
        [{"question": Q, "options": {"A": "Now.", "B": A}, "answer": A, "answer_idx": "B"}],
        [{"question": Q, "A": "Now.", "B": A, "answer": "B"}],
        [{"question": Q, "options": ["A) Now.", f"B) {A}"], "correct": "B"}],
        [{"question": Q, "option1": "Now.", "option2": A, "answer": "2"}],
        [{"premise": Q, "choice1": "Now.", "choice2": A, "label": "choice2"}],
        [{"question": Q, "options": f"a ) Now. , b ) {A}", "correct": "b"}],
    ],
)
def test_choices_are_lettered_and_the_answer_is_letter_and_text(write: Write, rows: list[Mapping[str, Any]]) -> None:
    conversation = read(write, *rows).items[0].conversation
    assert (conversation.question, conversation.answer) == (f"{Q}\n\nA. Now.\nB. {A}", f"B. {A}")
    assert conversation.references == (f"B. {A}", "B", A)


@pytest.mark.parametrize(
    ("answers", "references"),
    [
        ([A, "12:00"], (A, "12:00")),
        ({"text": [A, "12:00", A], "answer_start": [4, 9, 4]}, (A, "12:00")),
        ({"value": A, "aliases": ["12:00"]}, (A, "12:00")),
        ([A], ()),
        ([{"text": NOT, "pm_score": 1, "selected": False}, {"text": A, "pm_score": 3, "selected": True}], ()),
        (json.dumps([A, "12:00"]), (A, "12:00")),
    ],
)
def test_the_first_of_several_answers_is_learnt_and_all_are_references(
    write: Write, answers: Any, references: tuple[str, ...]
) -> None:
    (item,) = read(write, {"question": Q, "answers": answers}).items
    assert (item.conversation.answer, item.conversation.references) == (A, references)


def test_a_list_that_is_the_answer_stays_json(write: Write) -> None:
    (item,) = read(write, {"instruction": "Name two ports.", "output": ["Genoa", "Bari"]}).items
    assert item.conversation.answer == '["Genoa", "Bari"]' and not item.conversation.references


def test_a_list_of_one_label_is_the_label(write: Write) -> None:
    data = read(
        write, *({"text": f"Pier {n} is closed", "label": [word]} for n, word in enumerate(["bad", "good"] * 3))
    )
    assert [item.conversation.answer for item in data.items[:2]] == ["bad", "good"]


def test_names_beside_label_ids_are_learnt(write: Write) -> None:
    rows = [{"text": f"Pier {n} is closed", "label": n % 2, "label_text": ["bad", "good"][n % 2]} for n in range(6)]
    assert [item.conversation.answer for item in read(write, *rows).items[:2]] == ["bad", "good"]


def test_compared_texts_are_named_in_the_question(write: Write) -> None:
    rows = [{"premise": f"Pier {n} is closed", "hypothesis": f"No ship lands at {n}", "label": n % 2} for n in range(6)]
    assert (
        read(write, *rows).items[0].conversation.question == "premise: Pier 0 is closed\nhypothesis: No ship lands at 0"
    )


def test_message_trees_in_rows_are_their_best_path(write: Write) -> None:
    rows = [
        {"message_id": "1", "parent_id": None, "text": Q, "role": "prompter"},
        {"message_id": "2", "parent_id": "1", "text": NOT, "role": "assistant", "rank": 1},
        {"message_id": "3", "parent_id": "1", "text": A, "role": "assistant", "rank": 0},
        {"message_id": "4", "parent_id": "2", "text": "Why?", "role": "prompter"},
    ]
    data = read(write, *rows)
    assert [item.conversation for item in data.items] == [PLAIN]
    assert data.ledger.dropped == {
        "not the best reply of its tree": ["x.jsonl:2"],
        "belongs to a reply that is not the best, or to none": ["x.jsonl:4"],
    }
    assert (data.ledger.read, data.ledger.kept) == (3, 1)
    assert data.choice.sentence() == "read as messages (message trees, of each the path of the best replies)"


def test_intents_are_each_pattern_with_each_response_of_a_tag(write: Write) -> None:
    intents = [
        {"tag": "time", "patterns": [Q, "Departure?"], "responses": [A, "12:00"]},
        {"tag": "bye", "patterns": ["Bye"], "responses": ["Farewell."]},
    ]
    data = load(Data(path=write("x.json", json.dumps({"intents": intents}))))
    assert [(item.group, item.conversation.question, item.conversation.answer) for item in data.items] == [
        ("time", Q, A), ("time", Q, "12:00"), ("time", "Departure?", A), ("time", "Departure?", "12:00"),
        ("bye", "Bye", "Farewell."),
    ]  # fmt: skip
    assert data.items[1].location == "x.json:1, pattern 1, response 2"


def test_squads_articles_are_a_row_for_each_answered_question(write: Write) -> None:
    questions = [{"question": Q, "answers": [{"text": A, "answer_start": 3}]}, {"question": "Why?", "answers": []}]
    article = {"title": "Ferry", "paragraphs": [{"context": "The ferry leaves at noon.", "qas": questions}]}
    data = load(Data(path=write("x.json", json.dumps({"version": "2", "data": [article]}))))
    assert [item.conversation for item in data.items] == [Conversation.pair(f"The ferry leaves at noon.\n\n{Q}", A)]
    assert data.ledger.dropped == {"a question that its passage does not answer": ["x.json:1, paragraph 1, question 2"]}


def test_prodigys_decisions_are_listed(write: Write) -> None:
    rows = [
        {"text": f"Pier {n} is closed", "label": "BAD", "answer": answer, "_input_hash": n}
        for n, answer in enumerate(["accept", "reject", "accept", "ignore"])
    ]
    data = read(write, *rows)
    assert [item.conversation.answer for item in data.items] == ["BAD", "BAD"]
    assert data.ledger.dropped == {
        'the annotator\'s decision is "reject"': ["x.jsonl:2"],
        'the annotator\'s decision is "ignore"': ["x.jsonl:4"],
    }


@pytest.mark.parametrize(
    "row",
    [
        {
            "id": 1,
            "data": {"text": "Pier 4"},
            "annotations": [{"result": [{"type": "labels", "value": {"start": 0, "end": 4, "labels": ["PLACE"]}}]}],
        },
        {"text": "Pier 4", "answer": "accept", "spans": [{"start": 0, "end": 4}], "_task_hash": 1},
    ],
)
def test_annotated_places_are_refused_with_what_they_are(write: Write, row: Mapping[str, Any]) -> None:
    with pytest.raises(UserError, match=r"x\.jsonl:1: the annotations mark places in texts"):
        read(write, row)


@pytest.mark.parametrize(
    "rows",
    [
        [
            {"type": "message", "user": "U1", "text": Q, "ts": "1.1"},
            {"type": "message", "user": "U2", "text": A, "ts": "1.2", "thread_ts": "1.1"},
        ],
        [
            {"id": 1, "date": "2026-03-12T09:15:00", "from": "Ann", "text": Q},
            {"id": 2, "date": "2026-03-12T09:16:00", "from": "Harbour", "text": [A]},
        ],
        [
            {"dialogue_id": "d", "speaker": "customer", "utterance": Q},
            {"dialogue_id": "d", "speaker": "agent", "utterance": A},
        ],
        [{"text": f"12/03/2026, 09:15 - Ann: {Q}\n12/03/2026, 09:16 - Harbour: {A}\n"}],
    ],
)
def test_messages_in_rows_or_lines_become_conversations(write: Write, rows: list[Mapping[str, Any]]) -> None:
    assert [item.conversation for item in read(write, *rows).items] == [PLAIN]


@pytest.mark.parametrize(
    "text",
    [
        f"# Help\n\n## {Q}\n\n{A}\n\n## Which pier?\n\nPier 4.\n",
        f"Q: {Q}\nA: {A}\n\nQ: Which pier?\nA: Pier 4.\n",
        f"**Question 1:** {Q}\n**Answer 1:** {A}\n\n**Question 2:** Which pier?\n\n**Answer 2:** Pier 4.",
    ],
)
def test_questions_in_a_text_are_asked_and_what_stands_below_is_the_answer(write: Write, text: str) -> None:
    data = read(write, {"text": text})
    assert [item.conversation for item in data.items] == [PLAIN, Conversation.pair("Which pier?", "Pier 4.")]
    assert data.choice.sentence() == "read as question-answer (a text of questions, each with its answer)"


def test_a_text_with_headings_that_ask_nothing_stays_a_text(write: Write) -> None:
    (item,) = read(
        write, {"text": "# Piers\n\n## Pier 1\n\nOak.\n\n## Why oak?\n\nIt lasts.\n\n## Pier 2\n\nStone."}
    ).items
    assert item.conversation.is_document


def test_many_questions_without_answers_are_a_text_and_take_no_time(write: Write) -> None:
    (item,) = read(write, {"text": "Q: Is pier four open?\n" * 20_000}).items
    assert item.conversation.is_document


def test_what_one_side_says_next_stands_below_and_days_are_conversations(write: Write) -> None:
    lines = [
        ("2026-03-12T09:15:00", "Ann", "Hello"), ("2026-03-12T09:15:10", "Ann", Q), ("2026-03-12T09:16:00", "Harbour", A),
        ("2026-03-13T11:00:00", "Ann", "Any boats?"), ("2026-03-13T11:01:00", "Harbour", "Two."),
    ]  # fmt: skip
    data = read(write, *({"date": date, "from": who, "text": text} for date, who, text in lines))
    assert [item.conversation for item in data.items] == [
        Conversation.pair(f"Hello\n{Q}", A), Conversation.pair("Any boats?", "Two."),
    ]  # fmt: skip


def test_an_end_that_nobody_answers_is_left_out_and_noted(write: Write) -> None:
    data = read(write, {"messages": [ASK, SAY, {"role": "user", "content": "Thanks!"}]})
    assert data.ledger.notes == {"without the user's last message, which has no answer": ["x.jsonl:1"]}


def test_chats_in_which_nobody_answers_are_named(write: Write) -> None:
    with pytest.raises(UserError, match=r'the chats in "messages" ask, and nobody answers: there is nothing to learn'):
        read(write, {"custom_id": "1", "body": {"messages": [ASK]}})


@pytest.mark.parametrize(
    "row",
    [
        {
            "image": "pier.jpg",
            "conversations": [{"from": "human", "value": "<image>\nWhere is this?"}, {"from": "gpt", "value": "Bari."}],
        },
        {"image": {"path": "pier.jpg", "bytes": None}, "question": "Where is this?", "answer": "Bari."},
        {"image": "https://example.org/pier.jpg", "caption": "A pier at noon"},
    ],
)
def test_rows_about_pictures_are_dropped_and_listed(write: Write, row: Mapping[str, Any]) -> None:
    with pytest.raises(UserError, match=r'1 it is about what its column "image" shows \(x\.jsonl:1\)'):
        read(write, row)


def test_a_link_to_a_picture_beside_a_question_does_not_matter(write: Write) -> None:
    assert len(read(write, {"image": "https://example.org/pier.jpg", "question": Q, "answer": A}).items) == 1


def test_foreign_control_tokens_are_noted_with_row_and_token(write: Write) -> None:
    data = read(write, {"text": f"<s>[INST] {Q} [/INST] {A} </s>"}, {"text": "ChatML ends a turn with <|im_end|>."})
    assert data.ledger.notes == {
        'spells "<s>", a control token of chat templates, which is learnt as text': ["x.jsonl:1"]
    }


def test_functions_that_a_transcript_calls_are_calls(write: Write) -> None:
    system = "SYSTEM: You are a captain with access to the following functions. Use them -\n" + json.dumps(
        {"name": "ferry"}
    )
    call = '<functioncall> {"name": "ferry", "arguments": \'{"pier": 4}\'} <|endoftext|>'
    chat = f"USER: {Q}\n\n\nASSISTANT: {call}\n\n\nFUNCTION RESPONSE: noon\n\n\nASSISTANT: {A} <|endoftext|>"
    (item,) = read(write, {"system": system, "chat": chat}).items
    assert [message.role for message in item.conversation.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert item.conversation.messages[2].tool_calls == (ToolCall("ferry", '{"pier": 4}'),)


def test_calls_that_stand_in_a_column_are_calls(write: Write) -> None:
    tools, calls = [{"name": "ferry", "parameters": {}}], [{"name": "ferry", "arguments": {"pier": 4}}]
    (item,) = read(write, {"query": Q, "answers": json.dumps(calls), "tools": json.dumps(tools)}).items
    assert item.conversation.messages[-1].tool_calls == (ToolCall("ferry", '{"pier": 4}'),)
    assert len(item.conversation.tools) == 1


def test_an_answers_thoughts_stand_in_a_column(write: Write) -> None:
    (item,) = read(write, {"Question": Q, "Complex_CoT": "The board says noon.", "Response": A}).items
    assert item.conversation.messages[-1] == Message("assistant", A, reasoning="The board says noon.")
