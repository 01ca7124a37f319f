"""A run's analysis plan: what it fixes, when the test split was opened, and what was done otherwise."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from luthier.errors import CorruptedState, UserError
from luthier.evaluate import metrics, verdict
from luthier.evaluate.context import Context
from luthier.evaluate.prompt_selection import PromptSelection
from luthier.evaluate.prompts import arms
from luthier.evaluate.verdict import analysis_plan
from luthier.evaluate.verdict.analysis_plan import AnalysisPlan
from luthier.model import gguf_file
from luthier.runs import Run

DOCUMENT_ARMS = ("zero-shot", arms.TUNED)
"""Nothing is asked of documents, so there are no other arms."""


def freeze_plan(
    context: Context, names: Sequence[str], selection: PromptSelection, excluded: Mapping[str, str]
) -> AnalysisPlan:
    """The plan, frozen before any test question is asked; where there is one already, that one holds."""
    run = context.run
    if (known := frozen_plan(run)) is not None and "plan" in run.metadata["hashes"]:
        return known
    if context.answers_file("answers").records():
        raise UserError("test questions were answered before there was a plan; start a new run.", where=str(run.folder))
    kept = [name for name in names if name not in excluded]
    dev = context.answers_file("dev-answers").records()
    against, means = verdict.best_prompt_arm(dev) if dev else (DOCUMENT_ARMS[0], {})
    content = plan_content(context, kept, selection, excluded, against=against, n=len(context.items("test")))
    plan = analysis_plan.freeze(content, run.folder / "evaluation" / "plan.json")
    # The formula is one for right and wrong answers; documents are measured in bits per byte.
    groups = len({item.group for item in context.items("test")})
    effect = None if context.documents else analysis_plan.visible_effect(content["n"], content["alpha"], groups)
    run.record(
        "plan", sha256=plan.sha256, frozen=plan.frozen, arms=kept, against=against, dev_means=means, n=content["n"],
        groups=groups, visible_effect=effect,
    )  # fmt: skip
    run.update(hashes={**run.metadata["hashes"], "plan": plan.sha256})
    return plan


def frozen_plan(run: Run) -> AnalysisPlan | None:
    """The run's plan, or None; raises CorruptedState where its hash is not the one that run.json has."""
    path = run.folder / "evaluation" / "plan.json"
    plan, expected_sha256 = analysis_plan.read(path), run.metadata.get("hashes", {}).get("plan")
    if expected_sha256 is not None and (plan is None or plan.sha256 != expected_sha256):
        raise CorruptedState(
            "the plan is not the one that was frozen; restore the file, or start a new run.", where=str(path)
        )
    return plan


def required_plan(run: Run) -> AnalysisPlan:
    """The run's plan; a UserError where there is none, since a verdict without one proves nothing."""
    plan = frozen_plan(run)
    if plan is None:
        raise UserError(
            "this run has no plan, so its verdict would prove nothing; start a new run.", where=str(run.folder)
        )
    return plan


def open_test(run: Run, *, by: str) -> None:
    """Count an opening of the test split in the run's events. A run that is continued has opened it already."""
    opened = run.events("test-opened")
    if by == "run" and opened:
        return
    run.record("test-opened", by=by, number=len(opened) + 1)


def plan_summary(context: Context, plan: AnalysisPlan, actual: Mapping[str, Any]) -> dict[str, Any]:
    """What verdict.json says about the plan; `actual` is the content that a plan would have now."""
    return {
        "sha256": plan.sha256,
        "frozen": plan.frozen,
        "deviations": [deviation.to_json() for deviation in analysis_plan.deviations(plan.content, actual)],
        "test_opened": len(context.run.events("test-opened")),
        "answers_sha256": _sha256(context.run.folder / "evaluation" / "answers.jsonl"),
    }


def plan_content(
    context: Context,
    names: Sequence[str],
    selection: PromptSelection,
    excluded: Mapping[str, str],
    *,
    against: str,
    n: int,
) -> dict[str, Any]:
    """What a plan fixes, from the recipe and the files as they are now."""
    recipe, settings, hashes = context.recipe, context.recipe.evaluate, context.run.metadata["hashes"]
    metric = str(settings.metric)
    names_of_data = ("train.arrow", "dev.arrow", "test.arrow", "passages.jsonl")
    files = [context.run.folder / "data" / name for name in names_of_data]
    return {
        "luthier": version("luthier"),
        "data": {"rows": hashes["data"], "format": recipe.data.format}
        | {file.name: _sha256(file) for file in files if file.exists()},
        "model": {"name": recipe.model, "sha256": hashes["base_model"], "template": hashes["template"]},
        "train": recipe.train.model_dump(mode="json"),
        "metric": {"name": metric, "beside": list(metrics.SECONDARY.get(metric, ()))},
        "decoding": {
            "method": "greedy",
            "max_new_tokens": settings.max_new_tokens,
            "parser": "the text up to the first end token, without blanks around it",
        }
        | (
            {"thinking_tokens": settings.thinking_tokens, "thoughts": "cut before scoring; without an end, no answer"}
            if settings.thinking_tokens
            else {}
        ),
        "instruction": settings.instruction,
        "arms": {name: _arm_settings(context, name, selection) for name in names}
        | {name: f"left out: {reason}" for name, reason in excluded.items()},
        "primary": {
            "arm": arms.TUNED,
            "against": against,
            "rule": "the prompt on the base model with the highest mean score on dev; of equals the shorter one",
            "test": "paired by question, two-sided",
        },
        "secondary": arms.secondary(names, against=against),
        "alpha": settings.alpha,
        "margin": settings.margin,
        "n": n,
        "dev_budget": settings.dev_budget,
        "chosen": selection.to_json(),
    }


def _arm_settings(context: Context, name: str, selection: PromptSelection) -> dict[str, Any]:
    """What is particular to an arm."""
    settings = context.recipe.evaluate
    arm = arms.resolve(name, settings.endpoints)
    found: dict[str, Any] = {"who": arm.answered_by}
    if arm.answered_by == "endpoint":
        endpoint = settings.endpoints[name.removeprefix(arms.ENDPOINT)]
        found |= {"url": endpoint.url, "model": endpoint.model, "prompt": endpoint.prompt}
        if gguf_file.is_file(endpoint.url):
            found["sha256"] = _sha256(Path(endpoint.url).expanduser())
    if arm.build is arms.few_shot and selection.few_shot:
        found |= {"shots": selection.few_shot["shots"], "set": selection.few_shot["set"]}
    elif arm.build is arms.retrieved:
        found |= {"shots": settings.shots}
    elif arm.build is arms.rag:
        found |= {"passages": settings.passages}
    elif arm.build is arms.optimised and selection.optimised:
        found |= {"instruction": selection.optimised["instruction"]}
    return found


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
