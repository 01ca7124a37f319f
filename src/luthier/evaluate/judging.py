"""A language model's opinion on the answers, beside the verdict and never in it."""

import json
from collections.abc import Callable

from luthier.errors import Interrupted
from luthier.evaluate import metrics, verdict
from luthier.evaluate.context import Context
from luthier.evaluate.judge import pairwise as judging
from luthier.evaluate.judge import sources
from luthier.model import reference
from luthier.recipe import Recipe
from luthier.runs import Run
from luthier.runs.durable import write_atomic


def ask_judge(current: Run, recipe: Recipe, stop: Callable[[], bool]) -> None:
    """Compare the tuned answers with the best prompt's, if the recipe names a judge."""
    if not recipe.evaluate.judge or recipe.evaluate.metric == metrics.BITS_PER_BYTE:
        return
    folder = current.folder / "evaluation"
    result = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    records = Context(current, recipe).answers_file("answers").records()
    pairs = judging.pairs(records, tuned=verdict.TUNED_ARM, prompt=result["best_prompt_arm"])
    judge = sources.resolve(recipe.evaluate.judge)

    def tell(done: int, of: int) -> None:
        current.record("judging", done=done, of=of)
        if stop():
            raise Interrupted(f"stopped while the judge compared answers; {done} of {of} pairs are kept.")

    rulings = judging.compare(judge, pairs, file=folder / "judgements.jsonl", progress=tell)
    opinion = judging.summary(rulings, judge=judge.name, confidence=1 - recipe.evaluate.alpha, seed=recipe.train.seed)
    own = {reference.absolute(str(place)) for place in (current.folder, current.folder / "model")}
    opinion["is_an_arm"] = recipe.evaluate.judge in {recipe.model, *own}
    write_atomic(folder / "judge.json", json.dumps(opinion, indent=2, ensure_ascii=False) + "\n")
    current.record("judge", sentence=opinion["sentence"], is_an_arm=opinion["is_an_arm"])
