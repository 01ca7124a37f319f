"""The account of the rows in lines: the same on every screen that shows how data is read."""

from collections.abc import Mapping, Sequence

from luthier.cli.screens.terminal import count

LOCATIONS_SHOWN = 4


def ledger_lines(
    *, read: int, kept: int, dropped: Mapping[str, Sequence[str]], notes: Mapping[str, Sequence[str]],
    ignored: Sequence[str], file: str | None = None,
) -> list[str]:  # fmt: skip
    """Rows read, kept and dropped; then each reason and each remark with its first locations, and files that are no data.

    `file` is where a run keeps all locations.
    """
    left_out = {reason: where for reason, where in dropped.items() if where}
    number = sum(map(len, left_out.values()))
    reasons = ", ".join(f"{len(where):,} {reason}" for reason, where in left_out.items())
    noted = {f"kept, but {note}": where for note, where in notes.items() if where}
    files = {"not read, not a data file": ignored} if ignored else {}
    lines = [f"{count(read, 'row')} read = {kept:,} kept + {number:,} dropped" + (f" ({reasons})" if reasons else "")]
    for reason, where in (left_out | noted | files).items():
        more = f" and {len(where) - LOCATIONS_SHOWN:,} more" if len(where) > LOCATIONS_SHOWN else ""
        more += f", all in {file}" if more and file and reason not in files else ""
        lines.append(f"  {reason}: {', '.join(where[:LOCATIONS_SHOWN])}{more}")
    return lines
