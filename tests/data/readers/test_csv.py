"""CSV: separator, titles and header are found from the content, and what does not fit is named with its line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier.data import load, read_rows
from luthier.data.readers import csv_files, sources
from luthier.data.readers.files import find
from luthier.errors import UserError
from luthier.recipe import Data

Write = Callable[[str, str | bytes], Path]
ROWS = [{"question": "Is slip wet?", "answer": "Yes."}, {"question": "Is it, well, hot?", "answer": "No."}]


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    return str(caught.value)


def read(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and what is said of the file."""
    files = find(path)
    return [row.values for row in files.rows()], files.remarks


# Separators


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.csv.gz"])
@pytest.mark.parametrize("separator", ["\t", ";", "|"])
def test_the_separator_is_found_from_the_content(write: Write, name: str, separator: str) -> None:
    lines = [f"{row['question']}{separator}{row['answer']}" for row in ROWS]
    assert read(write(name, "\n".join([f"question{separator}answer", *lines]))) == (ROWS, [])


def test_commas_in_texts_and_numbers_are_no_separators(write: Write) -> None:
    content = '"Question, as asked";Answer\nWhen, please?;At 7, daily.\nHow much?;4,50\n'
    assert [list(row.values.values()) for row in read_rows(write("x.csv", content))] == [
        ["When, please?", "At 7, daily."],
        ["How much?", "4,50"],
    ]
    assert [row.values for row in read_rows(write("y.csv", "a;b,c\n1,2\n"))] == [{"a;b": "1", "c": "2"}]


def test_a_separator_that_the_file_names_is_obeyed(write: Write) -> None:
    content = "sep=;\r\nquestion;answer\r\nWhat, when?;4,50\r\n"
    (row,) = read_rows(write("x.csv", content))
    assert (row.location, row.values) == ("x.csv:3", {"question": "What, when?", "answer": "4,50"})


def test_a_single_column_may_hold_commas(write: Write) -> None:
    texts = ["Slip, and glaze.", "Bisque", "a, b, and c"]
    assert [row.values for row in read_rows(write("x.csv", "text\n" + "\n".join(texts)))] == [
        {"text": t} for t in texts
    ]
    assert [row.values for row in read_rows(write("y.csv", 'text\n"Slip, and glaze."\n'))] == [{"text": texts[0]}]


def test_blanks_behind_separators_hide_no_quotes(write: Write) -> None:
    content = 'question, answer\n"Where?", "Shelf B, left"\n"Who?", "Ann"\n'
    assert [row.values["answer"] for row in read_rows(write("x.csv", content))] == ["Shelf B, left", "Ann"]


@pytest.mark.parametrize("name", ["x.csv", "x.txt", "x.jsonl"])
def test_old_mac_line_ends_are_line_ends(write: Write, name: str) -> None:
    content = {
        "x.csv": "q,a\r1,2\r",
        "x.txt": "q\ta\r1\t2\r",
        "x.jsonl": '{"q": "0", "a": "0"}\r{"q": "1", "a": "2"}\r',
    }
    assert read(write(name, content[name]))[0][-1] == {"q": "1", "a": "2"}


# Titles and headers


@pytest.mark.parametrize("title", ["Studio questions 2024\n", "FAQ\n\n", "FAQ,,\n", "Exported by Ann\non Monday\n\n"])
def test_titles_above_the_header_are_no_rows_and_are_told(write: Write, title: str) -> None:
    path = write("x.csv", title + "question,answer\nIs slip wet?,Yes.\nHot?,No.\n")
    line = title.count("\n") + 1
    rows, remarks = read(path)
    assert (len(rows), rows[0]) == (2, ROWS[0])
    assert remarks == [f"x.csv: the header is on line {line}, what stands above it is not read"]


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("x.tsv", "Is slip wet?\tYes.\tCC\nIs it hot?\tNo.\tCC\n", 2),
        ("y.csv", "ham,Slip at 4 a jar\nspam,Win a kiln\nham,See you\nham,Clay is here\n", 4),
        ("z.csv", "1,first\n2,second\n3,third\n", 3),
        ("w.csv", "Slip is wet.\nBisque is not.\n", 2),
    ],
)
def test_a_first_row_that_resembles_the_others_is_no_header(write: Write, name: str, content: str, rows: int) -> None:
    found, remarks = read(write(name, content))
    width = len(found[0])
    assert len(found) == rows
    assert list(found[0]) == [str(number) for number in range(1, width + 1)]
    assert remarks == [f"{name} has no header, so the columns are named 1" + (f" to {width}" if width > 1 else "")]


@pytest.mark.parametrize(
    "header", ["question,answer", "Timestamp,What is your question?", "0,1", "Question?,Answer", "label,text"]
)
def test_a_header_is_a_header(write: Write, header: str) -> None:
    rows, remarks = read(write("x.csv", header + "\nten,It is wet\nnine,Is it?\nten,Not now\n"))
    assert (len(rows), remarks) == (3, [])
    assert list(rows[0]) == header.split(",")


def test_what_anki_writes_on_top_is_obeyed(write: Write) -> None:
    cards = "Slip?\tWet\nBisque?\tDry\nKiln?\tHot\n"
    rows, remarks = read(write("x.txt", "#separator:tab\n#html:true\n" + cards))
    assert (rows[0], len(rows)) == ({"1": "Slip?", "2": "Wet"}, 3)
    assert remarks == ["x.txt has no header, so the columns are named 1 to 2"]
    html = "#separator:tab\n#html:true\nSlip?\tWet<br>and grey\nBisque?\tDry\n"
    assert read(write("z.txt", html))[1][1:] == ["z.txt: its cells hold HTML, which is text here"]
    named = "#separator:Semicolon\n#columns:Front;Back\n" + cards.replace("\t", ";")
    assert read(write("y.txt", named))[0][1] == {"Front": "Bisque?", "Back": "Dry"}


def test_columns_of_one_name_matter_where_they_are_used(write: Write) -> None:
    rows = "".join(f"q{n}?,a{n},,\n" for n in range(4))
    assert load(Data(path=write("x.csv", "question,answer,note,note\n" + rows))).ledger.kept == 4
    path = write("y.csv", "question,answer,answer,note\n" + rows)
    with pytest.raises(UserError) as caught:
        load(Data(path=path))
    assert str(caught.value) == 'y.csv:1: the columns 2 and 3 are both named "answer"; rename one of them.'


# Rows that do not fit


def test_blank_cells_behind_the_last_column_are_ignored(write: Write) -> None:
    content = "question,answer\nIs slip wet?,Yes.,\nHot?,No.,,\nDry?,No.\n"
    assert [row.values["answer"] for row in read_rows(write("x.csv", content))] == ["Yes.", "No.", "No."]
    padded = "v1,v2,,,\r\nham,Slip,,,\r\nspam,Win\r\n"
    assert [row.values for row in read_rows(write("y.csv", padded))] == [
        {"v1": "ham", "v2": "Slip"},
        {"v1": "spam", "v2": "Win"},
    ]


def test_a_separator_in_the_last_column_is_named_with_the_cure(write: Write) -> None:
    content = "question,answer\nOpen?,At 7, daily\nHot?,No.\nCost?,4,50\n"
    assert message(write("x.csv", content)) == (
        "x.csv:2: found 3 cells, expected 2 (question, answer). If the separator belongs to the text, put double quotes "
        'around it: "At 7, daily". The same on line 4.'
    )


def test_a_row_that_lacks_cells_is_named(write: Write) -> None:
    assert message(write("x.csv", 'q,a,n\n1,2,3\n"4\n",5,6\n7,8\n9,8,7\n1,2,3\n')) == (
        'x.csv:5: found 2 cells, expected 3 (q, a, n). A cell with quotes, separators or line ends is written "like '
        '""this"""; one that is empty has its separator all the same.'
    )


def test_a_stray_quote_between_tabs_glues_no_lines(write: Write) -> None:
    rows, remarks = read(write("x.tsv", 'question\tanswer\nOpen?\t"At 7\nWhere?\tShelf B\nCost?\t4.50"\nWho?\tAnn\n'))
    assert [row["answer"] for row in rows] == ['"At 7', "Shelf B", '4.50"', "Ann"]
    assert remarks == ["x.tsv:2: a double quote that opens no cell is read as text"]
    rows, _ = read(write("y.tsv", 'question\tanswer\nOpen?\t"At 7\nWhere?\tShelf B\nWho?\tAnn\n'))
    assert [row["answer"] for row in rows] == ['"At 7', "Shelf B", "Ann"]


def test_a_cell_over_lines_stays_whole_and_one_that_looks_like_rows_is_told(write: Write) -> None:
    rows, remarks = read(write("x.csv", 'q,a\n1,"two\nlines"\n2,"a\nb, c"\n3,d\n'))
    assert ([row["a"] for row in rows], remarks) == (["two\nlines", "a\nb, c", "d"], [])
    rows, remarks = read(write("y.csv", 'q,a\n1,"b\n2,c\n3,d"\n4,e\n'))
    assert [row["a"] for row in rows] == ["b\n2,c\n3,d", "e"]
    assert remarks == [
        "y.csv:2: a cell goes on to line 4, over lines that look like rows; is one double quote too many?"
    ]


def test_a_quote_that_is_never_closed_is_named_where_its_row_starts(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = (
        "x.csv:3: not valid CSV: a double quote opens a cell here and is never closed. A cell with quotes, separators "
        'or line ends is written "like ""this""".'
    )
    assert message(write("x.csv", 'q,a\n1,2\n3,"4\n5,6\n')) == told
    monkeypatch.setattr(sources, "LONGEST_LINE", 1000)
    assert message(write("x.csv", 'q,a\n1,2\n3,"4\n' + "5,6\n" * 10_000)) == told


def test_quotes_inside_a_quoted_cell_are_read_where_that_is_plain(write: Write) -> None:
    content = 'q,a\nA 12" pot?,Yes.\n"The "big" red, hot one?",No.\nHot?,"She said "no""\n"Last",1\n'
    rows, remarks = read(write("x.csv", content))
    assert [list(row.values()) for row in rows] == [
        ['A 12" pot?', "Yes."],
        ['The "big" red, hot one?', "No."],
        ["Hot?", 'She said "no"'],
        ["Last", "1"],
    ]
    assert remarks == [
        "x.csv:3: double quotes inside of a quoted cell are read as text",
        "x.csv:4: double quotes inside of a quoted cell are read as text",
    ]
    assert message(write("y.csv", 'q,a\n"The" big one?,No.\n')).startswith(
        "y.csv:2: not valid CSV: behind the closing quote of a cell stands more text. A cell with quotes"
    )


def test_many_rows_are_not_held_in_memory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "SAMPLE_LINES", 10)
    monkeypatch.setattr(csv_files, "HEAD_ROWS", 5)
    rows = read_rows(write("x.csv", "q,a\n" + "1,2\n" * 50 + '3,"4'))
    assert [next(rows).values for _ in range(50)][-1] == {"q": "1", "a": "2"}
    with pytest.raises(UserError):
        next(rows)


def test_a_row_of_blank_cells_is_a_row_and_above_the_header_it_is_none(write: Write) -> None:
    rows, _ = read(write("x.csv", ",\nquestion,answer\nHot?,No.\n,\n"))
    assert rows == [{"question": "Hot?", "answer": "No."}, {"question": "", "answer": ""}]


def test_words_above_dates_are_a_header_whatever_they_end_with(write: Write) -> None:
    days = "".join(f"2024-01-0{n} 10:00:00,Where is pot {n}?\n" for n in range(1, 4))
    rows, remarks = read(write("x.csv", "Timestamp,What is your question?\n" + days))
    assert (list(rows[0]), len(rows), remarks) == (["Timestamp", "What is your question?"], 3, [])


def test_a_header_that_stands_there_again_is_no_row(write: Write) -> None:
    rows, remarks = read(write("x.csv", "question,answer\nHot?,No.\nquestion,answer\nWet?,Yes.\n"))
    assert [row["question"] for row in rows] == ["Hot?", "Wet?"]
    assert remarks == ["x.csv:3: the header stands here again, and is no row"]


def test_columns_that_say_nothing_are_told_with_how_the_file_was_read(write: Write) -> None:
    path = write("x.csv", "12,17\n13,18\n14,19\n15,20\n")
    with pytest.raises(UserError) as caught:
        load(Data(path=path))
    assert str(caught.value).endswith(" Of the files: x.csv has no header, so the columns are named 1 to 2.")
