"""From a row's cells to its conversation, format by format."""

import re
from collections.abc import Callable
from dataclasses import replace

from luthier.chat import Conversation, Message
from luthier.data import tool_messages
from luthier.data.formats.cells import Cells, answers, asked, head, passage, text, with_system
from luthier.data.formats.chats import as_messages, sure_messages, unspelled
from luthier.data.formats.transcripts import is_prompt, is_transcript, messages_of
from luthier.data.messages import Unfit, chat, plain_chat
from luthier.data.readers.values import Value, as_text

_TRUE = {"true", "1", "1.0", "up", "yes", "good", "positive"}
_LETTERED = re.compile(r"\(?([A-Za-z])\)?[.)]?$")
_LETTER = re.compile(r"^\(?[A-Z]\s*[.):]\s*")
SPELLED_CHOICES = re.compile(r"(?:^|,)\s*\(?[a-e]\s*\)\s*")


def pair(question: str, answer: str) -> Callable[[Cells], Conversation]:
    """A question with its passage, and the answer; other right answers beside it. Either may be a list of messages."""

    def build(cells: Cells) -> Conversation:
        asked_chat, reply_chat = sure_messages(cells[question]), sure_messages(cells[answer])
        before = (*head(cells), Message("user", asked(cells, question)))
        if asked_chat is not None:
            before = with_system(cells, chat(asked_chat).messages)
        tools = tool_messages.definitions(cells.get("tools"))
        if reply_chat is not None:
            return Conversation((*before, *chat(reply_chat).messages), tools=tools)
        if tools and _are_calls(cells[answer]):
            return Conversation(
                (*before, Message("assistant", "", tool_calls=tool_messages.calls_in(cells[answer]))), tools=tools
            )
        texts = answers(cells[answer], several=bool(cells.get("several answers")))
        others = answers(cells["references"], several=True) if cells.get("references") else []
        references = tuple(dict.fromkeys([*texts, *others]))
        reply = Message("assistant", texts[0], reasoning=text(cells, "thoughts").strip() or None)
        return Conversation((*before, reply), references=references if len(references) > 1 else (), tools=tools)

    return build


def _are_calls(value: Value) -> bool:
    """Whether an answer is a list of calls, each with name and arguments."""
    found = unspelled(value)
    return (
        isinstance(found, list)
        and bool(found)
        and all(isinstance(c, dict) and {"name", "arguments"} <= c.keys() for c in found)
    )


def messages(word: str) -> Callable[[Cells], Conversation]:
    """A chat as it stands, behind the row's own system message."""

    def build(cells: Cells) -> Conversation:
        plain = plain_chat(cells[word])
        if plain is not None and cells.keys() == {word}:
            return Conversation(plain)
        found = as_messages(cells[word])
        conversation = chat(cells[word] if found is None else found)
        tools = tool_messages.definitions(cells.get("tools"))
        return replace(conversation, messages=with_system(cells, conversation.messages), tools=tools)

    return build


def transcript(cells: Cells) -> Conversation:
    """A chat that is written down as one text: "User: …", "Bot: …"."""
    spoken = text(cells, "transcript")
    if "<functioncall>" in spoken or tool_messages.ACCESS in text(cells, "system"):
        return tool_messages.transcript(text(cells, "system"), spoken)
    return Conversation(with_system(cells, messages_of(spoken)))


def document(cells: Cells) -> Conversation:
    """A text to continue."""
    return Conversation.document(text(cells, "text"))


def classification(cells: Cells) -> Conversation:
    """A text, or two with what they are, and a label."""
    title, body = text(cells, "title"), passage(cells["text"])
    if "second" in cells:
        named = ((text(cells, "name of text"), body), (text(cells, "name of second"), passage(cells["second"])))
        body = "\n".join(f"{name}: {value}" for name, value in named)
    question = "\n\n".join(part for part in (title, body) if part.strip())
    return Conversation((*head(cells), Message("user", question), Message("assistant", label_text(cells["label"]))))


def label_text(value: Value) -> str:
    """A label as text: a list of one is its element, of several all of them with commas."""
    value = unspelled(value)
    if isinstance(value, list):
        if not all(isinstance(item, str | bool) for item in value):
            raise Unfit("labels that are no texts")
        return ", ".join(as_text(item).strip() for item in value)
    return as_text(value)


def choices(cells: Cells) -> Conversation:
    """Choices lettered below the question; the answer is letter and text of the right one, either alone is right too."""
    texts, letters = offered(cells)
    if len(texts) < 2:
        raise Unfit("fewer than two choices")
    right = _right(cells, texts, letters)
    lines = [f"{chr(65 + number)}. {choice}" for number, choice in enumerate(texts)]
    question = "\n\n".join([asked(cells, "question"), "\n".join(lines)])
    references = (lines[right], chr(65 + right), texts[right])
    end = (Message("user", question), Message("assistant", lines[right]))
    return Conversation((*head(cells), *end), references=references)


def offered(cells: Cells) -> tuple[list[str], list[str]]:
    """The choices, and what the data calls them where it does."""
    if "choices" not in cells:
        named = [cells[word] for word in sorted_choices(cells) if as_text(cells[word]).strip()]
        return [as_text(value).strip() for value in named], []
    value = unspelled(cells["choices"])
    if isinstance(value, str):
        parts = [part.strip() for part in SPELLED_CHOICES.split(value) if part.strip()]
        return (parts if len(parts) > 1 else [line.strip() for line in value.splitlines() if line.strip()]), []
    names: Value = []
    if isinstance(value, dict):
        listed = next((value[key] for key in ("text", "choices", "texts") if isinstance(value.get(key), list)), None)
        if listed is None:
            return [as_text(item).strip() for item in value.values() if as_text(item).strip()], list(value)
        names, value = value.get("label", []), listed
    if not isinstance(value, list):
        raise Unfit("choices that are no list")
    if all(isinstance(item, dict) and "text" in item for item in value):
        objects = [item for item in value if isinstance(item, dict)]
        names, value = [item.get("label", item.get("key")) for item in objects], [item["text"] for item in objects]
    texts = [as_text(item).strip() for item in value]
    if all(re.match(rf"\(?{chr(65 + number)}\s*[.):]", text) for number, text in enumerate(texts)):
        texts = [_LETTER.sub("", text) for text in texts]
    return texts, [as_text(name) for name in names] if isinstance(names, list) else []


def sorted_choices(cells: Cells) -> list[str]:
    """The words of choices that have columns of their own, in order."""
    return sorted((word for word in cells if re.fullmatch(r"choice\d+", word)), key=lambda word: int(word[6:]))


def _right(cells: Cells, texts: list[str], letters: list[str]) -> int:
    """The place of the right choice, which the data names by letter, number or text."""
    key = unspelled(cells["answer"])
    if isinstance(key, list) and len(key) == 1:
        key = key[0]
    word = as_text(key).strip()
    number = -1
    if word in letters:
        number = letters.index(word)
    elif word in texts:
        number = texts.index(word)
    elif re.fullmatch(r"\d+(\.0)?", word):
        number = int(float(word)) - int(text(cells, "first choice") or "0")
    elif found := re.search(r"((?<![A-Za-z])[A-Ja-j]|\d+)$", word) or _LETTERED.match(word):
        named = found[1]
        number = int(named) - int(text(cells, "first choice") or "0") if named.isdecimal() else ord(named.upper()) - 65
    if not 0 <= number < len(texts):
        raise Unfit(f'no choice for the answer "{word[:40]}"')
    return number


def preference(cells: Cells) -> Conversation:
    """A prompt with a chosen and a rejected answer: texts, chats, or transcripts, which may repeat the prompt."""
    chosen, rejected = _end(cells["chosen"]), _end(cells["rejected"])
    if chosen[0] != rejected[0]:
        raise Unfit("chosen and rejected do not answer the same prompt")
    if chosen[0]:
        before = chosen[0]
    elif "prompt" in cells:
        before = _prompt(cells)
    else:
        raise Unfit("no question before the chosen answer")
    return Conversation((*with_system(cells, before), Message("assistant", chosen[1])), rejected[1])


def _prompt(cells: Cells) -> tuple[Message, ...]:
    """What was asked: a chat, a transcript or a text."""
    prompt = cells["prompt"]
    found = sure_messages(prompt)
    if found is not None:
        before = chat(found).messages
        return before[:-1] if before and before[-1].role == "assistant" else before
    if isinstance(prompt, str) and is_prompt(prompt):
        return messages_of(prompt)
    return (*head(cells), Message("user", asked({**cells, "question": prompt}, "question")))


def _end(value: Value) -> tuple[tuple[Message, ...], str]:
    """What stands before an answer, and the answer: of a text, nothing and the text."""
    found = sure_messages(value)
    if found is not None:
        said = chat(found).messages
    elif isinstance(value, list):
        said = chat(value).messages
    elif is_transcript(spelled := as_text(value)):
        said = messages_of(spelled)
    else:
        return (), spelled
    if not said or said[-1].role != "assistant":
        raise Unfit("no answer at the end")
    if said[-1].tool_calls:
        raise Unfit("a chosen or rejected answer that calls a function")
    return said[:-1], said[-1].content


NEITHER = {"tie", "both", "bothbad", "neither", "equal", "none", "same"}


def vote(word: str) -> str:
    """Which answer a vote names: the last part of "model_a" or "Response 1"."""
    parts = re.findall(r"[^\W\d_]+|\d+", word.casefold())
    return "tie" if "tie" in parts or "both" in parts else parts[-1] if parts else ""


def votes(cells: Cells) -> Conversation:
    """Two answers and which of them won."""
    sides = {word: _turns(cells.get("prompt"), cells[word]) for word in ("first", "second")}
    better = _won(cells)
    if better is None:
        raise Unfit("neither answer was preferred")
    worse = "second" if better == "first" else "first"
    found = {**cells, "chosen": sides[better] or cells[better], "rejected": sides[worse] or cells[worse]}
    return preference(found)


def _won(cells: Cells) -> str | None:
    """Which answer won, by a vote that names it, a column for each, or a strength: below 0 for the first."""
    said = text(cells, "winner").strip()
    if "second winner" in cells:
        won = [text(cells, word).strip().casefold() in _TRUE for word in ("winner", "second winner")]
        return None if won[0] == won[1] else "first" if won[0] else "second"
    if cells.get("signed"):
        strength = float(said) if said else 0.0
        return None if not strength else "first" if strength < 0 else "second"
    ends = {text(cells, f"name of {word}"): word for word in ("first", "second")}
    return ends.get(vote(said))


def _turns(prompt: Value, answer: Value) -> list[Value] | None:
    """Questions and answers that stand in two lists, as one chat; None where they do not."""
    asked_, said = unspelled(prompt), unspelled(answer)
    if not isinstance(asked_, list) or not isinstance(said, list) or not asked_ or len(asked_) != len(said):
        return None
    if not all(isinstance(each, str) for each in (*asked_, *said)):
        return None
    found: list[Value] = []
    for question, reply in zip(asked_, said, strict=True):
        found += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    return found


def unpaired(build: Callable[[Cells], Conversation]) -> Callable[[Cells], Conversation]:
    """A conversation of which people said whether they liked its answer."""

    def judged(cells: Cells) -> Conversation:
        word = text(cells, "label").strip().casefold()
        if not word:
            raise Unfit("no label")
        return replace(build(cells), label=word in _TRUE)

    return judged
