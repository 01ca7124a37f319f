"""What has left a run: each exported file with how it was found to be the same model, from the events of the run."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from luthier.report import charts, json_fields
from luthier.report.formatting import DASH
from luthier.report.json_fields import JsonObject

KIND = "export"
"""The event that an export, or a check of one, leaves."""


class Part(NamedTuple):
    """One comparison: what it is, what was found, its share from 0 to 1 and the least that the format allows."""

    name: str
    found: str
    share: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Exported:
    """A file or folder that left, as it was last found."""

    file: str
    type: str
    engine: str
    passed: bool
    unchecked: bool
    parts: tuple[Part, ...]
    difference: float | None
    """Of the verdict's metric, answers of the export against the run's own."""
    interval: tuple[float, float] | None
    margin: float | None
    verdict: str
    faults: tuple[str, ...]

    @property
    def word(self) -> str:
        """What was found, in words."""
        return "the same model" if self.passed else "NOT the same model"

    @property
    def score(self) -> str:
        """The difference of the score with its interval."""
        if self.difference is None or self.interval is None:
            return DASH
        low, high = self.interval
        return f"{self.difference:+.3f} [{low:+.3f}, {high:+.3f}]"


def read(events: Iterable[JsonObject]) -> tuple[Exported, ...]:
    """Each export once, in the order in which they came, as the last check has found it."""
    found: dict[str, Exported] = {}
    for event in events:
        if event.get("kind") == KIND and isinstance(report := event.get("parity"), dict):
            found[json_fields.text(report, "file")] = _exported(report)
    return tuple(found.values())


def _exported(report: JsonObject) -> Exported:
    score = _section(report, "score")
    return Exported(
        file=Path(json_fields.text(report, "file")).name,
        type=json_fields.text(report, "type"),
        engine=json_fields.text(report, "engine"),
        passed=report.get("passed") is True,
        unchecked=report.get("unchecked") is True,
        parts=tuple(_parts(report)),
        difference=json_fields.number(score, "difference"),
        interval=json_fields.interval(score.get("interval")),
        margin=json_fields.number(score, "margin"),
        verdict=json_fields.text(score, "verdict"),
        faults=tuple(str(fault) for fault in report.get("faults") or ()),
    )


def _parts(report: JsonObject) -> Iterable[Part]:
    limits = _section(report, "limits")
    if report.get("modelfile"):
        yield _counted("Ollama's template", _section(report, "modelfile"), "prompts the same bytes", limit=None)
    yield _counted("template", _section(report, "template"), "conversations the same bytes", limit=1.0)
    ids = _section(report, "ids")
    texts, different = json_fields.count(ids, "texts"), json_fields.count(ids, "different") or 0
    if texts:
        yield Part("ids", f"{texts - different:,} of {texts:,} texts the same tokens", 1 - different / texts, 1.0)
    agreement = json_fields.number(_section(report, "top1"), "agreement")
    if agreement is not None:
        yield Part("top-1", f"{agreement:.2%} of tokens", agreement, json_fields.number(limits, "top1"))
    mean = json_fields.number(_section(report, "kl"), "mean")
    if mean is not None:
        yield Part("KL", f"{mean:.2g} nats a token, at most {json_fields.number(limits, 'kl') or 0:g}")
    yield _counted(
        "answers", _section(report, "answers"), "questions the same answer", limit=json_fields.number(limits, "answers")
    )


def _counted(name: str, part: JsonObject, words: str, *, limit: float | None) -> Part:
    same, of = json_fields.count(part, "same"), json_fields.count(part, "of")
    if same is None or not of:
        return Part(name, f"not compared: {json_fields.text(part, 'skipped') or DASH}")
    return Part(name, f"{same:,} of {of:,} {words}", same / of, limit)


def _section(report: JsonObject, name: str) -> JsonObject:
    found = report.get(name)
    return found if isinstance(found, dict) else {}


def draw(exports: Iterable[Exported]) -> tuple[list[list[Markup]], list[Markup], Markup]:
    """Bars of the shares by export and part; the scores' differences by export, and the axis under them."""
    exports = list(exports)
    bars = [
        [
            charts.share_bar(part.share, limit=part.limit, label=f"{part.name}: {part.found}")
            if part.share is not None
            else Markup()
            for part in each.parts
        ]
        for each in exports
    ]
    known = [(each.difference, each.interval) for each in exports if each.difference is not None]
    if not known:
        return bars, [Markup()] * len(exports), Markup()
    margin = max((each.margin or 0.0 for each in exports), default=0.0)
    scale = charts.forest_scale([*known, (0.0, (-margin, margin))])
    rows = [
        charts.forest_row(
            each.difference, each.interval, scale=scale, compared=0.0, kind="tuned", label=f"difference {each.score}"
        )
        if each.difference is not None
        else Markup()
        for each in exports
    ]
    return bars, rows, charts.forest_axis(scale, [f"{tick:+g}" if tick else "0" for tick in scale.ticks])
