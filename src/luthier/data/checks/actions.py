"""What the recipe says about kinds of findings: accepted ones stop nothing, dropped ones leave the data with their rows."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from luthier.data import leakage
from luthier.data.checks import CHECKS, KINDS, Finding, Row, Scope, examine
from luthier.data.checks.near_duplicates import together
from luthier.data.dataset import Dataset, Item
from luthier.data.splits import Splits
from luthier.errors import UserError, unknown

DROPPABLE = (*CHECKS, "leak")
"""Kinds whose rows can be dropped. Blank rows and exact copies are left out anyhow, and the others have no rows."""
STOPPING = ("private-key",)
"""Kinds that are errors: what they find stops a run, so that every run looks for them."""


def check_words(findings: Mapping[str, str]) -> None:
    """Raises a UserError for a kind that does not exist, and for one whose rows cannot be dropped or grouped."""
    for kind, action in findings.items():
        if kind not in KINDS:
            raise unknown("kind of finding", kind, KINDS, where=f"data.findings.{kind}")
        if action == "group" and kind != "near-duplicate":
            raise UserError(
                'found "group", which is for near-duplicate only; expected accept or drop.',
                where=f"data.findings.{kind}",
            )
        if action == "drop" and kind not in DROPPABLE:
            raise UserError(
                f'found "drop", but a finding of this kind ({KINDS[kind]}) has no rows that training would lose. Expected '
                "accept.",
                where=f"data.findings.{kind}",
            )


def marked(findings: Sequence[Finding], settings: Mapping[str, str]) -> list[Finding]:
    """The findings with what the recipe says about their kinds."""
    return [replace(finding, action=settings.get(finding.kind)) for finding in findings]


def apply(data: Dataset, settings: Mapping[str, str], scope: Scope, *, stop: bool = True) -> Dataset:
    """The data without the rows that the recipe drops, which the ledger names, and with near rows in one group.

    Raises a UserError for errors that it neither accepts nor drops, unless they should not `stop`.
    """
    check_words(settings)
    dropped = [kind for kind in CHECKS if settings.get(kind) == "drop"]
    stopping = [kind for kind in STOPPING if stop and kind not in settings]
    looked_for = {kind: CHECKS[kind] for kind in CHECKS if kind in dropped or kind in stopping}
    items: Sequence[Item] = data.items
    if looked_for:
        reasons: dict[str, str] = {}
        for finding in examine(map(Row, items), scope, looked_for):
            if finding.kind in stopping:
                raise _stop(finding)
            if finding.kind in dropped:
                reasons = {spot.location: finding.kind for spot in finding.spots} | reasons
        for item in items:
            if item.location in reasons:
                data.ledger.drop(f"{reasons[item.location]}, as data.findings says", item.location)
        items = [item for item in items if item.location not in reasons] if reasons else items
    if settings.get("near-duplicate") == "group":
        items = together(items)
    if items is data.items:
        return data
    if not items:
        raise UserError(
            "no row is left after data.findings has dropped its rows. Accept a kind.", where="data.findings"
        )
    digest = hashlib.sha256("\n".join(item.id for item in items).encode()).hexdigest()
    return replace(data, items=list(items), sha256=digest)


def need_all(settings: Mapping[str, str]) -> bool:
    """Whether the recipe asks for more than can be told of rows one after the other."""
    return any(action != "accept" for action in settings.values())


def watched(items: Iterable[Item], settings: Mapping[str, str], scope: Scope) -> Iterator[Item]:
    """The items, where none has to be dropped or grouped; at their end, the UserError that `apply` raises."""
    looked_for = [CHECKS[kind](scope) for kind in STOPPING if kind not in settings]
    for item in items:
        for check in looked_for:
            check.see(Row(item))
        yield item
    for check in looked_for:
        for finding in check.findings():
            raise _stop(finding)


def without_relatives(splits: Splits, settings: Mapping[str, str]) -> Splits:
    """The splits, where the recipe drops leaks, without the training rows that a test or dev row resembles."""
    if settings.get("leak") != "drop":
        return splits
    related = leakage.relatives([*splits.test, *splits.dev], splits.train)
    train = [item for item in splits.train if item.location not in related]
    in_dev = leakage.relatives(splits.test, splits.dev)
    dev = [item for item in splits.dev if item.location not in in_dev]
    if not train or not dev:
        part = "training" if not train else "dev"
        raise UserError(
            f"no {part} row is left without a relative in test. Give other test rows.", where="data.findings.leak"
        )
    return Splits(train, dev, splits.test)


def _stop(finding: Finding) -> UserError:
    where = ", ".join(spot.location for spot in finding.spots[:3])
    return UserError(
        f"{finding.sentence} ({where}). Take them out, or set data.findings.{finding.kind}=drop to leave the rows out, or "
        "=accept where it is meant.",
        where="data.path",
    )
