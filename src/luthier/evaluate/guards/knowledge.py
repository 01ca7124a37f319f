"""Knowledge: does the model know the user's new facts, has it given up the old ones, does it keep the neighbouring ones?

The questions are the user's, in wordings that the training data does not have. A fact counts as known where the answer
contains its words in a row.
"""

from collections.abc import Sequence

from luthier.evaluate import text_features
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.guards.check_result import CheckResult, compare, compare_with_limit, describe
from luthier.evaluate.guards.inputs import BASE, TUNED, GuardInputs, Question, Task, records_by_item

LEAK_LIMIT = 0.05
NEIGHBOUR_MARGIN = 0.05


def applies(inputs: GuardInputs) -> bool:
    """Where the user has named a file of facts."""
    return inputs.settings.facts is not None


def make_tasks(inputs: GuardInputs) -> Sequence[Task]:
    """Each fact's question, once."""
    return [
        Question(
            f"fact-{number:04}",
            inputs.question(fact.question),
            extra={"reference": fact.answer, "old_answer": fact.old_answer, "neighbour": fact.neighbour},
        )
        for number, fact in enumerate(inputs.user_material.facts)
    ]


def assess(inputs: GuardInputs, records: Sequence[AnswerRecord], answers: Sequence[AnswerRecord]) -> list[CheckResult]:
    """New facts, old answers and neighbouring facts, as far as the file has such rows."""
    base, tuned = (records_by_item(records, arm) for arm in (BASE, TUNED))
    facts = [item for item, record in base.items() if not record["neighbour"]]
    corrected = [item for item in facts if base[item]["old_answer"]]
    neighbours = [item for item, record in base.items() if record["neighbour"]]
    check_results = [_known(inputs, facts, base, tuned)] if facts else []
    check_results += [_leaks(inputs, corrected, base, tuned)] if corrected else []
    return check_results + ([_untouched(inputs, neighbours, base, tuned)] if neighbours else [])


RecordsByItem = dict[str, AnswerRecord]


def _known(inputs: GuardInputs, items: Sequence[str], base: RecordsByItem, tuned: RecordsByItem) -> CheckResult:
    """Passes where the tuned model knows more than the base model did."""
    before, after = ([float(_knows(by_item[item])) for item in items] for by_item in (base, tuned))
    found = compare(before, after, margin=0.0, higher_is_better=True, alpha=inputs.settings.alpha, seed=inputs.seed)
    passed = {"BETTER": True, "WORSE": False}.get(found.word)
    return CheckResult(
        guard="knowledge", check="facts", title="Knows the new facts", passed=passed, word=found.word, margin=0.0,
        unit="points", base=100 * found.base, fine_tuned=100 * found.tuned, difference=100 * found.difference,
        interval=[100 * end for end in found.interval], n=found.n,
        counts={"known before": round(sum(before)), "known after": round(sum(after))},
        sentence=f"Facts: {sum(after):.0f} of {found.n} known in new wordings, {sum(before):.0f} before, "
        f"{describe(found, 'points', 0, scale=100)}.",
        examples=_shown([item for item, knows in zip(items, after, strict=True) if not knows], base, tuned),
    )  # fmt: skip


def _leaks(inputs: GuardInputs, items: Sequence[str], base: RecordsByItem, tuned: RecordsByItem) -> CheckResult:
    """How many of the corrected facts still get the old answer."""
    before, after = ([text_features.contains_words(by_item[item]["answer"], by_item[item]["old_answer"]) for item in items]
                     for by_item in (base, tuned))  # fmt: skip
    n = len(items)
    rate = compare_with_limit(sum(after), n, limit=LEAK_LIMIT, alpha=inputs.settings.alpha)
    return CheckResult(
        guard="knowledge", check="old answers", title="Gives up the old facts", passed=rate.passed, word=rate.word,
        margin=100 * LEAK_LIMIT, unit="percent", base=100 * sum(before) / n, fine_tuned=100 * sum(after) / n,
        difference=100 * (sum(after) - sum(before)) / n, interval=[100 * end for end in rate.interval], n=n,
        counts={"old answers before": sum(before), "old answers after": sum(after)},
        sentence=f"Old answers: {sum(after)} of {n} corrected facts still get the old answer, {sum(before)} before; "
        f"the limit is {100 * LEAK_LIMIT:g} %: {rate.word}.",
        examples=_shown([item for item, leaks in zip(items, after, strict=True) if leaks], base, tuned),
    )  # fmt: skip


def _untouched(inputs: GuardInputs, items: Sequence[str], base: RecordsByItem, tuned: RecordsByItem) -> CheckResult:
    """Neighbouring facts must be known as well as before."""
    before, after = ([float(_knows(by_item[item])) for item in items] for by_item in (base, tuned))
    found = compare(
        before, after, margin=NEIGHBOUR_MARGIN, higher_is_better=True, alpha=inputs.settings.alpha, seed=inputs.seed
    )
    lost = [item for item, was, now in zip(items, before, after, strict=True) if was > now]
    return CheckResult(
        guard="knowledge", check="neighbours", title="Keeps neighbouring facts", passed=found.passed, word=found.word,
        margin=100 * NEIGHBOUR_MARGIN, unit="points", base=100 * found.base, fine_tuned=100 * found.tuned,
        difference=100 * found.difference, interval=[100 * end for end in found.interval], n=found.n,
        counts={"known before": round(sum(before)), "known after": round(sum(after)), "lost": len(lost)},
        sentence=f"Neighbouring facts: {sum(after):.0f} of {found.n} known, {sum(before):.0f} before, "
        f"{describe(found, 'points', 100 * NEIGHBOUR_MARGIN, scale=100)}.",
        examples=_shown(lost, base, tuned),
    )  # fmt: skip


def _knows(record: AnswerRecord) -> bool:
    return text_features.contains_words(record["answer"], record["reference"])


def _shown(items: Sequence[str], base: RecordsByItem, tuned: RecordsByItem) -> list[dict[str, str]]:
    return [
        {"question": base[item]["question"], "base": base[item]["answer"], "fine_tuned": tuned[item]["answer"]}
        for item in items
    ]
