"""Knowledge: are the facts that the user names known now, are the old ones gone, and is what lies beside them untouched?

The questions are the user's, in wordings that the training data does not have; a fact is known when the answer contains
its words in a row.
"""

from collections.abc import Sequence

from luthier.evaluate import text_features
from luthier.evaluate.guards.case import BASE, TUNED, Case, Line, Question, Task, of_arm
from luthier.evaluate.guards.finding import Finding, compare, limited, told

LEAK_LIMIT = 0.05
NEIGHBOUR_MARGIN = 0.05


def applies(case: Case) -> bool:
    """Where the user has given facts."""
    return case.settings.facts is not None


def material(case: Case) -> Sequence[Task]:
    """Each fact's question, once."""
    return [
        Question(
            f"fact-{number:04}",
            case.question(fact.question),
            note={"reference": fact.answer, "old_answer": fact.old_answer, "neighbour": fact.neighbour},
        )
        for number, fact in enumerate(case.own.facts)
    ]


def assess(case: Case, notes: Sequence[Line], answers: Sequence[Line]) -> list[Finding]:
    """Facts known, old answers that still come, neighbours that stay: as far as the file has rows of the kind."""
    base, tuned = (of_arm(notes, arm) for arm in (BASE, TUNED))
    facts = [item for item, line in base.items() if not line["neighbour"]]
    corrected = [item for item in facts if base[item]["old_answer"]]
    neighbours = [item for item, line in base.items() if line["neighbour"]]
    findings = [_known(case, facts, base, tuned)] if facts else []
    findings += [_leaks(case, corrected, base, tuned)] if corrected else []
    return findings + ([_untouched(case, neighbours, base, tuned)] if neighbours else [])


Lines = dict[str, Line]


def _known(case: Case, items: Sequence[str], base: Lines, tuned: Lines) -> Finding:
    """Passes when more is known than before: nothing else was wanted."""
    before, after = ([float(_knows(by_item[item])) for item in items] for by_item in (base, tuned))
    found = compare(before, after, margin=0.0, higher_is_better=True, alpha=case.settings.alpha, seed=case.seed)
    passed = {"BETTER": True, "WORSE": False}.get(found.word)
    return Finding(
        guard="knowledge", check="facts", title="Knows the new facts", passed=passed, word=found.word, margin=0.0,
        unit="points", base=100 * found.base, fine_tuned=100 * found.tuned, difference=100 * found.difference,
        interval=[100 * end for end in found.interval], n=found.n,
        counts={"known before": round(sum(before)), "known after": round(sum(after))},
        sentence=f"Facts: {sum(after):.0f} of {found.n} known in wordings that were not trained, {sum(before):.0f} before, "
        f"{told(found, 'points', 0, scale=100)}.",
        examples=_shown([item for item, knows in zip(items, after, strict=True) if not knows], base, tuned),
    )  # fmt: skip


def _leaks(case: Case, items: Sequence[str], base: Lines, tuned: Lines) -> Finding:
    """Of the corrected facts, how often the old answer still comes."""
    before, after = ([text_features.says(by_item[item]["answer"], by_item[item]["old_answer"]) for item in items]
                     for by_item in (base, tuned))  # fmt: skip
    n = len(items)
    rate = limited(sum(after), n, limit=LEAK_LIMIT, alpha=case.settings.alpha)
    return Finding(
        guard="knowledge", check="old answers", title="Has dropped the old facts", passed=rate.passed, word=rate.word,
        margin=100 * LEAK_LIMIT, unit="percent", base=100 * sum(before) / n, fine_tuned=100 * sum(after) / n,
        difference=100 * (sum(after) - sum(before)) / n, interval=[100 * end for end in rate.interval], n=n,
        counts={"old answers before": sum(before), "old answers after": sum(after)},
        sentence=f"Old answers: {sum(after)} of {n} corrected facts are still answered the old way, {sum(before)} before, "
        f"at most {100 * LEAK_LIMIT:g} % may: {rate.word}.",
        examples=_shown([item for item, leaks in zip(items, after, strict=True) if leaks], base, tuned),
    )  # fmt: skip


def _untouched(case: Case, items: Sequence[str], base: Lines, tuned: Lines) -> Finding:
    """Facts beside the taught ones must be known as before."""
    before, after = ([float(_knows(by_item[item])) for item in items] for by_item in (base, tuned))
    found = compare(
        before, after, margin=NEIGHBOUR_MARGIN, higher_is_better=True, alpha=case.settings.alpha, seed=case.seed
    )
    lost = [item for item, was, now in zip(items, before, after, strict=True) if was > now]
    return Finding(
        guard="knowledge", check="neighbours", title="Leaves the rest alone", passed=found.passed, word=found.word,
        margin=100 * NEIGHBOUR_MARGIN, unit="points", base=100 * found.base, fine_tuned=100 * found.tuned,
        difference=100 * found.difference, interval=[100 * end for end in found.interval], n=found.n,
        counts={"known before": round(sum(before)), "known after": round(sum(after)), "lost": len(lost)},
        sentence=f"Neighbouring facts: {sum(after):.0f} of {found.n} known, {sum(before):.0f} before, "
        f"{told(found, 'points', 100 * NEIGHBOUR_MARGIN, scale=100)}.",
        examples=_shown(lost, base, tuned),
    )  # fmt: skip


def _knows(line: Line) -> bool:
    return text_features.says(line["answer"], line["reference"])


def _shown(items: Sequence[str], base: Lines, tuned: Lines) -> list[dict[str, str]]:
    return [
        {"question": base[item]["question"], "base": base[item]["answer"], "fine_tuned": tuned[item]["answer"]}
        for item in items
    ]
