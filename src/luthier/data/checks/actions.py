"""What the recipe says about kinds of findings: accepted ones stop nothing, dropped ones leave the data with their rows."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from luthier.data import leakage
from luthier.data.checks import CHECKS, KINDS, Finding, Row, Scope, examine
from luthier.data.checks.near_duplicates import Clusters, SharedGroups, clusters, in_groups
from luthier.data.dataset import Dataset, Item
from luthier.data.ledger import Ledger
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


@dataclass(frozen=True)
class Decisions:
    """What the recipe's words mean for the rows: which leave the data, and which are in one group."""

    dropped: Mapping[str, str]
    """Location → kind of the finding for which the row is dropped."""
    together: Clusters | None = None
    """The rows that are kept, by their numbers among these."""

    @property
    def change(self) -> bool:
        """Whether anything of the data changes."""
        return bool(self.dropped) or self.together is not None

    def groups(self) -> SharedGroups | None:
        """The groups of the items that are kept; None where each stays in its own."""
        return None if self.together is None else SharedGroups(self.together)

    def carried_out(self, items: Iterable[Item], ledger: Ledger) -> Iterator[Item]:
        """The items that are kept, in their groups; the others are in the ledger."""
        kept = self._kept(items, ledger)
        return kept if self.together is None else in_groups(kept, self.together)

    def _kept(self, items: Iterable[Item], ledger: Ledger) -> Iterator[Item]:
        for item in items:
            if item.location in self.dropped:
                ledger.drop(f"{self.dropped[item.location]}, as data.findings says", item.location)
            else:
                yield item


def decide(
    read: Callable[[], Iterable[Item]], settings: Mapping[str, str], scope: Scope, *, stop: bool = True
) -> Decisions:
    """What is to be done with the items, which are read once or twice and not kept.

    Raises a UserError for errors that the settings neither accept nor drop, unless they should not `stop`.
    """
    check_words(settings)
    dropped = [kind for kind in CHECKS if settings.get(kind) == "drop"]
    stopping = [kind for kind in STOPPING if stop and kind not in settings]
    looked_for = {kind: CHECKS[kind] for kind in CHECKS if kind in dropped or kind in stopping}
    reasons: dict[str, str] = {}
    for finding in examine(map(Row, read()), scope, looked_for) if looked_for else ():
        if finding.kind in stopping:
            raise _stop(finding)
        if finding.kind in dropped:
            reasons = {spot.location: finding.kind for spot in finding.spots} | reasons
    if settings.get("near-duplicate") != "group":
        return Decisions(reasons)
    return Decisions(reasons, clusters(item for item in read() if item.location not in reasons))


def apply(data: Dataset, settings: Mapping[str, str], scope: Scope, *, stop: bool = True) -> Dataset:
    """The data without the rows that the recipe drops, which the ledger names, and with near rows in one group.

    Raises a UserError for errors that it neither accepts nor drops, unless they should not `stop`.
    """
    decisions = decide(lambda: data.items, settings, scope, stop=stop)
    if not decisions.change:
        return data
    items = list(decisions.carried_out(data.items, data.ledger))
    if not items:
        raise nothing_left()
    digest = hashlib.sha256("\n".join(item.id for item in items).encode()).hexdigest()
    return replace(data, items=items, sha256=digest)


def nothing_left() -> UserError:
    """The message for data that lost all of its rows."""
    return UserError("no row is left after data.findings has dropped its rows. Accept a kind.", where="data.findings")


def need_all(settings: Mapping[str, str]) -> bool:
    """Whether the recipe asks for more than can be told of rows as they pass: then they are read once or twice before."""
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
    train, dev = unrelated(splits)
    return Splits(list(compress(splits.train, train)), list(compress(splits.dev, dev)), splits.test)


def unrelated(splits: Splits) -> tuple[list[bool], list[bool]]:
    """Of each row of train, and of each of dev, whether no row that is held out from it resembles it."""
    related = leakage.relatives([*splits.test, *splits.dev], splits.train)
    in_dev = leakage.relatives(splits.test, splits.dev)
    train = [item.location not in related for item in splits.train]
    dev = [item.location not in in_dev for item in splits.dev]
    if True not in train or True not in dev:
        part = "dev" if True in train else "training"
        raise UserError(
            f"no {part} row is left without a relative in test. Give other test rows.", where="data.findings.leak"
        )
    return train, dev


def _stop(finding: Finding) -> UserError:
    where = ", ".join(spot.location for spot in finding.spots[:3])
    return UserError(
        f"{finding.sentence} ({where}). Take them out, or set data.findings.{finding.kind}=drop to leave the rows out, or "
        "=accept where it is meant.",
        where="data.path",
    )
