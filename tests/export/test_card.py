"""The card of an exported model: what a reader has to know, from the run folder, and nothing that would not be true."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from luthier.export import card
from luthier.model.reference import ModelReference

from ..report.conftest import make_run as make_run

MakeRun = Callable[..., Path]


@pytest.fixture
def finished(make_run: MakeRun, tiny_model: Path) -> Path:
    """A run folder with everything that a run leaves, its model included."""
    folder = make_run()
    shutil.copytree(tiny_model, folder / "model")
    return folder


def written(run: Path, folder: Path, form: str = "merged") -> tuple[dict[str, object], str]:
    folder.mkdir()
    card.write(run, folder, form=form, notes=("Numbers are stored in 16 bits.",))
    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def rename_base(run: Path, name: str) -> None:
    """Let the run have started from a model of this name."""
    events = run / "events.jsonl"
    lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    lines = [line | {"name": name} if line.get("kind") == "model" else line for line in lines]
    events.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_the_card_says_what_was_proven_and_what_limits_it(finished: Path, tmp_path: Path) -> None:
    verdict = json.loads((finished / "evaluation" / "verdict.json").read_text())
    fields, body = written(finished, tmp_path / "out")
    assert fields["library_name"] == "transformers" and "luthier" in fields["tags"]  # type: ignore[operator]
    assert verdict["sentence"].split(":")[0] in body
    assert "## Limits" in body and "about others nothing is known" in body
    assert "Numbers are stored in 16 bits." in body
    assert "| versions | luthier" in body


def test_a_base_with_a_card_gives_its_licence_and_its_terms_travel_along(finished: Path, tmp_path: Path) -> None:
    base = ModelReference.of(str(finished)).base.folder
    (base / "README.md").write_text("---\nlicense: llama3.2\ntags: [a]\n---\n# A model\n")
    (base / "LICENSE").write_text("The terms.\n")
    fields, body = written(finished, tmp_path / "out")
    assert fields["license"] == "llama3.2" and "under llama3.2; its own files" in body
    assert (tmp_path / "out" / "LICENSE").read_text() == "The terms.\n"


@pytest.mark.parametrize("head", ["# no front matter", "---\nlicense: [\n---\n", "---\n- a list\n---\n", ""])
def test_a_base_that_does_not_say_so_has_no_licence_made_up(finished: Path, tmp_path: Path, head: str) -> None:
    rename_base(finished, "./models/mine")
    (ModelReference.of(str(finished)).base.folder / "README.md").write_text(head)
    fields, body = written(finished, tmp_path / "out")
    assert "license" not in fields and "does not say under which licence it is" in body


def test_a_run_on_the_embedded_model_keeps_its_licence(finished: Path, tmp_path: Path) -> None:
    fields, body = written(finished, tmp_path / "out")  # whose base is a folder by now, without a card
    assert fields["license"] == "apache-2.0" and "under apache-2.0" in body


def test_only_a_name_of_the_hub_is_linked_as_base(finished: Path) -> None:
    def rendered(name: str) -> dict[str, object]:
        rename_base(finished, name)
        base = ModelReference.of(str(finished)).base
        text = card.render(finished, base, card.Licence(None, ()))
        return dict(yaml.safe_load(text.split("---\n")[1]))

    assert rendered("Qwen/Qwen3-0.6B")["base_model"] == "Qwen/Qwen3-0.6B"
    assert rendered("smollm2-135m")["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "base_model" not in rendered("./models/mine")


def test_texts_of_users_cannot_act_in_the_card(finished: Path, tmp_path: Path) -> None:
    _, body = written(finished, tmp_path / "out")
    assert "<script>" not in body
