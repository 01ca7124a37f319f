"""What the ledger says of the rows that were not kept: blank ones, duplicates, and those that cannot be used."""

from collections.abc import Iterator, Mapping, Sequence

from luthier.data.checks.findings import Finding, Severity, Spot, plural, share
from luthier.data.ledger import Ledger, parted

MANY = 0.05
"""Share of the rows that may be dropped before that is worth a warning."""


def dropped(ledger: Ledger) -> Iterator[Finding]:
    """Dropped rows, as blank, duplicate or unusable."""
    sorts: dict[str, dict[str, Sequence[str]]] = {"blank": {}, "duplicate": {}, "unusable": {}}
    for reason, locations in ledger.dropped.items():
        blank = reason.startswith(("empty", "no messages"))
        sorts["blank" if blank else "duplicate" if reason == "exact duplicate" else "unusable"][reason] = locations
    words = {
        "blank": ("with an empty question or answer, left out", "Fill them in, or take them out of the file."),
        "duplicate": ("repeating an earlier one word for word, left out", "Nothing is lost; a later copy goes."),
        "unusable": ("that cannot be used, left out", "Each row's reason stands beside it."),
    }
    for kind, reasons in sorts.items():
        if reasons:
            what, advice = words[kind]
            yield _finding(kind, reasons, ledger.read, what, advice)


def _finding(kind: str, reasons: Mapping[str, Sequence[str]], read: int, what: str, advice: str) -> Finding:
    spots = tuple(spot(each, reason) for reason, locations in reasons.items() for each in locations)
    severity: Severity = "warning" if len(spots) > MANY * read and kind == "unusable" else "note"
    sentence = f"{plural(len(spots), 'row')} ({share(len(spots), read)}) {what}"
    return Finding(kind, severity, sentence, advice, spots)


def spot(entry: str, reason: str) -> Spot:
    """A ledger's entry as location and detail: `x.jsonl:5 (same as x.jsonl:3)`."""
    location, detail = parted(entry)
    return Spot(location, detail or reason)
