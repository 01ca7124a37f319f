"""Format drift: do the tuned model's answers end by themselves, without repeating themselves?

They are held against a limit and the references, not against the base model, whose answers are usually far too long.
"""

from collections.abc import Sequence

from luthier.evaluate import text_features
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.guards.check_result import CheckResult, compare_with_limit
from luthier.evaluate.guards.inputs import GuardInputs, Task
from luthier.evaluate.guards.pairs import AnswerPair, answer_pairs, base_arm

LIMIT = 0.05  # share of answers that may be cut or caught in a loop


def applies(inputs: GuardInputs) -> bool:
    """Where answers are generated."""
    return not inputs.documents


def make_tasks(inputs: GuardInputs) -> Sequence[Task]:
    """No tasks: the test answers are enough."""
    return ()


def assess(inputs: GuardInputs, records: Sequence[AnswerRecord], answers: Sequence[AnswerRecord]) -> list[CheckResult]:
    """The share of answers that are cut or repeat themselves, and lengths in words beside those of the references."""
    pairs = answer_pairs(inputs, answers)
    if not pairs:
        return []
    ends = {(record["arm"], record["item"]): record["finish"] for record in answers}
    sides = {
        "before": [(pair, pair.base, ends[base_arm(answers), pair.item]) for pair in pairs],
        "after": [(pair, pair.tuned, ends["fine-tuned", pair.item]) for pair in pairs],
    }
    bad = {word: [_is_bad(*one) for one in side] for word, side in sides.items()}
    before, after = sum(bad["before"]), sum(bad["after"])
    n = len(pairs)
    rate = compare_with_limit(after, n, limit=LIMIT, alpha=inputs.settings.alpha)
    lengths = {"reference": [len(text_features.words(pair.reference)) for pair in pairs]}
    lengths |= {word: [len(text_features.words(text)) for _, text, _ in side] for word, side in sides.items()}
    cut, loops = (
        {word: sum(test(*one) for one in side) for word, side in sides.items()} for test in (_is_cut, _is_loop)
    )
    medians = {name: list(text_features.quantiles(values))[1] for name, values in lengths.items()}
    return [CheckResult(
        guard="format", check="format drift", title="Ends its answers", passed=rate.passed, word=rate.word,
        margin=100 * LIMIT, unit="percent", base=100 * before / n, fine_tuned=100 * after / n,
        difference=100 * (after - before) / n, interval=[100 * end for end in rate.interval], n=n,
        counts={
            "cut at the limit": cut, "caught in a loop": loops,
            "ended by themselves": {word: n - count for word, count in cut.items()},
            "words, 10th to 50th to 90th percentile": {
                name: list(text_features.quantiles(values)) for name, values in lengths.items()
            },
        },
        sentence=f"Format: {after} of {n} answers are cut at the token limit or repeat themselves, {before} before; "
        f"the limit is {100 * LIMIT:g} %: {rate.word}. Median length: {medians['after']:.0f} words, "
        f"{medians['before']:.0f} before, {medians['reference']:.0f} in the references.",
        examples=[pair.example() for pair, is_bad in zip(pairs, bad["after"], strict=True) if is_bad],
    )]  # fmt: skip


def _is_cut(pair: AnswerPair, answer: str, finish: str) -> bool:
    return finish == "length"


def _is_loop(pair: AnswerPair, answer: str, finish: str) -> bool:
    return text_features.is_looping(answer, pair.reference)


def _is_bad(pair: AnswerPair, answer: str, finish: str) -> bool:
    return _is_cut(pair, answer, finish) or _is_loop(pair, answer, finish)
