"""What the splits have in common: those that a run would make, a file of the user's own, and a random split beside them."""

from collections.abc import Iterator
from itertools import chain

from luthier.data import leakage
from luthier.data.checks.findings import Finding, Severity, Spot, plural, share
from luthier.data.leakage import KINDS, Overlap
from luthier.data.splits import Splits

PAIRS = {"test in train": "test rows that train or dev resemble", "dev in train": "dev rows that train resembles"}


def overlaps(splits: Splits) -> dict[str, Overlap]:
    """Test against train and dev, and dev against train."""
    return {
        "test in train": leakage.compare(splits.test, chain(splits.train, splits.dev)),
        "dev in train": leakage.compare(splits.dev, splits.train),
    }


def leaks(found: dict[str, Overlap], own: frozenset[str]) -> Iterator[Finding]:
    """A finding for test and for dev, where either knows too much; `own` are those that come from a file of the user's."""
    for title, overlap in found.items():
        if not overlap.findings:
            continue
        split = title.partition(" ")[0]
        count_of = overlap.counts()
        counts = ", ".join(f"{count_of[kind]:,} with {words}" for kind, words in KINDS.items() if count_of[kind])
        whose = f"of your {split} file" if split in own else f"that a run would hold out for {split}"
        rest = "training rows" if split == "dev" else "training or dev rows"
        sentence = (
            f"{plural(len(overlap.findings), 'row')} ({share(len(overlap.findings), overlap.items)}) {whose} have a "
            f"relative among the {rest}: {counts}"
        )
        severity: Severity = "warning" if split == "test" or split in own else "note"
        yield Finding("leak", severity, sentence, _advice(split in own), tuple(_spots(overlap)))


def _advice(own: bool) -> str:
    if own:
        return "A score on them shows memory, not skill. Take them out of one of the files."
    return "Keep relatives together: name their customer, document or topic with data.group=COLUMN."


def _spots(overlap: Overlap) -> Iterator[Spot]:
    for finding in overlap.findings:
        near = f", similarity {finding.similarity:.2f}" if finding.kind == "near" else ""
        yield Spot(finding.location, f"{KINDS[finding.kind]} as {finding.other_location}{near}")
