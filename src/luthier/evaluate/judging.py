"""A language model as judge of the answers, beside the verdict and never in it."""

import json
from collections.abc import Callable

from luthier.errors import Interrupted
from luthier.evaluate import metrics
from luthier.evaluate.context import Context
from luthier.evaluate.judge import pairwise, sources
from luthier.evaluate.prompts import arms
from luthier.model import reference
from luthier.recipe import Recipe
from luthier.runs import Run
from luthier.runs.durable import write_atomic


def ask_judge(run: Run, recipe: Recipe, stop: Callable[[], bool]) -> None:
    """Compare the tuned answers with the best prompt's, if the recipe names a judge. Leaves judge.json."""
    if not recipe.evaluate.judge or recipe.evaluate.metric == metrics.BITS_PER_BYTE:
        return
    folder = run.folder / "evaluation"
    result = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    records = Context(run, recipe).answers_file("answers").records()
    pairs = pairwise.pairs(records, tuned=arms.TUNED, prompt=result["best_prompt_arm"])
    judge = sources.resolve(recipe.evaluate.judge)

    def record_progress(done: int, of: int) -> None:
        run.record("judging", done=done, of=of)
        if stop():
            raise Interrupted(f"stopped while the judge compared answers; {done} of {of} pairs are kept.")

    judgements = pairwise.compare(judge, pairs, file=folder / "judgements.jsonl", progress=record_progress)
    summary = pairwise.summary(
        judgements, judge=judge.name, confidence=1 - recipe.evaluate.alpha, seed=recipe.train.seed
    )
    tuned_paths = {reference.absolute(str(path)) for path in (run.folder, run.folder / "model")}
    summary["is_an_arm"] = recipe.evaluate.judge in {recipe.model, *tuned_paths}
    write_atomic(folder / "judge.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    run.record("judge", sentence=summary["sentence"], is_an_arm=summary["is_an_arm"])
