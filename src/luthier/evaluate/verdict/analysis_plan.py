"""The plan of an evaluation, frozen before the test questions are opened, and what was done otherwise.

The plan is JSON. Its SHA-256 is taken over the canonical form: keys sorted, no blanks, UTF-8. It goes into the run's events
and its verdict, so that nobody, not even its maker, can change the plan once answers are known without it being seen.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import norm

from luthier.errors import CorruptedState
from luthier.evaluate import statistics
from luthier.runs import now
from luthier.runs.durable import write_atomic

POWER = 0.8
DISCORDANT = 0.2  # share of questions that the two arms are expected to answer differently, where nothing is known yet

Content = Mapping[str, Any]


@dataclass(frozen=True)
class AnalysisPlan:
    """A frozen plan: its content, the hash of that, and when it was frozen (UTC)."""

    content: dict[str, Any]
    sha256: str
    frozen: str


@dataclass(frozen=True)
class Deviation:
    """One thing that was done otherwise than planned: its dotted name, and both sides."""

    setting: str
    expected: Any
    actual: Any

    @property
    def sentence(self) -> str:
        return f"{self.setting}: planned {_short(self.expected)}, done {_short(self.actual)}"

    def to_json(self) -> dict[str, Any]:
        return {"what": self.setting, "planned": self.expected, "done": self.actual, "sentence": self.sentence}


def digest(content: Content) -> str:
    """SHA-256 of the content's canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def freeze(content: Content, path: Path) -> AnalysisPlan:
    """Write the plan, once: where there is one already, that one holds."""
    if (known := read(path)) is not None:
        return known
    plain = json.loads(json.dumps(content, ensure_ascii=False, default=str))
    plan = AnalysisPlan(plain, digest(plain), now())
    file = {"sha256": plan.sha256, "frozen": plan.frozen, "plan": plan.content}
    write_atomic(path, json.dumps(file, indent=2, ensure_ascii=False) + "\n")
    return plan


def read(path: Path) -> AnalysisPlan | None:
    """The plan in this file, or None; raises CorruptedState where its content is not what was hashed."""
    try:
        file = json.loads(path.read_text(encoding="utf-8"))
        plan = AnalysisPlan(file["plan"], file["sha256"], file["frozen"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise CorruptedState("not a plan any more; restore the file or start a new run.", where=str(path)) from None
    if digest(plan.content) != plan.sha256:
        raise CorruptedState(
            f"the plan was changed after it was frozen at {plan.frozen[:16].replace('T', ' ')} UTC: its content does not give "
            f"its hash {plan.sha256[:12]}…. Restore the file, or start a new run.",
            where=str(path),
        )
    return plan


def deviations(plan: Content, actual: Content, prefix: str = "") -> list[Deviation]:
    """What differs between the plan and what was done, under dotted names, in the plan's order."""
    found: list[Deviation] = []
    for name in dict.fromkeys([*plan, *actual]):
        before, after = plan.get(name), actual.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += deviations(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(Deviation(f"{prefix}{name}", before, after))
    return found


def visible_effect(n: int, alpha: float, groups: int | None = None) -> float:
    """The difference that n paired questions show with 80 % probability, if a fifth of the answers change; at most 1.

    Solves δ = z·√((d - δ²)/n) for δ, with d the discordant share (Connor 1987, as for McNemar's test). Where they come in so
    few `groups` that no p-value can be small enough, it is 1: no difference can be shown.
    """
    if groups is not None and groups < n and groups < statistics.fewest_changed(alpha, mid=False):
        return 1.0
    z = norm.ppf(1 - alpha / 2) + norm.ppf(POWER)
    return float(z * math.sqrt(DISCORDANT / (n + z * z)))


def _short(value: Any) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
