"""Format drift: do the tuned model's answers end by themselves, at a sensible length, without running in circles?

Judged against a limit and the references, not against the base model: that one's answers usually are far too long.
"""

from collections.abc import Sequence

from luthier.evaluate import text_features
from luthier.evaluate.guards.case import Case, Line, Task
from luthier.evaluate.guards.finding import Finding, limited
from luthier.evaluate.guards.pairs import Pair, base_arm, paired

LIMIT = 0.05  # share of answers that may be cut or caught in a loop


def applies(case: Case) -> bool:
    """Where answers are generated."""
    return not case.documents


def material(case: Case) -> Sequence[Task]:
    """Nothing is asked: the test answers say it all."""
    return ()


def assess(case: Case, notes: Sequence[Line], answers: Sequence[Line]) -> list[Finding]:
    """The share of answers that did not end by themselves or run in circles; lengths in words beside the references'."""
    pairs = paired(case, answers)
    if not pairs:
        return []
    ends = {(line["arm"], line["item"]): line["finish"] for line in answers}
    sides = {
        "before": [(pair, pair.base, ends[base_arm(answers), pair.item]) for pair in pairs],
        "after": [(pair, pair.tuned, ends["fine-tuned", pair.item]) for pair in pairs],
    }
    bad = {word: [_is_bad(*one) for one in side] for word, side in sides.items()}
    before, after = sum(bad["before"]), sum(bad["after"])
    n = len(pairs)
    rate = limited(after, n, limit=LIMIT, alpha=case.settings.alpha)
    lengths = {"reference": [len(text_features.words(pair.reference)) for pair in pairs]}
    lengths |= {word: [len(text_features.words(text)) for _, text, _ in side] for word, side in sides.items()}
    cut, loops = (
        {word: sum(test(*one) for one in side) for word, side in sides.items()} for test in (_is_cut, _is_loop)
    )
    medians = {name: list(text_features.quantiles(values))[1] for name, values in lengths.items()}
    return [Finding(
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
        sentence=f"Format: {after} of {n} answers are cut at the limit or run in circles ({before} before), "
        f"at most {100 * LIMIT:g} % may: {rate.word}. Half of the answers have at most {medians['after']:.0f} words; "
        f"of the references {medians['reference']:.0f}, before {medians['before']:.0f}.",
        examples=[pair.example() for pair, is_bad in zip(pairs, bad["after"], strict=True) if is_bad],
    )]  # fmt: skip


def _is_cut(pair: Pair, answer: str, finish: str) -> bool:
    return finish == "length"


def _is_loop(pair: Pair, answer: str, finish: str) -> bool:
    return text_features.is_looping(answer, pair.reference)


def _is_bad(pair: Pair, answer: str, finish: str) -> bool:
    return _is_cut(pair, answer, finish) or _is_loop(pair, answer, finish)
