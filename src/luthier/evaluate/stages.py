"""The stages of the evaluation, in the order in which a run goes through them, and the verdict given again.

    before the plan      `ask_base`: the guards' questions; prompts selected on dev; the plan frozen
    test is opened       `ask_base`, `ask_tuned`: every arm's answers to the test questions
    the verdict          `give_verdict`: verdict.json, guards.json, errors.json
    later                `evaluate_again`: arms and settings that were added

Each asks only what has no answer yet, so an interrupted stage is called again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from luthier import recipe as recipes
from luthier.data.dataset import Item
from luthier.errors import UserError
from luthier.evaluate import deciding, guards, preregistration, shared_baselines, verdict
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.answers.endpoint import Unavailable
from luthier.evaluate.context import Context, endpoint_of, load_base, load_tuned, metric_settings
from luthier.evaluate.preregistration import DOCUMENT_ARMS
from luthier.evaluate.prompt_selection import PromptSelection, prompt_resources, select_prompts, uses
from luthier.evaluate.prompts import arms, optimization, passages
from luthier.evaluate.prompts.arms import Arm, PromptResources
from luthier.evaluate.regression_checks import add_guard_results, analyse_errors, ask_guards
from luthier.evaluate.verdict import contamination, unanswered
from luthier.model import replies
from luthier.model.loading import LanguageModel
from luthier.model.replies import Ask
from luthier.model.tuned import no_model_error
from luthier.recipe import Recipe
from luthier.runs import Run
from luthier.runs.durable import write_atomic

FIXED_SETTINGS = (
    "max_new_tokens", "thinking_tokens", "shots", "shots_tried", "dev_budget", "instruction", "passages", "reflection",
    "optimise_budget",
)  # fmt: skip
"""Settings of `evaluate` that stored answers were made with; the others may change when a verdict is given again."""


# Before a run: which arms there are, and whether they can answer.


def arms_of(recipe: Recipe) -> dict[str, Arm]:
    """The recipe's arms by name."""
    return arms.resolve_all(recipe.evaluate.arms, recipe.evaluate.endpoints)


def check_arms(recipe: Recipe, wanted: Mapping[str, Arm]) -> None:
    """Raises a UserError where these arms lack something to answer with: a key, a package, documents."""
    settings = recipe.evaluate
    endpoints = [name for name, arm in wanted.items() if arm.answered_by == "endpoint"]
    if uses(wanted, arms.optimised):
        optimization.require_gepa()
        if settings.reflection.startswith(arms.ENDPOINT):
            arms.resolve(settings.reflection, settings.endpoints)
            endpoints.append(settings.reflection)
        elif settings.reflection != "base":
            raise UserError(
                f'found "{settings.reflection}", expected "base" or "endpoint:NAME".', where="evaluate.reflection"
            )
    for name in endpoints:
        endpoint_of(recipe, name)
    if uses(wanted, arms.rag) and settings.documents is None:
        raise UserError('the arm "rag" looks answers up; name a file or folder of text.', where=passages.KEY)


def copy_documents(run: Run, recipe: Recipe) -> None:
    """The run's own copy of the documents, as passages."""
    if recipe.evaluate.documents is not None:
        found, unread = passages.read(recipe.evaluate.documents)
        passages.save(found, run.folder / "data" / "passages.jsonl")
        for name, reason in unread.items():
            run.record("warning", message=f"{name} is not looked up in: {reason}.")


# The stages.


def ask_base(run: Run, recipe: Recipe, stop: Callable[[], bool], ask_model: Ask = replies.ask) -> LanguageModel:
    """The base model's answers: on dev, to select prompts; and when the plan is frozen, on test. Returns the base model."""
    context = Context(run, recipe, stop, ask_model)
    base = load_base(context)
    _record_model(run, recipe, base)
    ask_guards(context, base, guards.BASE)
    if context.documents:
        preregistration.freeze_plan(context, DOCUMENT_ARMS, PromptSelection(), {})
        preregistration.open_test(run, by="run")
        context.score_documents(base, DOCUMENT_ARMS[0])
        return base

    # Prompts are selected on dev, and what was found is frozen with the plan.
    wanted = arms_of(recipe)
    check_arms(recipe, _unanswered_arms(context, wanted))
    plan = preregistration.frozen_plan(run)
    recorded = "plan" in run.metadata["hashes"]  # an interruption may come between freezing a plan and recording it
    if plan is None or not recorded:
        shared = shared_baselines.shared_selection(context)
        found = select_prompts(context, wanted, base) if shared is None else (PromptSelection(**shared), {})
        plan = preregistration.freeze_plan(context, list(wanted), *found)

    # Test is opened, and all arms answer but those of the tuned model.
    preregistration.open_test(run, by="run")
    shared_baselines.take_over_answers(context)
    selection = PromptSelection(**plan.content["chosen"])
    if missing := _unanswered_arms(context, _arms_before_training(wanted, selection)):
        _answer_test(context, missing, prompt_resources(context, base, selection), base)
    if missing or not (run.folder / "evaluation" / "errors.json").exists():
        analyse_errors(context)
    return base


def ask_tuned(run: Run, recipe: Recipe, stop: Callable[[], bool], ask_model: Ask = replies.ask) -> None:
    """The tuned model's answers on test."""
    context = Context(run, recipe, stop, ask_model)
    run.expect_whole("model")
    tuned = load_tuned(run)
    ask_guards(context, tuned, guards.TUNED)
    if context.documents:
        context.score_documents(tuned, arms.TUNED)
        return
    selection = PromptSelection(**preregistration.required_plan(run).content["chosen"])
    resources = prompt_resources(context, tuned, selection)
    _answer_test(context, _arms_of_tuned(arms_of(recipe)), resources, tuned)
    deciding.decide(context, tuned)


def give_verdict(run: Run, recipe: Recipe) -> dict[str, Any]:
    """The verdict from the answers on disk, with what was done otherwise than planned. Leaves verdict.json."""
    context = Context(run, recipe)
    plan = preregistration.required_plan(run)
    test, seed = context.items("test"), recipe.train.seed
    names, excluded = _compared_arms(context)
    answers, dev_answers = _compared_answers(context, names, plan.content)
    result = verdict.assemble(
        answers,
        dev_answers,
        metric=str(recipe.evaluate.metric),
        metric_reason=_recorded_reason(run, "evaluate.metric"),
        alpha=recipe.evaluate.alpha,
        margin=recipe.evaluate.margin,
        settings=metric_settings(recipe),
        seed=seed,
    )
    result = unanswered.adjust_verdict(result, answers, seed=seed)
    result = add_guard_results(context, result, answers)
    analyse_errors(context)
    result = contamination.adjust_verdict(result, answers, contamination.read(run), seed=seed)
    actual = preregistration.plan_content(
        context,
        names,
        PromptSelection(**plan.content["chosen"]),
        excluded,
        against=result["best_prompt_arm"],
        n=result["n"],
    )
    result["excluded"] = [{"arm": name, "why": reason} for name, reason in excluded.items()]
    result["notes"] = _notes(test)
    result["plan"] = preregistration.plan_summary(context, plan, actual)
    write_atomic(run.folder / "evaluation" / "verdict.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    run.record("verdict", **{key: value for key, value in result.items() if key != "arms"})
    return result


# The verdict given again.


def changed_recipe(run: Run, overrides: Sequence[str], settings: Mapping[str, object]) -> Recipe:
    """The run's recipe with other settings for the verdict; refuses those that the answers depend on."""
    file = run.folder / "recipe.toml"
    if not (run.folder / "model").is_dir() or not file.exists():
        raise no_model_error(run)
    preregistration.required_plan(run)
    before, after = recipes.load(file), recipes.replace(recipes.load(file, overrides), settings)
    for key in recipes.differences(before, after):
        section, _, name = key.rpartition(".")
        if section != "evaluate" or name in FIXED_SETTINGS:
            raise UserError(
                "cannot change once the questions are answered: it would be another experiment. Start a new run with it.",
                where=key,
            )
    return after


def evaluate_again(run: Run, recipe: Recipe, stop: Callable[[], bool]) -> dict[str, Any]:
    """Open the test split once more: ask what is missing, such as an arm that was added, and give the verdict."""
    context = Context(run, recipe, stop)
    plan = preregistration.required_plan(run)
    missing = {} if context.documents else _unanswered_arms(context, arms_of(recipe))
    check_arms(recipe, missing)
    preregistration.open_test(run, by="evaluate")
    if uses(missing, arms.rag) and not (run.folder / "data" / "passages.jsonl").exists():
        copy_documents(run, recipe)
    selection = PromptSelection(**plan.content["chosen"])
    if selection.lacks(missing) or any(arm.answered_by != "tuned" for arm in missing.values()):
        base = load_base(context)
        if selection.lacks(missing):
            late, _ = select_prompts(context, missing, base)
            selection = PromptSelection(selection.few_shot or late.few_shot, selection.optimised or late.optimised)
        resources = prompt_resources(context, base, selection)
        _answer_test(context, _arms_before_training(missing, selection), resources, base)
        del base, resources
    if of_tuned := _arms_of_tuned(missing):
        tuned = load_tuned(run)
        _answer_test(context, of_tuned, prompt_resources(context, tuned, selection), tuned)
    return give_verdict(run, recipe)


# What the stages are made of.


def _record_model(run: Run, recipe: Recipe, base: LanguageModel) -> None:
    """The event that says which model is asked and will be trained, and how; its notes are warnings."""
    trainable = "all" if recipe.train.method == "full" else f"adapters of rank {recipe.train.lora_rank}"
    run.record(
        "model", name=recipe.model, parameters=base.model.num_parameters(), trainable=trainable,
        method=recipe.train.method, precision=recipe.train.precision, device=str(base.device), template=base.template.name,
    )  # fmt: skip
    for note in base.notes:
        run.record("warning", message=note)


def _arms_before_training(wanted: Mapping[str, Arm], selection: PromptSelection) -> dict[str, Arm]:
    """Those that can answer without the tuned model, as far as their prompts were selected."""
    return {
        name: arm for name, arm in wanted.items() if arm.answered_by != "tuned" and not selection.lacks({name: arm})
    }


def _arms_of_tuned(wanted: Mapping[str, Arm]) -> dict[str, Arm]:
    return {name: arm for name, arm in wanted.items() if arm.answered_by == "tuned"}


def _unanswered_arms(context: Context, wanted: Mapping[str, Arm]) -> dict[str, Arm]:
    """The arms that have not answered all test questions."""
    answers_file, test = context.answers_file("answers"), context.items("test")
    return {name: arm for name, arm in wanted.items() if not answers_file.has_answered(name, test)}


def _answer_test(context: Context, wanted: Mapping[str, Arm], resources: PromptResources, lm: LanguageModel) -> None:
    """The test answers of these arms; an endpoint that gives none is excluded, and that is recorded."""
    items, answers_file = context.items("test"), context.answers_file("answers")
    for name, arm in wanted.items():
        prompt = arm.build(resources)
        if arm.answered_by != "endpoint":
            context.ask(lm, items, name, prompt, split="test", file="answers")
            continue
        try:
            records = answers_file.ask_endpoint(
                endpoint_of(context.recipe, name),
                items,
                arm=name,
                prompt=prompt,
                budget=context.token_budget,
                progress=context.progress(name, "test"),
            )
            context.warn_of_unanswered(records, name, "test", lm)
        except Unavailable as error:
            context.exclude_arm(name, str(error))


def _compared_arms(context: Context) -> tuple[list[str], dict[str, str]]:
    """The arms that a verdict compares, and those that could not answer, with the reason."""
    names = DOCUMENT_ARMS if context.documents else tuple(arms_of(context.recipe))
    answers_file, test = context.answers_file("answers"), context.items("test")
    excluded = {
        name: reason
        for name, reason in context.excluded_arms().items()
        if name in names and not answers_file.has_answered(name, test)
    }
    return [name for name in names if name not in excluded], excluded


def _compared_answers(
    context: Context, names: Sequence[str], plan: Mapping[str, Any]
) -> tuple[list[AnswerRecord], list[AnswerRecord]]:
    """The arms' test answers, and the dev answers of those in the plan; scored anew where the metric is not the plan's."""
    answers_file = context.answers_file("answers")
    answers = [record for record in answers_file.records() if record["arm"] in names]
    in_plan = [name for name in names if name in plan["arms"]]
    dev_answers = [record for record in context.answers_file("dev-answers").records() if record["arm"] in in_plan]
    if context.recipe.evaluate.metric != plan["metric"]["name"]:
        return answers_file.rescored(answers), answers_file.rescored(dev_answers)
    return answers, dev_answers


def _notes(test: Sequence[Item]) -> list[str]:
    """What a reader should know about the test questions themselves."""
    answers = {item.conversation.answer.strip() for item in test}
    if len(answers) > 1 or len(test) < 2:
        return []
    (answer,) = answers
    shown = answer if len(answer) <= 40 else answer[:37] + "…"
    return [f'Every test question has the same answer ("{shown}"): a model that always says so is never wrong.']


def _recorded_reason(run: Run, key: str) -> str:
    """Why a setting has its value, as recorded when the recipe was computed."""
    reasons = [event["settings"].get(key, [None, "as asked"])[1] for event in run.events("recipe")]
    return str(reasons[0]) if reasons else ""
