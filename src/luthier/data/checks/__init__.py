"""Checks of the data before anything is trained on it: each finds one kind of trouble, and says where it stands.

findings    what is found: kind, severity, sentence, locations
rows        a row as checks see it, once, in file order; `each_row` makes a check of a function that looks at one row
ledger      the rows that were dropped, as findings
lengths     how long rows are, what task they make, whether there are enough
leaks       what splits have in common

`CHECKS` are those that rows stream past: to add one, write it in a file here and name it there, and in `KINDS`.
"""

from collections.abc import Callable, Iterable, Mapping

from luthier.data.checks.conflicts import conflicts
from luthier.data.checks.findings import SEVERITIES, Finding
from luthier.data.checks.rows import Check, Row, Scope

KINDS: dict[str, str] = {
    "blank": "the question or the answer is empty; the row is left out",
    "duplicate": "a row that repeats an earlier one word for word; it is left out",
    "unusable": "a row that cannot be read as what the others are; it is left out",
    "conflict": "the same question with another answer",
    "few-rows": "fewer than about 1,000 rows",
    "no-splits": "rows, or groups, too few for train, dev and test",
    "leak": "a test or dev row that a training row resembles",
}
"""Every kind of finding, and what it means."""

CHECKS: dict[str, Callable[[Scope], Check]] = {"conflict": conflicts}
"""Kind → the check that rows stream past."""


def examine(
    rows: Iterable[Row], scope: Scope, checks: Mapping[str, Callable[[Scope], Check]] = CHECKS
) -> list[Finding]:
    """What the checks find in these rows, which are looked at one at a time."""
    made = [make(scope) for make in checks.values()]
    for row in rows:
        for check in made:
            check.see(row)
    return in_order(finding for check in made for finding in check.findings())


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The gravest first, and of equal ones in the order of KINDS."""
    kinds = list(KINDS)
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), kinds.index(finding.kind)))


__all__ = ["CHECKS", "KINDS", "Check", "Finding", "Row", "Scope", "examine", "in_order"]
