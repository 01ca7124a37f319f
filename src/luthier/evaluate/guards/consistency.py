"""Consistency: does the same question, asked in other ways or asked again, get the same answer?

The paraphrases are made by rule, so that they surely mean the same: other case, other punctuation, a polite frame. A model
that always gives the same wrong answer is consistent; therefore the score stands beside the agreement.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

from luthier.chat import Message
from luthier.data.dataset import Item
from luthier.evaluate import metrics, text_features
from luthier.evaluate.guards.case import BASE, TUNED, Case, Line, Question, Task
from luthier.evaluate.guards.finding import Finding, compare, told
from luthier.evaluate.guards.pairs import paired

MARGIN = 0.05
QUESTIONS = 16
CHARACTERS = 24_000  # of prompts, all variants together: some 6,000 tokens, ten seconds on two cores
SAMPLES = 3
TEMPERATURE = 0.7

PARAPHRASES: dict[str, Callable[[str], str]] = {
    "as it stands": lambda text: text,
    "lower case": lambda text: text.lower(),
    "other punctuation": lambda text: text.rstrip(" ?.!") + (" ." if text.rstrip().endswith("?") else " !"),
    "polite": lambda text: f"Could you please help me with this? {text}",
    "framed": lambda text: f"I have a request. {text} Thank you.",
}
"""Ways to ask the same. Each changes the last user message only."""


def applies(case: Case) -> bool:
    """Where questions are asked."""
    return not case.documents


def material(case: Case) -> Sequence[Task]:
    """Up to 16 test questions, each asked in five ways and drawn three times; fewer where they are long."""
    tasks: list[Task] = []
    spent = 0
    for number, item in enumerate(sorted(case.test, key=lambda item: item.id)[:QUESTIONS]):
        spent += (len(PARAPHRASES) + SAMPLES) * sum(len(message.content) for message in item.conversation.prompt)
        if spent > CHARACTERS and number >= 4:
            break
        tasks += _variants(item)
    return tasks


def _variants(item: Item) -> list[Question]:
    note = {"asked": item.id, "group": item.group}
    plain = item.conversation.prompt
    asked = [
        Question(f"{item.id} {name}", _reworded(plain, change), told=True, note=note | {"way": name})
        for name, change in PARAPHRASES.items()
    ]
    drawn = [
        Question(f"{item.id} draw {number}", plain, TEMPERATURE, number, told=True, note=note | {"way": "drawn"})
        for number in range(1, SAMPLES + 1)
    ]
    return asked + drawn


def _reworded(prompt: Sequence[Message], change: Callable[[str], str]) -> tuple[Message, ...]:
    last = max(place for place, message in enumerate(prompt) if message.role == "user")
    return tuple(
        replace(message, content=change(message.content)) if place == last else message
        for place, message in enumerate(prompt)
    )


def assess(case: Case, notes: Sequence[Line], answers: Sequence[Line]) -> list[Finding]:
    """The share of pairs of answers to one question that say the same, paraphrases and draws half each."""
    asked = list(dict.fromkeys(line["asked"] for line in notes))
    if not asked:
        return []
    groups = {line["asked"]: line["group"] for line in notes}
    agreed: dict[str, dict[str, list[float]]] = {}
    overlaps: dict[str, float] = {}
    for arm in (BASE, TUNED):
        by_question = {item: [line for line in notes if line["arm"] == arm and line["asked"] == item] for item in asked}
        sets = {
            kind: [
                [line["answer"] for line in lines if (line["way"] == "drawn") == drawn]
                for lines in by_question.values()
            ]
            for kind, drawn in (("paraphrases", False), ("draws", True))
        }
        agreed[arm] = {kind: [agreement(texts) for texts in groups_of] for kind, groups_of in sets.items()}
        overlaps[arm] = _mean([_overlap(texts) for texts in sets["paraphrases"]])
    before, after = (
        [(asked_ways + drawn) / 2 for asked_ways, drawn in zip(*agreed[arm].values(), strict=True)]
        for arm in (BASE, TUNED)
    )
    found = compare(
        before, after, margin=MARGIN, higher_is_better=True, alpha=case.settings.alpha, seed=case.seed,
        groups=[groups[item] for item in asked],
    )  # fmt: skip
    scores = [pair.scores for pair in paired(case, answers) if pair.item in groups]
    right = [_mean([score[side] for score in scores]) for side in (0, 1)] if scores else []
    score = metrics.label(case.settings.metric or "score")
    counts = {
        f"{kind} that agree, {word}": round(100 * _mean(agreed[arm][kind]), 1)
        for kind in ("paraphrases", "draws")
        for arm, word in ((BASE, "before"), (TUNED, "after"))
    }
    counts |= {
        f"words shared by paraphrases, {word}": round(100 * overlaps[arm], 1)
        for arm, word in ((BASE, "before"), (TUNED, "after"))
    }
    if right:
        counts |= {
            f"{score} on them, {word}": round(100 * value, 1)
            for value, word in zip(right, ("before", "after"), strict=True)
        }
    beside = (
        f" {score[:1].upper()}{score[1:]} on the same questions: {100 * right[1]:.1f}, {100 * right[0]:.1f} before."
        if right
        else ""
    )
    return [Finding(
        guard="consistency", check="consistency", title="Answers the same question alike",
        passed=found.passed, word=found.word, margin=100 * MARGIN, unit="points",
        base=100 * found.base, fine_tuned=100 * found.tuned, difference=100 * found.difference,
        interval=[100 * end for end in found.interval], n=found.n, counts=counts,
        sentence=f"Consistency: of two answers to one question, asked in {len(PARAPHRASES)} ways and drawn {SAMPLES} times, "
        f"{100 * found.tuned:.0f} % say the same, {100 * found.base:.0f} % before, "
        f"{told(found, 'points', 100 * MARGIN, scale=100)}, {found.n} questions.{beside}",
        examples=_examples(notes),
    )]  # fmt: skip


def agreement(texts: Sequence[str]) -> float:
    """The share of pairs that are equal once case, punctuation and white space are left out."""
    pairs = list(combinations(map(text_features.normalised, texts), 2))
    return sum(left == right for left, right in pairs) / len(pairs) if pairs else 1.0


def _overlap(texts: Sequence[str]) -> float:
    return _mean([text_features.overlap(left, right) for left, right in combinations(texts, 2)])


def _examples(notes: Sequence[Line]) -> list[dict[str, str]]:
    """Questions whose wording changed the tuned model's answer, with the answer to the wording that was asked."""
    by_item = {(line["arm"], line["item"]): line for line in notes}
    found = []
    for (arm, item), line in by_item.items():
        plain = by_item.get((TUNED, f"{line['asked']} as it stands"))
        if arm == TUNED and line["way"] != "drawn" and plain and agreement([plain["answer"], line["answer"]]) < 1:
            base = by_item.get((BASE, item), {}).get("answer", "")
            found.append({"question": line["question"], "base": base, "fine_tuned": line["answer"]})
    return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
