"""`luthier inspect … --row`: any row as the model will see it, of data that is to be trained on and of a run's own copy."""

import json
import shutil
from pathlib import Path

import pytest

from luthier.data.prepared import Prepared
from luthier.pipeline.row_view import matches
from luthier.runs import Run

from .conftest import Command


def test_a_row_is_drawn_with_marks_where_there_are_no_colours(luthier: Command, data: Path, quick: list[str]) -> None:
    screen = luthier("inspect", data, "--row", "2", *quick)
    assert (screen.code, screen.err) == (0, "")
    head, place, counts, *_ = screen.out.splitlines()
    assert head in {f"{data}:2  {split}" for split in ("train", "dev", "test")}
    assert "<|im_start|>│" in screen.out and "│<|im_end|>\n" in screen.out and "##########\n" in screen.out
    assert screen.out.splitlines()[-1] == "^ loss   # loss, ends the answer"
    assert (place + counts).count(" with a loss") == 1


def test_ids_stand_below_the_tokens(luthier: Command, data: Path, quick: list[str]) -> None:
    told = json.loads(luthier("inspect", data, "--row", f"{data}:5", "--json", *quick).out)
    ids = [str(token["id"]) for token in told["rows"][0]["tokens"]]
    screen = luthier("inspect", data, "--row", "5", "--ids", *quick)
    numbers = [line.split() for line in screen.out.splitlines()[4:] if line and line.replace(" ", "").isdecimal()]
    assert [number for line in numbers for number in line] == ids


def test_a_runs_own_rows_are_shown_as_it_trains_on_them(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    lines = data.read_text(encoding="utf-8").splitlines(keepends=True)
    data.write_text("".join(lines + [lines[0]] * 120), encoding="utf-8")
    screen = luthier("run", data, "--run", run, *quick, "evaluate.arms=zero-shot,fine-tuned")
    assert screen.code == 0 and " and 116 more, all in data/ledger.jsonl" in " ".join(screen.err.split())
    kept = Prepared(run / "data" / "train.arrow")
    before = json.loads(luthier("inspect", data, "--row", kept.location(7), "--json", *quick).out)
    data.unlink()
    [row] = json.loads(luthier("inspect", run, "--row", kept.location(7), "--json").out)["rows"]
    assert [token["id"] for token in row["tokens"]] == kept[7].ids.tolist()
    assert [token["role"] != "context" for token in row["tokens"]] == kept[7].loss_mask.tolist()
    assert row["split"] == "train"
    assert row == before["rows"][0], "the row of the data, as a run will train on it"
    held_out = Prepared(run / "data" / "test.arrow").location(0)
    screen = luthier("inspect", run, "--row", held_out)
    assert "note: in test: opened for the verdict, and nothing is learnt from it\n" in screen.out
    last = luthier("inspect", run, "--row", f"{data}:{len(lines) + 120}")
    assert last.code == 2 and "this row is dropped: exact duplicate" in last.err
    assert "data/ledger.jsonl" in luthier("verify", run).out


def test_another_template_stands_beside(
    luthier: Command, data: Path, quick: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other, ignore=shutil.ignore_patterns("*.safetensors"))
    (other / "chat_template.jinja").write_text(
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    told = json.loads(luthier("inspect", data, "--row", "2", "--beside", other, "--json", *quick).out)
    texts = ["".join(token["text"] for token in view["rows"][0]["tokens"]) for view in (told, told["beside"])]
    assert texts[0].startswith("<|im_start|>user↵What·colour") and texts[1].startswith("[user]·What·colour")
    screen = luthier("inspect", data, "--row", "2", "--beside", other, *quick)
    assert f"{other}  the model's own chat template\n" in screen.out
    screen = luthier("inspect", data, "--row", "2", "--beside", other, "--html", tmp_path / "rows.html", *quick)
    assert screen.out == f"Page      {tmp_path / 'rows.html'}\n"
    assert '<section class="pair two">' in (tmp_path / "rows.html").read_text(encoding="utf-8")


def test_both_answers_of_a_pair_are_shown_and_what_people_liked(
    luthier: Command, quick: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Is {n} odd?", "chosen": f"Yes, {n}.", "rejected": "Perhaps."} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [word for number in range(1, 41) for word in ("--row", str(number))]
    told = json.loads(luthier("inspect", path, *words, "--json", *quick, "train.objective=dpo").out)
    shown = [(row["location"], row["part"]) for row in told["rows"] if row["split"] == "train"]
    assert len(shown) == 52 and shown[0][0] == shown[1][0] and [part for _, part in shown[:2]] == ["chosen", "rejected"]
    told = json.loads(luthier("inspect", path, *words, "--json", *quick, "train.objective=kto").out)
    assert {row["part"].rpartition(", ")[2] for row in told["rows"] if row["split"] == "train"} == {
        "liked",
        "not liked",
    }


def test_a_row_that_another_template_refuses_is_told(
    luthier: Command, data: Path, quick: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other, ignore=shutil.ignore_patterns("*.safetensors"))
    (other / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if 'door' in m.content %}{{ raise_exception('No doors.') }}{% endif %}"
        "[{{ m.role }}] {{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    screen = luthier("inspect", data, "--row", "2", "--beside", other, *quick)
    assert screen.code == 2 and screen.err.startswith(f"luthier: {data}:2: the template of {other} refuses this row: ")
    assert "No doors" in screen.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["DATA", "--row", "999"],
            "luthier: 999: no row of train, dev or test begins here. The one before begins at DATA:60.",
        ),
        (
            ["DATA", "--row", "x.jsonl:1", "data.train_share=0.5"],
            "luthier: x.jsonl:1: no row of train, dev or test begins here; data.train_share=0.5 leaves some out of train. "
            "A row is named by its line or number, such as DATA:",
        ),
        (["DATA", "--row", "1", "--beside", "nowhere"], 'luthier: --beside nowhere: unknown model "nowhere".'),
        (["DATA", "--row", "61"], "luthier: 61: this row is dropped: empty answer."),
        (["DATA", "--ids"], "luthier: --ids: has an effect with --row only: luthier inspect DATA --row 118."),
    ],
)
def test_what_cannot_be_shown_is_told(
    luthier: Command, data: Path, quick: list[str], words: list[str], message: str
) -> None:
    with data.open("a") as file:
        file.write('{"question": "Why?", "answer": ""}\n')
    screen = luthier("inspect", *(str(data) if word == "DATA" else word for word in words), *quick)
    assert screen.code == 2 and screen.err.startswith(message.replace("DATA:", f"{data}:", 1))


def test_a_run_has_its_own_recipe(luthier: Command, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    screen = luthier("inspect", tmp_path, "--row", "1", "train.epochs=2")
    assert screen.err == f"luthier: {tmp_path}: a run has its own recipe; leave train.epochs=2 out.\n"
    assert luthier("inspect", tmp_path).err.startswith(f"luthier: {tmp_path}: this is a run; --row shows its rows")


def test_a_run_without_rows_yet_is_told(luthier: Command, tmp_path: Path) -> None:
    Run.create(tmp_path / "run")
    screen = luthier("inspect", tmp_path / "run", "--row", "1")
    assert screen.err == (
        f"luthier: {tmp_path / 'run'}: this run was stopped before its rows were written; `luthier resume` goes on.\n"
    )


@pytest.mark.parametrize(
    ("location", "wanted", "is_meant"),
    [
        ("a/x.jsonl:118", "118", True),
        ("a/x.jsonl:118", "18", False),
        ("a/x.jsonl:118", "x.jsonl:118", True),
        ("a/yx.jsonl:118", "x.jsonl:118", False),
        ("x.json:1, record 2", "1", True),
        ("x.json:1, record 2", "x.json:1", True),
        ("a/x.json:1, record 2", "x.json:1", True),
        ("x.json:1, record 2", "x.json:1, record 2", True),
        ("x.json:1, record 2", "2", False),
        ("a/x.parquet:row 12", "12", True),
        ("a/x.parquet:row 12", "x.parquet:12", True),
        ("a/x.parquet:row 12", "x.parquet:row 12", True),
        ("a/x.parquet:row 12", "2", False),
        ("tickets:row 12", "row 12", True),
    ],
)
def test_a_row_is_named_by_its_line_its_file_or_all_of_its_location(location: str, wanted: str, is_meant: bool) -> None:
    assert matches(location, wanted) is is_meant
