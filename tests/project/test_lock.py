"""pyproject.toml says what is needed, requirements.lock and constraints.txt which version of it: the three agree."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import locked
import pytest
from packaging.requirements import Requirement

PYPROJECT = tomllib.loads((locked.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
NEEDS = sorted({*PYPROJECT["project"]["dependencies"], *(line for lines in EXTRAS.values() for line in lines)})
TEXT = locked.LOCK.read_text(encoding="utf-8")
PINS = locked.pins(TEXT)
VERSIONS = locked.constrained(locked.CONSTRAINTS.read_text(encoding="utf-8"))

ONE, OTHER = "a" * 64, "b" * 64


@pytest.mark.parametrize("need", NEEDS)
def test_what_is_needed_is_locked_in_its_range(need: str) -> None:
    requirement = Requirement(need)
    name = locked.normal(requirement.name)
    assert name in VERSIONS, "run scripts/lock"
    assert requirement.specifier.contains(VERSIONS[name]), "run scripts/lock"


def test_constraints_have_the_versions_of_the_lock_and_torch_s() -> None:
    assert {**{name: pin.version for name, pin in PINS.items()}, "torch": VERSIONS["torch"]} == VERSIONS


def test_both_files_are_as_scripts_lock_writes_them() -> None:
    assert locked.lock_text(PINS.values()) == TEXT
    constraints = locked.constraints_text(PINS.values(), VERSIONS["torch"])
    assert constraints == locked.CONSTRAINTS.read_text(encoding="utf-8")


def test_the_lock_holds_names_versions_markers_and_hashes_only() -> None:
    line = re.compile(r"#.*|[a-z0-9-]+==[\w.+]+( ; [\w '=!<>.()]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [each for each in TEXT.splitlines() if not line.fullmatch(each)] == []


def test_a_release_waits_seven_days() -> None:
    assert PYPROJECT["tool"]["uv"]["exclude-newer"] == "7 days"


def lock(*lines: str) -> dict[str, locked.Pin]:
    return locked.pins("".join(f"{line}\n" for line in lines))


def pin(name: str, *extras: str, version: str = "1") -> locked.Pin:
    return locked.Pin(name, version, "", (f"sha256:{ONE}",), extras)


def test_a_pin_reads_as_it_is_written() -> None:
    hashes = f"sha256:{ONE}", f"sha256:{OTHER}"
    one = locked.Pin("some-name", "1.0.post1", "python_full_version < '3.12'", hashes, ("dev", "optimise"))
    both = [one, pin("two")]
    assert list(locked.pins(locked.lock_text(both)).values()) == both


def test_torch_and_what_its_builds_bring_has_no_hash() -> None:
    names = ["torch", "triton", "nvidia-cublas", "cuda-toolkit", "torchmetrics"]
    pins = lock(*(f"{name}==1 --hash=sha256:{ONE}" for name in names)).values()
    assert list(locked.pins(locked.lock_text(pins))) == ["torchmetrics"]
    assert locked.constraints_text(pins, "2.13.0").splitlines()[-2:] == ["torch==2.13.0", "torchmetrics==1"]


def test_a_marker_that_always_holds_is_left_out() -> None:
    python, platforms = locked.ALWAYS
    markers = [
        f"{python} and {platforms}",
        f"{python} and os_name == 'x' and {platforms}",
        f"{python} and ((a) or (b))",
    ]
    pins = lock(*(f"p{number}==1 ; {marker} --hash=sha256:{ONE}" for number, marker in enumerate(markers)))
    assert [each.marker for each in pins.values()] == ["", "os_name == 'x'", "((a) or (b))"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("one==1", "expected name==version with hashes, found: one==1"),
        (f"one>=1 --hash=sha256:{ONE}", "found: one>=1"),
        ("one==1 --hash=sha256:abc", "found: one==1"),
        (f"two==2 --hash=sha256:{ONE}", "two is there in two versions: 1 and 2"),
    ],
)
def test_a_line_that_is_no_pin_is_told(line: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        lock(f"two==1 --hash=sha256:{ONE}", line)


def test_a_pin_knows_which_extras_need_it() -> None:
    resolved = {"base": {"a": pin("a")}, "dev": {"a": pin("a"), "b": pin("b")}, "more": {"b": pin("b"), "c": pin("c")}}
    assert locked.together(resolved) == [pin("a"), pin("b", "dev", "more"), pin("c", "more")]


def test_two_versions_of_a_package_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a differs between extras: 1 and 2 \(more\)"):
        locked.together({"dev": {"a": pin("a")}, "more": {"a": pin("a", version="2")}})


def test_extras_need_what_is_theirs_and_what_all_need() -> None:
    pins = [pin("a"), pin("b", "dev", "more"), pin("c", "more")]
    assert locked.needed(pins, ["dev"]) == pins[:2]
    assert locked.needed(pins, []) == pins[:1]


@pytest.mark.parametrize("extra", ["base", *EXTRAS])
def test_an_extra_needs_what_it_declares(extra: str) -> None:
    lines = PYPROJECT["project"]["dependencies"] if extra == "base" else EXTRAS[extra]
    names = {locked.normal(Requirement(line).name) for line in lines} - {"torch"}
    assert names <= {each.name for each in locked.needed(PINS.values(), [extra])}, "run scripts/lock"


def test_pip_refuses_a_file_with_another_hash(tmp_path: Path) -> None:
    (tmp_path / "one-1-py3-none-any.whl").write_bytes(b"not what was locked")
    needed = tmp_path / "needed"
    needed.write_text(str(locked.Pin("one", "1", "", (f"sha256:{ONE}",))), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--isolated", "download", "--no-deps", "--require-hashes", "--no-index"]
    result = subprocess.run(
        [*pip, "--find-links", tmp_path, "--dest", tmp_path / "got", "-r", needed], capture_output=True, text=True
    )
    assert result.returncode and "THESE PACKAGES DO NOT MATCH THE HASHES" in result.stderr
