"""The result of a review: which arm people prefer, with an interval, and how far the reviewers agree."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from luthier.evaluate import statistics
from luthier.evaluate.judge import agreement
from luthier.review.sheet import TUNED_ARM, Sheet
from luthier.runs import Run
from luthier.runs.durable import write_atomic

CONFIDENCE = 0.95
FILE = "review/result.json"


@dataclass(frozen=True)
class Result:
    """The result. `preference` is the share of questions in which the tuned model was chosen, ties counting half."""

    sheet: str
    prompt_arm: str
    reviewers: dict[str, int]
    """Reviewer → number of marks."""
    questions: int
    same_answer: int
    """Test questions with the same answer from both arms, which are not on the sheet."""
    counts: dict[str, int]
    """Number of marks for each arm, for a tie and for both bad."""
    preference: float
    interval: tuple[float, float]
    p_value: float
    first_chosen: float | None
    """Share of A among the marks for A or B; far from a half, reviewers favour one side of the page."""
    agreement: dict[str, Any] | None
    sentence: str


def compute(run: Run, sheet: Sheet, marks: Sequence[Mapping[str, Any]], *, seed: int = 0) -> Result:
    """The result of all marks, also written to review/result.json.

    A question's score is the mean over its reviewers of 1, ½ or 0 for tuned, tie, prompt; test and interval are those of
    the verdict (McNemar and Tango without ties, else sign-flip and BCa), over the groups of the items.
    """
    by_item: dict[str, list[float]] = {}
    for mark in marks:
        by_item.setdefault(mark["item"], []).append(_score(mark["chosen"], sheet.prompt_arm))
    groups = {entry.item: entry.group for entry in sheet.entries}
    tuned = [sum(scores) / len(scores) for scores in by_item.values()]
    prompt = [1 - score for score in tuned]
    item_groups = [groups[item] for item in by_item]
    low, high = statistics.paired_interval(tuned, prompt, item_groups, confidence=CONFIDENCE, seed=seed)
    p_value = statistics.paired_test(tuned, prompt, item_groups, seed=seed).p_value
    chosen = Counter(mark["chosen"] for mark in marks)
    sides = Counter(mark["mark"] for mark in marks if mark["mark"] in ("A", "B"))
    shared = agreement.among(_ratings(marks))
    result = Result(
        sheet=sheet.id,
        prompt_arm=sheet.prompt_arm,
        reviewers=dict(Counter(str(mark["reviewer"]) for mark in marks)),
        questions=len(by_item),
        same_answer=sheet.same,
        counts={name: chosen[name] for name in (TUNED_ARM, sheet.prompt_arm, "tie", "both bad")},
        preference=sum(tuned) / len(tuned),
        interval=((1 + low) / 2, (1 + high) / 2),
        p_value=p_value,
        first_chosen=sides["A"] / sides.total() if sides else None,
        agreement=asdict(shared) if shared else None,
        sentence="",
    )
    result = replace(result, sentence=_sentence(result, shared))
    write_atomic(run.folder / FILE, json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n")
    return result


def _score(chosen: str, prompt_arm: str) -> float:
    return {TUNED_ARM: 1.0, prompt_arm: 0.0}.get(chosen, 0.5)


def _ratings(marks: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Reviewer → item → what was chosen."""
    ratings: dict[str, dict[str, str]] = {}
    for mark in marks:
        ratings.setdefault(str(mark["reviewer"]), {})[mark["item"]] = mark["chosen"]
    return ratings


def _sentence(result: Result, shared: agreement.Agreement | None) -> str:
    """The result in plain English."""
    people, count = len(result.reviewers), result.questions
    low, high = result.interval
    shown = result.p_value < 1 - CONFIDENCE and (low > 0.5 or high < 0.5)
    winner = TUNED_ARM if result.preference > 0.5 else result.prompt_arm
    claim = f"People prefer {winner}" if shown else "It is NOT SHOWN that people prefer either answer"
    who = "one reviewer" if people == 1 else f"{people} reviewers"
    parts = [
        f"{claim}: {TUNED_ARM} was better in {100 * result.preference:.0f} % of {count} question{'s' * (count != 1)} "
        f"[95 % interval {100 * low:.0f} – {100 * high:.0f}; ties count half], {statistics.p_in_words(result.p_value)}, {who}, "
        f"against {result.prompt_arm}."
    ]
    if result.same_answer:
        parts.append(f"{result.same_answer} more test questions got the same answer from both.")
    if shared:
        parts.append(shared.sentence())
    elif people == 1:
        parts.append("With one reviewer, it is unknown whether others would agree.")
    return " ".join(parts)
