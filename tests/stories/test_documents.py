"""From a folder of documents to a verdict against looking things up in them; each answer with its quote."""

import json
from pathlib import Path
from typing import Any

import docx
import pytest

from luthier.runs.durable import read_json_lines
from pdf_files import pdf

from .conftest import Command

DOCS = Path(__file__).resolve().parents[2] / "docs"
FAQ = "# {0}\n\n## When is the {0} open?\n\nAt {1}.\n\n## Is the {0} hot?\n\nNot at {1}.\n\n## Who opens the {0}?\n\nAda.\n"
THINGS = ["kiln", "oven", "shop", "office", "garden", "library"]


def _pdf(text: str) -> bytes:
    """The text as a page whose headings have larger letters."""
    lines = [line for line in text.split("\n") if line]
    return pdf([(line.lstrip("# "), 16.0, True) if line.startswith("#") else line for line in lines])


def _docx(text: str) -> Any:
    """The text as a document with Word's own headings."""
    document = docx.Document()
    for line in filter(None, text.split("\n")):
        if line.startswith("#"):
            document.add_heading(line.lstrip("# "), level=line.index(" "))
        else:
            document.add_paragraph(line)
    return document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "help").mkdir()
    for number, thing in enumerate(THINGS):
        name, text = tmp_path / "help" / thing, FAQ.format(thing, number + 5)
        if number == 0:
            name.with_suffix(".pdf").write_bytes(_pdf(text))
        elif number == 1:
            _docx(text).save(str(name.with_suffix(".docx")))
        else:
            name.with_suffix(".md").write_text(text)
    (tmp_path / "help" / "empty.md").write_text("")
    return tmp_path / "help"


def test_a_folder_of_documents_ends_in_a_verdict_against_rag(
    luthier: Command, folder: Path, quick: list[str], tmp_path: Path
) -> None:
    words = [word for word in quick if not word.startswith("data.")]
    screen = luthier("run", folder, *words, "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    assert (
        "18 rows read = 18 kept + 0 dropped" in screen.err
        and "not read, not a data file: empty.md (no text in it)" in screen.err
    )
    assert "18 of the rows are synthetic" in screen.err
    assert "train 9 (of 3 documents) · dev 3 (of 1 document) · test 6 (of 2 documents)" in screen.err
    assert "the usual ones, and rag, since the data are documents" in (tmp_path / "r" / "recipe.toml").read_text()
    verdict = json.loads((tmp_path / "r" / "evaluation" / "verdict.json").read_text())
    assert (
        list(verdict["arms"]) == ["zero-shot", "few-shot", "retrieved", "rag", "fine-tuned"] and verdict["groups"] == 2
    )
    assert "All rows are synthetic." in (tmp_path / "r" / "report.md").read_text()
    assert "quotes in data/pairs.jsonl" in luthier("verify", tmp_path / "r").out
    assert luthier("run", folder, *words, "--run", tmp_path / "r").code == 0  # complete, and asked for once more


def test_a_quote_that_was_changed_is_found(luthier: Command, folder: Path, quick: list[str], tmp_path: Path) -> None:
    words = [word for word in quick if not word.startswith("data.")]
    assert luthier("run", folder, *words, "evaluate.arms=zero-shot,fine-tuned", "--run", tmp_path / "r").code == 0
    file = tmp_path / "r" / "data" / "pairs.jsonl"
    rows = read_json_lines(file)
    assert rows[0]["split"] in ("train", "dev", "test") and rows[0]["by"] == "rule: faq"
    rows[0]["passage"] = "x" + rows[0]["passage"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    screen = luthier("verify", tmp_path / "r")
    assert screen.code == 5 and "1 of 18 quotes do not stand in their passages" in screen.out + screen.err


def test_our_own_documents_end_in_a_verdict(luthier: Command, quick: list[str], tmp_path: Path) -> None:
    screen = luthier("run", DOCS, *quick, "evaluate.arms=rag,fine-tuned", "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    rows = read_json_lines(tmp_path / "r" / "data" / "pairs.jsonl")
    assert len(rows) > 100 and all(row["passage"][row["start"] : row["end"]] == row["quote"] for row in rows)


def test_pairs_are_written_with_an_account_and_tasks_need_a_model(
    luthier: Command, folder: Path, data: Path, tmp_path: Path
) -> None:
    screen = luthier("pairs", folder, "-o", tmp_path / "p.jsonl")
    assert screen.code == 0 and "18 by rule: faq" in screen.err and "not read: empty.md: no text in it" in screen.err
    assert f"rows in {tmp_path / 'p.jsonl'}\n" in screen.out
    screen = luthier("pairs", data, "-o", tmp_path / "t.jsonl")
    assert (
        screen.code == 2 and "--with: rows are read as tasks, and a model writes more of them: name it." in screen.err
    )
