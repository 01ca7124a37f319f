"""The verbs: what the terminal and Python ask for, stage by stage over one run folder.

    recipe → data → base model's answers → training → tuned model's answers → verdict → report

Each stage leaves its result in the folder and passes over what is already there, so a second `run` continues the first.
"""

import gc
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from luthier import inference, report
from luthier import recipe as recipes
from luthier.chat import Encoded, Template
from luthier.data import encoding, held_out_files, prepared
from luthier.data.dataset import Dataset, Item, has_pairs
from luthier.data.prepared import Prepared
from luthier.data.splits import Splits, split
from luthier.errors import UserError
from luthier.evaluate import benchmark as benchmarks
from luthier.evaluate import error_analysis, guards, judging, metrics, prompt_checks, shared_baselines, stages
from luthier.evaluate.benchmark import Exam
from luthier.evaluate.context import metric_settings
from luthier.evaluate.judge import sources
from luthier.evaluate.prompts import passages
from luthier.evaluate.verdict import contamination
from luthier.model import conformance, device, identity, loading, memory, methods, reference, tuned
from luthier.model.loading import LanguageModel
from luthier.model.reference import ModelReference
from luthier.pipeline import defaults, resume
from luthier.pipeline.defaults import Settled
from luthier.recipe import Recipe
from luthier.runs import Run
from luthier.runs.durable import size, write_atomic
from luthier.runs.signals import stopping
from luthier.train import check, loop, memory_estimate, optimizer

SPLITS = ("train", "dev", "test")
Listener = Callable[[dict[str, Any]], None]


def run(
    asked: Recipe,
    folder: Path | None = None,
    *,
    listen: Listener | None = None,
    command: str = "",
    lender: Path | None = None,
) -> Run:
    """Everything from the data to the report. In a folder that has a run already, that run is continued.

    `lender` is a complete run of the same base model on the same questions; its prompts and their answers are taken over.
    """
    current, planned = open_run(asked, folder or default_folder(asked), command=command)
    if listen:
        current.listeners.append(listen)
    state = current.state
    made = (current.folder / "evaluation" / "verdict.json", current.folder / "model")
    if state == "complete" and all(path.exists() for path in made):
        current.tell("start", folder=str(current.folder), state=state, kept=[])
        return current
    with current.working(partial(_report, current)), stopping(lambda: current.record("stopping")) as stop:
        kept = [] if state == "new" else resume.kept(current)
        current.record("start", folder=str(current.folder), state=state, kept=kept)
        current.unseal("evaluation")
        if lender is not None and not current.events("borrowed"):
            shared_baselines.share(lender, current.folder)
            current.record("borrowed", what="the prompt arms' answers", of=lender.name)
        recipe = prepare(current, planned)
        planned = None  # its rows are on the disk now
        contamination.compare_splits(
            current, own_test_file=recipe.data.test_path is not None, earlier=partial(tuned.learnt_before, recipe.model)
        )
        resume.pause(stop, "after the data was prepared")
        with memory.explain_out_of_memory("to answer the questions"):
            base = stages.ask_base(current, recipe, stop)
        resume.pause(stop, "after the base model had answered")
        train(current, recipe, base, stop)
        del base
        gc.collect()
        resume.pause(stop, "after training")
        with memory.explain_out_of_memory("to answer the questions"):
            stages.ask_tuned(current, recipe, stop)
        stages.give_verdict(current, recipe)
        judging.ask_judge(current, recipe, stop)
        _seal_evaluation(current)
    return current


def evaluate(
    folder: Path,
    overrides: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
    *,
    listen: Listener | None = None,
) -> Run:
    """Judge a run again: what is missing is asked, and other settings of `evaluate` are noted as departures from the plan.

    The settings come as `key=value` words, or by their dotted names.
    """
    current = Run(folder)
    recipe = stages.changed_recipe(current, overrides, settings or {})
    if listen:
        current.listeners.append(listen)
    before = current.state

    def at_end() -> None:
        if before == "complete" and current.state != before:  # the verdict that is there still holds
            current.update(state=before, reason=None)
        _report(current)

    with current.working(at_end), stopping(lambda: current.record("stopping")) as stop:
        current.record("start", folder=str(folder), state=before, kept=[])
        current.expect_whole("evaluation", "model")  # other data is a departure from the plan
        current.unseal("evaluation")
        with memory.explain_out_of_memory("to answer the questions"):
            stages.evaluate_again(current, recipe, stop)
        _seal_evaluation(current)
    return current


def open_run(asked: Recipe, folder: Path, *, command: str) -> tuple[Run, "Plan | None"]:
    """The run in this folder: a new one with its plan, made before anything is written, or one to be continued.

    Refuses to continue a run with other settings than it was started with. Models are noted by their whole paths.
    """
    asked = placed(asked)
    if not (folder / "run.json").exists():
        if asked.data.path is None:
            raise UserError("no data: name a file or folder, or the folder of a run to continue.", where="data.path")
        with stopping(resume.nothing_yet):
            planned = plan(asked)
        new = Run.create(
            folder,
            luthier=version("luthier"),
            command=command or "luthier.finetune(…)",
            asked=asked.model_dump(mode="json"),
            sources=resume.sources(planned.dataset.files),
            versions={name: version(name) for name in resume.VERSIONS} | {"python": platform.python_version()},
            of_the_moment=planned.settled.of_the_moment,
        )
        return new, planned
    current = Run(folder)
    before = placed(Recipe.model_validate(current.record_file["asked"]))
    if asked.data.path is not None and (changes := recipes.differences(before, asked)):
        told = "; ".join(f"{key} was {_short(old)}, now {_short(new)}" for key, (old, new) in changes.items())
        raise UserError(
            f"this run was started with other settings ({told}). Continue it with --run alone, or name a new folder.",
            where=str(folder),
        )
    if asked.data.path is not None or not resume.is_prepared(current):
        resume.same_data(current, before)
    return current, None


def placed(asked: Recipe) -> Recipe:
    """The recipe with the models' places on this machine as whole paths, which are found from every directory."""
    judge, embedder = asked.evaluate.judge, asked.evaluate.embedder
    values: dict[str, object] = {"model": reference.absolute(asked.model)}
    if judge and ":" not in judge:
        values["evaluate.judge"] = reference.absolute(judge)
    if embedder:
        values["evaluate.embedder"] = embedder.absolute()
    return recipes.replace(asked, values)


def default_folder(asked: Recipe) -> Path:
    """runs/<data>-<date>-<time>."""
    path = asked.data.path or Path("run")
    name = path.name.split(".")[0] or "run"
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


@dataclass(frozen=True)
class Plan:
    """A recipe with every value set and why, what it needs, and the rows that it will use."""

    settled: Settled
    model: ModelReference
    template: Template
    dataset: Dataset
    splits: Splits
    rows: dict[str, list[tuple[Item, Encoded]]]
    material: guards.UserMaterial

    @property
    def recipe(self) -> Recipe:
        return self.settled.recipe

    @property
    def reasons(self) -> dict[str, str]:
        return self.settled.reasons


def plan(asked: Recipe, kept: Mapping[str, tuple[Any, str]] | None = None) -> Plan:
    """Read the data, tokenize it for the model, split it and compute every default; nothing is written.

    `kept` are settings, with their reasons, that an earlier plan of the same run took from the moment.
    """
    stages.check_arms(asked, stages.arms_of(asked))
    if asked.evaluate.documents is not None:
        passages.read(asked.evaluate.documents)
    metrics.scorers(asked.evaluate.metric or "exact_match", metric_settings(asked))
    if asked.evaluate.judge:
        sources.check(asked.evaluate.judge)
    material = guards.check_settings(asked.evaluate)
    error_analysis.own_categories(asked.evaluate.errors)
    check.words(asked.train)
    model = ModelReference.of(asked.model)
    data, held_out = held_out_files.load(asked.data)
    check.rows(asked.train, data, held_out.dev)
    day = asked.chat.date or (date.fromisoformat(kept["chat.date"][0]) if kept and "chat.date" in kept else today())
    template = model.template(variables=asked.chat.variables, today=day)
    limit, _ = defaults.longest_row(asked, model.context)
    pairs = asked.train.objective not in (None, "sft", "text") and has_pairs(data.items)
    only_asked = {item.place for item in held_out.test or ()}
    everything = [*data.items, *held_out.items]
    with_pairs = {item.place for item in everything} - only_asked if pairs else frozenset()
    encoded = encoding.encode_all(everything, template, limit, data.ledger, pairs=with_pairs)
    fitting, *others = (_fitting(items, encoded) for items in (data.items, held_out.test, held_out.dev))
    if not fitting or [] in others:
        raise UserError(encoding.why_none(data.ledger, limit), where=", ".join(data.files))
    splits = split(
        fitting, test_items=asked.data.test_items, dev_items=asked.data.dev_items, test=others[0], dev=others[1],
        share=asked.data.train_share,
    )  # fmt: skip
    rows = {
        name: [
            row
            for item in getattr(splits, name)
            for row in encoding.pieces(item, encoded[item.place], last=name != "train")
        ]
        for name in SPLITS
    }
    if len(rows["test"]) < 2:
        raise UserError(
            "found 1 test question, expected at least 2, and 300 to see differences of about 7 points. "
            "Give more data, or set data.test_items higher.",
            where=str(asked.data.path),
        )
    facts = defaults.Facts(
        spec=model.spec,
        context=model.context,
        lengths=[piece.tokens for _, piece in rows["train"]],
        answer_lengths=[piece.learnt for _, piece in rows["train"]],
        replies=[encoding.parts(piece, template) for _, piece in rows["train"]],
        thinks=template.thinks,
        thinking_switch=next((name for name in ("enable_thinking", "thinking") if name in template.reads), None),
        day=day if template.reads_date else None,
        documents=rows["train"][0][0].conversation.is_document,
        pairs=rows["train"][0][0].conversation.rejected is not None,
    )
    settled = defaults.settle(asked, data, splits, facts, memory.available(device.pick_device()), kept)
    methods.check(settled.recipe.train, model.config)
    optimizer.try_own(settled.recipe.train)
    prompt_checks.try_prompts(settled.recipe, template, model.context, splits, stages.arms_of(asked), material)
    return Plan(settled, model, template, data, splits, rows, material)


def prepare(current: Run, planned: Plan | None) -> Recipe:
    """The run's recipe and its own copy of the rows; made once."""
    if (current.folder / "recipe.toml").exists():
        resume.warn(current)
        current.expect_whole("data")
        return resume.same_recipe(current)
    planned = planned or plan(
        Recipe.model_validate(current.record_file["asked"]), current.record_file.get("of_the_moment")
    )
    for name in SPLITS:
        prepared.write(current.folder / "data" / f"{name}.arrow", planned.rows[name])
    stages.copy_documents(current, planned.recipe)
    write_atomic(current.folder / "data" / "guards.json", planned.material.to_json())
    data, plain = planned.dataset, planned.recipe.model_dump(mode="json")
    current.record(
        "data",
        format=data.choice.format,
        columns=data.choice.columns,
        alternatives=data.choice.alternatives,
        sentence=data.choice.sentence(),
        read=data.ledger.read,
        kept=data.ledger.kept,
        dropped=data.ledger.dropped,
        notes=data.ledger.notes,
        files=data.files,
        **{name: len(getattr(planned.splits, name)) for name in SPLITS},
    )
    current.update(hashes={"data": data.sha256}, settled=plain)
    current.seal([current.folder / "data"])
    write_atomic(current.folder / "recipe.toml", recipes.render(planned.recipe, planned.reasons))
    current.seal([current.folder / "recipe.toml"])
    current.record(
        "recipe",
        settings={key: [recipes.get(plain, key), why] for key, why in planned.reasons.items() if why != "as asked"},
    )
    if not planned.rows["train"][0][0].conversation.is_document:
        _tell_template(current, planned)
    _tell_needs(current, planned)
    return planned.recipe


def _tell_template(current: Run, planned: Plan) -> None:
    """Whether rows and prompts are those that others make of the model's template; a fault is a warning."""
    found = conformance.examine(planned.template)
    current.record("template", **found.to_json())
    if not found.clean:
        told = f"the chat template is {found.sentence}. See luthier template {planned.recipe.model}."
        current.record("warning", message=told)


def train(current: Run, recipe: Recipe, base: LanguageModel, stop: Callable[[], bool]) -> None:
    """Tune the base model (its weights change) and save the best checkpoint as the run's model."""
    folder = current.folder / "model"
    if folder.is_dir():
        if "model" not in current.record_file["hashes"]:  # saved just before an interruption
            _note_model(current)
        return
    settings = recipe.train
    with memory.explain_out_of_memory("to train", memory_estimate.advice(settings)):
        model = methods.resolve(settings.method or "full").prepare(base.model, settings)
        rows, dev = (Prepared(current.folder / "data" / f"{name}.arrow") for name in ("train", "dev"))
        outcome = loop.train(
            model, rows, dev, settings, checkpoints=current.folder / "checkpoints", record=current.record, stop=stop,
            ends=() if rows.documents else base.template.stop_ids,
        )  # fmt: skip
        loading.save(model, base.tokenizer, base.template, folder, outcome.weights)
    _note_model(current)


def base_of(current: Run) -> str:
    """The name of the model that a run started from."""
    return recipes.load(current.folder / "recipe.toml").model


def benchmark(name: str, exam: Exam, *, base: bool | None = None, listen: Listener | None = None) -> dict[str, Any]:
    """A run's model on benchmarks, beside the base model; left in evaluation/benchmarks.json. Another model alone, unwritten.

    `base` measures the base model too; by default where there is one.
    """
    current = Run(Path(name)) if (Path(name) / "run.json").is_file() else None
    if base and current is None:
        raise UserError(
            "only a run has a base model to compare with; leave out --base, or name a run's folder.", where=name
        )
    arms_asked = {"fine-tuned": name} if current else {name: name}
    settings = Recipe()
    if current:
        settings = recipes.load(current.folder / "recipe.toml")
        exam = replace(exam, system=settings.data.system, thinking_tokens=settings.evaluate.thinking_tokens)
        arms_asked |= {"base": settings.model} if base is not False else {}
    for model in arms_asked.values():
        reference.find_folder(model)

    def load(arm: str) -> LanguageModel:
        speaker = inference.load_base(current) if current and arm == "base" else inference.load_model(arms_asked[arm])
        return speaker.lm

    def progress(number: int) -> Callable[[int, int], None]:
        def tell(done: int, of: int) -> None:
            if listen:
                listen({"kind": "arm", "arm": list(arms_asked)[number], "split": "benchmark", "done": done, "of": of})

        return tell

    with current.held() if current else nullcontext():
        results, notes = benchmarks.sit(exam, [partial(load, arm) for arm in arms_asked], progress)
        report_card = benchmarks.record(
            dict(zip(arms_asked, results, strict=True)), exam, notes, alpha=settings.evaluate.alpha
        )
        if current:
            benchmarks.keep(current.folder / "evaluation", report_card)
    return report_card.summary


def _tell_needs(current: Run, planned: Plan) -> None:
    """What the training will need; a warning where that is more than there is."""
    needed, available = planned.settled.memory, planned.settled.available
    current.record(
        "needs", training=needed.training, answering=needed.answering, parts=needed.parts, available=available,
        disk=memory_estimate.disk(planned.model.spec, planned.recipe.train),
    )  # fmt: skip
    if needed.training > available:
        told = f"training needs about {size(needed.training)} of memory, and {size(available)} are there"
        current.record(
            "warning", message=f"{told}: it will probably not fit. `luthier plan` tells what would make it fit."
        )


def _report(current: Run) -> None:
    """The run's page, as soon as there is something to tell."""
    if resume.is_prepared(current):
        report.write(current.folder)


def _seal_evaluation(current: Run) -> None:
    """Remember the hashes of answers and verdict. Benchmarks may be added to a run at any time, so they are left out."""
    files = (current.folder / "evaluation").iterdir()
    current.seal(sorted(file for file in files if not file.name.startswith(("benchmark", "."))))


def _note_model(current: Run) -> None:
    """Remember the hashes of the model that was saved."""
    current.seal([current.folder / "model"])
    current.update(hashes={**current.record_file["hashes"], "model": identity.fingerprint(current.folder / "model")})


def today() -> date:
    """The day on which a run is made."""
    return date.today()


def _fitting(items: Sequence[Item] | None, encoded: dict[str, list[Encoded]]) -> list[Item] | None:
    """Those of the items that have a training row; None stays None."""
    return None if items is None else [item for item in items if encoded[item.place]]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
