"""requirements.lock: every package with the hashes of its files. Writes it, and tells which part of it an installation needs.

    python scripts/locked.py write FOLDER    requirements.lock and constraints.txt from what uv has resolved: a file for each
                                             extra, "base" for what is needed without any, "demo" for the demo's model
    python scripts/locked.py needed dev …    the lines for these extras, and those for all

Needs Python's own library only: it runs before anything is installed.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LOCK, CONSTRAINTS = ROOT / "requirements.lock", ROOT / "constraints.txt"

FREE = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
"""Packages without hashes: torch's builds for processors and each kind of GPU differ, and so does what they bring along."""

LOCK_HEAD = """\
# Every package that Luthier, its extras and its tests need, with the SHA-256 of each of its files. Written by scripts/lock;
# scripts/environment installs from it, and pip refuses a file with another hash. What only some extras need says which.
# Not in it: torch, whose builds for processors and GPUs have other hashes each, and what those builds bring along (triton,
# nvidia-*, cuda-*). Its version stands in constraints.txt; the build is for you to choose.
"""
CONSTRAINTS_HEAD = """\
# The versions that Luthier is tested with: what `pip install -c constraints.txt -e '.[dev]'` takes.
# Written by scripts/lock, as requirements.lock, but for torch, whose line is yours to change. A constraint installs nothing by
# itself.
"""

ALWAYS = "python_full_version < '3.15'", "(sys_platform == 'darwin' or sys_platform == 'linux')"
"""What uv adds to each line for the environments in pyproject.toml; there are no others, so it says nothing."""
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\]+?))?")
HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


class Pin(NamedTuple):
    """One version of a package. `marker` tells where it is needed ("" is everywhere), `extras` by whom (none: by all)."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    extras: tuple[str, ...] = ()

    def __str__(self) -> str:
        about = f"# {', '.join(self.extras)}\n" if self.extras else ""
        first = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return about + " \\\n    ".join([first, *(f"--hash={each}" for each in self.hashes)])


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, Pin]:
    """The pins of a lock by name. Raises ValueError for a line that is no pin with hashes, and for a second version."""
    found: dict[str, Pin] = {}
    extras: tuple[str, ...] = ()
    for line in text.removeprefix(LOCK_HEAD).replace("\\\n", " ").splitlines():
        head, *hashes = re.split(r"\s+(?=--hash=)", line.strip())
        if head.startswith("#"):
            extras = tuple(head.removeprefix("# ").split(", "))
            continue
        if not head:
            continue
        pin, parsed = PIN.fullmatch(head), [HASH.fullmatch(each.strip()) for each in hashes]
        if not pin or not hashes or not all(parsed):
            raise ValueError(f"expected name==version with hashes, found: {head[:80]}")
        if pin["name"] in found:
            raise ValueError(
                f"{pin['name']} is there in two versions: {found[pin['name']].version} and {pin['version']}"
            )
        values = tuple(each[1] for each in parsed if each)
        found[pin["name"]] = Pin(pin["name"], pin["version"], _telling(pin["marker"] or ""), values, extras)
        extras = ()
    return found


def _telling(marker: str) -> str:
    """A marker without what always holds."""
    marker = f" and {marker}"
    for each in ALWAYS:
        marker = marker.replace(f" and {each}", "")
    return marker.removeprefix(" and ")


def together(resolved: Mapping[str, Mapping[str, Pin]]) -> list[Pin]:
    """The pins of all extras, each with those that need it; "base" needs it for all. Raises ValueError for two versions."""
    needing: dict[str, list[str]] = {}
    whole: dict[str, Pin] = {}
    for extra, some in sorted(resolved.items()):
        for name, pin in some.items():
            if whole.setdefault(name, pin) != pin:
                raise ValueError(f"{name} differs between extras: {whole[name].version} and {pin.version} ({extra})")
            needing.setdefault(name, []).append(extra)
    return [pin._replace(extras=() if "base" in (by := needing[pin.name]) else tuple(by)) for pin in whole.values()]


def constrained(text: str) -> dict[str, str]:
    """Versions by name in constraints.txt."""
    lines = [line.partition("==") for line in text.splitlines() if line and not line.startswith("#")]
    return {normal(name): version for name, _, version in lines}


def lock_text(found: Iterable[Pin]) -> str:
    kept = sorted(pin for pin in found if not FREE.fullmatch(pin.name))
    return LOCK_HEAD + "".join(f"{pin}\n" for pin in kept)


def constraints_text(found: Iterable[Pin], torch: str) -> str:
    versions = {pin.name: pin.version for pin in found if not FREE.fullmatch(pin.name)} | {"torch": torch}
    return CONSTRAINTS_HEAD + "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def needed(found: Iterable[Pin], extras: Sequence[str]) -> list[Pin]:
    """What these extras need, and Luthier without any."""
    return [pin for pin in found if not pin.extras or set(pin.extras) & set(extras)]


def main(verb: str = "", *arguments: str) -> None:
    if verb == "write":
        files = Path(arguments[0]).iterdir()
        found = together({file.name: pins(file.read_text(encoding="utf-8")) for file in files})
        torch = constrained(CONSTRAINTS.read_text(encoding="utf-8"))["torch"]
        LOCK.write_text(lock_text(found), encoding="utf-8")
        CONSTRAINTS.write_text(constraints_text(found, torch), encoding="utf-8")
    elif verb == "needed":
        print(*needed(pins(LOCK.read_text(encoding="utf-8")).values(), arguments), sep="\n")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
