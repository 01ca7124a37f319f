"""YAML: a list of objects, each with its line, and every scalar as it is written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.data import read_rows
from luthier.data.readers import yaml_files
from luthier.data.readers.values import as_text
from luthier.errors import UserError

Write = Callable[[str, str | bytes], Path]


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    return str(caught.value)


def test_a_list_of_objects_is_rows_with_their_lines(write: Write) -> None:
    path = write("x.yaml", "# kilns\n- q: Hot?\n  a: |\n    Very.\n    Indeed.\n\n- {q: Cold?, a: No}\n")
    assert [(row.location, row.values) for row in read_rows(path)] == [
        ("x.yaml:2", {"q": "Hot?", "a": "Very.\nIndeed.\n"}),
        ("x.yaml:7", {"q": "Cold?", "a": "No"}),
    ]


def test_scalars_stay_as_they_are_written(write: Write) -> None:
    written = ["yes", "No", "on", "1.50", "007", "2024-03-05", "1e5", "0x1F", "12:30:00", "true", "True", ".inf"]
    path = write(
        "x.yml", "- " + "\n  ".join(f"k{n}: {text}" for n, text in enumerate(written)) + '\n  e: ~\n  s: "~"\n'
    )
    (row,) = read_rows(path)
    assert [as_text(value) for value in row.values.values()] == [*written, "", "~"]


@pytest.mark.parametrize(
    "content",
    [
        "version: 1\nfaq:\n- {q: a}\n- {q: b}\n",
        "q: a\n---\nq: b\n",
        "one:\n  q: a\ntwo:\n  q: b\n",
        '[{"q": "a"}, {"q": "b"}]',
    ],
)
def test_other_shapes_of_a_table_are_read(write: Write, content: str) -> None:
    assert [row.values for row in read_rows(write("x.yaml", content))] == [{"q": "a"}, {"q": "b"}]


def test_texts_are_rows_with_one_text(write: Write) -> None:
    assert [row.values for row in read_rows(write("x.yaml", "- Slip is wet.\n- 7\n"))] == [
        {"text": "Slip is wet."},
        {"text": "7"},
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("- q: a\n  q: b\n", '2: the key "q" stands twice in one object. Remove one.'),
        (
            "- q: Is it: wet?\n",
            "1: not valid YAML at column 11: mapping values are not allowed in this context. "
            "A text with a colon or a # in it needs quotes around it.",
        ),
        ("just text\n", "1: found a text, expected a list of objects. A text file is named .txt."),
        (
            "a: 1\nb: 2\n",
            "1: found an object with no list (keys: a, b); expected a list of objects, or an object with one.",
        ),
        (
            "a: [{x: 1}]\nb: [{x: 2}]\n",
            "1: found an object with the lists a, b; expected a list of objects, or an object with one. "
            "Name the list that holds the rows: x.yaml#a.",
        ),
        ("- [1, 2]\n", '1: found a list, expected an object such as {"question": "…", "answer": "…"}.'),
        ("- &a {q: 1}\n- <<: *a\n", "2: a key that is no text, or <<, which takes another object in. Write it out."),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(write: Write, content: str, told: str) -> None:
    assert message(write("x.yaml", content)) == f"x.yaml:{told}"


def test_a_tag_runs_nothing(write: Write) -> None:
    rows = read_rows(write("x.yaml", "- q: !!python/object/apply:os.getcwd []\n  a: !!python/name:os.system b\n"))
    assert [row.values for row in rows] == [{"q": [], "a": "b"}]


def test_aliases_cannot_multiply_beyond_measure(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_files, "MOST_VALUES", 1000)
    bomb = "- &a0 [x, x]\n" + "".join(f"- &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 12))
    assert message(write("x.yaml", f"rows:\n- q:\n{bomb.replace('- &', '  - &')}")).endswith(
        "aliases (*name) or nesting make too many values of this. Write it out plainly."
    )
    assert message(write("y.yaml", "- &a {q: *a}\n")).startswith("y.yaml:1: aliases (*name) or nesting")
