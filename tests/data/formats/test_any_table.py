"""Whatever a table holds: it is read, or refused with a message, and every row is kept or has its reason."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.data import Ledger, Record, Unfit, Value
from luthier.data.formats import names, reader, understand
from luthier.data.readers.values import Number
from luthier.errors import UserError
from luthier.recipe import Data

WORDS = sorted(
    {word for value in vars(names).values() if isinstance(value, tuple) for word in value if word.isidentifier()}
    | {"mapping", "paragraphs", "comments", "patterns", "responses", "custom_id", "body", "instances", "message_id"}
    | {
        "parent_id",
        "fields",
        "annotations",
        "data",
        "translation",
        "row",
        "row_idx",
        "ts",
        "speaker",
        "conversation_id",
    }
)
KEYS = st.sampled_from(
    ["role", "content", "from", "value", "text", "parts", "messages", "start", "end", "choices", "id"]
)
TEXTS = st.sampled_from(
    ["", "Is it open?", "At noon, every day.", "good", "bad", "B", "accept", "[1, 2]", "{'a': 1}", "[{", "https://x.org/y",
     "User: Hi\nBot: Hello", "Q: Why?\nA: So.", "2026-03-12", "user", "assistant"]
)  # fmt: skip
VALUES: st.SearchStrategy[Value] = st.recursive(
    TEXTS | st.none() | st.booleans() | st.just(b"\x89") | st.integers(0, 4).map(lambda number: Number(number)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
COLUMNS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5, unique=True)


@settings(max_examples=150, deadline=None)
@given(columns=COLUMNS, cells=st.lists(st.lists(VALUES, min_size=5, max_size=5), min_size=1, max_size=6))
def test_any_table_is_read_or_refused(columns: list[str], cells: list[list[Value]]) -> None:
    rows = [Record(f"x:{n}", dict(zip(columns, row, strict=False))) for n, row in enumerate(cells)]
    ledger = Ledger()
    try:
        understood = understand(lambda: iter(rows), Data(), path="x")
    except UserError as refusal:
        assert str(refusal).startswith("x")
        return
    assert understood is not None and understood.choice.sentence().startswith("read as ")
    read: Callable[[Record], object] = reader(understood.choice)
    try:
        for row in understood.rows(ledger.leave_out):
            try:
                read(row)
            except Unfit as reason:
                assert str(reason)
    except UserError as refusal:
        assert str(refusal).startswith("x")
