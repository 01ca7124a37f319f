"""Forgetting: does the model still write general English, and still know what it knew?

Two materials of ours, in our own words, that no user's data contains: passages of many kinds to be predicted, and
questions with four choices. Both models do the same tasks, so that each passage and question is its own control.
"""

import json
import math
from collections.abc import Sequence
from functools import cache

from luthier.evaluate import statistics
from luthier.evaluate.guards.case import BASE, MATERIAL, TUNED, Case, Choice, Line, Passage, Task, of_arm
from luthier.evaluate.guards.finding import Finding, compare, told

TEXT_MARGIN = 1.0  # per cent of bits per byte
CHOICE_MARGIN = 0.03


@cache
def passages() -> tuple[Passage, ...]:
    """The shipped texts: encyclopaedic, news, stories, dialogue, letters, essays, instructions, code and others."""
    parts = (MATERIAL / "general.txt").read_text(encoding="utf-8").split("%% ")[1:]
    found = []
    for number, part in enumerate(parts):
        kind, _, text = part.partition("\n")
        found.append(Passage(f"text-{number:02}", kind.strip(), text.strip()))
    return tuple(found)


@cache
def choices() -> tuple[Choice, ...]:
    """The shipped questions of common knowledge, arithmetic and reading, the right answer in each place equally often."""
    lines = (MATERIAL / "choices.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(
        Choice(f"choice-{number:03}", row["question"], tuple(row["choices"]), row["right"])
        for number, row in enumerate(map(json.loads, lines))
    )


def applies(case: Case) -> bool:
    """Any tuned model may forget."""
    return True


def material(case: Case) -> Sequence[Task]:
    """All of it: about 9,000 tokens of text and 185 questions with four choices each."""
    return (*passages(), *choices())


def assess(case: Case, notes: Sequence[Line], answers: Sequence[Line]) -> list[Finding]:
    """Bits per byte on the passages, and the share of questions answered rightly."""
    texts, questions = ([line for line in notes if ("kind" in line) is is_text] for is_text in (True, False))
    return [_texts(case, texts), _questions(case, questions)]


def _texts(case: Case, lines: Sequence[Line]) -> Finding:
    base, tuned = (of_arm(lines, arm) for arm in (BASE, TUNED))
    before, after = ([_bits(by_item[item]) for item in base] for by_item in (base, tuned))
    mean = math.fsum(before) / len(before)
    found = compare(
        [100 * value / mean for value in before],
        [100 * value / mean for value in after],
        margin=TEXT_MARGIN, higher_is_better=False, alpha=case.settings.alpha, seed=case.seed,
    )  # fmt: skip
    now = math.fsum(after) / len(after)
    kinds = dict.fromkeys(line["kind"] for line in base.values())
    by_kind = {
        kind: _change([item for item, line in base.items() if line["kind"] == kind], base, tuned) for kind in kinds
    }
    worst = max(by_kind, key=lambda kind: by_kind[kind])
    return Finding(
        guard="forgetting", check="general text", title="Predicts general text as before",
        passed=found.passed, word=found.word, margin=TEXT_MARGIN, unit="percent",
        base=mean, fine_tuned=now, difference=found.difference, interval=found.interval, n=found.n,
        counts={"change by kind of text, in percent": {kind: round(value, 2) for kind, value in by_kind.items()}},
        sentence=f"General text, bits per byte (lower is better): {mean:.3f} before, {now:.3f} after, "
        f"{told(found, '%', TEXT_MARGIN)}. Changed most: {worst} {statistics.signed(by_kind[worst])} %.",
    )  # fmt: skip


def _questions(case: Case, lines: Sequence[Line]) -> Finding:
    base, tuned = (of_arm(lines, arm) for arm in (BASE, TUNED))
    before, after = ([float(_right(by_item[item])) for item in base] for by_item in (base, tuned))
    found = compare(
        before, after, margin=CHOICE_MARGIN, higher_is_better=True, alpha=case.settings.alpha, seed=case.seed
    )
    lost = [item for item in base if _right(base[item]) and not _right(tuned[item])]
    won = sum(_right(tuned[item]) and not _right(base[item]) for item in base)
    return Finding(
        guard="forgetting", check="common knowledge", title="Knows what it knew",
        passed=found.passed, word=found.word, margin=100 * CHOICE_MARGIN, unit="points",
        base=100 * found.base, fine_tuned=100 * found.tuned, difference=100 * found.difference,
        interval=[100 * end for end in found.interval], n=found.n,
        counts={"right before": round(sum(before)), "right after": round(sum(after)), "lost": len(lost), "gained": won},
        sentence=f"Common knowledge, {found.n} questions with four choices: {sum(before):.0f} right before, "
        f"{sum(after):.0f} after, {told(found, 'points', 100 * CHOICE_MARGIN, scale=100)}.",
        examples=[
            {"question": base[item]["question"], "base": base[item]["answer"], "fine_tuned": tuned[item]["answer"]}
            for item in lost
        ],
    )  # fmt: skip


def _bits(line: Line) -> float:
    """Bits per byte."""
    nats, size = float(line["nats"]), int(line["bytes"])
    return nats / math.log(2) / max(1, size)


def _right(line: Line) -> bool:
    return bool(line["answer"] == line["reference"])


def _change(items: Sequence[str], base: dict[str, Line], tuned: dict[str, Line]) -> float:
    """Per cent by which the bits per byte of these passages have grown."""
    before, after = (math.fsum(_bits(by_item[item]) for item in items) for by_item in (base, tuned))
    return 100 * (after / before - 1)
