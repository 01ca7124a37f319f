"""Does a model that learnt more text still chat? The same questions before and after: whether answers end, and their score."""

from collections.abc import Sequence
from pathlib import Path

from luthier.data.dataset import Item
from luthier.evaluate import metrics
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.answers.file import AnswersFile, OnProgress
from luthier.evaluate.guards import BASE, TUNED
from luthier.evaluate.guards.check_result import CheckResult, compare, describe
from luthier.model.loading import LanguageModel
from luthier.model.replies import TokenBudget

QUESTIONS = 100
END_MARGIN, SCORE_MARGIN = 0.05, 0.03


def ask(
    lm: LanguageModel,
    arm: str,
    items: Sequence[Item],
    path: Path,
    metric: str,
    answer_tokens: int,
    progress: OnProgress,
) -> None:
    """The model's answers to the first of these items, without any instruction; those that stand in the file are kept."""
    budget = TokenBudget.of(lm, answer_tokens)
    AnswersFile(path, metrics.scorers(metric)).ask(
        lm, items[:QUESTIONS], arm=arm, prompt=lambda item: item.conversation.prompt, budget=budget, progress=progress
    )


def check_results(path: Path, metric: str, *, alpha: float, seed: int) -> list[CheckResult]:
    """What the answers of both models say: the share that ends by itself, and the mean score."""
    records = AnswersFile(path, metrics.scorers(metric)).records()
    before, after = ({each["item"]: each for each in records if each["arm"] == arm} for arm in (BASE, TUNED))
    pairs = [(before[item], after[item]) for item in before if item in after]
    return [
        _compared(
            "ends", "Still ends its answers", [tuple(float(side["finish"] == "stop") for side in pair) for pair in pairs],
            pairs, END_MARGIN, "Answers that end by themselves", alpha=alpha, seed=seed,
        ),
        _compared(
            "answers", "Still answers as well", [tuple(float(side["score"]) for side in pair) for pair in pairs], pairs,
            SCORE_MARGIN, f"Answers to rows that were held out, {metrics.label(metric)}", alpha=alpha, seed=seed,
        ),
    ]  # fmt: skip


def _compared(
    check: str,
    title: str,
    values: Sequence[tuple[float, ...]],
    pairs: Sequence[tuple[AnswerRecord, AnswerRecord]],
    margin: float,
    what: str,
    *,
    alpha: float,
    seed: int,
) -> CheckResult:
    """One check of values before and after, higher is better, with the answers that became worse."""
    before, after = ([pair[side] for pair in values] for side in (0, 1))
    groups = [str(one["group"]) for one, _ in pairs]
    found = compare(before, after, margin=margin, higher_is_better=True, alpha=alpha, seed=seed, groups=groups)
    worse = [pair for pair, (was, now) in zip(pairs, values, strict=True) if now < was]
    return CheckResult(
        guard="chat", check=check, title=title, passed=found.passed, word=found.word, margin=100 * margin, unit="points",
        base=100 * found.base, fine_tuned=100 * found.tuned, difference=100 * found.difference,
        interval=[100 * end for end in found.interval], n=found.n,
        sentence=f"{what}, {found.n} questions: {100 * found.base:.1f} % before, {100 * found.tuned:.1f} % after, "
        f"{describe(found, 'points', 100 * margin, scale=100)}.",
        examples=[
            {"question": str(was["question"]), "base": str(was["answer"]), "fine_tuned": str(now["answer"])}
            for was, now in worse
        ],
    )  # fmt: skip
