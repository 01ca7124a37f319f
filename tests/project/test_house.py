"""The house as ARCHITECTURE.md draws it: floors, rooms of a size that a reader can hold, plain words, and walks through it."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from luthier.recipe import keys

ROOT = Path(__file__).resolve().parents[2]
HOUSE = ROOT / "src" / "luthier"
SOURCES = sorted(HOUSE.rglob("*.py"))
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")

each_document = pytest.mark.parametrize("document", ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"])


@cache
def tree(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"))


def section(title: str) -> str:
    """A section of ARCHITECTURE.md, without its title."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def test_the_root_of_the_package_holds_at_most_six_modules() -> None:
    assert len(list(HOUSE.glob("*.py"))) <= 6


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {source.relative_to(HOUSE).as_posix(): len(source.read_text().splitlines()) for source in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_no_function_is_longer_than_80_lines() -> None:
    functions = (
        (source, node)
        for source in SOURCES
        for node in ast.walk(tree(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lengths = {
        f"{source.relative_to(HOUSE)}:{node.name}": node.end_lineno - node.lineno + 1 for source, node in functions
    }  # type: ignore[operator]
    assert {name: lines for name, lines in lengths.items() if lines > 80} == {}


# The floors.

CONTRACTS = {
    contract["containers"][0]: contract["layers"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    if contract["type"] == "layers"
}


def drawn_floors() -> list[list[set[str]]]:
    """The floors that ARCHITECTURE.md draws, drawing by drawing: what stands on each, from the top."""
    drawings = re.findall(r"(?:^    .*\n)+", section("The floors"), re.MULTILINE)
    names = r"\w+(?:\s+\|\s+\w+)*"
    lines = [re.match(rf"    ({names})(?=  |$)", line) for drawing in drawings for line in drawing.splitlines()]
    assert all(lines)
    return [
        [set(re.split(r"\s+\|\s+", re.match(rf"    ({names})", line)[1])) for line in drawing.splitlines()]  # type: ignore[index]
        for drawing in drawings
    ]


def test_the_floors_drawn_are_those_that_are_checked() -> None:
    checked = [[set(floor.split(" | ")) for floor in CONTRACTS[room]] for room in ("luthier", "luthier.evaluate")]
    assert drawn_floors() == checked


@pytest.mark.parametrize("title", ["The floors", "Words"])
def test_floors_and_glossary_fit_a_page_each(title: str) -> None:
    assert len(section(title).strip().splitlines()) <= 60


# Imports.


def module(source: Path) -> str:
    parts = source.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(source): source for source in SOURCES}


def imported(source: Path) -> set[str]:
    """The modules of ours that a file names in its imports, also inside functions and for types only."""
    found = set()
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}": str(node.module) for alias in node.names}
            found |= {name if name in MODULES else package for name, package in names.items()}
    return found & MODULES.keys()


def cycles() -> Iterator[list[str]]:
    """Ways from a module back to itself."""
    below = {name: imported(source) for name, source in MODULES.items()}
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> Iterator[list[str]]:
        if name in way:
            yield [*way[way.index(name) :], name]
        elif name not in done:
            for each in sorted(below[name]):
                yield from walk(each, [*way, name])
            done.add(name)

    for name in below:
        yield from walk(name, [])


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert list(cycles()) == []


# Documents.


def named_paths(text: str) -> set[str]:
    """What stands in backticks and looks like a path."""
    named = re.findall(r"`([\w.\-/]+)`", text) + re.findall(r"^ +\d+\. `([\w/.]+)`", text, re.MULTILINE)
    return {name for name in named if re.fullmatch(r"[\w\-/]+\.py|[\w\-]+(?:/[\w\-]+)*/", name)}


@each_document
def test_documents_name_only_files_and_folders_that_exist(document: str) -> None:
    """In the source, in the repository, or in a run's folder."""
    run_folder = {"data/", "checkpoints/", "base/", "model/", "evaluation/", "review/"}
    paths = named_paths((ROOT / document).read_text(encoding="utf-8")) - run_folder
    assert paths
    assert {path for path in paths if not (HOUSE / path).exists() and not (ROOT / path).exists()} == set()


def tables(text: str) -> list[tuple[str, str]]:
    """Files and the tables in them, as documents name both: `data/formats.py` `FORMATS`."""
    named = re.findall(r"`([\w/]+(?:\.py)?)` ((?:`[A-Z_]+`(?:, )?)+)", text)
    return [(path.rstrip("/"), table) for path, several in named for table in re.findall("[A-Z_]+", several)]


@pytest.mark.parametrize(("document", "least"), [("ARCHITECTURE.md", 12), ("CONTRIBUTING.md", 7)])
def test_the_tables_that_documents_name_exist(document: str, least: int) -> None:
    named = tables((ROOT / document).read_text(encoding="utf-8"))
    assert len(named) >= least
    for path, table in named:
        file = HOUSE / path if path.endswith(".py") else HOUSE / path / "__init__.py"
        targets = [
            target
            for node in tree(file).body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        ]
        assert table in {target.id for target in targets if isinstance(target, ast.Name)}, path


def walks() -> dict[str, list[str]]:
    """The walks of ARCHITECTURE.md: a title → the files in the order in which a reader opens them."""
    found = re.findall(r"^\*\*(.*?)\*\*\n\n((?:^\d+\. .*\n)+)", section("Three walks"), re.MULTILINE)
    return {title: re.findall(r"^\d+\. `(.*?)`", stops, re.MULTILINE) for title, stops in found}


def test_there_are_three_walks_along_files_that_exist() -> None:
    assert len(walks()) == 3
    assert [stop for stops in walks().values() for stop in stops if not (HOUSE / stop).is_file()] == []


def test_no_walk_returns_to_a_room_that_it_has_left() -> None:
    for title, stops in walks().items():
        rooms = [stop.rpartition("/")[0] for stop in stops]
        entered = [room for before, room in zip([None, *rooms], rooms, strict=False) if room != before]
        assert len(entered) == len(set(entered)), title


def test_from_the_command_to_the_gradient_it_is_four_files() -> None:
    """Each imports the next, and the last one calls backward."""
    named = re.search(
        r"From the command to the gradient it is four files: `(.*?)`, `(.*?)`, `(.*?)`, `(.*?)`", ARCHITECTURE
    )
    assert named
    command, verb, worker, loop = (HOUSE / name for name in named.groups())
    reached = imported(command) | {below for name in imported(command) for below in imported(MODULES[name])}
    assert module(verb) in reached and module(worker) in imported(verb) and module(loop) in imported(worker)
    assert any(isinstance(node, ast.Attribute) and node.attr == "backward" for node in ast.walk(tree(loop)))


# Words.

OLD_WORDS = """
    learnt learn told tried there place places desk bench errata lent lend lender doubt doubts needs pace blueprint lean
    mistake mistakes foretold foresight settle settled mend mended seal sealed unseal damage fold folded bend plant reach
    wide company likeliest opinion planned gather given talking keeping
"""
"""Words of our own that names do without, since PyTorch, Hugging Face or lm-eval have one for the same."""


def names(source: Path) -> Iterator[str]:
    """The names that a file gives: its own, and those of functions, classes, arguments, variables and attributes."""
    yield source.stem
    for node in ast.walk(tree(source)):
        match node:
            case ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef():
                yield node.name
            case ast.arg():
                yield node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name


def words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


SETTINGS = {key.rpartition(".")[2] for key in keys()}
"""Keys of the recipe stay as they are: recipes that people have name them."""


def test_names_are_words_of_the_field() -> None:
    found = {
        f"{source.relative_to(HOUSE)}: {name}"
        for source in SOURCES
        for name in names(source)
        if name not in SETTINGS and words(name) & words(OLD_WORDS)
    }
    assert found == set()
