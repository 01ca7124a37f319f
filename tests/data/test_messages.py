"""Plain chats, which are most, are read without a second look; they say what the long way says."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from luthier.chat import Conversation, Message
from luthier.data.dataset import normalised_prompt, prompt_of
from luthier.data.formats.building import messages
from luthier.data.formats.chats import as_messages
from luthier.data.messages import ROLES, chat, plain_chat
from luthier.data.readers.values import Number, Value, normalise

TEXTS = some.text(alphabet="aB \u00a0\n\x1f\u0130\u00df\u1e9e\u0345\u0308\u2000\u212b–é", max_size=6)
WORDS = some.sampled_from(sorted(ROLES))
SPELLINGS = some.sampled_from([("role", "content"), ("from", "value"), ("role", "value")])
CHATS = some.lists(
    some.builds(lambda word, text, keys: {keys[0]: word, keys[1]: text}, WORDS, TEXTS, SPELLINGS), max_size=4
)


@given(CHATS)
def test_a_plain_chat_is_what_the_long_way_makes_of_it(said: list[Value]) -> None:
    found = plain_chat(said)
    if found is not None:
        assert Conversation(found) == chat(as_messages(said)) == messages("messages")({"messages": said})


def test_a_plain_chat_takes_no_second_look() -> None:
    said: Value = [
        {"role": "developer", "content": " "},
        {"from": "human", "value": "Q"},
        {"from": "gpt", "value": "A"},
    ]
    assert plain_chat(said) == (Message("user", "Q"), Message("assistant", "A"))


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "a", "weight": Number("0")},
        {"role": "User", "content": "a"},
        {"role": "tool", "content": "a"},
        {"role": "user", "content": Number("1.50")},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": ["user"], "content": "a"},
        {"role": "user", "content": None},
        {"role": "system", "content": " "},
        "user: a",
    ],
)
def test_what_is_not_plain_gets_a_closer_look(item: Value) -> None:
    assert plain_chat([item]) is None


@given(some.lists(some.tuples(some.sampled_from(["user", "assistant"]), TEXTS), min_size=1, max_size=4))
def test_the_prompt_of_normalised_texts_is_the_normalised_prompt(said: list[tuple[str, str]]) -> None:
    conversation = Conversation(tuple(Message("user" if who == "user" else "assistant", text) for who, text in said))
    assert prompt_of(conversation, [normalise(text) for _, text in said]) == normalised_prompt(conversation)
