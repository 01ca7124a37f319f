#!/usr/bin/env bash
# python-calamine 0.9.1: a cell with an error is an empty text, and so is a formula whose value was never computed.
#
# A row with "a", #DIV/0!, the formula A1 as a program writes it that computes nothing, and "d". Seen:
#
#     rows    [['a', '', '', 'd']]
#
# Nothing tells the three kinds of empty cells apart: neither the values nor another call gives errors or formulas. Trained, an
# answer that is an error in the sheet would be an empty one. So Luthier finds both in the sheet's own XML, and drops the rows
# that use them with the reason (data/readers/spreadsheets.py). In .xls and .ods they stay empty texts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install -qqq --target "$folder" python-calamine==0.9.1 || exit 3
PYTHONPATH=$folder python3 -W ignore - <<'PYTHON'
import io
import zipfile

from python_calamine import load_workbook

office = "http://schemas.openxmlformats.org"
main, relations = f"{office}/spreadsheetml/2006/main", f"{office}/officeDocument/2006/relationships"
cells = (
    '<c r="A1" t="inlineStr"><is><t>a</t></is></c><c r="B1" t="e"><f>1/0</f><v>#DIV/0!</v></c><c r="C1"><f>A1</f></c>'
    '<c r="D1" t="inlineStr"><is><t>d</t></is></c>'
)
parts = {
    "[Content_Types].xml": f'<Types xmlns="{office}/package/2006/content-types"/>',
    "_rels/.rels": f'<Relationships xmlns="{office}/package/2006/relationships">'
    f'<Relationship Id="r1" Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets><sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{office}/package/2006/relationships">'
    f'<Relationship Id="r1" Type="{relations}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
    "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData><row r="1">{cells}</row></sheetData></worksheet>',
}
file = io.BytesIO()
with zipfile.ZipFile(file, "w") as archive:
    for name, content in parts.items():
        archive.writestr(name, content)
rows = load_workbook(io.BytesIO(file.getvalue())).get_sheet_by_index(0).to_python()
print("rows   ", rows)
assert rows == [["a", "", "", "d"]]
print("as recorded")
PYTHON
