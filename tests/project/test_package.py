"""What the package promises to those who import it, and to those who install it."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import luthier
from luthier.recipe import keys

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
HEAVY = ("torch", "transformers", "peft", "scipy", "pyarrow")

NAMED_OTHERWISE = {"spellchecker": "pyspellchecker", "yaml": "pyyaml", "docx": "python_docx"}
"""Modules that have another name than the package that they come in."""

BROUGHT_ALONG = {
    "pydantic_core": "pydantic", "markupsafe": "jinja2", "datasets": "lm_eval", "tokenizers": "transformers",
    "starlette": "fastapi",
}  # fmt: skip
"""Modules that we import and that a dependency of ours always brings."""

NEEDED_UNSEEN = {"accelerate", "bitsandbytes", "lxml_html_clean", "python_multipart", "ray"}
"""transformers needs the first two to read weights in 4 bits, trafilatura the third, fastapi the fourth to read uploads, and a
sweep the last if it is asked for; none of them is imported by a statement."""


def loaded_after(code: str) -> set[str]:
    """The heavy packages that a fresh Python has loaded after this code."""
    code += f"; import sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_luthier_loads_nothing_heavy() -> None:
    assert loaded_after("import luthier") == set()


def test_the_command_line_starts_without_anything_heavy() -> None:
    assert loaded_after("import luthier.cli.main, luthier.recipe") == set()


def test_the_public_names_are_few_and_all_there() -> None:
    assert len(luthier.__all__) <= 12
    assert sorted(luthier.__all__) == sorted(set(luthier.__all__))
    assert [name for name in luthier.__all__ if not hasattr(luthier, name)] == []


def test_what_is_imported_is_what_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    declared = {
        re.split(r"[<>=!~ \[]", line)[0].replace("-", "_").lower() for line in [*project["dependencies"], *extras]
    }
    imported: set[str] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    names = BROUGHT_ALONG | NAMED_OTHERWISE
    foreign = {names.get(name, name) for name in imported - sys.stdlib_module_names - {"luthier"}}
    assert foreign | NEEDED_UNSEEN == declared


def test_settings_are_fewer_than_sixty() -> None:
    assert len(list(keys())) < 60


def test_source_files_fit_into_a_sitting() -> None:
    lengths = {
        str(source.relative_to(ROOT)): len(source.read_text(encoding="utf-8").splitlines()) for source in SOURCES
    }
    assert {name: lines for name, lines in lengths.items() if lines > 500} == {}


def test_a_name_that_has_changed_tells_its_new_one_however_it_is_imported() -> None:
    with pytest.raises(ImportError, match=r"luthier\.Mistake is called luthier\.UserError now"):
        luthier.Mistake  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match=r"luthier\.Mistake is called luthier\.UserError now"):
        from luthier import Mistake  # type: ignore[attr-defined]  # noqa: F401
