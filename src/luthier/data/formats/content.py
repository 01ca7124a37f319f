"""Columns whose names say nothing: what they hold decides where it leaves one meaning, else the user is asked."""

from collections.abc import Mapping
from dataclasses import replace

from luthier.data.formats import checks, name_pairs, names, refusals
from luthier.data.formats import choice as choices
from luthier.data.formats.choice import Choice
from luthier.data.formats.formats import Columns, Format
from luthier.data.formats.table import LOOKED_AT, Column, Table
from luthier.data.formats.transcripts import is_transcript
from luthier.errors import UserError

ASKING, NOT_ASKING = 0.6, 0.2
"""The share of texts with a question mark at the end, in a column of questions and in one of answers."""
LONG = 200
"""Words of documents: what stands beside such texts may tell about them rather than be what is asked of them."""
BESIDE_AT_MOST = 3
"""Columns of a table whose texts have a label that only its content shows; with more, they describe the texts."""
TITLES = {"title", "subject", "heading", "name", "caption", "section"}
ANSWERS = names.ANSWER[: names.ANSWER.index("target")]


def choice(table: Table) -> Choice:
    """The one reading that the content leaves; a UserError that asks for one setting where there are more."""
    refusals.expect_no_votes(table)
    if pair := known_pair(table):
        return pair
    texts, labels = _texts(table), _labels(table)
    chats = [column for column in table.columns.values() if column.known and column.sure_messages]
    if len(chats) == 1 and not checks.answered_chats(chats[0], least=0.05):
        raise refusals.only_questions(table, chats[0])
    if len(chats) == 1:
        return choices.of("conversations", table, {"conversations": chats[0].name}, "by content: lists of messages")
    written = [
        column
        for column in texts
        if column.mostly(lambda value: isinstance(value, str) and is_transcript(value[:LOOKED_AT]))
    ]
    if len(written) == 1:
        return choices.of("transcript", table, {"transcript": written[0].name}, "by content: turns with speakers")
    if len(texts) == 2 and (pair := _two_texts(table, *texts)):
        return pair
    if len(texts) == 1 and len(labels) == 1 and not _is_question_of_answer(texts[0], labels[0]):
        text, label = texts[0].name, labels[0]
        because = f"by content: {label.name} has {len(label.labels)} short values that come again, {text} has texts"
        return choices.of("classification", table, {"text": text, "label": label.name}, because)
    if len(texts) == 1 and not labels:
        return _one_text(table, texts[0])
    raise _ask(table, texts, labels)


def known_pair(table: Table) -> Choice | None:
    """A question and its answer whose names go together, though neither says by itself which it is."""
    for asked, answered in name_pairs.PAIRS:
        answer = _named(table, answered)
        question = _named(table, asked, other=answer)
        if question and answer and answer.prose and not question.closed and (question.prose or question.one_word):
            return choices.of("question-answer", table, {"question": question.name, "answer": answer.name})
    return None


def _named(table: Table, words: tuple[str, ...], *, other: Column | None = None) -> Column | None:
    """The column with the first of these names."""
    ranked = [
        (order, column.name)
        for column in table.columns.values()
        if column is not other and (order := names.rank(column.name, words)) is not None
    ]
    return table.columns[min(ranked)[1]] if ranked else None


def _two_texts(table: Table, one: Column, other: Column) -> Choice | None:
    """Two columns of texts: one asks and the other answers, by name or by question marks."""
    asked = [column for column in (one, other) if _asks_by_name(column)]
    answers = [column for column in (one, other) if names.rank(column.name, ANSWERS) is not None]
    question, because = None, ""
    if len(asked) == 1 and not answers:
        question, because = asked[0], "the only other column of texts is taken as the answer"
    elif len(answers) == 1 and not asked:
        question = other if answers[0] is one else one
        because = "the only other column of texts is taken as the question"
    elif not asked and not answers and one.name.isdecimal() and other.name.isdecimal():
        question, because = one, "no header, so the first column of texts is asked and the second learnt"
    elif not asked and not answers and not {_language(one), _language(other)} <= names.LANGUAGES:
        marks = {column.name: _asking(column) for column in (one, other)}
        for column, rest in ((one, other), (other, one)):
            if marks[column.name] >= ASKING and marks[rest.name] <= NOT_ASKING:
                question, because = column, f"by content: {column.name} asks, {rest.name} does not"
    if question is None:
        return None
    answer = other if question is one else one
    return choices.of("question-answer", table, {"question": question.name, "answer": answer.name}, because)


def _one_text(table: Table, column: Column) -> Choice:
    """A single column of texts is documents, unless its name says that an answer is missing."""
    asked = (*names.QUESTION, *names.PROMPT[:3], *names.INSTRUCTION, *names.INPUT)
    if names.rank(column.name, asked) is not None:
        raise refusals.nothing(table, f'"{column.name}" is what is asked, and no column has answers')
    if names.rank(column.name, ANSWERS) is not None:
        raise refusals.nothing(table, f'"{column.name}" is what is answered, and no column has questions')
    because = "" if len(table.columns) == 1 else "the only column of texts"
    return choices.of("text", table, {"text": column.name}, because)


def _ask(table: Table, texts: list[Column], labels: list[Column], documents: Choice | None = None) -> UserError:
    """The question to the user: each setting that would decide, with the first row as it would be read then."""
    asked = [column for column in texts if _asks_by_name(column)]
    answers = [column for column in texts if names.rank(column.name, ANSWERS) is not None]
    if len(texts) > 2 and len(asked) + len(answers) == 1:
        word = "answer" if asked else "question"
        known, role = (asked or answers)[0], ("question" if asked else "answer")
        others = [column for column in texts if column is not known][:3]
        readings = [
            (f"data.columns.{word}={column.name}", {role: known.name, word: column.name}, "question-answer")
            for column in others
        ]
        why = f'{len(others)} columns could be the {word} beside "{known.name}"'
    elif len(texts) == 2 and not labels:
        readings = [
            (
                f"data.columns.answer={answer.name}",
                {"question": question.name, "answer": answer.name},
                "question-answer",
            )
            for question, answer in (texts, texts[::-1])
        ]
        why = "either of two columns could be the answer"
    elif len(texts) == 1 and labels:
        readings = [
            (f"data.columns.label={label.name}", {"text": texts[0].name, "label": label.name}, "classification")
            for label in labels[:3]
        ]
        why = f"{len(labels)} columns could be the label"
    elif len(labels) == 1 and texts:
        readings = [
            (f"data.columns.text={text.name}", {"text": text.name, "label": labels[0].name}, "classification")
            for text in texts[:3]
        ]
        why = f'"{labels[0].name}" looks like a label of one of {len(texts)} columns of texts'
    elif texts:
        return refusals.nothing(table, "their names do not say which one is asked and which one is the answer")
    else:
        return refusals.nothing(table, "none of them holds texts")
    made = [("data.format=text", documents)] if documents else []
    made += [(setting, choices.of(name, table, columns)) for setting, columns, name in readings]
    return refusals.unsure(table, made, why)


def beside_text(table: Table, chosen: Choice) -> Choice:
    """Documents, unless another column is their label, or may be their answer."""
    text = chosen.columns["text"]
    if not table.columns[text].known:
        return chosen
    labels = [column for column in _labels(table) if column.name != text]
    about = [column for column in table.columns.values() if not (column.metadata or column.identifiers or column.dates)]
    if table.columns[text].words >= LONG and any(column.links for column in table.columns.values()):
        return chosen  # pages of the web, with what is known of them
    if len([column for column in about if not column.links and not column.empty]) > BESIDE_AT_MOST:
        labels = []
    others = [column for column in _texts(table) if column.name != text and names.plain(column.name) not in TITLES]
    if len(labels) == 1 and not others and table.columns[text].words >= LONG:
        columns = {"text": text, "label": labels[0].name}
        raise refusals.documents_or_label(table, chosen, choices.of("classification", table, columns))
    if labels and not others:
        if len(labels) == 1:
            because = f"by content: {labels[0].name} has {len(labels[0].labels)} short values that come again"
            label = choices.of("classification", table, {"text": text, "label": labels[0].name}, because)
            return replace(label, alternatives=("data.format=text",))
        made = [
            (f"data.columns.label={one.name}", choices.of("classification", table, {"text": text, "label": one.name}))
            for one in labels[:3]
        ]
        raise refusals.unsure(table, [*made, ("data.format=text", chosen)], f"{len(labels)} columns could be a label")
    if not others:
        return chosen
    if pair := known_pair(table):
        return replace(pair, alternatives=("data.format=text",))
    if labels:
        raise _ask(table, [table.columns[text], *others], labels, documents=chosen)
    question, answer = text, others[0].name
    if names.rank(text, (*names.ANSWER, *names.TARGET)) is not None:
        question, answer = answer, text
    pair = choices.of("question-answer", table, {"question": question, "answer": answer})
    raise refusals.unsure(
        table, [("data.format=text", chosen), (f"data.columns.answer={answer}", pair)],
        f'"{text}" could be documents, and "{others[0].name}" could belong to them',
    )  # fmt: skip


def expect_one_label(table: Table, chosen: Choice) -> None:
    """Asks which of several columns of yes and no is meant, and whether long texts are documents."""
    text, name = table.columns[chosen.columns["text"]], chosen.columns["label"]
    weak = (names.rank(name, names.LABEL) or 0) >= 2 * names.STRONG_LABEL
    if weak and text.words >= LONG and names.rank(text.name, names.TEXT) is not None and "title" not in chosen.columns:
        documents = choices.of("text", table, {"text": text.name})
        raise refusals.documents_or_label(table, documents, chosen)
    label = table.columns[chosen.columns["label"]]
    rivals = [column for column in _labels(table) if column.truths and column.name not in chosen.columns.values()]
    if not label.truths or not rivals or names.plain(label.name) == "label":
        return
    made = [
        (f"data.columns.label={column.name}", replace(chosen, columns={**chosen.columns, "label": column.name}))
        for column in (label, *rivals[:2])
    ]
    raise refusals.unsure(table, made, f"{len(rivals) + 1} columns could be the label")


def complete(entry: Format, table: Table, named: Mapping[str, str]) -> Columns | None:
    """The columns of a format that the recipe half names: what is missing is the only column that can be it."""
    found: Columns = dict(named)
    for word, known in entry.columns.items():
        if word not in found and known and (word in entry.required):
            ranked = [
                (order, name)
                for name in table.columns
                if name not in found.values() and (order := names.rank(name, known)) is not None
            ]
            if ranked:
                found[word] = min(ranked)[1]
    missing = [word for word in entry.required if word not in found]
    for word in missing:
        free = [column for column in table.columns.values() if column.name not in found.values()]
        fitting = [column for column in free if column.known and (column.closed if word == "label" else column.prose)]
        if word in ("question", "prompt", "input", "text") and len(fitting) != 1:
            late = (*names.LATE_QUESTION, *names.OTHER_QUESTION)
            ranked = [(order, c.name) for c in free if (order := names.rank(c.name, late)) is not None]
            if ranked:
                found[word] = min(ranked)[1]
                continue
        if len(fitting) != 1 and len(free) == 1:
            fitting = free
        if len(fitting) != 1:
            return None
        found[word] = fitting[0].name
    guessed = {word: name for word, name in found.items() if word not in named and word in entry.holds}
    if not all(entry.holds[word](table.columns[name]) for word, name in guessed.items()):
        return None
    return entry.adjust(table, found) or found


def _texts(table: Table) -> list[Column]:
    """The columns that may be asked or learnt: prose that is neither labels nor about the row."""
    return [
        column for column in table.columns.values()
        if column.known and column.prose and not column.metadata and not column.closed
        and names.plain(column.name) not in names.MEDIA
    ]  # fmt: skip


def _labels(table: Table) -> list[Column]:
    return [
        column for column in table.columns.values()
        if column.known and column.closed and not column.metadata and not column.identifiers
    ]  # fmt: skip


def _is_question_of_answer(text: Column, label: Column) -> bool:
    """Whether a closed column is a question's and the texts answer it, so that the label would be taught backwards."""
    return names.rank(text.name, ANSWERS) is not None or names.rank(label.name, names.QUESTION) is not None


def _language(column: Column) -> str:
    return names.bare(column.name).split("_")[-1]


def _asks_by_name(column: Column) -> bool:
    return names.rank(column.name, names.QUESTION) is not None and names.bare(column.name) not in names.PEOPLE


def _asking(column: Column) -> float:
    """The share of texts that end with a question mark."""
    return sum(text.rstrip().endswith(("?", "\uff1f", "\u061f")) for text in column.texts) / max(len(column.texts), 1)
