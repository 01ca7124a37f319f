"""What fine-tuning may have spoilt: guards that look away from the score, each with a margin and a place in the verdict.

A guard puts its material to the base model before training, which changes the weights in place, and to the tuned model
after it; then it compares. It reads answers and never a model, so that an assessment can be made again from the files.

    case.py      what a guard works with: a case, tasks          forgetting.py     general text, common knowledge
    notes.py     tasks → model → guard-answers.jsonl             hallucination.py  out of scope, over-refusal, inventions
    finding.py   numbers → passed or failed, in words            consistency.py    other wordings, other draws
    sides.py     the test answers, before beside after           form.py           cut answers, loops, lengths
                                                                 knowledge.py      the user's facts, old and new
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from luthier.errors import choose
from luthier.evaluate.guards import consistency, forgetting, format, hallucination, knowledge
from luthier.evaluate.guards.case import BASE, TUNED, Case, Fact, Guard, Line, Own, Question, read_own
from luthier.evaluate.guards.finding import Finding
from luthier.evaluate.guards.pairs import base_arm
from luthier.evaluate.guards.results import Notes, answered, as_asked, unanswered
from luthier.evaluate.text_features import refusal_pattern
from luthier.model.generate import NO_ROOM
from luthier.model.loading import LanguageModel
from luthier.model.replies import THINKING
from luthier.recipe import Evaluate

__all__ = [
    "BASE",
    "GUARDS",
    "TUNED",
    "Case",
    "Fact",
    "Finding",
    "Guard",
    "Own",
    "Question",
    "as_asked",
    "ask",
    "base_arm",
    "beside",
    "check",
    "chosen",
    "findings",
    "left_out",
    "summary",
]

GUARDS: dict[str, Guard] = {
    "forgetting": Guard("What it knew before", forgetting.applies, forgetting.material, forgetting.assess),
    "hallucination": Guard("What it makes up", hallucination.applies, hallucination.material, hallucination.assess),
    "consistency": Guard("Whether it stays the same", consistency.applies, consistency.material, consistency.assess),
    "format": Guard("How it writes", format.applies, format.material, format.assess),
    "knowledge": Guard("What it learnt", knowledge.applies, knowledge.material, knowledge.assess),
}
"""Guards by the word in `evaluate.guards`."""


def check(settings: Evaluate) -> Own:
    """The user's own material; raises a UserError for an unknown guard, a bad pattern or a file that cannot be used."""
    for name in settings.guards or ():
        choose("guard", name, GUARDS, where="evaluate.guards")
    refusal_pattern(settings.refusal)
    return read_own(settings)


def chosen(case: Case) -> dict[str, Guard]:
    """The guards that the recipe names, or all, as far as they apply."""
    names = GUARDS if case.settings.guards is None else case.settings.guards
    table = {name: choose("guard", name, GUARDS, where="evaluate.guards") for name in names}
    return {name: guard for name, guard in table.items() if guard.applies(case)}


def ask(lm: LanguageModel, arm: str, case: Case, path: Path, progress: Callable[[int, int], None]) -> None:
    """Put the guards' material to the model; answers go to `path` as they come, and what is there is not asked again."""
    Notes(path).ask(lm, arm, {name: guard.material(case) for name, guard in chosen(case).items()}, case, progress)


def findings(case: Case, path: Path, answers: Sequence[Line]) -> list[Finding]:
    """What the guards find, from their notes and the test answers of both models; unanswered ones left out for both."""
    lines = Notes(path).lines()
    return [
        finding
        for name, guard in chosen(case).items()
        for finding in guard.assess(case, answered([line for line in lines if line["guard"] == name]), answers)
    ]


def left_out(path: Path) -> str | None:
    """Which of the guards' questions are left out, because a model had no answer to them, in a sentence."""
    by_guard: dict[str, list[Line]] = {}
    for line in Notes(path).lines():
        by_guard.setdefault(line["guard"], []).append(line)
    reasons = {
        NO_ROOM: "that do not fit into the model's context",
        THINKING: "over which it was still thinking when its tokens ran out",
    }
    told = []
    for finish, why in reasons.items():
        found = {guard: len(unanswered(lines, [finish])) for guard, lines in by_guard.items()}
        counts = [f"{count:,} of {guard}" for guard, count in found.items() if count]
        told += [f"questions of guards {why} are left out: {', '.join(counts)}."] if counts else []
    return " ".join(told) or None


def beside(verdict: dict[str, Any], found: Sequence[Finding]) -> dict[str, Any]:
    """The verdict with the findings beside it, and in its sentence those that fail."""
    failed = [one.sentence for one in found if one.passed is False]
    told = f"{len(failed)} checks failed" if len(failed) > 1 else "A check failed"
    sentence = " ".join([verdict["sentence"], *([f"{told}: {' '.join(failed)}"] if failed else [])])
    return verdict | {"sentence": sentence, "guards": summary(found)}


def summary(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings as the verdict carries them."""
    return [
        {"guard": one.guard, "check": one.check, "passed": one.passed, "word": one.word, "sentence": one.sentence}
        for one in found
    ]
