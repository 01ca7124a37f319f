"""What the splits have in common: those that a run would make, a file of the user's own, and a random split beside them."""

from collections.abc import Iterator

from luthier.data import leakage
from luthier.data.checks.findings import Finding, Severity, Spot, plural, share
from luthier.data.leakage import KINDS, Overlap
from luthier.data.splits import Splits

PAIRS = {"test in train": "test rows that train or dev resemble", "dev in train": "dev rows that train resembles"}


def overlaps(splits: Splits) -> dict[str, Overlap]:
    """Test against train and dev, and dev against train; training rows, which are many, are gone through once."""
    found = leakage.compare([*splits.test, *splits.dev], splits.train)
    in_dev = leakage.compare(splits.test, splits.dev)
    test_rows = {item.location for item in splits.test}
    in_test = {
        finding.location: finding for finding in (*in_dev.findings, *found.findings) if finding.location in test_rows
    }
    dev = [finding for finding in found.findings if finding.location not in test_rows]
    return {
        "test in train": Overlap(sorted(in_test.values(), key=_rank), len(splits.test)),
        "dev in train": Overlap(dev, len(splits.dev)),
    }


def _rank(finding: leakage.Finding) -> int:
    return list(KINDS).index(finding.kind)


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
            f"{plural(len(overlap.findings), 'row')} ({share(len(overlap.findings), overlap.items)}) {whose}, with "
            f"a relative among the {rest}: {counts}"
        )
        severity: Severity = "warning" if split == "test" or split in own else "note"
        yield Finding("leak", severity, sentence, _advice(split in own), tuple(_spots(overlap)))


def _advice(own: bool) -> str:
    if own:
        return (
            "A score on them shows memory, not skill. Take them out of one of the files; data.findings.leak=drop "
            "leaves their relatives out of training."
        )
    return (
        "Keep relatives together: name their customer, document or topic with data.group=COLUMN, or set "
        "data.findings.near-duplicate=group; data.findings.leak=drop leaves the relatives out of training."
    )


def _spots(overlap: Overlap) -> Iterator[Spot]:
    for finding in overlap.findings:
        near = f", similarity {finding.similarity:.2f}" if finding.kind == "near" else ""
        yield Spot(finding.location, f"{KINDS[finding.kind]} as {finding.other_location}{near}")
