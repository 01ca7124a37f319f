"""An inspection on the terminal: how the data is read, what is in it, and what was found."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.text import Text

from luthier.cli.screens.terminal import console, count
from luthier.data.checks.findings import Finding, Spot
from luthier.data.checks.lengths import TASKS, Lengths
from luthier.data.dataset import CUT_END, OPEN_END
from luthier.data.inspection import Inspection

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
BLOCKS = " ▁▂▃▄▅▆▇█"
DONE = {"accept": "accepted", "drop": "dropped", "group": "grouped"}
SPOTS_SHOWN = 3
LABELS_SHOWN = 8
QUIET_SECONDS = 1.0
"""Nothing is shown of work that is done sooner."""


class Watch:
    """A progress line on stderr, for work that takes more than a second."""

    def __init__(self, head: str = "Inspect") -> None:
        self.err, self._head = console(stderr=True), head
        self._moves = self.err.is_terminal and not self.err.is_dumb_terminal
        self._begun = self._last = time.monotonic()
        self._shown = False

    def __call__(self, what: str, done: int, of: int) -> None:
        now = time.monotonic()
        pause = 0.2 if self._moves else 10.0
        if now - self._begun < QUIET_SECONDS or (self._shown and now - self._last < pause):
            return
        self._last, self._shown = now, True
        rows = f", {done:,} of {of:,} rows" if of else f", {done:,} rows" if done else ""
        line = f"{self._head:<9} {what}{rows}"
        if self._moves:
            self.err.file.write(f"\r\x1b[2K{line}")
            self.err.file.flush()
        else:
            self.err.print(line, markup=False)

    def rows(self, done: int) -> None:
        """Rows that are read, of an unknown number."""
        self(f"{done:,} rows read", done, 0)

    def close(self) -> None:
        """Take the line away."""
        if self._shown and self._moves:
            self.err.file.write("\r\x1b[2K")
            self.err.file.flush()
        self._shown = False

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def show_inspection(found: Inspection, page: Path | None = None) -> None:
    """The data in a few lines, then every finding, the gravest first, and where the page is."""
    out = console()
    for line in (*_facts(found), Text(), *_findings(found.findings)):
        out.print(line)
    if page is not None:
        out.print(Text(f"\nPage      {page}"))


def show_stops(findings: Sequence[Finding]) -> None:
    """The findings that are no mere notes, on stderr."""
    err = console(stderr=True)
    graver = [finding for finding in findings if finding.severity != "note" and not finding.accepted]
    for line in _findings(graver) if graver else ():
        err.print(line)


def _facts(found: Inspection) -> Iterator[Text]:
    account = found.dataset.ledger
    yield _line("Data", f"{', '.join(found.dataset.files)}: {found.dataset.sentence()}")
    yield _line("Rows", f"{account.read:,} read = {account.kept:,} kept + {account.read - account.kept:,} dropped")
    for reason, locations in (*account.dropped.items(), *_left_out(account.notes)):
        yield _line("", f"{len(locations):,} {reason}: {_some(locations)}")
    yield _line("Task", f"{found.shape.task}: {TASKS[found.shape.task]}")
    if balance := found.shape.balance:
        listed = ", ".join(f"{label} {number:,}" for label, number in list(balance.items())[:LABELS_SHOWN])
        yield _line(
            "Labels", listed + (f" and {len(balance) - LABELS_SHOWN} more" if len(balance) > LABELS_SHOWN else "")
        )
    for name, size in found.sizes.items():
        if name == "row" or found.shape.task != "document":
            yield _line(f"{name.capitalize()}s" if name == "row" else "", _length(name, size, found.unit))
    yield _line("Groups", f"{count(found.groups, 'group')}, none of which is in two splits")
    if found.splits is not None:
        sizes = ", ".join(f"{name} {number:,}" for name, number in found.splits.items())
        yield _line("Splits", f"a run would make: {sizes}")


def _left_out(notes: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    """The remarks on rows that are kept in part; the others are findings."""
    return ((remark, notes[remark]) for remark in (OPEN_END, CUT_END) if remark in notes)


def _line(head: str, text: str) -> Text:
    return Text.assemble((f"{head:<9} ", "bold"), text)


def _length(name: str, size: Lengths, unit: str) -> str:
    chart = bars(size.counts)
    head = "" if name == "row" else f"{name}s: "
    middle = count(size.p50, unit.removesuffix("s"))
    return f"{head}{middle} in the middle, 95 % up to {size.p95:,}, the longest {size.max:,}  {chart}"


def bars(counts: Sequence[int]) -> str:
    """A histogram in one line; what is not zero is seen."""
    top = max(counts, default=0) or 1
    return "".join(BLOCKS[-(-8 * number // top)] for number in counts)


def _findings(findings: Sequence[Finding]) -> Iterator[Text]:
    if not findings:
        yield Text("Nothing found that a run should not have.", "green")
    for finding in findings:
        word = DONE.get(finding.action or "", finding.severity)
        yield Text.assemble(
            (f"{word:<9} ", "dim" if finding.accepted else STYLES[finding.severity]), (finding.kind, "bold"),
            f": {finding.sentence}",
        )  # fmt: skip
        for spot in finding.spots[:SPOTS_SHOWN]:
            yield Text(f"          {_spot(spot)}", "dim")
        if len(finding.spots) > SPOTS_SHOWN:
            yield Text(f"          and {count(len(finding.spots) - SPOTS_SHOWN, 'more row')}", "dim")
        if finding.advice and not finding.accepted:
            yield Text(f"          {finding.advice}")


def _spot(spot: Spot) -> str:
    return f"{spot.location}  {spot.detail}".rstrip()


def _some(locations: Sequence[str]) -> str:
    more = len(locations) - SPOTS_SHOWN
    return ", ".join(locations[:SPOTS_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
