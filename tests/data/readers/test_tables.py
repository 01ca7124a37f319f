"""Every format gives the same rows, text stays text, and a place is where a reader finds the row."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.data import Record, read_rows
from luthier.data.readers.values import Number, as_text
from luthier.errors import UserError

Write = Callable[[str, str | bytes], Path]
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
RECORDS = st.lists(st.fixed_dictionaries({"question": TEXT, "answer": TEXT}), min_size=1, max_size=8)
HERE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def message(path: Path) -> str:
    """What reading the file says."""
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    return str(caught.value)


# What stays as it is


@HERE
@given(records=RECORDS)
def test_jsonl_gives_back_what_was_written(write: Write, records: list[dict[str, str]]) -> None:
    path = write("x.jsonl", "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    rows = list(read_rows(path))
    assert rows == [Record(f"x.jsonl:{line}", dict(record)) for line, record in enumerate(records, start=1)]


@HERE
@given(records=RECORDS, indent=st.sampled_from([None, 1]))
def test_a_json_list_gives_back_what_was_written(
    write: Write, records: list[dict[str, str]], indent: int | None
) -> None:
    path = write("x.json", json.dumps(records, ensure_ascii=False, indent=indent))
    rows = list(read_rows(path))
    assert [row.values for row in rows] == records
    assert len({row.location for row in rows}) == len(records)


@HERE
@given(records=RECORDS, separator=st.sampled_from([",", "\t", ";"]), end=st.sampled_from(["\n", "\r\n"]))
def test_csv_gives_back_what_was_written(write: Write, records: list[dict[str, str]], separator: str, end: str) -> None:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(
        file, ["question", "answer"], delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL
    )
    writer.writeheader()
    writer.writerows(records)
    rows = list(read_rows(write("x.tsv" if separator == "\t" else "x.csv", file.getvalue())))
    assert [row.values for row in rows] == records


def test_text_that_looks_like_a_number_or_a_date_stays_text(write: Write) -> None:
    expected = {"a": "007", "b": "2024-03-05", "c": "1e5", "d": "true", "e": ""}
    assert [row.values for row in read_rows(write("x.csv", "a,b,c,d,e\n007,2024-03-05,1e5,true,\n"))] == [expected]
    assert [row.values for row in read_rows(write("x.jsonl", json.dumps(expected)))] == [expected]


def test_json_numbers_keep_the_characters_of_the_file(write: Write) -> None:
    (row,) = read_rows(
        write("x.jsonl", '{"a": 1.50, "b": -0, "c": 1E5, "d": 12345678901234567890123, "e": null, "f": true}')
    )
    texts = {name: as_text(value) for name, value in row.values.items()}
    assert texts == {"a": "1.50", "b": "-0", "c": "1E5", "d": "12345678901234567890123", "e": "", "f": "true"}
    assert all(type(text) is str for text in texts.values())


def test_an_object_as_text_is_json_with_its_numbers_as_they_were(write: Write) -> None:
    line = '{"answer": {"amount": 1.50, "who": "Zoë \\"Z\\"", "tags": ["a", 2, null, true], "none": {}}}'
    (row,) = read_rows(write("x.jsonl", line))
    assert as_text(row.values["answer"]) == (
        '{"amount": 1.50, "who": "Zoë \\"Z\\"", "tags": ["a", 2, null, true], "none": {}}'
    )


def test_what_unicode_calls_a_line_end_is_text(write: Write) -> None:
    text = "one\u2028two\u2029three\x85four"
    assert [row.values for row in read_rows(write("x.jsonl", f'{{"text": "{text}"}}\n'))] == [{"text": text}]
    assert [row.values for row in read_rows(write("x.csv", f"text\n{text}\x0bfive\n"))] == [{"text": f"{text}\x0bfive"}]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(write: Write, mark: bytes, end: str) -> None:
    expected = [{"question": "Größe?", "answer": "3"}, {"question": "b", "answer": "c"}]
    lines = {
        "x.csv": ["question,answer", "Größe?,3", "b,c", ""],
        "x.jsonl": [*(json.dumps(record, ensure_ascii=False) for record in expected), ""],
        "x.json": json.dumps(expected, ensure_ascii=False, indent=2).split("\n"),
    }
    for name, content in lines.items():
        path = write(name, mark + end.join(content).encode("utf-8"))
        assert [row.values for row in read_rows(path)] == expected, name


def test_a_cell_longer_than_the_csv_modules_own_limit_is_read(write: Write) -> None:
    (row,) = read_rows(write("x.csv", "text\n" + "word " * 100_000))
    assert len(as_text(row.values["text"])) == 500_000


# Places


def test_a_csv_row_is_placed_by_the_line_where_it_starts(write: Write) -> None:
    rows = list(read_rows(write("x.csv", 'q,a\n1,"two\nlines"\n\n2,x\n')))
    assert [(row.location, row.values["a"]) for row in rows] == [("x.csv:2", "two\nlines"), ("x.csv:5", "x")]


def test_blank_lines_in_jsonl_count_for_places_but_are_no_rows(write: Write) -> None:
    assert [row.location for row in read_rows(write("x.jsonl", '{"a": "1"}\n\n \r\n{"a": "2"}'))] == [
        "x.jsonl:1",
        "x.jsonl:4",
    ]


def test_a_json_record_is_placed_by_the_line_where_it_starts(write: Write) -> None:
    content = '\n[\n  {"a":\n   "1"},\n  {"a": "2"}, {"a": "3"}\n]\n'
    assert [row.location for row in read_rows(write("x.json", content))] == [
        "x.json:3",
        "x.json:5",
        "x.json:5, record 3",
    ]


def test_the_only_list_in_a_json_object_holds_the_rows(write: Write) -> None:
    content = '{"version": {"of": "[]"}, "rows":\n [{"a": "1"},\n  {"a": "2"}], "count": 2}'
    rows = list(read_rows(write("x.json", content)))
    assert [(row.location, row.values) for row in rows] == [("x.json:2", {"a": "1"}), ("x.json:3", {"a": "2"})]


def test_an_empty_list_has_no_rows(write: Write) -> None:
    assert list(read_rows(write("x.json", " [ ] "))) == []


def test_columns_without_a_name_are_not_read(write: Write) -> None:
    assert [row.values for row in read_rows(write("x.csv", ",a,,\n0,1,2,3\n"))] == [{"a": "1"}]


def test_jsonl_is_read_one_line_at_a_time(write: Write) -> None:
    rows = read_rows(write("x.jsonl", '{"a": "1"}\nbroken'))
    assert next(rows).values == {"a": "1"}
    with pytest.raises(UserError):
        next(rows)


# Messages


def test_a_broken_json_line_is_named_with_its_column(write: Write) -> None:
    assert message(write("x.jsonl", '{"a": "1"}\n{"a": "1" "b": "2"}\n')) == (
        "x.jsonl:2: not valid JSON at column 11: Expecting ',' delimiter, "
        'found "b": "2"}. Expected one object per line, such as {"question": "…", "answer": "…"}. '
        "Put this line right or remove it."
    )


def test_a_line_that_was_cut_off_is_named(write: Write) -> None:
    assert message(write("x.jsonl", '{"a": "1", "b": \n')) == (
        "x.jsonl:1: not valid JSON at column 16: Expecting value, where the line ends. Expected one object per line, "
        'such as {"question": "…", "answer": "…"}. Put this line right or remove it.'
    )


def test_two_objects_on_a_line_are_refused(write: Write) -> None:
    assert message(write("x.jsonl", '{"a": "1"} {"a": "2"}')) == (
        'x.jsonl:1: not valid JSON at column 12: more text behind an object, found {"a": "2"}. Expected one object per '
        'line, such as {"question": "…", "answer": "…"}. Put this line right or remove it.'
    )


@pytest.mark.parametrize(
    ("line", "found"),
    [("[1, 2]", "a list"), ('"hello"', "a text"), ("3.5", "a number"), ("null", "null"), ("true", "true or false")],
)
def test_a_json_line_that_is_no_object_is_refused(write: Write, line: str, found: str) -> None:
    assert message(write("x.jsonl", '{"a": "1"}\n' + line)) == (
        f'x.jsonl:2: found {found}, expected an object such as {{"question": "…", "answer": "…"}}. '
        "Put this line right or remove it."
    )


def test_a_key_given_twice_is_refused(write: Write) -> None:
    assert message(write("x.jsonl", '{"a": "1", "b": {"c": 1, "c": 2}}')) == (
        'x.jsonl:1: not valid JSON: the key "c" stands twice in one object. Expected one object per line, '
        'such as {"question": "…", "answer": "…"}. Put this line right or remove it.'
    )


def test_nesting_beyond_measure_is_refused(write: Write) -> None:
    nested = '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}"
    assert message(write("y.jsonl", nested)).startswith(
        "y.jsonl:1: not valid JSON: lists or objects nested too deeply."
    )


def test_a_broken_json_file_is_named_with_line_and_column(write: Write) -> None:
    assert message(write("x.json", '[\n  {"a": "1"},\n  {"a": "2"}\n  {"a": "3"}]')) == (
        "x.json:4: not valid JSON at column 3: Expecting ',' delimiter, "
        'found {"a": "3"}]. Expected a list of objects such as [{"question": "…", "answer": "…"}], or an object on '
        "each line. Put this right."
    )


def test_text_behind_a_json_list_is_refused(write: Write) -> None:
    assert message(write("x.json", '[{"a": "1"}]\n[]')).startswith(
        "x.json:2: not valid JSON at column 1: more text behind a list"
    )


def test_a_list_that_is_no_list_of_objects_is_refused(write: Write) -> None:
    assert message(write("x.json", '[{"a": "1"},\n 2]')) == (
        'x.json:2: found a number in the list, expected an object such as {"question": "…", "answer": "…"}.'
    )
    assert message(write("x.json", "[[1, 2], [3, 4]]")) == (
        'x.json:1: found a list in the list, expected an object such as {"question": "…", "answer": "…"}. '
        'pandas writes objects with to_json(orient="records").'
    )


def test_a_json_object_needs_one_list(write: Write) -> None:
    middle = (
        'expected a list of objects such as [{"question": "…", "answer": "…"}], or an object with one such list in it. '
    )
    rows = '[{"a": "1"}]'
    assert message(write("x.json", f'{{"old": {rows}, "new": {rows}}}')) == (
        f"x.json: found an object with the lists old, new; {middle}Name the list that holds the rows: x.json#old."
    )
    assert [row.location for row in read_rows(Path("x.json#new"))] == ["x.json#new:1"]
    assert message(Path("x.json#newest")) == 'x.json#newest: no list "newest" in it. There are the lists old, new.'
    assert message(write("x.json", '{"q": 1, "a": "2"}')) == (
        f"x.json: found an object with no list (keys: q, a); {middle}Keep the list that holds the rows."
    )


def test_a_number_is_text_with_a_mark() -> None:
    assert Number("1.50") == "1.50"
    assert isinstance(Number("1.50"), str)
