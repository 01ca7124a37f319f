"""Data that comes divided: the run trains, chooses and judges by the files whose names say so, and says that it does."""

import json
import zipfile
from pathlib import Path

from luthier.runs import Run

from .conftest import Command


def test_an_archive_of_splits_is_used_as_its_names_say(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    lines = data.read_text(encoding="utf-8").splitlines(keepends=True)
    parts = {
        "README.md": ["# Colours"],
        "train.jsonl": lines[:40],
        "valid.jsonl": lines[40:50],
        "test.jsonl": lines[50:],
    }
    with zipfile.ZipFile(tmp_path / "colours.zip", "w") as archive:
        for name, part in parts.items():
            archive.writestr(f"colours/{name}", "".join(part))
    folder = tmp_path / "r"
    screen = luthier("run", tmp_path / "colours.zip", *quick, "--run", folder)
    assert screen.code == 0, screen.err
    inside = f"{tmp_path / 'colours.zip'}/colours"
    assert f"by their names {inside}/train.jsonl is trained on, {inside}/valid.jsonl is dev" in " ".join(
        screen.err.split()
    )
    current = Run(folder)
    (event,) = current.events("data")
    assert (event["read"], event["train"], event["dev"], event["test"]) == (60, 40, 6, 8)
    assert event["ignored"] == [f"{inside}/README.md"]
    answers = (folder / "evaluation" / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(answer)["place"].rpartition(":")[0] for answer in answers} == {f"{inside}/test.jsonl"}
    assert list(current.metadata["sources"]) == [str(tmp_path / "colours.zip")]
    assert luthier("run", tmp_path / "colours.zip", *quick, "--run", folder).code == 0
