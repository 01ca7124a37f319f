"""How sure a tuned model is: of a task with labels, the probability of each allowed answer, calibrated on dev."""

import json
from collections.abc import Sequence

from luthier.data.dataset import Item
from luthier.errors import UserError
from luthier.evaluate import decisions
from luthier.evaluate.context import Context
from luthier.evaluate.decisions import candidates
from luthier.evaluate.metrics.labels import label_of
from luthier.evaluate.prompts.arms import TUNED
from luthier.model.loading import LanguageModel
from luthier.runs.durable import write_atomic

METRIC = "accuracy"
"""The metric of labels."""
MOST_DEV = 500
"""Dev questions that a temperature is fitted on; more would hardly move it."""


def decide(context: Context, tuned: LanguageModel) -> None:
    """Leave evaluation/decisions.json where answers are labels: allowed answers, temperature, and what both are worth."""
    path = context.run.folder / "evaluation" / "decisions.json"
    if path.exists() or context.recipe.evaluate.metric != METRIC or tuned.template.thinks:
        return
    train, test = context.items("train"), context.items("test")
    answers = decisions.allowed_answers(item.conversation.answer for item in train)
    dev = sorted(context.items("dev"), key=lambda item: item.id)[:MOST_DEV]
    if not answers or any(item.conversation.tools for item in [*dev, *test]):
        return
    try:
        scores = {
            split: candidates.log_likelihoods(
                tuned, [item.conversation.prompt for item in items], answers, progress=context.progress(TUNED, split)
            )
            for split, items in (("dev decisions", dev), ("test decisions", test))
        }
    except UserError as error:  # a question that leaves no room for an answer
        context.run.record("warning", message=f"No probabilities of labels: {error.message}")
        return
    found = decisions.calibrate(
        scores["dev decisions"],
        _right(dev, answers),
        scores["test decisions"],
        _right(test, answers),
        [item.group for item in test],
        seed=context.recipe.train.seed,
    )
    content = {"answers": list(answers), **found.to_json()}
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _right(items: Sequence[Item], answers: Sequence[str]) -> list[int]:
    """The number of each item's right answer, -1 where train has no such label."""
    numbers = {label_of(answer): number for number, answer in enumerate(answers)}
    return [numbers.get(label_of(item.conversation.answer), -1) for item in items]
