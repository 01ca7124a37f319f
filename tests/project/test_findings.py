"""Each finding says in its header what it is about, and `scripts/findings` tells which still hold."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FINDINGS = sorted((ROOT / "findings").glob("*.sh"))
TITLE = re.compile(r"# ((?:[\w.-]+ [\d.]+(?: with )?)+): \S.*\.")

each_finding = pytest.mark.parametrize("finding", FINDINGS, ids=lambda path: path.stem)


def header(finding: Path) -> list[str]:
    """The comment that a script begins with, without the line for the shell."""
    lines = finding.read_text(encoding="utf-8").splitlines()
    return lines[1 : next(number for number, line in enumerate(lines) if not line.startswith("#"))]


@each_finding
def test_the_header_names_the_versions_that_are_installed(finding: Path) -> None:
    title = TITLE.fullmatch(header(finding)[0])
    assert title, "expected a first line such as: # bm25s 0.3.16 with NumPy 2.4.6: what it does."
    text = finding.read_text(encoding="utf-8").lower()
    for named in title[1].lower().split(" with "):
        assert named.replace(" ", "==") in text, f"{named} is not what it installs"


@each_finding
def test_the_header_shows_what_was_seen_and_what_luthier_does_about_it(finding: Path) -> None:
    lines = header(finding)
    assert [line for line in lines if line.startswith("#     ")], (
        "the output that was seen is missing, indented by five"
    )
    places = re.findall(r"\(([\w/]+\.py)\)", "\n".join(lines))
    assert places, "expected the place in Luthier that deals with it, such as (chat/template.py)"
    assert [place for place in places if not (ROOT / "src/luthier" / place).is_file()] == []


@each_finding
def test_packages_that_cannot_be_installed_are_no_change(finding: Path) -> None:
    script = finding.read_text(encoding="utf-8").replace("\\\n", "").replace("||\n", "||")
    installing = [line for line in script.splitlines() if "pip install" in line]
    assert installing
    assert [line for line in installing if not re.search(r"\|\| +exit 3$", line)] == []


RECORDED = "echo as recorded"
OUTCOMES = {
    "holds": (RECORDED, 0, "holds      one\n"),
    "changed": ("echo 3 of 4; exit 1", 1, "CHANGED    one (exit code 1)\n3 of 4\n"),
    "ends early": ("echo 3 of 4", 1, "CHANGED    one (exit code 0)\n3 of 4\n"),
    "other machine": ("echo this needs AVX2; exit 2", 0, "not here   one: this needs AVX2\n"),
    "no index": ("echo no such package; exit 3", 3, "no package one\nno such package\n"),
}


def run(folder: Path, findings: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """What `scripts/findings` says of these scripts."""
    for place in ("scripts", "findings"):
        (folder / place).mkdir()
    shutil.copy(ROOT / "scripts/findings", folder / "scripts/findings")
    for name, commands in findings.items():
        script = folder / "findings" / f"{name}.sh"
        script.write_text(f"#!/usr/bin/env bash\n{commands}\n", encoding="utf-8")
        script.chmod(0o755)
    return subprocess.run([folder / "scripts/findings", *words], capture_output=True, text=True)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_outcome_of_a_finding_is_told(outcome: str, tmp_path: Path) -> None:
    commands, code, told = OUTCOMES[outcome]
    result = run(tmp_path, {"one": commands})
    assert (result.returncode, result.stdout) == (code, told)


def test_all_are_shown_though_one_has_changed(tmp_path: Path) -> None:
    result = run(tmp_path, {"a": "exit 3", "b": "exit 1", "c": RECORDED})
    assert (result.returncode, result.stdout.splitlines()[-1]) == (1, "holds      c")


def test_findings_are_chosen_by_a_word_of_their_names(tmp_path: Path) -> None:
    result = run(tmp_path, {"bm25s_ties": RECORDED, "gguf_digits": "exit 1"}, "bm25s", "ties")
    assert (result.returncode, result.stdout) == (0, "holds      bm25s_ties\n")


def test_a_word_that_no_finding_has_is_told(tmp_path: Path) -> None:
    result = run(tmp_path, {"one": RECORDED}, "two")
    assert (result.returncode, result.stderr) == (4, 'No finding has "two" in its name; findings/ holds them all.\n')
