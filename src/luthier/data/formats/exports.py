"""Exports of known tools → plain rows: trees, nested answers, annotations become columns that the recogniser knows.

Each shape says which table it fits and makes of its rows others, several of one or one of several; what it leaves out, it
tells `drop`, so that the ledger lists it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from luthier.data.formats import dialogues, faqs, names
from luthier.data.formats.table import Table, text_of
from luthier.data.readers.values import Record, Value
from luthier.errors import UserError

Drop = Callable[[str, str], None]
"""Told of each record that is left out: the reason, and the location."""
Objects = dict[str, Value]


@dataclass(frozen=True)
class Shape:
    """An export's shape: `what` it is for the screen, and the column of the plain rows whose equal values belong together."""

    what: str
    fits: Callable[[Table], bool]
    rows: Callable[[Iterable[Record], Drop], Iterator[Record]]
    group: str | None = None


def shape_of(table: Table) -> Shape | None:
    """The shape of a table that is an export of a known kind."""
    return next((shape for shape in SHAPES if shape.fits(table)), None)


def _has(*columns: str) -> Callable[[Table], bool]:
    return lambda table: set(columns) <= table.columns.keys()


def _object(value: Value) -> Objects:
    return value if isinstance(value, dict) else {}


def _list(value: Value) -> list[Value]:
    return value if isinstance(value, list) else []


# Trees of messages


def _is_forest(table: Table) -> bool:
    return {"message_id", "parent_id", "text", "role"} <= table.columns.keys()


def _forest(rows: Iterable[Record], drop: Drop) -> Iterator[Record]:
    """Messages that name their parents: of each tree, the path of the best replies."""
    roots: list[Record] = []
    replies: dict[str, list[Record]] = {}
    for row in rows:
        parent = text_of(row.values.get("parent_id"))
        (replies.setdefault(parent, []) if parent else roots).append(row)
    for root in roots:
        path = [root]
        while below := sorted(
            replies.pop(text_of(path[-1].values.get("message_id")), []), key=lambda row: _rank(row.values)
        ):
            path.append(below[0])
            for row in below[1:]:
                drop("not the best reply of its tree", row.location)
        yield Record(root.location, {"messages": [_turn(row.values) for row in path]})
    for left in replies.values():
        for row in left:
            drop("belongs to a reply that is not the best, or to none", row.location)


def _tree(rows: Iterable[Record], drop: Drop) -> Iterator[Record]:
    """Trees of replies, one a row: the path of the best."""
    for row in rows:
        node = _object(row.values.get("prompt"))
        path = [_turn(node)]
        while below := sorted(map(_object, _list(node.get("replies"))), key=_rank):
            node = below[0]
            path.append(_turn(node))
        yield Record(row.location, {"messages": path})


def _rank(node: Objects) -> float:
    rank = node.get("rank")
    return float(rank) if isinstance(rank, str) and rank else float("inf")


def _turn(node: Objects) -> Value:
    role = text_of(node.get("role"))
    return {"role": {"prompter": "user"}.get(role, role), "content": node.get("text")}


def _is_mapping(table: Table) -> bool:
    column = table.columns.get("mapping")
    return column is not None and column.objects and "title" in table.columns


def _mapping(rows: Iterable[Record], drop: Drop) -> Iterator[Record]:
    """ChatGPT's export: the conversation up to the node that was shown last."""
    for row in rows:
        nodes = {name: _object(node) for name, node in _object(row.values.get("mapping")).items()}
        at = text_of(row.values.get("current_node")) or next(reversed(nodes), "")
        path: list[Value] = []
        while node := nodes.pop(at, None):
            message = _object(node.get("message"))
            role = text_of(_object(message.get("author")).get("role"))
            parts = _list(_object(message.get("content")).get("parts"))
            if any(not isinstance(part, str) or part.strip() for part in parts):
                path.append({"role": role, "content": [_part(part) for part in parts]})
            at = text_of(node.get("parent"))
        yield Record(row.location, {"messages": path[::-1]})


def _part(part: Value) -> Value:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}


# Nested rows


def _batch(rows: Iterable[Record], drop: Drop) -> Iterator[Record]:
    """Requests of OpenAI's Batch API; with the answers, where they stand beside them."""
    for row in rows:
        messages = _list(_object(row.values.get("body")).get("messages"))
        reply = _object(_object(row.values.get("response")).get("body"))
        found = [_object(choice).get("message") for choice in _list(reply.get("choices"))[:1]]
        yield Record(row.location, {"messages": [*messages, *found]})


def _instances(rows: Iterable[Record], drop: Drop) -> Iterator[Record]:
    for row in rows:
        for number, instance in enumerate(_list(row.values.get("instances")), start=1):
            values = {"instruction": row.values.get("instruction"), "input": None, "output": None, **_object(instance)}
            yield Record(row.location if number == 1 else f"{row.location}, instance {number}", values)


def _intents(rows: Iterable[Record], drop: Drop) -> Iterator[Record]:
    """Each pattern with each response of its tag; any of these is right."""
    for row in rows:
        patterns, responses = _list(row.values.get("patterns")), _list(row.values.get("responses"))
        if not patterns or not responses:
            drop("an intent without patterns or responses", row.location)
        for one, pattern in enumerate(patterns, start=1):
            for other, response in enumerate(responses, start=1):
                values: Objects = {"question": pattern, "answer": response, "references": responses}
                yield Record(
                    f"{row.location}, pattern {one}, response {other}", {"tag": row.values.get("tag"), **values}
                )


def _is_squad(table: Table) -> bool:
    column = table.columns.get("paragraphs")
    return column is not None and column.lists


def _squad(rows: Iterable[Record], drop: Drop) -> Iterator[Record]:
    """SQuAD's articles: a row for each question that has an answer."""
    for row in rows:
        for number, paragraph in enumerate(map(_object, _list(row.values.get("paragraphs"))), start=1):
            for count, question in enumerate(map(_object, _list(paragraph.get("qas"))), start=1):
                location = f"{row.location}, paragraph {number}, question {count}"
                texts = [_object(answer).get("text") for answer in _list(question.get("answers"))]
                if not texts:
                    drop("a question that its passage does not answer", location)
                    continue
                values: Objects = {"question": question.get("question"), "answers": texts}
                yield Record(location, {"context": paragraph.get("context"), **values})


def _is_translation(table: Table) -> bool:
    column = table.columns.get("translation")
    return column is not None and column.objects


def _merge(column: str) -> Callable[[Iterable[Record], Drop], Iterator[Record]]:
    """The object in a column as the row's own columns."""

    def rows(records: Iterable[Record], drop: Drop) -> Iterator[Record]:
        for row in records:
            yield Record(row.location, dict(_object(row.values.get(column))))

    return rows


def _is_tickets(table: Table) -> bool:
    column = table.columns.get("comments")
    return column is not None and column.lists and bool({"description", "subject"} & table.columns.keys())


def _tickets(rows: Iterable[Record], drop: Drop) -> Iterator[Record]:
    """Tickets of a help desk: the customer's words, and the comments by others as answers."""
    for row in rows:
        subject, description = (text_of(row.values.get(name)).strip() for name in ("subject", "description"))
        opened = [text for text in (subject, description) if text]
        if description.startswith(subject):
            opened = [description]
        messages: list[Value] = [{"role": "user", "content": "\n\n".join(opened)}]
        asks = text_of(row.values.get("requester_id"))
        for comment in map(_object, _list(row.values.get("comments"))):
            body = text_of(comment.get("plain_body") or comment.get("body") or comment.get("html_body")).strip()
            if not body or body == description or comment.get("public") is False:
                continue
            role = "user" if asks and text_of(comment.get("author_id")) == asks else "assistant"
            dialogues.append_turn(messages, role, body)
        yield Record(row.location, {"messages": messages})


# Annotations

SPANS = (
    "the annotations mark places in texts (named entities and the like), which is no answer to learn. To teach a model to find "
    "them, write a function that makes a question and an answer of a row, data.format=package.module:function"
)


def _is_prodigy(table: Table) -> bool:
    column = table.columns.get("answer")
    return column is not None and bool(column.kinds) and column.kinds <= {"accept", "reject", "ignore"}


def _prodigy(rows: Iterable[Record], drop: Drop) -> Iterator[Record]:
    """Prodigy's annotations: what was accepted; of several options, the ones that were taken."""
    for row in rows:
        decision = text_of(row.values.get("answer"))
        if decision != "accept":
            drop(f'the annotator\'s decision is "{decision}"', row.location)
            continue
        if row.values.get("spans"):
            raise UserError(f"{SPANS}.", where=row.location)
        values = {name: value for name, value in row.values.items() if name != "answer" and not name.startswith("_")}
        if isinstance(taken := values.pop("accept", None), list) and "label" not in values:
            values["label"] = taken
        yield Record(
            row.location,
            {name: value for name, value in values.items() if name not in ("options", "meta", "spans", "tokens")},
        )


def _label_studio(rows: Iterable[Record], drop: Drop) -> Iterator[Record]:
    """Label Studio's tasks: the data with the choice, or the text, of the first annotation."""
    for row in rows:
        made = [_object(one) for one in _list(row.values.get("annotations", row.values.get("completions")))]
        results = [
            _object(one)
            for each in made[:1]
            if each.get("was_cancelled") is not True
            for one in _list(each.get("result"))
        ]
        values = dict(_object(row.values.get("data")))
        for result in results:
            value, kind = _object(result.get("value")), text_of(result.get("type"))
            if kind in ("choices", "taxonomy"):
                values["label"] = value.get("choices", value.get("taxonomy"))
            elif kind == "textarea":
                texts = _list(value.get("text")) or [value.get("text")]
                values["answer"] = texts[0]
            elif kind == "rating":
                values["label"] = value.get("rating")
            elif kind not in ("relation",):
                raise UserError(f"{SPANS}.", where=row.location)
        if not results:
            drop("not annotated", row.location)
        else:
            yield Record(row.location, values)


def _argilla(rows: Iterable[Record], drop: Drop) -> Iterator[Record]:
    """Argilla's records: their fields, and the first response to each question."""
    for row in rows:
        if text_of(row.values.get("status")) == "discarded":
            drop("discarded by the annotator", row.location)
            continue
        values, responses = dict(_object(row.values.get("fields"))), row.values.get("responses")
        if isinstance(responses, list):  # [{"values": {"answer": {"value": …}}}]
            responses = _object(_object(next(iter(responses), None)).get("values"))
        for name, response in _object(responses).items():
            first = _object(next(iter(response), None)) if isinstance(response, list) else _object(response)
            values[name] = first.get("value")
        yield Record(row.location, values)


def _is_viewer(table: Table) -> bool:
    column = table.columns.get("row")
    return column is not None and column.objects and "row_idx" in table.columns


def _is_plain_languages(table: Table) -> bool:
    return _is_translation(table) and all(
        names.bare(key) in names.LANGUAGES
        for row in table.sample[:20]
        for key in _object(row.values.get("translation"))
    )


SHAPES = (
    Shape("message trees, of each the path of the best replies", _is_forest, _forest),
    Shape(
        "message trees, of each the path of the best replies",
        lambda table: "prompt" in table.columns and table.columns["prompt"].objects and _has("message_tree_id")(table),
        _tree,
    ),
    Shape("ChatGPT's export", _is_mapping, _mapping),
    Shape("requests of OpenAI's Batch API", _has("custom_id", "body"), _batch),
    Shape("seed tasks, a row for each instance", _has("instruction", "instances"), _instances),
    Shape("intents, each pattern with each response", _has("patterns", "responses"), _intents, group="tag"),
    Shape("SQuAD's articles, a row for each question", _is_squad, _squad, group="context"),
    Shape("translations", _is_plain_languages, _merge("translation")),
    Shape("rows of the dataset viewer", _is_viewer, _merge("row")),
    Shape("tickets, each comment of others an answer", _is_tickets, _tickets),
    Shape("Prodigy's annotations", _is_prodigy, _prodigy),
    Shape("Label Studio's tasks", lambda table: "data" in table.columns and table.columns["data"].objects
          and bool({"annotations", "completions"} & table.columns.keys()), _label_studio),
    Shape("Argilla's records", lambda table: _has("fields", "responses")(table) and table.columns["fields"].objects, _argilla),
    Shape("a chat of two people, a row for each message", dialogues.is_chat, dialogues.conversations),
    Shape("conversations, a row for each message", dialogues.has_conversations, dialogues.conversations),
    Shape("a text of questions, each with its answer", faqs.is_faq, faqs.pairs),
    Shape("a chat of two people written by WhatsApp, a conversation a day", dialogues.is_whatsapp, dialogues.whatsapp),
)  # fmt: skip
"""Every shape, in the order in which they are tried."""
