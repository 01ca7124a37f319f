"""Chats that are written down as one text, a speaker and a colon before each turn."""

import re

from luthier.chat import Message
from luthier.data.formats.chats import speaker
from luthier.data.messages import Unfit, chat
from luthier.data.readers.values import Value

_PEOPLE = (
    "Human|User|Assistant|Bot|Chatbot|AI|Model|GPT|ChatGPT|Customer|Client|Agent|Support|Patient|Doctor|Student|Teacher|Tutor|"
    "System|Prompter|Operator|Therapist|Counselor|FUNCTION RESPONSE|Kunde|Berater"
)
_LETTERS = "Question|Answer|Q|A|Prompt|Response"
"""Words that also stand inside of answers, so they part turns only where the text begins with one of them."""


def _turn(words: str) -> re.Pattern[str]:
    marks = r"(?:\*\*|#{2,3} ?|<\|)?"
    return re.compile(
        rf"(?:(?:^|\n)[ \t]*{marks}|### ?)({words})(?:\|>)?(?:\*\*)?[ \t]*:(?:\*\*)?[ \t]*", re.IGNORECASE
    )


_TURNS = (_turn(_PEOPLE), _turn(_LETTERS))
_END = re.compile(r"\s*(<\|endoftext\|>|</s>|<\|im_end\|>)\s*$")


def is_transcript(text: str) -> bool:
    """Whether a text is a chat: it begins with a speaker, and somebody asks and somebody answers."""
    roles = {speaker(match[1]) for match in _turns(text)}
    return {"user", "assistant"} <= roles


def is_prompt(text: str) -> bool:
    """Whether a text begins with somebody who asks."""
    turns = _turns(text)
    return bool(turns) and speaker(turns[0][1]) == "user"


def messages_of(text: str) -> tuple[Message, ...]:
    """The turns of a transcript; a last speaker who says nothing only opens the answer."""
    turns = _turns(text)
    if not turns:
        raise Unfit("not a transcript: it does not begin with a speaker")
    messages: list[Value] = []
    for number, turn in enumerate(turns):
        end = turns[number + 1].start() if number + 1 < len(turns) else len(text)
        content = _END.sub("", text[turn.end() : end]).strip()
        if content or number + 1 < len(turns):
            messages.append({"role": speaker(turn[1]) or turn[1], "content": content})
    return chat(messages).messages


def _turns(text: str) -> list[re.Match[str]]:
    """Where each turn begins; nothing where the text does not begin with one."""
    for pattern in _TURNS:
        turns = list(pattern.finditer(text))
        if turns and not text[: turns[0].start()].strip():
            return turns
    return []
