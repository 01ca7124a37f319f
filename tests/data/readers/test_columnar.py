"""Parquet and Arrow: the only tables with types, which become the text that one expects to see."""

import datetime
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luthier.data import Value, read_rows
from luthier.data.readers import columnar
from luthier.data.readers.files import find
from luthier.data.readers.values import as_text
from luthier.errors import UserError

Write = Callable[[str, str | bytes], Path]
DAY = datetime.datetime(2024, 3, 5, 6, 7, 8)


def values(column: pa.Array, path: Path) -> list[Value]:
    pq.write_table(pa.table({"c": column}), path)
    return [row.values["c"] for row in read_rows(path)]


def texts(column: pa.Array, path: Path) -> list[str]:
    return [as_text(value) for value in values(column, path)]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["007", None, ""]), ["007", "", ""]),
        (pa.array([7, None]), ["7", ""]),
        (pa.array([1.5, 1.0, float("nan"), float("inf")]), ["1.5", "1.0", "", "inf"]),
        (pa.array([0.1, 1.0, None], pa.float32()), ["0.1", "1.0", ""]),
        (pa.array([[0.1, None]], pa.list_(pa.float32())), ["[0.1, null]"]),
        (pa.array([{"x": 0.1}], pa.map_(pa.string(), pa.float32())), ['[["x", 0.1]]']),
        (pa.array([True, False, None]), ["true", "false", ""]),
        (pa.array([Decimal("1.50")]), ["1.50"]),
        (pa.array([DAY.date()]), ["2024-03-05"]),
        (pa.array([DAY]), ["2024-03-05 06:07:08"]),
        (pa.array([1_709_618_828_123_456_789], pa.timestamp("ns")), ["2024-03-05 06:07:08.123456"]),
        (pa.array([b"Gr\xc3\xbcn"]), ["Grün"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array([{"amount": 1.5, "tags": ["x", None], "no": 3}]), ['{"amount": 1.5, "tags": ["x", null], "no": 3}']),
    ],
)
def test_a_column_becomes_text(column: pa.Array, expected: list[str], tmp_path: Path) -> None:
    assert texts(column, tmp_path / "x.parquet") == expected


JSON = pa.json_()
MESSAGE = '{"role": "user", "content": "What is 1.50?"}'


@pytest.mark.parametrize("store_schema", [True, False])
@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (
            pa.array(['"yes"', "007", "1.50", "null", None, '{"a": [true]}'], JSON),
            ["yes", "007", "1.50", None, None, {"a": [True]}],
        ),
        (
            pa.ListArray.from_arrays([0, 2], pa.array([MESSAGE, '"x"'], JSON)),
            [[{"role": "user", "content": "What is 1.50?"}, "x"]],
        ),
        (pa.StructArray.from_arrays([pa.array(['"a"'], JSON)], names=["k"]), [{"k": "a"}]),
    ],
)
def test_json_is_read_by_its_arrow_type_at_any_depth(
    column: pa.Array, expected: list[Value], store_schema: bool, tmp_path: Path
) -> None:
    """As datasets 5 writes columns of mixed values, and lists of messages."""
    pq.write_table(pa.table({"c": column}), tmp_path / "x.parquet", store_schema=store_schema)
    assert [row.values["c"] for row in read_rows(tmp_path / "x.parquet")] == expected


def test_what_is_said_to_be_json_and_is_not_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"c": pa.array(["1", "{"], JSON)}), path := tmp_path / "x.parquet")
    with pytest.raises(UserError, match=rf'{path}:row 2: the column "c" is said to hold JSON, and this is none: '):
        list(read_rows(path))


def test_bytes_that_are_no_text_have_no_text(tmp_path: Path) -> None:
    (value,) = values(pa.array([b"\x89PNG"]), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="bytes that are not text"):
        as_text(value)


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_rows_are_numbered_over_all_batches(write: Write, ending: str) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": [f"t{n}" for n in range(3000)]}), sink, row_group_size=700)
    rows = list(read_rows(write(f"x.parquet{ending}", sink.getvalue().to_pybytes())))
    assert len(rows) == 3000
    assert (rows[-1].location, rows[-1].values) == (f"x.parquet{ending}:row 3000", {"text": "t2999"})


def test_a_damaged_file_is_refused(write: Write) -> None:
    with pytest.raises(UserError) as caught:
        list(read_rows(write("x.parquet", "question,answer\n" * 10)))
    assert str(caught.value) == (
        "x.parquet: not a sound Parquet file: Parquet magic bytes not found in footer. "
        "Either the file is corrupted or this is not a parquet file. Write or download it again."
    )


def test_of_two_columns_of_one_name_neither_can_be_used(write: Write) -> None:
    sink = pa.BufferOutputStream()
    columns = [pa.array(["1"]), pa.array(["2"]), pa.array(["3"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["q", "a", "q"]), sink)
    (row,) = read_rows(write("x.parquet", sink.getvalue().to_pybytes()))
    assert row.values["a"] == "2"
    with pytest.raises(UserError) as caught:
        as_text(row.values["q"])
    assert str(caught.value) == 'x.parquet: the columns 1 and 3 are both named "q"; rename one of them.'


@pytest.mark.parametrize("name", ["x.arrow", "x.feather", "x.data"])
def test_arrow_files_and_streams_are_read_with_the_same_values(write: Write, name: str) -> None:
    table = pa.table({"q": ["a", "b"], "n": pa.array([0.1, None], pa.float32()), "l": [["x"], []]})
    file, stream = pa.BufferOutputStream(), pa.BufferOutputStream()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    for sink in (file, stream):
        path = write(name, sink.getvalue().to_pybytes())
        rows = list(read_rows(path))
        assert [row.location for row in rows] == [f"{name}:row 1", f"{name}:row 2"]
        assert [row.values for row in rows] == [{"q": "a", "n": "0.1", "l": ["x"]}, {"q": "b", "n": None, "l": []}]
        with pytest.raises(UserError, match="not a sound Arrow file"):
            list(read_rows(write(name, path.read_bytes()[: path.stat().st_size // 2])))


def test_a_parquet_file_that_claims_more_than_it_can_hold_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnar, "TRUSTED", 1000)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"q": ["a" * 5_000_000]}), sink, compression="zstd")
    with pytest.raises(
        UserError, match=r"x\.parquet: its [\d,]+ bytes say that they hold 5,000,0[\d,]+, which no data do"
    ):
        list(read_rows(write("x.parquet", sink.getvalue().to_pybytes())))


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
def test_what_no_python_value_can_be_and_what_is_no_text_are_named(write: Write, name: str) -> None:
    days = pa.array([2**31 - 1], pa.date32())
    texts = pa.array([b"\xff"], pa.binary()).view(pa.string())
    for column in (days, texts):
        sink = pa.BufferOutputStream()
        table = pa.table({"c": column})
        if name == "x.parquet":
            pq.write_table(table, sink)
        else:
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
        with pytest.raises(UserError, match=r"x\.\w+: not a sound (Arrow|Parquet) file"):
            list(read_rows(write(name, sink.getvalue().to_pybytes())))


def test_numbers_that_the_file_gives_names_are_read_as_these(tmp_path: Path) -> None:
    classes = {"names": ["calm", "rough"], "_type": "ClassLabel"}
    features = {
        "label": classes,
        "all": {"feature": classes, "_type": "List"},
        "n": {"dtype": "int64", "_type": "Value"},
    }
    table = pa.table({"label": [1, 0, -1], "all": [[0, 1], [], None], "n": [1, 0, 2]})
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "x.parquet")
    files = find(tmp_path / "x.parquet")
    assert [row.values for row in files.rows()] == [
        {"label": "rough", "all": ["calm", "rough"], "n": "1"},
        {"label": "calm", "all": [], "n": "0"},
        {"label": None, "all": None, "n": "2"},
    ]
    assert files.remarks[-1].endswith(
        'names the classes in "label" and "all", so the names are read and not their numbers'
    )


@pytest.mark.parametrize("metadata", ["[]", "{", '{"info": null}', '{"info": {"features": {"label": 3}}}'])
def test_metadata_of_another_kind_do_not_matter(tmp_path: Path, metadata: str) -> None:
    table = pa.table({"label": [1]}).replace_schema_metadata({b"huggingface": metadata.encode()})
    pq.write_table(table, tmp_path / "x.parquet")
    assert [row.values for row in read_rows(tmp_path / "x.parquet")] == [{"label": "1"}]
