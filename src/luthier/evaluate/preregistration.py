"""A run's plan: what it fixes, when the test split was opened, and what was done otherwise."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from luthier.errors import CorruptedState, UserError
from luthier.evaluate import metrics, verdict
from luthier.evaluate.context import Context
from luthier.evaluate.prompt_selection import Chosen
from luthier.evaluate.prompts import arms
from luthier.evaluate.verdict import analysis_plan
from luthier.evaluate.verdict.analysis_plan import Plan
from luthier.runs import Run

DOCUMENT_ARMS = ("zero-shot", arms.TUNED)
"""Nothing is asked of documents, so there are no other arms."""


def freeze(context: Context, names: Sequence[str], chosen: Chosen, left_out: Mapping[str, str]) -> Plan:
    """The plan, frozen before any test question is asked; where there is one already, that one holds."""
    if (known := frozen(context.run)) is not None and "plan" in context.run.record_file["hashes"]:
        return known
    if context.answers_file("answers").records():
        told = "test questions were answered before there was a plan; start a new run."
        raise UserError(told, where=str(context.run.folder))
    kept = [name for name in names if name not in left_out]
    dev = context.answers_file("dev-answers").records()
    against, means = verdict.best_prompt_arm(dev) if dev else (DOCUMENT_ARMS[0], {})
    content = of(context, kept, chosen, left_out, against=against, n=len(context.items("test")))
    made = analysis_plan.freeze(content, context.run.folder / "evaluation" / "plan.json")
    effect = analysis_plan.visible_effect(content["n"], content["alpha"])
    context.run.record(
        "plan", sha256=made.sha256, frozen=made.frozen, arms=kept, against=against, dev_means=means, n=content["n"],
        visible_effect=effect,
    )  # fmt: skip
    context.run.update(hashes={**context.run.record_file["hashes"], "plan": made.sha256})
    return made


def frozen(current: Run) -> Plan | None:
    """The run's plan, if it is still the one whose hash was noted when it was frozen."""
    path = current.folder / "evaluation" / "plan.json"
    found, noted = analysis_plan.read(path), current.record_file.get("hashes", {}).get("plan")
    if noted is not None and (found is None or found.sha256 != noted):
        raise CorruptedState(
            "the plan is not the one that was frozen; restore the file, or start a new run.", where=str(path)
        )
    return found


def expected(current: Run) -> Plan:
    """The run's plan; a run without one proves nothing."""
    found = frozen(current)
    if found is None:
        told = "this run has no plan, so its verdict would prove nothing; start a new run."
        raise UserError(told, where=str(current.folder))
    return found


def open_test(current: Run, *, by: str) -> None:
    """Count an opening of the test split in the run's events. A run that is continued has opened it already."""
    opened = current.events("test-opened")
    if by == "run" and opened:
        return
    current.record("test-opened", by=by, number=len(opened) + 1)


def summary(context: Context, made: Plan, done: Mapping[str, Any]) -> dict[str, Any]:
    """What verdict.json says about the plan."""
    return {
        "sha256": made.sha256,
        "frozen": made.frozen,
        "deviations": [deviation.to_json() for deviation in analysis_plan.deviations(made.content, done)],
        "test_opened": len(context.run.events("test-opened")),
        "answers_sha256": _hash(context.run.folder / "evaluation" / "answers.jsonl"),
    }


def of(
    context: Context, names: Sequence[str], chosen: Chosen, left_out: Mapping[str, str], *, against: str, n: int
) -> dict[str, Any]:
    """What a plan fixes, from the recipe and the files as they are now."""
    settings, hashes = context.recipe.evaluate, context.run.record_file["hashes"]
    metric = str(settings.metric)
    files = [
        context.run.folder / "data" / name for name in ("train.arrow", "dev.arrow", "test.arrow", "passages.jsonl")
    ]
    return {
        "luthier": version("luthier"),
        "data": {"rows": hashes["data"], "format": context.recipe.data.format}
        | {file.name: _hash(file) for file in files if file.exists()},
        "model": {"name": context.recipe.model, "sha256": hashes["base_model"], "template": hashes["template"]},
        "train": context.recipe.train.model_dump(mode="json"),
        "metric": {"name": metric, "beside": list(metrics.ALSO.get(metric, ()))},
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
        "arms": {name: _settings(context, name, chosen) for name in names}
        | {name: f"left out: {why}" for name, why in left_out.items()},
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
        "chosen": chosen.to_json(),
    }


def _settings(context: Context, name: str, chosen: Chosen) -> dict[str, Any]:
    """What is particular to an arm."""
    settings = context.recipe.evaluate
    arm = arms.resolve(name, settings.endpoints)
    told: dict[str, Any] = {"who": arm.answered_by}
    if arm.answered_by == "endpoint":
        there = settings.endpoints[name.removeprefix(arms.ENDPOINT)]
        told |= {"url": there.url, "model": there.model, "prompt": there.prompt}
    if arm.build is arms.few_shot and chosen.few_shot:
        told |= {"shots": chosen.few_shot["shots"], "set": chosen.few_shot["set"]}
    elif arm.build is arms.retrieved:
        told |= {"shots": settings.shots}
    elif arm.build is arms.rag:
        told |= {"passages": settings.passages}
    elif arm.build is arms.optimised and chosen.optimised:
        told |= {"instruction": chosen.optimised["instruction"]}
    return told


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
