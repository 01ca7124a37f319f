"""Facts about real files: the course's question and answer pairs, and instructions in three file formats."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from luthier import recipe as recipes
from luthier.data import Dataset, load, split
from luthier.pipeline.inspection import inspect
from luthier.recipe import Data


def course(shared_data: Path) -> Dataset:
    return load(Data(path=shared_data / "lamini_docs.jsonl.gz"))


def test_the_courses_rows_are_all_accounted_for(shared_data: Path) -> None:
    ledger = course(shared_data).ledger
    assert (ledger.read, ledger.kept) == (1400, 1394)
    assert {reason: len(places) for reason, places in ledger.dropped.items()} == {
        "empty question and answer": 1,
        "empty question": 5,
    }


def test_the_courses_blank_rows_are_named_by_their_lines(shared_data: Path) -> None:
    # The course counts rows from 0 (950, and 1384 to 1388); a place is the line in the file, counted from 1.
    dropped = course(shared_data).ledger.dropped
    name = str(shared_data / "lamini_docs.jsonl.gz")
    assert dropped["empty question and answer"] == [f"{name}:951"]
    assert dropped["empty question"] == [f"{name}:{line}" for line in range(1385, 1390)]


def test_the_courses_questions_with_two_answers_are_kept_and_named(shared_data: Path) -> None:
    ledger = course(shared_data).ledger
    name = str(shared_data / "lamini_docs.jsonl.gz")
    twice = {1149: 1124, 1324: 1322, 1375: 1346, 1378: 1347, 1379: 1347, 1392: 1374}
    assert ledger.notes == {
        "same question, different answer": [f"{name}:{b} (as {name}:{a})" for b, a in twice.items()]
    }


def test_the_courses_rows_are_read_as_questions_and_answers(shared_data: Path) -> None:
    data = course(shared_data)
    assert data.choice.sentence() == "read as question-answer (columns question, answer)"
    splits = split(data.items, test_items=None, dev_items=None)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (1116, 139, 139)


def test_the_same_rows_give_the_same_items_and_splits_from_json_csv_and_parquet(
    shared_data: Path, tmp_path: Path
) -> None:
    records = json.loads((shared_data / "instructions.json").read_text(encoding="utf-8"))
    with open(tmp_path / "x.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["instruction", "input", "output"])
        writer.writeheader()
        writer.writerows(records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "x.parquet")
    paths = [shared_data / "instructions.json", tmp_path / "x.csv", tmp_path / "x.parquet"]
    sets = [load(Data(path=path)) for path in paths]
    assert len({data.sha256 for data in sets}) == 1
    ids = [[item.id for item in data.items] for data in sets]
    assert ids[0] == ids[1] == ids[2]
    assert len(set(ids[0])) == 1100
    tests = [[item.id for item in split(data.items, test_items=None, dev_items=None).test] for data in sets]
    assert tests[0] == tests[1] == tests[2]
    assert len(tests[0]) == 110


def test_a_minified_list_reads_like_the_indented_one(shared_data: Path, tmp_path: Path) -> None:
    records = json.loads((shared_data / "instructions.json").read_text(encoding="utf-8"))
    (tmp_path / "x.json").write_text(json.dumps({"rows": records}), encoding="utf-8")
    indented, minified = (load(Data(path=path)) for path in (shared_data / "instructions.json", tmp_path / "x.json"))
    assert minified.sha256 == indented.sha256
    assert indented.items[1].location == f"{shared_data / 'instructions.json'}:7"
    assert minified.items[1].location == f"{tmp_path / 'x.json'}:1, record 2"


def test_an_inspection_names_what_is_wrong_with_the_courses_rows(shared_data: Path) -> None:
    path = shared_data / "lamini_docs.jsonl.gz"
    found = {finding.kind: finding for finding in reversed(inspect(recipes.load(data=path)).findings)}
    lines = {kind: [int(spot.location.rpartition(":")[2]) for spot in each.spots] for kind, each in found.items()}
    assert lines["blank"] == [951, *range(1385, 1390)]
    # Asked twice with another answer; "BYE" and "bye" have the same one
    assert lines["conflict"] == [1124, 1149, 1346, 1375, 1347, 1378, 1379, 1374, 1392]
    # The course counts 37 in its 1,260 training rows; there are two more in the others
    assert "39 in the words “Let\u2019s keep the discussion relevant to Lamini.”" in found["refusal"].sentence
    assert {427, 1324, 1377} <= set(lines["near-duplicate"]) and len(lines["near-duplicate"]) == 19
    assert found["random-split"].sentence.startswith("A random split would put about 3 of 139 test rows beside a copy")
    assert "data.findings.near-duplicate=group" in found["random-split"].advice
    assert [finding for finding in found.values() if finding.severity == "error"] == []


def test_near_rows_of_the_course_in_one_group_leak_no_more(shared_data: Path) -> None:
    recipe = recipes.load(None, ["data.findings.near-duplicate=group"], data=shared_data / "lamini_docs.jsonl.gz")
    found = [finding for finding in inspect(recipe).findings if finding.kind == "leak"]
    # What is left is near by longer n-grams or by an equal answer in a longer chain
    assert sum(len(finding.spots) for finding in found) <= 2
