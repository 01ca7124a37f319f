"""Forgetting: does the model still predict general English, and does it still know what it knew?

The tasks come with Luthier and are in no user's data: passages of many kinds to predict, and questions with four choices.
Both models do the same tasks, so each passage and each question is its own control.
"""

import json
import math
from collections.abc import Sequence
from functools import cache

from luthier.evaluate import statistics
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.guards.check_result import CheckResult, compare, describe
from luthier.evaluate.guards.inputs import (
    BASE,
    MATERIAL,
    TUNED,
    Choice,
    GuardInputs,
    Passage,
    Task,
    records_by_item,
)

TEXT_MARGIN = 1.0  # per cent of bits per byte
CHOICE_MARGIN = 0.03


@cache
def passages() -> tuple[Passage, ...]:
    """Luthier's own texts: encyclopaedic, news, stories, dialogue, letters, essays, instructions, code and others."""
    parts = (MATERIAL / "general.txt").read_text(encoding="utf-8").split("%% ")[1:]
    found = []
    for number, part in enumerate(parts):
        kind, _, text = part.partition("\n")
        found.append(Passage(f"text-{number:02}", kind.strip(), text.strip()))
    return tuple(found)


@cache
def choices() -> tuple[Choice, ...]:
    """Questions of common knowledge, arithmetic and reading; each of the four positions is right equally often."""
    lines = (MATERIAL / "choices.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(
        Choice(f"choice-{number:03}", row["question"], tuple(row["choices"]), row["right"])
        for number, row in enumerate(map(json.loads, lines))
    )


def applies(inputs: GuardInputs) -> bool:
    """Always: any tuned model may forget."""
    return True


def make_tasks(inputs: GuardInputs) -> Sequence[Task]:
    """About 9,000 tokens of text, and 185 questions with four choices each."""
    return (*passages(), *choices())


def assess(inputs: GuardInputs, records: Sequence[AnswerRecord], answers: Sequence[AnswerRecord]) -> list[CheckResult]:
    """Bits per byte on the passages, and the share of questions answered correctly."""
    texts, questions = ([each for each in records if ("kind" in each) is is_text] for is_text in (True, False))
    return [_texts(inputs, texts), _questions(inputs, questions)]


def _texts(inputs: GuardInputs, records: Sequence[AnswerRecord]) -> CheckResult:
    base, tuned = (records_by_item(records, arm) for arm in (BASE, TUNED))
    before, after = ([_bits(by_item[item]) for item in base] for by_item in (base, tuned))
    mean = math.fsum(before) / len(before)
    found = compare(
        [100 * value / mean for value in before],
        [100 * value / mean for value in after],
        margin=TEXT_MARGIN, higher_is_better=False, alpha=inputs.settings.alpha, seed=inputs.seed,
    )  # fmt: skip
    now = math.fsum(after) / len(after)
    kinds = dict.fromkeys(record["kind"] for record in base.values())
    by_kind = {
        kind: _change([item for item, record in base.items() if record["kind"] == kind], base, tuned) for kind in kinds
    }
    worst = max(by_kind, key=lambda kind: by_kind[kind])
    return CheckResult(
        guard="forgetting", check="general text", title="Predicts general text as before",
        passed=found.passed, word=found.word, margin=TEXT_MARGIN, unit="percent",
        base=mean, fine_tuned=now, difference=found.difference, interval=found.interval, n=found.n,
        counts={"change by kind of text, in percent": {kind: round(value, 2) for kind, value in by_kind.items()}},
        sentence=f"General text, bits per byte (lower is better): {mean:.3f} before, {now:.3f} after, "
        f"{describe(found, '%', TEXT_MARGIN)}. Changed most: {worst} {statistics.signed(by_kind[worst])} %.",
    )  # fmt: skip


def _questions(inputs: GuardInputs, records: Sequence[AnswerRecord]) -> CheckResult:
    base, tuned = (records_by_item(records, arm) for arm in (BASE, TUNED))
    before, after = ([float(_right(by_item[item])) for item in base] for by_item in (base, tuned))
    found = compare(
        before, after, margin=CHOICE_MARGIN, higher_is_better=True, alpha=inputs.settings.alpha, seed=inputs.seed
    )
    lost = [item for item in base if _right(base[item]) and not _right(tuned[item])]
    won = sum(_right(tuned[item]) and not _right(base[item]) for item in base)
    return CheckResult(
        guard="forgetting", check="common knowledge", title="Still knows common facts",
        passed=found.passed, word=found.word, margin=100 * CHOICE_MARGIN, unit="points",
        base=100 * found.base, fine_tuned=100 * found.tuned, difference=100 * found.difference,
        interval=[100 * end for end in found.interval], n=found.n,
        counts={"right before": round(sum(before)), "right after": round(sum(after)), "lost": len(lost), "gained": won},
        sentence=f"Common knowledge, {found.n} questions with four choices: {sum(before):.0f} right before, "
        f"{sum(after):.0f} after, {describe(found, 'points', 100 * CHOICE_MARGIN, scale=100)}.",
        examples=[
            {"question": base[item]["question"], "base": base[item]["answer"], "fine_tuned": tuned[item]["answer"]}
            for item in lost
        ],
    )  # fmt: skip


def _bits(record: AnswerRecord) -> float:
    """Bits per byte."""
    nats, size = float(record["nats"]), int(record["bytes"])
    return nats / math.log(2) / max(1, size)


def _right(record: AnswerRecord) -> bool:
    return bool(record["answer"] == record["reference"])


def _change(items: Sequence[str], base: dict[str, AnswerRecord], tuned: dict[str, AnswerRecord]) -> float:
    """By how many per cent the bits per byte of these passages have grown."""
    before, after = (math.fsum(_bits(by_item[item]) for item in items) for by_item in (base, tuned))
    return 100 * (after / before - 1)
