"""A file of questions is asked like the data that the model was trained with, with answers or without."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from luthier.data import questions
from luthier.errors import UserError
from luthier.recipe import Data

Write = Callable[[str, "str | bytes"], Path]
ASK = {"role": "user", "content": "Is it open?"}


def asked(write: Write, row: Mapping[str, Any], like: Data | None = None) -> list[str]:
    (conversation,) = questions.read(write("q.jsonl", json.dumps(row) + "\n"), like)
    return [message.content for message in conversation.messages]


@pytest.mark.parametrize(
    ("row", "like"),
    [
        ({"question": "Is it open?"}, None),
        ({"question": "Is it open?", "answer": "Yes."}, None),
        ({"prompt": "Is it open?"}, None),
        ({"text": "Is it open?"}, None),
        ({"messages": [ASK]}, None),
        ({"custom_id": "1", "body": {"messages": [ASK]}}, None),
        ({"prompt": [ASK]}, None),
        ({"v2": "Is it open?"}, Data(format="classification", columns={"text": "v2", "label": "v1"})),
        ({"Frage": "Is it open?"}, Data(format="question-answer", columns={"question": "Frage", "answer": "Antwort"})),
        ({"q": "Is it open?"}, Data(format="preference-votes", columns={"prompt": "q", "winner": "w"})),
        ({"talk": "User: Is it open?"}, Data(format="transcript", columns={"transcript": "talk"})),
        ({"talk": [ASK]}, Data(format="messages", columns={"messages": "talk"})),
    ],
)
def test_what_is_asked_stands_in_many_columns(write: Write, row: Mapping[str, Any], like: Data | None) -> None:
    assert asked(write, row, like) == ["Is it open?"]


def test_passages_and_choices_belong_to_the_question(write: Write) -> None:
    assert asked(write, {"question": "Open?", "context": "The pier is open."}) == ["The pier is open.\n\nOpen?"]
    assert asked(write, {"question": "Open?", "choices": ["Yes", "No"]}) == ["Open?\n\nA. Yes\nB. No"]


def test_a_file_without_questions_is_named(write: Write) -> None:
    with pytest.raises(UserError, match="no column of questions among day; expected question"):
        asked(write, {"day": "Monday"})
