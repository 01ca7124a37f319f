"""What a column has to hold to be what its name says, and which columns fit together."""

import re
from collections.abc import Callable

from luthier.chat import Conversation
from luthier.data import tool_messages
from luthier.data.formats import building, name_pairs, names
from luthier.data.formats.cells import Cells
from luthier.data.formats.chats import as_messages
from luthier.data.formats.table import LOOKED_AT, Column, Table, text_of
from luthier.data.formats.transcripts import is_transcript
from luthier.data.messages import Unfit

Columns = dict[str, str]
ROWS_BUILT = 64
"""Rows that are built to see whether columns fit together."""
SURE_ANSWERS = names.ANSWER.index("target")
"""The first words for an answer mean nothing else."""


def question(column: Column) -> bool:
    if names.plain(column.name) in names.PROMPT[3:]:
        return column.chats and not answered_chats(column)
    if names.plain(column.name) in (*names.PEOPLE, *names.LATE_QUESTION) and not column.prose and not column.chats:
        return False
    return not column.links


def answer(column: Column) -> bool:
    """Never links, and nothing whose name is an identifier's."""
    identifier = set(names.plain(column.name).split("_")) & names.IDENTIFIER
    return not column.links and not identifier and not column.lists_of(names.REPLIES)


def reply(column: Column) -> bool:
    """An answer of its own words, a text or a chat; "better" and "label" with numbers only tell about one."""
    sure = set(names.plain(column.name).split("_")) & {
        "chosen",
        "rejected",
        "completion",
        "response",
        "answer",
        "output",
    }
    return answer(column) and (bool(sure) or not (column.truths or (column.known and column.numbers)))


def chats(column: Column) -> bool:
    """Chats with answers; lists of texts are one where the name says so."""
    alternating = names.plain(column.name) in names.ALTERNATING and column.chats
    return not column.known or ((column.spoken or alternating) and not _asks_only(column))


def _asks_only(column: Column) -> bool:
    return not answered_chats(column, least=0.05)


def answered_chats(column: Column, least: float = 0.5) -> bool:
    """Chats in which somebody answers."""
    if not column.known:
        return True
    found = [messages for value in column.some if (messages := as_messages(value))]
    answered = sum(
        any(isinstance(message, dict) and str(message.get("role")).lower() in _ANSWERING for message in messages)
        for messages in found
    )
    return column.chats and answered >= least * len(found)


_ANSWERING = {"assistant", "gpt", "model", "bot", "function_call", "tool_call"}


def whole_chats(column: Column) -> bool:
    """Chats or transcripts that hold the question too."""
    if not column.known:
        return True
    if transcripts(column):
        return True
    return column.chats and all(len(as_messages(value) or ()) > 1 for value in column.some)


def transcripts(column: Column) -> bool:
    if not column.known:
        return False
    return column.mostly(lambda value: isinstance(value, str) and is_transcript(value[:LOOKED_AT]))


def truths(column: Column) -> bool:
    return not column.known or column.truths


def lists(column: Column) -> bool:
    return column.known and column.lists


def tools(column: Column) -> bool:
    """Definitions of functions in any row: one that cannot be understood is dropped, and no row is read without its own."""
    return not column.known or not column.values or any(map(tool_messages.are_definitions, column.values))


def history(column: Column) -> bool:
    """Earlier turns; the first rows of a chat have none, so lists may be empty."""
    return not column.known or not column.values or column.lists


def system(column: Column) -> bool:
    """A system message is a sentence, or a list of parts; "Windows 10" is none."""
    if names.plain(column.name) != "system":
        return not column.links and not column.numbers
    return not column.known or column.empty or column.structured or column.words >= 3


def passage(column: Column) -> bool:
    """What can stand before a question: neither links nor codes."""
    return column.empty or not (column.links or column.identifiers or column.truths or column.numbers)


def context(column: Column) -> bool:
    """A passage of more than a word or two; a code for a topic is none."""
    wordy = column.structured or (not column.one_word and column.words >= 3)
    return passage(column) and (not column.known or column.empty or wordy)


def thoughts(column: Column) -> bool:
    return column.known and column.prose


def choices(column: Column) -> bool:
    """Lists, objects or lines with more than one choice."""
    if not column.known:
        return names.plain(column.name) != "answer"
    return column.structured or column.mostly(
        lambda value: isinstance(value, str) and len(building.SPELLED_CHOICES.findall(value)) > 1
    )


def label(column: Column) -> bool:
    """A closed vocabulary; where the name says that it is a label, also one short value in all rows."""
    sure = (
        names.plain(column.name) in names.LABEL[: names.STRONG_LABEL] and len(column.kinds) == 1 and column.words <= 2
    )
    measured = names.plain(column.name) in names.MEASURES and column.numbers and not column.identifiers
    return not column.known or column.closed or sure or measured


def labelled(column: Column) -> bool:
    """Texts that can be told apart: not links, codes or labels themselves."""
    if not column.known:
        return True
    nothing = column.empty or column.links or column.identifiers or column.numbers or column.dates or column.closed
    return not nothing and (not column.structured or column.lists) and not column.chats


def document(column: Column) -> bool:
    sure = names.plain(column.name) in names.TEXT[:2]
    nothing = column.empty or column.links or (column.known and (column.numbers or (column.one_word and not sure)))
    return not nothing


# Which columns fit together


def pair(asked: str, answered: str) -> Callable[[Table, Columns], Columns | None]:
    """For a question and its answer: ready-made texts are no passage, and late words need a sure answer."""

    def adjust(table: Table, columns: Columns) -> Columns | None:
        found = dict(columns)
        word = names.plain(found[asked])
        if asked == "question" and names.bare(found[asked]) in names.LATE_QUESTION and word not in names.QUESTION:
            order = names.rank(found[answered], names.ANSWER)
            others = (*names.INSTRUCTION, *names.PROMPT[:3])
            asks = any(names.rank(name, others) is not None for name in table.columns if name not in found.values())
            if order is None or order >= 2 * SURE_ANSWERS or asks or "instruction" in found:
                return None
        if {names.plain(name) for name in table.columns} >= names.PROOF:
            found.pop("context", None)
        if "context" in found and _ready_made(table, found["context"], found[asked], found[answered]):
            del found["context"]
        if "title" in found and word not in (
            "question_body",
            "question_content",
            "body",
            "selftext",
            "post",
            "description",
            "email",
            "message",
        ):
            del found["title"]
        return found

    return adjust


def _ready_made(table: Table, column: str, asked: str, answered: str) -> bool:
    """Whether a text is the row's other columns written out as a prompt with its answer."""
    held = []
    for row in table.sample:
        whole, question, answer = (row.values.get(name) for name in (column, asked, answered))
        if isinstance(whole, str) and isinstance(question, str) and isinstance(answer, str) and whole.strip():
            held.append(question.strip() in whole and answer.strip() in whole)
    return bool(held) and sum(held) >= 0.8 * len(held)


def several_answers(answered: str) -> Callable[[Table, Columns], dict[str, str]]:
    """Whether a list in the answer's column has several right answers, which a plural says, or is itself the answer."""

    def facts(table: Table, columns: Columns) -> dict[str, str]:
        name = columns[answered].strip().casefold()
        plurals = ("answers", "references", "responses", "targets", "solutions")
        several = answered == "answer" or name.endswith(plurals) or names.plain(name) == "label"
        return {"several answers": "yes"} if several else {}

    return facts


def classification(table: Table, columns: Columns) -> Columns | None:
    """Two texts that are compared, names beside ids, and a title above the text."""
    found = dict(columns)
    by_name = {names.plain(name): name for name in table.columns}
    for one, other in name_pairs.TEXT_PAIRS:
        if one in by_name and other in by_name and found["label"] not in (by_name[one], by_name[other]):
            both = [table.columns[by_name[word]] for word in (one, other)]
            if all(labelled(column) for column in both):
                found |= {"text": both[0].name, "second": both[1].name}
                found.pop("title", None)
                break
    if found.get("title") == found["text"]:
        del found["title"]
    label_column = table.columns[found["label"]]
    if label_column.known and "second" not in found and not label_column.closed and len(label_column.kinds) > 1:
        return None
    for word in names.LABEL_NAME:
        name = by_name.get(word)
        if name and name != found["label"] and label_column.numbers and _one_to_one(table, found["label"], name):
            found["label"] = name
    return found


def _one_to_one(table: Table, one: str, other: str) -> bool:
    seen = {(text_of(a), text_of(b)) for a, b in table.pairs(one, other)}
    return len(seen) == len({a for a, _ in seen}) == len({b for _, b in seen}) > 1


def names_of_texts(table: Table, columns: Columns) -> dict[str, str]:
    """What two texts are called in the question."""
    if "second" not in columns:
        return {}
    return {f"name of {word}": columns[word].replace("_", " ").strip() for word in ("text", "second")}


def builds(build: Callable[[Cells], Conversation]) -> Callable[[Table, Columns], Columns | None]:
    """The columns, where nearly all rows that are tried become conversations."""

    def adjust(table: Table, columns: Columns) -> Columns | None:
        if not table.columns[columns["answer"]].known:
            return columns
        facts = first_choice(table, columns)
        rows = table.sample[:: max(1, len(table.sample) // ROWS_BUILT)]
        built = 0
        for row in rows:
            try:
                build({**facts, **{word: row.values.get(name) for word, name in columns.items()}})
                built += 1
            except (Unfit, ValueError):
                pass
        return columns if not rows or built >= 0.8 * len(rows) else None

    return adjust


def first_choice(table: Table, columns: Columns) -> dict[str, str]:
    """Whether choices are counted from 0 or from 1: from 1 where no row names 0 and some row names the last by its number."""
    keys = table.columns[columns["answer"]]
    numbers = [int(found[1]) for text in keys.texts if (found := re.fullmatch(r"\D*(\d+)(?:\.0)?", text.strip()))]
    if not numbers or 0 in numbers:
        return {"first choice": "0"}
    own = [word for word in columns if re.fullmatch(r"choice\d+", word)]
    if own:
        first = re.sub(r"\D", "", columns["choice1"]) or "1"
        return {"first choice": "1" if max(numbers) >= len(own) or (first == "1" and len(keys.texts) > 3) else "0"}
    try:
        counts = [len(building.offered({"choices": value})[0]) for value in table.columns[columns["choices"]].values]
    except Unfit:
        return {"first choice": "0"}
    return {"first choice": "1" if counts and max(numbers) >= max(counts) else "0"}


def rival_answers(table: Table) -> tuple[str, str] | None:
    """Two columns that hold two answers to the same question: response_a and response_b."""
    by_name = {names.plain(name): name for name in table.columns}
    for stem in names.RIVALS:
        for one, other in (("a", "b"), ("0", "1"), ("1", "2")):
            pair = by_name.get(f"{stem}_{one}"), by_name.get(f"{stem}_{other}")
            if pair[0] and pair[1]:
                return pair[0], pair[1]
    return None


def winner_of_each(table: Table) -> tuple[str, str] | None:
    """Two columns of truths that say of either answer whether it won: winner_model_a and winner_model_b."""
    by_name = {names.plain(name): column for name, column in table.columns.items()}
    for stem in ("winner_model", "winner"):
        first, second = by_name.get(f"{stem}_a"), by_name.get(f"{stem}_b")
        if first and second and first.truths and second.truths:
            return first.name, second.name
    return None


def is_signed(column: Column | None) -> bool:
    """Whether votes are strengths, below 0 for the first answer and above it for the second, as HelpSteer has them."""
    if column is None or not column.known or not column.numbers or names.plain(column.name) not in names.STRENGTH:
        return False
    signs = {text.strip().startswith("-") for text in column.texts if text.strip() not in ("0", "0.0")}
    return signs == {True, False}


def votes(table: Table, columns: Columns) -> Columns | None:
    """The two answers, where a vote names one of them in nearly all rows, or neither."""
    found = rival_answers(table)
    if found is None:
        return None
    bound = {**columns, "first": found[0], "second": found[1]}
    past = next(
        (name for name, column in table.columns.items() if names.plain(name) == "history" and column.prose), None
    )
    if "prompt" not in bound and past:  # texts, not turns: what was asked
        bound = {**{word: column for word, column in bound.items() if column != past}, "prompt": past}
    ends = {*vote_ends(table, bound).values(), *building.NEITHER}
    cast = table.columns[bound["winner"]]
    plain = "second winner" in bound or is_signed(cast)
    if cast.known and not plain and not cast.mostly(lambda value: building.vote(text_of(value)) in ends):
        return None
    return bound if "prompt" in bound or whole_chats(table.columns[found[0]]) else None


def vote_ends(table: Table, columns: Columns) -> dict[str, str]:
    """How a vote calls either answer: by the end of its column's name; in SHP's `labels`, 1 is for A and 0 for B."""
    is_shp = names.plain(columns["first"]) == "human_ref_a" and names.plain(columns.get("winner", "")) == "label"
    if is_shp:
        return {"name of first": "1", "name of second": "0"}
    if "second winner" not in columns and is_signed(table.columns.get(columns.get("winner", ""))):
        return {"signed": "1"}
    return {f"name of {word}": names.plain(columns[word]).rpartition("_")[2] for word in ("first", "second")}
