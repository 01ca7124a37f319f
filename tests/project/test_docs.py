"""The documents say what the code does."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import reference

import luthier
from luthier import recipe as recipes
from luthier.cli.arguments import RECORD_ROWS
from luthier.evaluate import verdict

ROOT = Path(__file__).resolve().parents[2]
KEYS = list(recipes.keys())
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")])

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def readme_tree() -> Iterator[tuple[int, str]]:
    """Depth and name of each entry of the README's tree; a line may name several, two blanks apart, without remarks."""
    block = re.search(r"<!-- tree -->\n```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block
    for line in block[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        words = re.split(r"  +", line.strip())
        names = words if all(re.fullmatch(r"[\w.\-/]+", word) for word in words) else words[:1]
        yield from ((depth, name) for name in names)


def readme_paths() -> list[str]:
    """The tree's entries as paths from the root; folders end with a slash."""
    paths: list[str] = []
    parents: list[str] = []
    for depth, name in readme_tree():
        parents = [*parents[:depth], name]
        paths.append("".join(parents))
    return paths


def there() -> set[str]:
    """Files that git knows or would add, and the folders that they are in, with a slash."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    files = [name for name in listed if (ROOT / name).exists()]
    return {*files, *(f"{parent.as_posix()}/" for name in files for parent in Path(name).parents)}


def test_the_readme_tree_names_only_what_is_there() -> None:
    assert [path for path in readme_paths() if not (ROOT / path).exists()] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout, so what belongs to it is unknown")
def test_the_readme_tree_leaves_nothing_out() -> None:
    paths = readme_paths()
    opened = {""} | {path for path in paths if any(other.startswith(path) for other in paths if other != path)}
    known = {*paths, "README.md", "src/", "./"}
    outside = {path for path in there() if not path.startswith(".") and path not in known}
    assert {path for path in outside if re.sub(r"[^/]+/?$", "", path) in opened} == set()


@pytest.mark.parametrize("document", reference.documents(), ids=lambda path: path.name)
def test_generated_parts_are_what_scripts_docs_writes(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert reference.refreshed(text) == text, "run scripts/docs"


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert [key for key in KEYS if f"`{key}`" not in text] == []


@each_document
def test_documents_name_only_python_files_that_exist(document: Path) -> None:
    if document.name == "CHANGELOG.md":  # it tells of files as they were
        return
    named = re.findall(r"`([\w./-]+\.py)`", document.read_text(encoding="utf-8"))
    places = (ROOT, ROOT / "src", ROOT / "src" / "luthier", *(ROOT / "src" / "luthier").iterdir())
    own = {"own.py", "my_checks.py"}  # a reader's
    assert [name for name in named if name not in own and not any((place / name).exists() for place in places)] == []


@each_document
def test_documents_name_only_settings_that_exist(document: Path) -> None:
    known = {*KEYS, RECORD_ROWS}  # the switch is no setting of the recipe
    named = re.findall(r"(?<![\w/.])(?:data|train|evaluate)\.[a-z_]+\b(?![/(])", document.read_text(encoding="utf-8"))
    files = {"arrow", "csv", "json", "jsonl", "md", "parquet", "tsv"}
    assert [name for name in named if name not in known and name.partition(".")[2] not in files] == []


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    files = [target.partition("#")[0] for target in targets if not re.match(r"https?:|mailto:|#", target)]
    assert [file for file in files if not (document.parent / file).exists()] == []


@each_document
def test_every_toml_example_is_a_recipe(document: Path, tmp_path: Path) -> None:
    for example in re.findall(r"```toml\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
        (tmp_path / "recipe.toml").write_text(example, encoding="utf-8")
        recipes.load(tmp_path / "recipe.toml")


@pytest.mark.parametrize("file", sorted(ROOT.glob("examples/*/recipe.toml")), ids=lambda path: path.parent.name)
def test_every_example_has_a_sound_recipe(file: Path) -> None:
    recipes.load(file)


def test_version_agrees_everywhere() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\d+\.\d+\.\d+)", changes, re.MULTILINE)
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert newest and {newest[1], package, luthier.__version__, version("luthier")} == {package}


def test_the_evaluation_page_recomputes_the_verdict(tmp_path: Path) -> None:
    shared = {
        "group": "",
        "prompt_tokens": 9,
        "answer_tokens": 3,
        "seconds": 0.1,
        "finish": "stop",
        "place": "a.jsonl:1",
    }
    lines = [
        {**shared, "item": str(number), "group": str(number), "arm": arm, "score": score, "scores": {"chrf": score}}
        for number in range(30)
        for arm, score in (("few-shot", number % 7 / 10), ("fine-tuned", number % 5 / 7 + 0.05))
    ]
    dev = [line for line in lines if line["arm"] == "few-shot"]
    result = verdict.assemble(lines, dev, metric="chrf", metric_reason="as asked", seed=0)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "verdict.json").write_text(json.dumps(result), encoding="utf-8")
    (tmp_path / "evaluation" / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    numbers = re.search(r"few-shot +([\d.]+)\nfine-tuned +([\d.]+)\ndifference +([\d.-]+), p about ([\d.]+)", printed)
    assert numbers
    few, tuned, difference, p_value = map(float, numbers.groups())
    assert (few, tuned) == pytest.approx(
        (result["arms"]["few-shot"]["mean"], result["arms"]["fine-tuned"]["mean"]), abs=1e-4
    )
    assert difference == pytest.approx(result["difference"], abs=1e-4)
    assert p_value == pytest.approx(result["p_value"], abs=0.02)
