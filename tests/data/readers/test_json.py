"""JSON by content whatever the name, tables as other programs write them, and values that are none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier.data import load, read_rows
from luthier.data.readers.values import Unusable, as_text
from luthier.errors import UserError
from luthier.recipe import Data

Write = Callable[[str, str | bytes], Path]
ROWS = [{"question": "Is slip wet?", "answer": "Yes."}, {"question": "Is bisque?", "answer": "No."}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    return str(caught.value)


def values(path: Path) -> list[dict[str, Any]]:
    return [row.values for row in read_rows(path)]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.txt", "x.csv", "x.data", "x", "x.json.gz"])
def test_a_row_a_line_is_read_whatever_the_name(write: Write, name: str) -> None:
    assert [(row.location, row.values) for row in read_rows(write(name, "\n" + LINES))] == [
        (f"{name}:2", ROWS[0]),
        (f"{name}:3", ROWS[1]),
    ]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.txt", "x"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_read_whatever_the_name(write: Write, name: str, indent: int | None) -> None:
    assert values(write(name, json.dumps(ROWS, indent=indent))) == ROWS
    assert values(write(name, json.dumps({"rows": ROWS, "by": "Ann"}, indent=2))) == ROWS


def test_objects_one_after_the_other_are_rows_wherever_their_lines_end(write: Write) -> None:
    path = write("x.json", "\n".join(json.dumps(row, indent=1) for row in ROWS))
    assert [(row.location, row.values) for row in read_rows(path)] == [("x.json:1", ROWS[0]), ("x.json:5", ROWS[1])]
    assert values(write("y.json", LINES.replace("\n", " "))) == ROWS


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
@pytest.mark.parametrize(
    "table",
    [
        {"question": {"0": "Is slip wet?", "1": "Is bisque?"}, "answer": {"0": "Yes.", "1": "No."}},
        {"0": ROWS[0], "1": ROWS[1]},
        {
            "columns": ["question", "answer"],
            "index": [0, 1],
            "data": [["Is slip wet?", "Yes."], ["Is bisque?", "No."]],
        },
    ],
    ids=["columns", "index", "split"],
)
def test_what_pandas_writes_with_each_orient_is_the_same_table(write: Write, name: str, table: object) -> None:
    assert [(row.location, row.values) for row in read_rows(write(name, json.dumps(table)))] == [
        (f"{name}:row 1", ROWS[0]),
        (f"{name}:row 2", ROWS[1]),
    ]


def test_pandas_table_and_lists_of_columns_and_named_objects_are_tables_too(write: Write) -> None:
    with_schema = {"schema": {"fields": []}, "data": [{"index": 0, **row} for row in ROWS]}
    assert [row["answer"] for row in values(write("a.json", json.dumps(with_schema)))] == ["Yes.", "No."]
    by_column = {name: [row[name] for row in ROWS] for name in ("question", "answer")}
    assert values(write("b.json", json.dumps(by_column))) == ROWS
    assert values(write("c.json", json.dumps({"slip": ROWS[0], "bisque": ROWS[1]}))) == ROWS


def test_the_only_line_of_a_file_of_rows_is_a_row(write: Write) -> None:
    row = {"messages": [{"role": "user", "content": "Hi"}], "meta": {"0": "a"}}
    assert values(write("x.jsonl", json.dumps(row))) == [row]


def test_texts_are_rows_with_one_text(write: Write) -> None:
    expected = [{"text": "Slip is wet."}, {"text": "Bisque is not."}]
    assert values(write("x.json", '["Slip is wet.",\n "Bisque is not."]')) == expected
    assert values(write("x.jsonl", '"Slip is wet."\n"Bisque is not."\n')) == expected
    assert message(write("y.jsonl", '"Slip is wet."\n{"text": "b"}\n')) == (
        "y.jsonl:2: found an object, expected a text as above. Put this line right or remove it."
    )


def test_a_text_under_the_name_of_json_lines_is_named(write: Write) -> None:
    assert message(write("x.jsonl", "Slip is wet.\nBisque is not.\n")) == (
        'x.jsonl:1: this is text and no JSON, found "Slip is wet.". To read the file as one text, name it .txt; '
        "to make a row of each line: jq -R '{text: .}' FILE > FILE.jsonl."
    )


def test_all_broken_lines_are_named_at_once(write: Write) -> None:
    path = write("x.jsonl", '{"a": 1}\n{"a" 2}\n{"a": 3}\n{"a": 4,}\n\n{\n')
    assert message(path).startswith("x.jsonl:2: not valid JSON at column 6: Expecting ':' delimiter, found 2}. ")
    assert message(path).endswith(" Put this line right or remove it. Also broken: lines 4, 6.")


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("{'a': 1}", "This is how Python prints a dict; write it with json.dumps."),
        ('{"a": 1},', "Remove the comma behind it."),
        ('{"a": 1, "b": "2', "Put this line right or remove it."),
    ],
)
def test_a_broken_line_of_a_kind_gets_its_own_advice(write: Write, line: str, advice: str) -> None:
    assert message(write("x.jsonl", f"{line}\n{LINES}")).endswith(advice)


def test_nan_and_infinity_matter_where_they_are_used(write: Write) -> None:
    lines = [f'{{"question": "q{n}", "answer": "a{n}", "score": NaN, "n": [-Infinity]}}' for n in range(3)]
    path = write("x.jsonl", "\n".join([*lines, '{"question": "q", "answer": NaN}']))
    ledger = load(Data(path=path)).ledger
    assert ledger.summary() == "4 rows read, 3 kept; dropped: 1 NaN in place of a value (x.jsonl:4)"


def test_a_value_that_is_none_refuses_to_be_text() -> None:
    with pytest.raises(ValueError, match="no value"):
        as_text(["a", Unusable("no value")])
    with pytest.raises(UserError, match=r"^x.csv:1: twice"):
        as_text(Unusable("twice", location="x.csv:1"))


def test_a_lone_surrogate_drops_its_row(write: Write) -> None:
    lines = LINES + '{"question": "half \\ud83d", "answer": "b"}\n{"question": "c", "answer": "d"}\n'
    assert load(Data(path=write("x.jsonl", lines))).ledger.dropped == {
        "half a character (a lone surrogate)": ["x.jsonl:3"]
    }


def test_a_list_in_an_inner_object_is_found(write: Write) -> None:
    inner = {"meta": {"by": "Ann"}, "data": {"rows": ROWS, "none": []}}
    assert values(write("x.json", json.dumps(inner, indent=1))) == ROWS
    inner["old"] = {"rows": ROWS[:1]}
    assert message(write("y.json", json.dumps(inner, indent=1))).endswith(
        "Name the list that holds the rows: y.json#data.rows."
    )
    assert [row.location for row in read_rows(Path("y.json#old.rows"))] == ["y.json#old.rows:row 1"]


def test_a_comma_too_many_and_control_characters_are_shown(write: Write) -> None:
    assert message(write("x.json", '[\n{"a": 1},\n]')).endswith("Remove the comma before it.")
    assert "found \\x00b" in message(write("x.jsonl", b'{"a": "\0b"}\n{"a": "c"}\n'))
