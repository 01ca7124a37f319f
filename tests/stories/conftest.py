"""Luthier as a person uses it: commands with words, and what appears on the screen."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from luthier.cli import main as cli

COLOURS = ["red", "green", "blue", "yellow", "black", "white"]
THINGS = ["car", "door", "hat", "lamp", "boat", "chair", "cup", "book", "shoe", "bird"]


@dataclass(frozen=True)
class Screen:
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str


Command = Callable[..., Screen]


@pytest.fixture
def luthier(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process."""

    def run(*words: object) -> Screen:
        monkeypatch.setattr("sys.argv", ["luthier", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        streams = capsys.readouterr()
        return Screen(code, streams.out, streams.err)

    return run


def run_luthier(*words: object) -> Screen:
    """Runs the command line in this process, for what several tests share."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr("sys.argv", ["luthier", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    return Screen(code, out.getvalue(), err.getvalue())


def write_colours(folder: Path) -> Path:
    """Sixty questions and answers that a reader would find dull."""
    path = folder / "colours.jsonl"
    rows = [
        {"question": f"What colour is the {thing} number {number}?", "answer": f"The {thing} is {colour}."}
        for number, colour in enumerate(COLOURS)
        for thing in THINGS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The dull questions, in a file of the test's own."""
    return write_colours(tmp_path)


@pytest.fixture
def quick(tiny_model: Path) -> list[str]:
    """Settings that make a run of seconds."""
    return quick_settings(tiny_model)


@pytest.fixture(scope="session")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run on the dull questions with the default arms, which is made once; nobody changes it."""
    folder = tmp_path_factory.mktemp("finished")
    screen = run_luthier("run", write_colours(folder), *quick_settings(tiny_model), "--run", folder / "r")
    assert screen.code == 0, screen.err
    return folder / "r"


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    """A copy of the complete run, to do with as one likes."""
    return Path(shutil.copytree(finished, tmp_path / "r"))


def quick_settings(tiny_model: Path) -> list[str]:
    """Settings that make a run of seconds with the tiny model."""
    return [
        f"model={tiny_model}",
        "train.max_steps=6",
        "train.check_every=3",
        "evaluate.max_new_tokens=12",
        "data.test_items=8",
        "data.dev_items=6",
        "evaluate.guards=[]",
    ]
