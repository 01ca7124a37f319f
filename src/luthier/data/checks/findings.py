"""What a check has found: its kind, how grave it is, and where it stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The gravest first: an error stops a run, a warning may spoil its result, a note is worth knowing."""


@dataclass(frozen=True)
class Spot:
    """Where a finding stands, such as `tickets.jsonl:118`, and what stands there; secrets and personal data are masked."""

    location: str
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that is worth knowing about the data: what it is, what to do about it, and every row that it concerns."""

    kind: str
    severity: Severity
    sentence: str
    advice: str = ""
    spots: tuple[Spot, ...] = ()
    action: str | None = None
    """What the recipe says about its kind: accept, drop or group. Then it is shown, and stops nothing."""

    @property
    def accepted(self) -> bool:
        """Whether the recipe says what to do about it."""
        return self.action is not None

    def to_json(self) -> dict[str, Any]:
        """For programs, which call a location a place."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "action": self.action,
            "sentence": self.sentence,
            "advice": self.advice,
            "places": [spot.location for spot in self.spots],
            "details": [spot.detail for spot in self.spots],
        }


def grave(findings: Sequence[Finding], *, strict: bool) -> list[Finding]:
    """Those that stop: errors, with `strict` warnings too, unless they are accepted."""
    stops = ("error", "warning") if strict else ("error",)
    return [finding for finding in findings if finding.severity in stops and not finding.accepted]


def plural(count: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def share(part: int, whole: int) -> str:
    """A part of a whole in per cent: `4 %`, `0.3 %`."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f} %" if percent >= 10 or percent == int(percent) else f"{percent:.1f} %"
