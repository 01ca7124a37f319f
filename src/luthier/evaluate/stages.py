"""The stages of the proof, in the order in which a run goes through them, and the verdict given again."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from luthier import recipe as recipes
from luthier.data.dataset import Item
from luthier.errors import UserError
from luthier.evaluate import guards, preregistration, shared_baselines, verdict
from luthier.evaluate.answers.endpoint import Unavailable
from luthier.evaluate.context import Context, endpoint_of, load_base, load_tuned, metric_settings
from luthier.evaluate.preregistration import DOCUMENT_ARMS
from luthier.evaluate.prompt_selection import Chosen, choose, prompt_resources, uses
from luthier.evaluate.prompts import arms, optimization, passages
from luthier.evaluate.prompts.arms import Arm, PromptResources
from luthier.evaluate.regression_checks import analyse_errors, ask_guards, watch
from luthier.evaluate.verdict import contamination, unanswered
from luthier.model.loading import LanguageModel
from luthier.model.tuned import no_model
from luthier.recipe import Recipe
from luthier.runs import Run
from luthier.runs.durable import write_atomic

FIXED = (
    "max_new_tokens", "thinking_tokens", "shots", "shots_tried", "dev_budget", "instruction", "passages", "reflection",
    "optimise_budget",
)  # fmt: skip
"""Settings of `evaluate` that stored answers were made with; the others may change when a verdict is given again."""


def arms_of(recipe: Recipe) -> dict[str, Arm]:
    """The recipe's arms by name."""
    return arms.resolve_all(recipe.evaluate.arms, recipe.evaluate.endpoints)


def check_arms(recipe: Recipe, wanted: Mapping[str, Arm]) -> None:
    """Raises a UserError where these arms lack something to answer with: a key, a package, documents."""
    settings = recipe.evaluate
    asked = [name for name, arm in wanted.items() if arm.answered_by == "endpoint"]
    if uses(wanted, arms.optimised):
        optimization.require_gepa()
        if settings.reflection.startswith(arms.ENDPOINT):
            arms.resolve(settings.reflection, settings.endpoints)
            asked.append(settings.reflection)
        elif settings.reflection != "base":
            told = f'found "{settings.reflection}", expected "base" or "endpoint:NAME".'
            raise UserError(told, where="evaluate.reflection")
    for name in asked:
        endpoint_of(recipe, name)
    if uses(wanted, arms.rag) and settings.documents is None:
        raise UserError('the arm "rag" looks answers up; name a file or folder of text.', where=passages.KEY)


def copy_documents(current: Run, recipe: Recipe) -> None:
    """The run's own copy of the documents, as passages."""
    if recipe.evaluate.documents is not None:
        passages.save(passages.read(recipe.evaluate.documents), current.folder / "data" / "passages.jsonl")


def ask_base(current: Run, recipe: Recipe, stop: Callable[[], bool]) -> LanguageModel:
    """The base model's answers: on dev, to choose prompts; and when the plan is frozen, on test. Returns the base model."""
    context = Context(current, recipe, stop)
    base = load_base(context)
    trainable = "all" if recipe.train.method == "full" else f"adapters of rank {recipe.train.lora_rank}"
    current.record(
        "model", name=recipe.model, parameters=base.model.num_parameters(), trainable=trainable,
        method=recipe.train.method, precision=recipe.train.precision, device=str(base.device), template=base.template.name,
    )  # fmt: skip
    for note in base.notes:
        current.record("warning", message=note)
    ask_guards(context, base, guards.BASE)
    if context.documents:
        preregistration.freeze(context, DOCUMENT_ARMS, Chosen(), {})
        preregistration.open_test(current, by="run")
        context.score_documents(base, DOCUMENT_ARMS[0])
        return base
    wanted = arms_of(recipe)
    check_arms(recipe, _missing(context, wanted))
    made = preregistration.frozen(current)
    noted = "plan" in current.record_file["hashes"]  # an interruption may come between freezing a plan and noting it
    if made is None or not noted:
        known = shared_baselines.shared_selection(context)
        found = choose(context, wanted, base) if known is None else (Chosen(**known), {})
        made = preregistration.freeze(context, list(wanted), *found)
    preregistration.open_test(current, by="run")
    shared_baselines.take_over_answers(context)
    chosen = Chosen(**made.content["chosen"])
    asked = {name: arm for name, arm in wanted.items() if arm.answered_by != "tuned" and not chosen.lacks({name: arm})}
    if asked := _missing(context, asked):
        _answer(context, asked, prompt_resources(context, base, chosen), base)
    if asked or not (current.folder / "evaluation" / "errors.json").exists():
        analyse_errors(context)
    return base


def ask_tuned(current: Run, recipe: Recipe, stop: Callable[[], bool]) -> None:
    """The tuned model's answers on test."""
    context = Context(current, recipe, stop)
    current.expect_whole("model")
    tuned = load_tuned(current)
    ask_guards(context, tuned, guards.TUNED)
    if context.documents:
        context.score_documents(tuned, arms.TUNED)
        return
    chosen = Chosen(**preregistration.expected(current).content["chosen"])
    asked = {name: arm for name, arm in arms_of(recipe).items() if arm.answered_by == "tuned"}
    _answer(context, asked, prompt_resources(context, tuned, chosen), tuned)


def changed_recipe(current: Run, overrides: Sequence[str], settings: Mapping[str, object]) -> Recipe:
    """The run's recipe with other settings for the judgement; refuses those that the answers depend on."""
    file = current.folder / "recipe.toml"
    if not (current.folder / "model").is_dir() or not file.exists():
        raise no_model(current)
    preregistration.expected(current)
    before, after = recipes.load(file), recipes.replace(recipes.load(file, overrides), settings)
    for key in recipes.differences(before, after):
        section, _, name = key.rpartition(".")
        if section != "evaluate" or name in FIXED:
            told = "cannot change once the questions are answered: it would be another experiment. Start a new run with it."
            raise UserError(told, where=key)
    return after


def evaluate_again(current: Run, recipe: Recipe, stop: Callable[[], bool]) -> dict[str, Any]:
    """Open the test split once more: ask what is missing, such as an arm that was added, and give the verdict."""
    context = Context(current, recipe, stop)
    made = preregistration.expected(current)
    missing = {} if context.documents else _missing(context, arms_of(recipe))
    check_arms(recipe, missing)
    preregistration.open_test(current, by="evaluate")
    if uses(missing, arms.rag) and not (current.folder / "data" / "passages.jsonl").exists():
        copy_documents(current, recipe)
    chosen = Chosen(**made.content["chosen"])
    if chosen.lacks(missing) or any(arm.answered_by != "tuned" for arm in missing.values()):
        base = load_base(context)
        if chosen.lacks(missing):
            late, _ = choose(context, missing, base)
            chosen = Chosen(chosen.few_shot or late.few_shot, chosen.optimised or late.optimised)
        asked = {
            name: arm for name, arm in missing.items() if arm.answered_by != "tuned" and not chosen.lacks({name: arm})
        }
        _answer(context, asked, prompt_resources(context, base, chosen), base)
        del base
    if asked := {name: arm for name, arm in missing.items() if arm.answered_by == "tuned"}:
        tuned = load_tuned(current)
        _answer(context, asked, prompt_resources(context, tuned, chosen), tuned)
    return give_verdict(current, recipe)


def give_verdict(current: Run, recipe: Recipe) -> dict[str, Any]:
    """The verdict from the answers on disk, with what was done otherwise than planned."""
    context = Context(current, recipe)
    made = preregistration.expected(current)
    names = DOCUMENT_ARMS if context.documents else tuple(arms_of(recipe))
    answers_file, test = context.answers_file("answers"), context.items("test")
    left_out = {
        name: why
        for name, why in context.left_out().items()
        if name in names and not answers_file.has_answered(name, test)
    }
    kept = [name for name in names if name not in left_out]
    answers = [record for record in answers_file.records() if record["arm"] in kept]
    in_plan = [name for name in kept if name in made.content["arms"]]
    dev = [record for record in context.answers_file("dev-answers").records() if record["arm"] in in_plan]
    if recipe.evaluate.metric != made.content["metric"]["name"]:
        answers, dev = answers_file.rescored(answers), answers_file.rescored(dev)
    result = verdict.assemble(
        answers,
        dev,
        metric=str(recipe.evaluate.metric),
        metric_reason=_reason(current, "evaluate.metric"),
        alpha=recipe.evaluate.alpha,
        margin=recipe.evaluate.margin,
        settings=metric_settings(recipe),
        seed=recipe.train.seed,
    )
    result = unanswered.weigh(result, answers, seed=recipe.train.seed)
    result = watch(context, result, answers)
    analyse_errors(context)
    result = contamination.weigh(result, answers, contamination.read(current), seed=recipe.train.seed)
    chosen = Chosen(**made.content["chosen"])
    done = preregistration.of(context, kept, chosen, left_out, against=result["best_prompt_arm"], n=result["n"])
    result["excluded"] = [{"arm": name, "why": why} for name, why in left_out.items()]
    result["notes"] = _notes(test)
    result["plan"] = preregistration.summary(context, made, done)
    write_atomic(
        current.folder / "evaluation" / "verdict.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    )
    current.record("verdict", **{key: value for key, value in result.items() if key != "arms"})
    return result


def _missing(context: Context, wanted: Mapping[str, Arm]) -> dict[str, Arm]:
    """The arms that have not answered all test questions."""
    answers_file, test = context.answers_file("answers"), context.items("test")
    return {name: arm for name, arm in wanted.items() if not answers_file.has_answered(name, test)}


def _answer(context: Context, wanted: Mapping[str, Arm], resources: PromptResources, lm: LanguageModel) -> None:
    """The test answers of these arms; an endpoint that gives none is left out, and that is noted."""
    items = context.items("test")
    for name, arm in wanted.items():
        prompt = arm.build(resources)
        if arm.answered_by != "endpoint":
            context.ask(lm, items, name, prompt, split="test", file="answers")
            continue
        try:
            context.answers_file("answers").ask_endpoint(
                endpoint_of(context.recipe, name),
                items,
                arm=name,
                prompt=prompt,
                room=context.room,
                progress=context.progress(name, "test"),
            )
            context.tell_unanswered(context.answers_file("answers").records_of(name, items), name, "test", lm)
        except Unavailable as trouble:
            context.leave_out(name, str(trouble))


def _notes(test: Sequence[Item]) -> list[str]:
    """What a reader should know about the test questions themselves."""
    answers = {item.conversation.answer.strip() for item in test}
    if len(answers) > 1 or len(test) < 2:
        return []
    (answer,) = answers
    shown = answer if len(answer) <= 40 else answer[:37] + "…"
    return [f'Every test question has the same answer ("{shown}"): a model that always says so is never wrong.']


def _reason(current: Run, key: str) -> str:
    """Why a setting has its value, as recorded when the recipe was computed."""
    reasons = [event["settings"].get(key, [None, "as asked"])[1] for event in current.events("recipe")]
    return str(reasons[0]) if reasons else ""
