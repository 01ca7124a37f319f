"""Whatever bytes a file has, under whatever name: rows, or a message. Never a crash, never another exception."""

import io
import json
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.data import read_rows
from luthier.data.readers.files import find
from luthier.errors import UserError

Write = Callable[[str, str | bytes], Path]
HERE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
NAMES = ["x.jsonl", "x.json", "x.csv", "x.tsv", "x.txt", "x.yaml", "x.parquet", "x.arrow", "x.sqlite", "x.tar", "x"]
ROWS = [{"question": f"Is pot {number} glazed?", "answer": f"Yes, {number}."} for number in range(4)]


def expect_rows_or_a_message(path: Path) -> None:
    try:
        for row in find(path).rows():
            assert all(isinstance(name, str) for name in row.values)
    except UserError as error:
        assert str(error).startswith(str(path))


@HERE
@given(content=st.binary(max_size=200), name=st.sampled_from(NAMES))
def test_any_bytes_are_rows_or_a_message(write: Write, content: bytes, name: str) -> None:
    expect_rows_or_a_message(write(name, content))


@HERE
@given(
    content=st.text(alphabet="{}[]\":,;|\t\n\r# ab1-&*!<>'~.?", max_size=80),
    name=st.sampled_from([name for name in NAMES if "." in name]),
)
def test_any_signs_of_these_languages_are_rows_or_a_message(write: Write, content: str, name: str) -> None:
    expect_rows_or_a_message(write(name, content))


def sound(kind: str, folder: Path) -> bytes:
    """The rows in a sound file of this kind."""
    out = io.BytesIO()
    table = pa.Table.from_pylist(ROWS)
    if kind == ".parquet":
        pq.write_table(table, out)
    elif kind == ".arrow":
        with pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
    elif kind == ".zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == ".sqlite":
        path = folder / "sound.db"
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE faq (question, answer)")
        connection.executemany("INSERT INTO faq VALUES (:question, :answer)", ROWS)
        connection.commit()
        connection.close()
        return path.read_bytes()
    else:
        texts = {
            ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
            ".json": json.dumps(ROWS, indent=1),
            ".csv": "question,answer\n" + "".join(f'{row["question"]},"{row["answer"]}"\n' for row in ROWS),
            ".yaml": "".join(f"- question: {row['question']}\n  answer: {row['answer']}\n" for row in ROWS),
        }
        return texts[kind].encode()
    return out.getvalue()


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".yaml", ".parquet", ".arrow", ".sqlite", ".zip"])
@HERE
@given(data=st.data())
def test_a_damaged_file_is_rows_or_a_message(write: Write, tmp_path: Path, kind: str, data: st.DataObject) -> None:
    content = bytearray(sound(kind, tmp_path))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    expect_rows_or_a_message(write(f"x{kind}", bytes(content[: data.draw(st.integers(1, len(content)))])))


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".yaml", ".parquet", ".arrow", ".sqlite"])
def test_sound_files_of_all_kinds_have_the_same_rows(write: Write, tmp_path: Path, kind: str) -> None:
    assert [row.values for row in read_rows(write(f"x{kind}", sound(kind, tmp_path)))] == ROWS
