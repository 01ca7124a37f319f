"""Consistency: does a question get the same answer when it is asked in another way, or asked again?

Paraphrases are made by rule, so that they surely mean the same: other case, other punctuation, a polite frame. A model
that always gives the same wrong answer is consistent, so the score stands beside the agreement.
"""

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from itertools import combinations

from luthier.chat import Message
from luthier.data.dataset import Item
from luthier.evaluate import metrics, text_features
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.guards.check_result import CheckResult, compare, describe
from luthier.evaluate.guards.inputs import BASE, TUNED, GuardInputs, Question, Task
from luthier.evaluate.guards.pairs import answer_pairs

MARGIN = 0.05
KINDS = ("paraphrases", "draws")
WHEN = {BASE: "before", TUNED: "after"}
QUESTIONS = 16
CHARACTERS = 24_000
"""Most characters of prompts, all variants together: some 6,000 tokens, ten seconds on two cores."""

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


def applies(inputs: GuardInputs) -> bool:
    """Where questions are asked."""
    return not inputs.documents


def make_tasks(inputs: GuardInputs) -> Sequence[Task]:
    """Up to 16 test questions, each asked in five ways and sampled three times; fewer questions where they are long."""
    tasks: list[Task] = []
    spent = 0
    for number, item in enumerate(sorted(inputs.test, key=lambda item: item.id)[:QUESTIONS]):
        spent += (len(PARAPHRASES) + SAMPLES) * sum(len(message.text) for message in item.conversation.prompt)
        if spent > CHARACTERS and number >= 4:
            break
        tasks += _variants(item)
    return tasks


def _variants(item: Item) -> list[Question]:
    extra = {"asked": item.id, "group": item.group}
    plain = item.conversation.prompt
    asked = [
        Question(
            f"{item.id} {name}",
            _reworded(plain, change),
            with_instruction=True,
            extra=extra | {"way": name},
            tools=item.conversation.tools,
        )
        for name, change in PARAPHRASES.items()
    ]
    drawn = [
        Question(
            f"{item.id} draw {number}",
            plain,
            TEMPERATURE,
            number,
            with_instruction=True,
            extra=extra | {"way": "drawn"},
            tools=item.conversation.tools,
        )
        for number in range(1, SAMPLES + 1)
    ]
    return asked + drawn


def _reworded(prompt: Sequence[Message], change: Callable[[str], str]) -> tuple[Message, ...]:
    last = max(number for number, message in enumerate(prompt) if message.role == "user")
    return tuple(
        replace(message, content=change(message.content)) if number == last else message
        for number, message in enumerate(prompt)
    )


def assess(inputs: GuardInputs, records: Sequence[AnswerRecord], answers: Sequence[AnswerRecord]) -> list[CheckResult]:
    """The share of pairs of answers to one question that agree: the mean of that over wordings and that over draws."""
    asked = list(dict.fromkeys(record["asked"] for record in records))
    if not asked:
        return []
    groups = {record["asked"]: record["group"] for record in records}
    texts = {arm: _answers(records, arm, asked) for arm in (BASE, TUNED)}
    agreed = {
        arm: {kind: [agreement(each) for each in of_kind] for kind, of_kind in of_arm.items()}
        for arm, of_arm in texts.items()
    }
    before, after = (
        [(wordings + draws) / 2 for wordings, draws in zip(*agreed[arm].values(), strict=True)] for arm in (BASE, TUNED)
    )
    found = compare(
        before, after, margin=MARGIN, higher_is_better=True, alpha=inputs.settings.alpha, seed=inputs.seed,
        groups=[groups[item] for item in asked],
    )  # fmt: skip
    score = metrics.label(inputs.settings.metric or "score")
    scores = _mean_scores(inputs, answers, groups)
    counts = {
        f"{kind} that agree, {word}": _percent(_mean(agreed[arm][kind])) for kind in KINDS for arm, word in WHEN.items()
    }
    counts |= {
        f"words shared by paraphrases, {word}": _percent(_mean([_overlap(each) for each in texts[arm]["paraphrases"]]))
        for arm, word in WHEN.items()
    }
    counts |= {f"{score} on them, {word}": _percent(scores[arm]) for arm, word in WHEN.items() if arm in scores}
    sentence = (
        f"Consistency: {found.n} questions, each asked in {len(PARAPHRASES)} ways and sampled {SAMPLES} times. "
        f"{100 * found.tuned:.0f} % of the pairs of answers to one question agree, {100 * found.base:.0f} % before, "
        f"{describe(found, 'points', 100 * MARGIN, scale=100)}."
    )
    if scores:
        sentence += f" {score[:1].upper()}{score[1:]} on these questions: {100 * scores[TUNED]:.1f}, "
        sentence += f"{100 * scores[BASE]:.1f} before."
    return [CheckResult(
        guard="consistency", check="consistency", title="Answers the same question the same way",
        passed=found.passed, word=found.word, margin=100 * MARGIN, unit="points",
        base=100 * found.base, fine_tuned=100 * found.tuned, difference=100 * found.difference,
        interval=[100 * end for end in found.interval], n=found.n, counts=counts, sentence=sentence,
        examples=_examples(records),
    )]  # fmt: skip


def _answers(records: Sequence[AnswerRecord], arm: str, asked: Sequence[str]) -> dict[str, list[list[str]]]:
    """One model's answers by kind ("paraphrases", "draws"), then by question."""
    by_question: dict[str, list[AnswerRecord]] = {item: [] for item in asked}
    for record in records:
        if record["arm"] == arm:
            by_question[record["asked"]].append(record)
    return {
        kind: [
            [record["answer"] for record in of_question if (record["way"] == "drawn") == (kind == "draws")]
            for of_question in by_question.values()
        ]
        for kind in KINDS
    }


def _mean_scores(inputs: GuardInputs, answers: Sequence[AnswerRecord], asked: Container[str]) -> dict[str, float]:
    """Both models' mean scores on these test questions; empty where neither has answered them there."""
    scores = [pair.scores for pair in answer_pairs(inputs, answers) if pair.item in asked]
    return {arm: _mean([pair[side] for pair in scores]) for side, arm in enumerate((BASE, TUNED))} if scores else {}


def agreement(texts: Sequence[str]) -> float:
    """The share of pairs of texts that are equal but for case, punctuation and white space; 1 for a single text."""
    pairs = list(combinations(map(text_features.normalised, texts), 2))
    return sum(left == right for left, right in pairs) / len(pairs) if pairs else 1.0


def _overlap(texts: Sequence[str]) -> float:
    return _mean([text_features.word_overlap(left, right) for left, right in combinations(texts, 2)])


def _examples(records: Sequence[AnswerRecord]) -> list[dict[str, str]]:
    """Reworded questions to which the tuned model answers otherwise than to the original."""
    by_item = {(record["arm"], record["item"]): record for record in records}
    found = []
    for (arm, item), record in by_item.items():
        plain = by_item.get((TUNED, f"{record['asked']} as it stands"))
        if arm == TUNED and record["way"] != "drawn" and plain and agreement([plain["answer"], record["answer"]]) < 1:
            base = by_item.get((BASE, item), {}).get("answer", "")
            found.append({"question": record["question"], "base": base, "fine_tuned": record["answer"]})
    return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _percent(share: float) -> float:
    return round(100 * share, 1)
