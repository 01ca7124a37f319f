"""Spreadsheets: what cells show, with the numbers of their rows; errors are told, not trained."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from luthier.data import load, read_rows
from luthier.data.readers import packing, spreadsheets
from luthier.data.readers.files import find
from luthier.data.readers.values import Unusable
from luthier.errors import MachineError, UserError
from luthier.recipe import Data

pytest.importorskip("python_calamine")

Write = Callable[[str, str | bytes], Path]
OFFICE = "http://schemas.openxmlformats.org"
RELATIONS = f"{OFFICE}/officeDocument/2006/relationships"
MAIN = f"{OFFICE}/spreadsheetml/2006/main"


def cell(place: str, content: object) -> str:
    """A cell: a text, a number, a formula with its value, or XML as it stands."""
    if isinstance(content, str) and content.startswith("<"):
        return content.replace("<c", f'<c r="{place}"', 1)
    if isinstance(content, str):
        return f'<c r="{place}" t="inlineStr"><is><t>{escape(content)}</t></is></c>'
    return f'<c r="{place}"><v>{content}</v></c>'


def xlsx(**sheets: list[list[object]]) -> bytes:
    """A spreadsheet with these cells, None where there is none; style 1 is a date."""
    out = io.BytesIO()
    links = "".join(
        f'<Relationship Id="r{n}" Type="{RELATIONS}/worksheet" Target="worksheets/sheet{n}.xml"/>'
        for n in range(1, len(sheets) + 1)
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{OFFICE}/package/2006/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{OFFICE}/package/2006/relationships">'
        f'<Relationship Id="r1" Type="{RELATIONS}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{OFFICE}/package/2006/relationships">{links}'
        f'<Relationship Id="s" Type="{RELATIONS}/styles" Target="styles.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{MAIN}"><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}"><sheets>'
        + "".join(f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"/>' for n, name in enumerate(sheets, start=1))
        + "</sheets></workbook>",
    }
    for number, rows in enumerate(sheets.values(), start=1):
        data = "".join(
            f'<row r="{r}">'
            + "".join(cell(f"{'ABCDEFG'[c]}{r}", content) for c, content in enumerate(row) if content is not None)
            + "</row>"
            for r, row in enumerate(rows, start=1)
        )
        parts[f"xl/worksheets/sheet{number}.xml"] = (
            f'<worksheet xmlns="{MAIN}"><sheetData>{data}</sheetData></worksheet>'
        )
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def ods(rows: list[list[str]]) -> bytes:
    names = "urn:oasis:names:tc:opendocument:xmlns"
    space = " ".join(f'xmlns:{name}="{names}:{name}:1.0"' for name in ("office", "table", "text"))
    cells = "".join(
        "<table:table-row>"
        + "".join(
            f'<table:table-cell office:value-type="string"><text:p>{escape(t)}</text:p></table:table-cell>' for t in row
        )
        + "</table:table-row>"
        for row in rows
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr(
            "content.xml",
            f'<office:document-content {space}><office:body><office:spreadsheet><table:table table:name="Faq">{cells}'
            "</table:table></office:spreadsheet></office:body></office:document-content>",
        )
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
    return out.getvalue()


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    return str(caught.value)


HEADER: list[object] = ["question", "answer"]


def test_cells_are_read_as_they_show(write: Write) -> None:
    rows: list[list[object]] = [
        [None],
        HEADER,
        ["007", 7],
        [],
        ["Half?", 1.5],
        ["Sum?", "<c><f>A1+A2</f><v>0.30000000000000004</v></c>"],
        ["Day?", '<c s="1"><v>45000</v></c>'],
        ["Yes?", '<c t="b"><v>1</v></c>'],
        ["Said?", '<c t="str"><f>B1</f><v>so</v></c>'],
    ]
    found = list(read_rows(write("x.xlsx", xlsx(Faq=rows, Empty=[]))))
    assert [(row.location, *row.values.values()) for row in found] == [
        ("x.xlsx:row 3", "007", "7"),
        ("x.xlsx:row 5", "Half?", "1.5"),
        ("x.xlsx:row 6", "Sum?", "0.3"),
        ("x.xlsx:row 7", "Day?", "2023-03-15"),
        ("x.xlsx:row 8", "Yes?", "true"),
        ("x.xlsx:row 9", "Said?", "so"),
    ]


def test_titles_above_the_header_are_told(write: Write) -> None:
    files = find(write("x.xlsx", xlsx(Faq=[["Questions of 2024"], [], HEADER, ["Hot?", "Very."], ["Wet?", "Yes."]])))
    assert [row.location for row in files.rows()] == ["x.xlsx:row 4", "x.xlsx:row 5"]
    assert files.remarks == ["x.xlsx: the header is on line 3, what stands above it is not read"]


def test_errors_and_formulas_without_a_value_drop_the_rows_that_use_them(write: Write) -> None:
    error, unknown = '<c t="e"><f>1/0</f><v>#DIV/0!</v></c>', "<c><f>A1</f></c>"
    rows: list[list[object]] = [
        [*HEADER, "note"],
        ["a?", error],
        ["b?", unknown],
        ["c?", "C", error],
        ["d?", "D"],
        ["e?", "E"],
    ]
    path = write("x.xlsx", xlsx(Faq=rows))
    assert [type(row.values["answer"]) for row in read_rows(path)][:2] == [Unusable, Unusable]
    assert load(Data(path=path)).ledger.dropped == {
        "an error in the cell (#DIV/0!)": ["x.xlsx:row 2"],
        "a formula that was never computed; open and save the spreadsheet": ["x.xlsx:row 3"],
    }


def test_of_several_sheets_one_is_named(write: Write) -> None:
    path = write("x.xlsx", xlsx(Faq=[HEADER, ["Hot?", "Very."]], Prices=[["x"], ["1"]]))
    assert message(path) == (
        "x.xlsx: the spreadsheet has the sheets Faq, Prices. Name the one that holds the rows: x.xlsx#Faq."
    )
    assert [row.location for row in read_rows(Path("x.xlsx#Faq"))] == ["x.xlsx#Faq:row 2"]
    assert message(Path("x.xlsx#Fax")) == 'x.xlsx#Fax: no sheet "Fax" in it. There are Faq, Prices.'


def test_an_opendocument_spreadsheet_is_read(write: Write) -> None:
    (row,) = read_rows(write("x.ods", ods([["question", "answer"], ["Hot & dry?", "Very."]])))
    assert (row.location, row.values) == ("x.ods:row 2", {"question": "Hot & dry?", "answer": "Very."})


def test_a_spreadsheet_under_another_name_is_known(write: Write) -> None:
    assert len(list(read_rows(write("x.csv", xlsx(Faq=[HEADER, ["Hot?", "Very."]]))))) == 1


def test_what_is_no_sound_spreadsheet_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    content = xlsx(Faq=[HEADER])
    assert message(write("x.xlsx", content[:-30])).startswith("x.xlsx: not a sound spreadsheet (")
    assert message(write("y.xlsx", xlsx(Faq=[]))).startswith("y.xlsx: the file is empty")
    monkeypatch.setattr(spreadsheets, "TRUSTED", 100)
    bomb = write("z.xlsx", xlsx(Faq=[HEADER, ["a" * 5_000_000]]))
    assert message(bomb).startswith("z.xlsx: too large for a spreadsheet: 5,")
    assert packing.HIGHEST_RATIO == 200


def test_without_calamine_the_message_names_the_package(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "python_calamine", None)
    with pytest.raises(MachineError) as caught:
        list(read_rows(write("x.xlsx", xlsx(Faq=[HEADER]))))
    assert str(caught.value) == (
        'x.xlsx: spreadsheets need one more package: pip install "luthier[spreadsheets]". Or save it as CSV (UTF-8).'
    )
