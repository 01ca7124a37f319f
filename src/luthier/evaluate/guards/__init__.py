"""Guards: checks for harm that the score does not show, such as forgotten knowledge or answers that never end.

A guard makes tasks, which the base model does before training (training changes its weights in place) and the tuned model
after it. The guard then compares their answers. It reads answers and never a model, so it can judge again from the files.

    inputs.py        what a guard reads: the run, the user's own material; its tasks
    answers_file.py  tasks → model → guard-answers.jsonl
    check_result.py  two lists of numbers → passed or failed, in a sentence
    pairs.py         the test answers of both models, side by side
    forgetting.py, hallucination.py, consistency.py, format.py, knowledge.py: the guards

To add a guard, write a file with `applies`, `make_tasks` and `assess` (see `Guard`), and give it a line in `GUARDS`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from luthier.data.refusals import refusal_pattern
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.guards import consistency, forgetting, format, hallucination, knowledge
from luthier.evaluate.guards.answers_file import GuardAnswersFile, answered, messages_for, unanswered
from luthier.evaluate.guards.check_result import CheckResult
from luthier.evaluate.guards.inputs import (
    BASE,
    TUNED,
    Fact,
    Guard,
    GuardInputs,
    Question,
    UserMaterial,
    read_user_material,
)
from luthier.evaluate.guards.pairs import base_arm
from luthier.extensions import look_up
from luthier.model import replies
from luthier.model.generate import NO_ROOM
from luthier.model.loading import LanguageModel
from luthier.model.replies import THINKING, Ask
from luthier.recipe import Evaluate

__all__ = [
    "BASE",
    "GUARDS",
    "TUNED",
    "CheckResult",
    "Fact",
    "Guard",
    "GuardInputs",
    "Question",
    "UserMaterial",
    "active_guards",
    "add_to_verdict",
    "ask",
    "base_arm",
    "check_results",
    "check_settings",
    "left_out_sentence",
    "messages_for",
    "summary",
]

GUARDS: dict[str, Guard] = {
    "forgetting": Guard(forgetting.applies, forgetting.make_tasks, forgetting.assess),
    "hallucination": Guard(hallucination.applies, hallucination.make_tasks, hallucination.assess),
    "consistency": Guard(consistency.applies, consistency.make_tasks, consistency.assess),
    "format": Guard(format.applies, format.make_tasks, format.assess),
    "knowledge": Guard(knowledge.applies, knowledge.make_tasks, knowledge.assess),
}
"""Guards by their names in `evaluate.guards`."""


def check_settings(settings: Evaluate) -> UserMaterial:
    """The user's own material; raises a UserError for an unknown guard, a bad pattern or a file that cannot be used."""
    for name in settings.guards or ():
        look_up("guard", name, GUARDS, where="evaluate.guards")
    refusal_pattern(settings.errors.get("refusal"))
    return read_user_material(settings)


def active_guards(inputs: GuardInputs) -> dict[str, Guard]:
    """The guards that the recipe names (all, where it names none), as far as they apply to this data."""
    names = GUARDS if inputs.settings.guards is None else inputs.settings.guards
    table = {name: look_up("guard", name, GUARDS, where="evaluate.guards") for name in names}
    return {name: guard for name, guard in table.items() if guard.applies(inputs)}


def ask(
    lm: LanguageModel,
    arm: str,
    inputs: GuardInputs,
    path: Path,
    progress: Callable[[int, int], None],
    ask_model: Ask = replies.ask,
) -> None:
    """Have the model do the guards' tasks. Answers are appended to `path` batch by batch; tasks answered there are skipped."""
    tasks = {name: guard.make_tasks(inputs) for name, guard in active_guards(inputs).items()}
    GuardAnswersFile(path, ask_model).ask(lm, arm, tasks, inputs, progress)


def check_results(inputs: GuardInputs, path: Path, answers: Sequence[AnswerRecord]) -> list[CheckResult]:
    """What the guards find in their own answers (the file at `path`) and in both models' test answers.

    A task that either model has not answered is left out for both.
    """
    records = GuardAnswersFile(path).records()
    return [
        result
        for name, guard in active_guards(inputs).items()
        for result in guard.assess(inputs, answered([each for each in records if each["guard"] == name]), answers)
    ]


def left_out_sentence(path: Path) -> str | None:
    """How many of the guards' questions are left out because a model did not answer them, and why; None for none."""
    by_guard: dict[str, list[AnswerRecord]] = {}
    for record in GuardAnswersFile(path).records():
        by_guard.setdefault(record["guard"], []).append(record)
    reasons = {
        NO_ROOM: "they do not fit into the model's context",
        THINKING: "the model was still thinking when its tokens ran out",
    }
    sentences = []
    for finish, why in reasons.items():
        found = {guard: len(unanswered(records, [finish])) for guard, records in by_guard.items()}
        counts = [f"{count:,} of {guard}" for guard, count in found.items() if count]
        if counts:
            sentences.append(f"Guard questions left out because {why}: {', '.join(counts)}.")
    return " ".join(sentences) or None


def add_to_verdict(verdict: dict[str, Any], results: Sequence[CheckResult]) -> dict[str, Any]:
    """The verdict with all checks listed under "guards"; its sentence names those that failed."""
    failed = [result.sentence for result in results if result.passed is False]
    heading = f"{len(failed)} checks failed" if len(failed) > 1 else "A check failed"
    sentence = " ".join([verdict["sentence"], *([f"{heading}: {' '.join(failed)}"] if failed else [])])
    return verdict | {"sentence": sentence, "guards": summary(results)}


def summary(results: Sequence[CheckResult]) -> list[dict[str, Any]]:
    """The results as the verdict carries them."""
    return [
        {"guard": one.guard, "check": one.check, "passed": one.passed, "word": one.word, "sentence": one.sentence}
        for one in results
    ]
