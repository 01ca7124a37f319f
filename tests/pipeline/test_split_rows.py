"""Rows that are streamed are those that are made in memory: the same splits, the same account, the same hash."""

import json
from pathlib import Path

import pytest

from luthier import recipe as recipes
from luthier.chat import Template
from luthier.data import ledger, reading
from luthier.errors import UserError
from luthier.model.reference import ModelReference
from luthier.pipeline import split_rows
from luthier.recipe import Recipe

LIMIT = 200


@pytest.fixture(scope="module")
def template(tiny_model: Path) -> Template:
    return ModelReference.of(str(tiny_model)).template()


def write(path: Path, start: int, count: int) -> Path:
    """Rows with copies, empty answers, too long ones, questions asked twice, and conversations of two questions."""
    rows = []
    for number in range(start, start + count):
        said = [("user", f"What is {number}?"), ("assistant", f"{number}, of course")]
        if number % 7 == 3:
            said += [("user", f"And {number} more?"), ("assistant", "Twice as much")]
        if number % 11 == 5:
            said = [("user", "What is 1?"), ("assistant", f"Number {number}")]
        if number % 13 == 6:
            said[-1] = ("assistant", "" if number % 2 else "so " * 200)
        rows.append({"messages": [{"role": role, "content": content} for role, content in said]})
    rows += rows[:5]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


FINDINGS = {
    "none": [],
    "dropped": ["data.findings.conflict=drop", "data.findings.repetition=drop"],
    "grouped": ["data.findings.conflict=drop", "data.findings.near-duplicate=group"],
    "leaks": ["data.findings.leak=drop"],
}


@pytest.mark.parametrize("findings", FINDINGS)
@pytest.mark.parametrize("held_out", [False, True])
def test_streamed_rows_are_those_in_memory(tmp_path: Path, template: Template, held_out: bool, findings: str) -> None:
    words = [f"data.path={write(tmp_path / 'd.jsonl', 0, 120)}", "data.train_share=0.7", "data.test_items=9"]
    words += FINDINGS[findings]
    if held_out:
        words.append(f"data.test_path={write(tmp_path / 't.jsonl', 500, 20)}")
        words.append(f"data.dev_path={write(tmp_path / 'v.jsonl', 700, 9)}")
    asked = recipes.load(None, words)
    streamed = split_rows.stream(asked, split_rows.open_data(asked), template, LIMIT)
    listed = split_rows.load(asked, split_rows.open_data(asked), template, LIMIT)
    for name in split_rows.SPLITS:
        assert list(getattr(streamed.splits, name)) == list(getattr(listed.splits, name))
        one, other = streamed.rows[name], listed.rows[name]
        assert [(item, row.ids.tolist()) for item, row in one] == [(item, row.ids) for item, row in other]
        for number in ("length", "loss", "answer", "thoughts"):
            assert one.number(number).tolist() == other.number(number).tolist()
    found, expected = streamed.dataset, listed.dataset
    assert found.ledger == expected.ledger and list(found.ledger.dropped) == list(expected.ledger.dropped)
    assert (found.sha256, found.files, found.choice) == (expected.sha256, expected.files, expected.choice)


@pytest.mark.parametrize("findings", ["none", "grouped"])
def test_processes_make_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: Template, findings: str
) -> None:
    monkeypatch.setattr(reading, "BLOCK", 30)
    words = [f"data.path={write(tmp_path / 'd.jsonl', 0, 400)}", f"data.dev_path={write(tmp_path / 'v.jsonl', 700, 9)}"]
    asked = recipes.load(None, [*words, "data.train_share=0.7", *FINDINGS[findings]])
    made = {}
    for count in (0, 2):
        found = split_rows.stream(asked, split_rows.open_data(asked), template, LIMIT, processes=count)
        for name in split_rows.SPLITS:
            found.rows[name].write(tmp_path / f"{name}.arrow")
        ledger.write(tmp_path / "ledger.jsonl", found.dataset.ledger)
        made[count] = [path.read_bytes() for path in sorted(tmp_path.iterdir())], found.dataset.sha256, found.longest
    assert made[0] == made[2]


def test_what_fails_in_a_process_is_the_error_of_no_process(tmp_path: Path, template: Template) -> None:
    path = tmp_path / "d.jsonl"
    rows = [{"question": f"What is {n}?", "answer": f"{n}", **({"team": "a"} if n != 900 else {})} for n in range(1200)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = recipes.load(None, [f"data.path={path}", "data.group=team"])
    said = []
    for count in (0, 2):
        with pytest.raises(UserError) as error:
            split_rows.stream(asked, split_rows.open_data(asked), template, LIMIT, processes=count)
        said.append(str(error.value))
    assert said[0] == said[1] and "d.jsonl:901" in said[0]


def test_reading_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: Template) -> None:
    monkeypatch.setattr(reading, "BLOCK", 100)
    asked: Recipe = recipes.load(None, [f"data.path={write(tmp_path / 'd.jsonl', 0, 300)}"])
    counts: list[int] = []
    split_rows.stream(asked, split_rows.open_data(asked), template, LIMIT, progress=counts.append)
    assert len(counts) == 4 and counts == sorted(counts) and 250 < counts[-1] < 305


def test_every_reading_of_a_large_file_tells_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: Template
) -> None:
    monkeypatch.setattr(reading, "COUNTED", 50)
    asked: Recipe = recipes.load(None, [f"data.path={write(tmp_path / 'd.jsonl', 0, 120)}"])
    counts: list[int] = []
    split_rows.open_data(asked, progress=counts.append)
    assert counts == [50, 100]
    split_rows.load(asked, split_rows.open_data(asked), template, LIMIT, progress=counts.append)
    assert counts == [50, 100, 50, 100]


def test_a_private_key_stops_before_a_run_folder_is_there(tmp_path: Path, template: Template) -> None:
    path = write(tmp_path / "d.jsonl", 0, 30)
    key = "-----BEGIN RSA PRIVATE KEY-----\\nMIIEpAIBAAKCAQEA75yzBnrQvmZLqPj8eXk\\n-----END RSA PRIVATE KEY-----"
    with path.open("a") as file:
        file.write(
            f'{{"messages": [{{"role": "user", "content": "Which?"}}, {{"role": "assistant", "content": "{key}"}}]}}\n'
        )
    asked = recipes.load(None, [f"data.path={path}"])
    with pytest.raises(UserError, match=r"private key \(.*d\.jsonl:36\)"):
        split_rows.stream(asked, split_rows.open_data(asked), template, LIMIT)


def test_data_that_findings_empty_is_refused(tmp_path: Path, template: Template) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps({"question": f"{n}?", "answer": f"a{n}@bern.ch"}) + "\n" for n in range(9)))
    asked = recipes.load(None, [f"data.path={path}", "data.findings.email=drop"])
    with pytest.raises(UserError, match=r"no row is left after data\.findings"):
        split_rows.stream(asked, split_rows.open_data(asked), template, LIMIT)
