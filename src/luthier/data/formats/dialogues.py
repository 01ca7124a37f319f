"""Messages that stand in rows or lines of their own → conversations: by an id, by Slack's threads, or one a day.

Who speaks is known by a word ("customer", "agent") or by turns: whoever speaks first asks, the other answers.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from luthier.data.formats import names
from luthier.data.formats.chats import speaker
from luthier.data.formats.table import CHECKED, Table, text_of
from luthier.data.readers.values import Record, Value

SPEAKER = (
    "role",
    "speaker",
    "sender",
    "author",
    "from",
    "user",
    "participant",
    "author_role",
    "from_name",
    "sender_type",
    "speaker_role",
)
TEXT = ("text", "message", "content", "body", "utterance", "msg", "message_text")
CONVERSATION = (
    "conversation_id", "dialogue_id", "dialog_id", "conv_id", "session_id", "thread_id", "ticket_id", "chat_id", "case_id",
    "conversation", "dialog", "dialogue", "session", "thread", "call_id", "interaction_id",
)  # fmt: skip
TIME = ("ts", "date", "timestamp", "time", "created_at", "datetime", "sent_at")
_LINE = re.compile(
    r"^[\u200e\u202a]*\[?(\d{1,4}[./-]\d{1,2}[./-]\d{1,4}),? +\d{1,2}[:.]\d{2}(?:[:.]\d{2})?(?:[ \u202f]?[APap]\.?[Mm]\.?)?\]?"
    r"(?: [-–])? ([^:\n]{1,60}): (.*)$"
)
_DATED = re.compile(r"^[\u200e\u202a]*\[?\d{1,4}[./-]\d{1,2}[./-]\d{1,4},? +\d{1,2}[:.]\d{2}")


def _column(table: Table, words: tuple[str, ...]) -> str | None:
    ranked = [(order, name) for name in table.columns if (order := names.rank(name, words)) is not None]
    return min(ranked)[1] if ranked else None


def _parts(table: Table) -> tuple[str, str] | None:
    """The columns of speakers and of texts."""
    who, what = _column(table, SPEAKER), _column(table, TEXT)
    if who is None or what is None or who == what or table.columns[what].chats:
        return None
    speakers = table.columns[who]
    if not speakers.values or any(len(text.split()) > 6 for text in speakers.texts):
        return None
    return who, what


def has_conversations(table: Table) -> bool:
    """Rows with a conversation's id, who speaks, and what is said; an id comes again."""
    key, parts = _column(table, CONVERSATION), _parts(table)
    if key is None or parts is None or key in parts:
        return False
    ids = table.columns[key]
    return 0 < len(ids.kinds) < len(ids.values)


def is_chat(table: Table) -> bool:
    """Rows with a time, who speaks, and what is said, by two people: the export of a chat."""
    parts = _parts(table)
    if parts is None or _column(table, TIME) is None or has_conversations(table):
        return False
    return len(table.columns[parts[0]].kinds) == 2 and table.rows <= 1_000_000


def conversations(rows: Iterable[Record], drop: Callable[[str, str], None]) -> Iterator[Record]:
    """The conversations of rows that hold a message each."""
    found = list(rows)
    table = Table.of(found)
    parts = _parts(table)
    assert parts is not None
    who, what = parts
    key = _column(table, CONVERSATION) if has_conversations(table) else None
    threads = key is None and "thread_ts" in table.columns
    groups: dict[str, list[tuple[Record, str, str]]] = {}
    order: list[str] = []
    for row in found:
        text = _spoken(row.values.get(what)).strip()
        name = text_of(row.values.get(who)).strip()
        if row.values.get("subtype") or text_of(row.values.get("type")) == "service" or not text or not name:
            drop("not a message that somebody wrote", row.location)
            continue
        group = text_of(row.values.get(key)) if key else _thread(row, threads) or _day(row, table)
        groups.setdefault(group, []).append((row, name, text))
        order += [] if name in order else [name]
    for turns in groups.values():
        yield from _conversation(turns, order if key is None else None, drop)


def _thread(row: Record, threads: bool) -> str:
    return text_of(row.values.get("thread_ts") or row.values.get("ts")) if threads else ""


def _day(row: Record, table: Table) -> str:
    time = _column(table, TIME)
    said = text_of(row.values.get(time or ""))
    return str(int(float(said)) // 86400) if re.fullmatch(r"\d{9,}(\.\d+)?", said) else said[:10]


def _conversation(
    turns: list[tuple[Record, str, str]], order: list[str] | None, drop: Callable[[str, str], None]
) -> Iterator[Record]:
    """One conversation; `order` are the speakers of the whole chat, where it is one."""
    people = order or list(dict.fromkeys(name for _, name, _ in turns))
    roles = {name: speaker(name) for name in people}
    unknown = [name for name, role in roles.items() if role is None]
    if len(unknown) > 2 or (unknown and len(people) > 2):
        for row, _, _ in turns:
            drop("more than two people speak", row.location)
        return
    taken = {role for role in roles.values() if role}
    free = [role for role in ("user", "assistant") if role not in taken]
    roles |= dict(zip(unknown, free, strict=False))
    messages: list[Value] = []
    for _, name, text in turns:
        append_turn(messages, roles[name] or "user", text)
    yield Record(turns[0][0].location, {"messages": messages})


def append_turn(messages: list[Value], role: str, text: str) -> None:
    """Add a turn; what the same side says next stands below."""
    last = messages[-1] if messages else None
    if isinstance(last, dict) and last["role"] == role:
        last["content"] = f"{text_of(last['content'])}\n{text}"
    else:
        messages.append({"role": role, "content": text})


def _spoken(value: Value) -> str:
    """A text; of Telegram's lists of parts, all of them."""
    if isinstance(value, list):
        return "".join(text_of(part.get("text")) if isinstance(part, dict) else text_of(part) for part in value)
    return text_of(value)


def is_whatsapp(table: Table) -> bool:
    """Texts whose lines begin with a date, a time and a name."""
    column = table.columns.get("text")
    if column is None or not column.values:
        return False
    lines = [line for text in column.texts[:CHECKED] for line in text.splitlines() if line.strip()]
    spoken = sum(bool(_LINE.match(line)) for line in lines)
    return spoken >= 2 and spoken >= 0.5 * len(lines)


def whatsapp(rows: Iterable[Record], drop: Callable[[str, str], None]) -> Iterator[Record]:
    """A conversation for each day of a chat."""
    for row in rows:
        days: dict[str, list[tuple[Record, str, str]]] = {}
        order: list[str] = []
        for number, line in enumerate(text_of(row.values.get("text")).splitlines(), start=1):
            match = _LINE.match(line)
            if match is None:
                if days and not _DATED.match(line) and line.strip():
                    last = list(days.values())[-1]
                    record, name, text = last[-1]
                    last[-1] = (record, name, f"{text}\n{line}")
                continue
            day, name, text = match.groups()
            order += [] if name in order else [name]
            days.setdefault(day, []).append((Record(f"{row.location}, line {number}", {}), name, text))
        for turns in days.values():
            yield from _conversation(turns, order, drop)
