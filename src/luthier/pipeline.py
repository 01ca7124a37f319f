"""The verbs: what the terminal and Python ask for, stage by stage over one run folder.

    recipe → data → base model's answers → training → tuned model's answers → verdict → report

Each stage leaves its result in the folder and passes over what is already there, so a second `run` continues the first.
"""

import contextlib
import gc
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from luthier import defaults, proof, report, resuming
from luthier import recipe as recipes
from luthier.chat import Encoded, Message
from luthier.data import encoding, given, prepared
from luthier.data import questions as file_questions
from luthier.data.dataset import Dataset, Item, has_pairs
from luthier.data.prepared import Prepared
from luthier.data.splits import Splits, split
from luthier.errors import Mistake, choose
from luthier.evaluate import benchmark as benchmarks
from luthier.evaluate import contamination, errata, guards, judges, metrics, passages
from luthier.evaluate.benchmark import Exam
from luthier.model import generate, loading, memory, methods, reference, tuned
from luthier.model.loading import LanguageModel
from luthier.recipe import Recipe
from luthier.runs import Run, write_atomic
from luthier.signals import stopping
from luthier.train import check, loop

SPLITS = ("train", "dev", "test")
Listener = Callable[[dict[str, Any]], None]


def run(asked: Recipe, folder: Path | None = None, *, listen: Listener | None = None, command: str = "") -> Run:
    """Everything from the data to the report. In a folder that has a run already, that run is continued."""
    current, planned = open_run(asked, folder or default_folder(asked), command=command)
    if listen:
        current.listeners.append(listen)
    state = current.state
    made = (current.folder / "evaluation" / "verdict.json", current.folder / "model")
    if state == "complete" and all(path.exists() for path in made):
        current.tell("start", folder=str(current.folder), state=state, kept=[])
        return current
    with current.working(partial(_report, current)), stopping(lambda: current.record("stopping")) as stop:
        kept = [] if state == "new" else resuming.kept(current)
        current.record("start", folder=str(current.folder), state=state, kept=kept)
        current.unseal("evaluation")
        recipe = prepare(current, planned)
        contamination.look(
            current, own_test_file=recipe.data.test_path is not None, earlier=tuned.learnt_before(recipe.model)
        )
        resuming.pause(stop, "after the data was prepared")
        with memory.errors("to answer the questions"):
            base = proof.ask_base(current, recipe, stop)
        resuming.pause(stop, "after the base model had answered")
        train(current, recipe, base, stop)
        del base
        gc.collect()
        resuming.pause(stop, "after training")
        with memory.errors("to answer the questions"):
            proof.ask_tuned(current, recipe, stop)
        proof.judge(current, recipe)
        proof.ask_judge(current, recipe, stop)
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
    recipe = proof.changed(current, overrides, settings or {})
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
        with memory.errors("to answer the questions"):
            proof.again(current, recipe, stop)
        _seal_evaluation(current)
    return current


def open_run(asked: Recipe, folder: Path, *, command: str) -> tuple[Run, "Plan | None"]:
    """The run in this folder: a new one with its plan, made before anything is written, or one to be continued.

    Refuses to continue a run with other settings than it was started with.
    """
    if not (folder / "run.json").exists():
        if asked.data.path is None:
            raise Mistake("no data: name a file or folder, or the folder of a run to continue.", where="data.path")
        with stopping(resuming.nothing_yet):
            planned = plan(asked)
        new = Run.create(
            folder,
            luthier=version("luthier"),
            command=command or "luthier.finetune(…)",
            asked=asked.model_dump(mode="json"),
            sources=resuming.sources(planned.dataset.files),
            versions={name: version(name) for name in resuming.VERSIONS} | {"python": platform.python_version()},
        )
        return new, planned
    current = Run(folder)
    before = Recipe.model_validate(current.record_file["asked"])
    if asked.data.path is not None and (changes := recipes.differences(before, asked)):
        told = "; ".join(f"{key} was {_short(old)}, now {_short(new)}" for key, (old, new) in changes.items())
        raise Mistake(
            f"this run was started with other settings ({told}). Continue it with --run alone, or name a new folder.",
            where=str(folder),
        )
    if asked.data.path is not None or not resuming.is_prepared(current):
        resuming.same_data(current, before)
    return current, None


def default_folder(asked: Recipe) -> Path:
    """runs/<data>-<date>-<time>."""
    path = asked.data.path or Path("run")
    name = path.name.split(".")[0] or "run"
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


@dataclass(frozen=True)
class Plan:
    """A recipe with every value set, why, and the rows that it will use."""

    recipe: Recipe
    reasons: dict[str, str]
    dataset: Dataset
    splits: Splits
    rows: dict[str, list[tuple[Item, Encoded]]]
    material: guards.Own


def plan(asked: Recipe) -> Plan:
    """Read the data, tokenize it for the model, split it and compute every default; nothing is written."""
    proof.check(asked, proof.arms_of(asked))
    if asked.evaluate.documents is not None:
        passages.read(asked.evaluate.documents)
    metrics.scorers(asked.evaluate.metric or "exact_match", proof.metric_settings(asked))
    if asked.evaluate.judge:
        judges.check(asked.evaluate.judge)
    material = guards.check(asked.evaluate)
    errata.own_categories(asked.evaluate.errors)
    check.words(asked.train)
    reference.resolve(asked.model)
    data, held_out = given.load(asked.data)
    check.rows(asked.train, data, held_out.dev)
    template, context = loading.load_template(asked.model)
    parameters = loading.parameters_of(asked.model)
    limit, _ = defaults.longest_row(asked, context)
    pairs = asked.train.objective not in (None, "sft", "text") and has_pairs(data.items)
    only_asked = {item.place for item in held_out.test or ()}
    encoded = {
        item.place: encoding.encode(item, template, limit, data.ledger, pairs=pairs and item.place not in only_asked)
        for item in [*data.items, *held_out.items]
    }
    fitting, *others = (_fitting(items, encoded) for items in (data.items, held_out.test, held_out.dev))
    if not fitting or [] in others:
        raise Mistake(
            f"no row fits: with {limit:,} tokens (train.max_tokens, at most the model's context) every answer would be cut. "
            "Use a model with a longer context, or shorter rows.",
            where=", ".join(data.files),
        )
    splits = split(
        fitting, test_items=asked.data.test_items, dev_items=asked.data.dev_items, test=others[0], dev=others[1],
        share=asked.data.train_share,
    )  # fmt: skip
    rows = {
        name: [row for item in getattr(splits, name) for row in encoding.pieces(item, encoded[item.place])]
        for name in SPLITS
    }
    if len(rows["test"]) < 2:
        raise Mistake(
            "found 1 test question, expected at least 2, and 300 to see differences of about 7 points. "
            "Give more data, or set data.test_items higher.",
            where=str(asked.data.path),
        )
    facts = defaults.Facts(
        parameters=parameters,
        context=context,
        lengths=[piece.tokens for _, piece in rows["train"]],
        answer_lengths=[piece.learnt for _, piece in rows["train"]],
        documents=rows["train"][0][0].conversation.is_document,
        pairs=rows["train"][0][0].conversation.rejected is not None,
    )
    recipe, reasons = defaults.settle(asked, data, splits, facts)
    return Plan(recipe, reasons, data, splits, rows, material)


def prepare(current: Run, planned: Plan | None) -> Recipe:
    """The run's recipe and its own copy of the rows; made once."""
    if (current.folder / "recipe.toml").exists():
        resuming.warn(current)
        current.expect_whole("data")
        return resuming.same_recipe(current)
    planned = planned or plan(Recipe.model_validate(current.record_file["asked"]))
    for name in SPLITS:
        prepared.write(current.folder / "data" / f"{name}.arrow", planned.rows[name])
    proof.copy_documents(current, planned.recipe)
    write_atomic(current.folder / "data" / "guards.json", planned.material.to_json())
    data = planned.dataset
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
    current.update(hashes={"data": data.sha256}, settled=planned.recipe.model_dump(mode="json"))
    current.seal([current.folder / "data"])
    write_atomic(current.folder / "recipe.toml", recipes.render(planned.recipe, planned.reasons))
    current.seal([current.folder / "recipe.toml"])
    current.record(
        "recipe",
        settings={
            key: [recipes.get(planned.recipe, key), why] for key, why in planned.reasons.items() if why != "as asked"
        },
    )
    return planned.recipe


def train(current: Run, recipe: Recipe, base: LanguageModel, stop: Callable[[], bool]) -> None:
    """Tune the base model (its weights change) and save the best checkpoint as the run's model."""
    folder = current.folder / "model"
    if folder.is_dir():
        if "model" not in current.record_file["hashes"]:  # saved just before an interruption
            _note_model(current)
        return
    settings = recipe.train
    with memory.errors("to train", memory.to_train_with_less(settings)):
        model = methods.resolve(settings.method or "full").prepare(base.model, settings)
        rows, dev = (Prepared(current.folder / "data" / f"{name}.arrow") for name in ("train", "dev"))
        outcome = loop.train(
            model, rows, dev, settings, checkpoints=current.folder / "checkpoints", record=current.record, stop=stop
        )
        loading.save(model, base.tokenizer, base.template, folder, outcome.weights)
    _note_model(current)


def base_of(current: Run) -> str:
    """The name of the model that a run started from."""
    return recipes.load(current.folder / "recipe.toml").model


def load_model(name: str) -> tuple[LanguageModel, str | None]:
    """A run's tuned model or any other model by name, with the system message that its conversations start with."""
    if (Path(name) / "run.json").is_file():
        current = Run(Path(name))
        return proof.load_tuned(current), recipes.load(current.folder / "recipe.toml").data.system
    return loading.load(name), None


def benchmark(name: str, exam: Exam, *, base: bool | None = None, listen: Listener | None = None) -> dict[str, Any]:
    """A run's model on benchmarks, beside the base model; left in evaluation/benchmarks.json. Another model alone, unwritten.

    `base` measures the base model too; by default where there is one.
    """
    current = Run(Path(name)) if (Path(name) / "run.json").is_file() else None
    if base and current is None:
        raise Mistake(
            "only a run has a base model to compare with; leave out --base, or name a run's folder.", where=name
        )
    arms_asked = {"fine-tuned": name} if current else {name: name}
    settings = Recipe()
    if current:
        settings = recipes.load(current.folder / "recipe.toml")
        exam = replace(exam, system=settings.data.system)
        arms_asked |= {"base": settings.model} if base is not False else {}
    for model in arms_asked.values():
        reference.resolve(model)

    def progress(number: int) -> Callable[[int, int], None]:
        def tell(done: int, of: int) -> None:
            if listen:
                listen({"kind": "arm", "arm": list(arms_asked)[number], "split": "benchmark", "done": done, "of": of})

        return tell

    results, notes = benchmarks.sit(exam, [partial(_loaded, model) for model in arms_asked.values()], progress)
    report_card = benchmarks.record(
        dict(zip(arms_asked, results, strict=True)), exam, notes, alpha=settings.evaluate.alpha
    )
    if current:
        benchmarks.keep(current.folder / "evaluation", report_card)
    return report_card.summary


def _loaded(name: str) -> LanguageModel:
    return load_model(name)[0]


def ask(lm: LanguageModel, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int) -> list[str]:
    """Answers in the order of the prompts; greedy, so each is the same alone and in company."""
    ids = [lm.template.prompt(prompt) for prompt in prompts]
    for prompt, tokens in zip(prompts, ids, strict=True):
        if len(tokens) >= lm.context:
            told = f"the question has {len(tokens):,} tokens; the model looks back on {lm.context:,}. Shorten it."
            raise Mistake(told, where=_short(prompt[-1].content))
    return [lm.template.reply(reply.ids) for reply in generate.answer(lm, ids, max_new_tokens=max_new_tokens)]


def question(text: str, system: str | None) -> tuple[Message, ...]:
    """A question as a prompt, after the system message that the model's conversations start with."""
    return (*((Message("system", system),) if system else ()), Message("user", text))


@dataclass(frozen=True)
class Answer:
    """One model's answer to one question."""

    model: str
    text: str
    seconds: float


def compare(text: str, names: Sequence[str], *, max_new_tokens: int) -> Iterator[Answer]:
    """The answers of several models to one question, one model in memory at a time."""
    for name in names:
        lm, system = load_model(name)
        start = time.perf_counter()
        (answer,) = ask(lm, [question(text, system)], max_new_tokens=max_new_tokens)
        yield Answer(name, answer, time.perf_counter() - start)
        del lm
        gc.collect()


def ask_file(
    name: str, questions: Path, output: Path, *, max_new_tokens: int, adapters: Mapping[str, Path] | None = None
) -> int:
    """Answer every row of a file of questions; writes JSONL with `question` and `answer` in file order, and counts them.

    With `adapters` of runs beside the model, a row's column `adapter` says which one answers it; without a name, the model.
    """
    if not output.absolute().parent.is_dir():
        raise Mistake("there is no such folder to write to; make it first.", where=str(output.absolute().parent))
    like = next(iter(adapters.values())) if adapters else Path(name)
    is_run = (like / "run.json").is_file()
    asked = file_questions.read(questions, recipes.load(like / "recipe.toml").data if is_run else None)
    names: list[str | None] = [None] * len(asked)
    if adapters:
        known: dict[str, str | None] = {"": None, **{each: each for each in adapters}}
        places = file_questions.named(questions, "adapter")
        names = [choose("adapter", word, known, where=place) for word, place in places]
        answers = _shared_answers(tuned.load_shared(name, adapters), names, asked, max_new_tokens)
    else:
        lm, system = load_model(name)
        answers = ask(lm, _headed(asked, system), max_new_tokens=max_new_tokens)
    lines = [
        {"question": prompt[-1].content, "answer": answer, **({"adapter": who or ""} if adapters else {})}
        for prompt, answer, who in zip(asked, answers, names, strict=True)
    ]
    write_atomic(output, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return len(lines)


def _shared_answers(
    shared: tuned.Shared, names: Sequence[str | None], asked: Sequence[Sequence[Message]], max_new_tokens: int
) -> list[str]:
    """The answer of each question's adapter; None lets the base answer."""
    answers = [""] * len(asked)
    for name in dict.fromkeys(names):
        rows = [row for row, wanted in enumerate(names) if wanted == name]
        with shared.switched(name) as system:
            found = ask(shared.lm, _headed([asked[row] for row in rows], system), max_new_tokens=max_new_tokens)
        for row, answer in zip(rows, found, strict=True):
            answers[row] = answer
    return answers


def _headed(asked: Sequence[Sequence[Message]], system: str | None) -> list[Sequence[Message]]:
    """The prompts, those without a system message behind the one that the model's conversations start with."""
    head = question("", system)[:-1]
    return [prompt if prompt[0].role == "system" else (*head, *prompt) for prompt in asked]


def shared_chats(base: str, adapters: Mapping[str, Path], max_new_tokens: int) -> "dict[str, Chat]":
    """A conversation with each adapter and, by its own name, with the base: one model in memory, switched per question."""
    shared = tuned.load_shared(base, adapters)
    names: dict[str, str | None] = {Path(base).name: None, **{name: name for name in adapters}}
    return {
        name: Chat(
            shared.lm, shared.systems.get(wanted) if wanted else None, max_new_tokens, partial(shared.switched, wanted)
        )
        for name, wanted in sorted(names.items(), key=lambda each: each[1] is None)
    }


@dataclass
class Chat:
    """A conversation with a model that remembers what was said."""

    lm: LanguageModel
    system: str | None = None
    max_new_tokens: int = 512
    on: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    """Entered while the model answers: switches to the adapter that this conversation is with."""

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start afresh."""
        self.history: list[Message] = [Message("system", self.system)] if self.system else []

    def say(self, text: str) -> Iterator[str]:
        """The answer, piece by piece; the oldest turns are forgotten when the context is full."""
        self.history.append(Message("user", text))
        head = [message for message in self.history if message.role == "system"]
        while len(prompt := self.lm.template.prompt(self.history)) + self.max_new_tokens > self.lm.context:
            turns = self.history[len(head) :]
            if len(turns) <= 1:
                break
            self.history = [*head, *turns[2:]]
        ids: list[int] = []
        shown = ""
        with self.on():
            for token in generate.stream(self.lm, prompt, max_new_tokens=self.max_new_tokens):
                ids.append(token)
                text_now = self.lm.template.reply(ids)
                if text_now.startswith(shown) and not text_now.endswith(
                    "\ufffd"
                ):  # a character may need several tokens
                    yield text_now[len(shown) :]
                    shown = text_now
        self.history.append(Message("assistant", self.lm.template.reply(ids)))


def _report(current: Run) -> None:
    """The run's page, as soon as there is something to tell."""
    if resuming.is_prepared(current):
        report.write(current.folder)


def _seal_evaluation(current: Run) -> None:
    """Remember the hashes of answers and verdict. Benchmarks may be added to a run at any time, so they are left out."""
    files = (current.folder / "evaluation").iterdir()
    current.seal(sorted(file for file in files if not file.name.startswith(("benchmark", "."))))


def _note_model(current: Run) -> None:
    """Remember the hashes of the model that was saved."""
    current.seal([current.folder / "model"])
    current.update(hashes={**current.record_file["hashes"], "model": loading.fingerprint(current.folder / "model")})


def _fitting(items: Sequence[Item] | None, encoded: dict[str, list[Encoded]]) -> list[Item] | None:
    """Those of the items that have a training row; None stays None."""
    return None if items is None else [item for item in items if encoded[item.place]]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
