"""The verbs: what the terminal and Python ask for, stage by stage over one run folder.

    recipe → data → base model's answers → training → tuned model's answers → verdict → report

Each stage leaves its result in the folder and passes over what is already there, so a second `run` continues the first.
"""

import gc
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from luthier import defaults, report
from luthier import recipe as recipes
from luthier.chat import Encoded, Message, Template
from luthier.data import dataset as datasets
from luthier.data import prepared
from luthier.data import questions as file_questions
from luthier.data.dataset import Dataset, Item
from luthier.data.prepared import Prepared
from luthier.data.splits import Splits, split
from luthier.errors import CorruptedState, Interrupted, Mistake
from luthier.evaluate import arms, metrics, verdict
from luthier.evaluate.answers import Line, Sheet
from luthier.model import generate, loading, reference
from luthier.model.loading import LanguageModel
from luthier.recipe import Recipe
from luthier.runs import Run, write_atomic
from luthier.signals import stopping
from luthier.train import loop

SPLITS = ("train", "dev", "test")
DEV_QUESTIONS = 48  # enough to tell which prompt is best, at a third of the time that all dev items would take
Listener = Callable[[dict[str, Any]], None]


def run(asked: Recipe, folder: Path | None = None, *, listen: Listener | None = None, command: str = "") -> Run:
    """Everything from the data to the report. In a folder that has a run already, that run is continued."""
    current, planned = open_run(asked, folder or default_folder(asked), command=command)
    if listen:
        current.listeners.append(listen)
    current.record("start", folder=str(current.folder), state=current.state)
    if current.state == "complete" and (current.folder / "evaluation" / "verdict.json").exists():
        return current
    try:
        with current.working(), stopping(lambda: current.record("stopping")) as stop:
            recipe = prepare(current, planned)
            base = ask_base(current, recipe, stop)
            train(current, recipe, base, stop)
            del base
            gc.collect()
            ask_tuned(current, recipe, stop)
            judge(current, recipe)
    finally:
        if (current.folder / "recipe.toml").exists():
            report.write(current.folder)
    return current


def open_run(asked: Recipe, folder: Path, *, command: str) -> tuple[Run, "Plan | None"]:
    """The run in this folder: a new one with its plan, made before anything is written, or one to be continued.

    Refuses to continue a run with other settings than it was started with.
    """
    if not (folder / "run.json").exists():
        if asked.data.path is None:
            raise Mistake("no data: name a file or folder, or the folder of a run to continue.", where="data.path")
        planned = plan(asked)
        new = Run.create(
            folder,
            luthier=version("luthier"),
            command=command or "luthier.finetune(…)",
            asked=asked.model_dump(mode="json"),
            versions={name: version(name) for name in ("torch", "transformers", "peft", "safetensors")}
            | {"python": platform.python_version()},
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
    return current, None


def default_folder(asked: Recipe) -> Path:
    """runs/<data>-<date>-<time>."""
    path = asked.data.path or Path("run")
    name = path.name.split(".")[0] or "run"
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def arms_of(recipe: Recipe) -> dict[str, arms.Arm]:
    """The recipe's arms by name; a verdict needs the tuned model and at least one prompt to compare it with."""
    found = {name: arms.resolve(name) for name in recipe.evaluate.arms}
    if not any(arm.tuned for arm in found.values()) or all(arm.tuned for arm in found.values()):
        raise Mistake('a verdict needs "fine-tuned" and at least one other arm.', where="evaluate.arms")
    return found


@dataclass(frozen=True)
class Plan:
    """A recipe with every value set, why, and the rows that it will use."""

    recipe: Recipe
    reasons: dict[str, str]
    dataset: Dataset
    splits: Splits
    rows: dict[str, list[tuple[Item, Encoded]]]


def plan(asked: Recipe) -> Plan:
    """Read the data, tokenize it for the model, split it and compute every default; nothing is written."""
    arms_of(asked)
    if asked.evaluate.metric not in (None, metrics.BITS_PER_BYTE):
        metrics.resolve(asked.evaluate.metric)
    reference.resolve(asked.model)
    data = datasets.load(asked.data)
    template, context = loading.load_template(asked.model)
    parameters = loading.parameters_of(asked.model)
    limit, _ = defaults.longest_row(asked, context)
    encoded = {item.id: _encode(item, template, limit, data) for item in data.items}
    fitting = [item for item in data.items if encoded[item.id]]
    if not fitting:
        raise Mistake(
            f"no row fits: with {limit:,} tokens (train.max_tokens, at most the model's context) every answer would be cut. "
            "Use a model with a longer context, or shorter rows.",
            where=str(asked.data.path),
        )
    splits = split(fitting, test_items=asked.data.test_items, dev_items=asked.data.dev_items)
    rows = {name: [row for item in getattr(splits, name) for row in _pieces(item, encoded[item.id])] for name in SPLITS}
    facts = defaults.Facts(
        parameters=parameters,
        context=context,
        lengths=[len(piece.ids) for _, piece in rows["train"]],
        answer_lengths=[piece.learnt for _, piece in rows["train"]],
    )
    recipe, reasons = defaults.settle(asked, data, splits, facts)
    return Plan(recipe, reasons, data, splits, rows)


def prepare(current: Run, planned: Plan | None) -> Recipe:
    """The run's recipe and its own copy of the rows; made once."""
    if (current.folder / "recipe.toml").exists():
        return recipes.load(current.folder / "recipe.toml")
    planned = planned or plan(Recipe.model_validate(current.record_file["asked"]))
    for name in SPLITS:
        prepared.write(current.folder / "data" / f"{name}.arrow", planned.rows[name])
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
    current.update(hashes={"data": data.sha256})
    write_atomic(current.folder / "recipe.toml", recipes.render(planned.recipe, planned.reasons))
    current.record(
        "recipe",
        settings={
            key: [recipes.get(planned.recipe, key), why] for key, why in planned.reasons.items() if why != "as asked"
        },
    )
    return planned.recipe


def ask_base(current: Run, recipe: Recipe, stop: Callable[[], bool]) -> LanguageModel:
    """The base model's answers: the prompt arms on dev, to choose the best of them, and on test. Returns the base model."""
    base = loading.load(recipe.model)
    _same_model(current, base)
    trainable = "all" if recipe.train.method == "full" else f"adapters of rank {recipe.train.lora_rank}"
    current.record(
        "model", name=recipe.model, parameters=sum(weight.numel() for weight in base.model.parameters()), trainable=trainable,
        method=recipe.train.method, precision=recipe.train.precision, device=str(base.device), template=base.template.name,
    )  # fmt: skip
    test = Prepared(current.folder / "data" / "test.arrow")
    if test.items()[0].conversation.is_document:
        sheet = _sheet(current, recipe, "answers")
        sheet.continue_documents(base, test, arm="zero-shot", progress=_progress(current, "zero-shot", "test", stop))
        return base
    bench = arms.Bench(
        train=Prepared(current.folder / "data" / "train.arrow").items(),
        template=base.template,
        shots=recipe.evaluate.shots or 1,
        budget=base.context - (recipe.evaluate.max_new_tokens or 0),
        instruction=recipe.evaluate.instruction,
    )
    for split_name, file in (("dev", "dev-answers"), ("test", "answers")):
        items = Prepared(current.folder / "data" / f"{split_name}.arrow").items()
        if split_name == "dev":
            items = sorted(items, key=lambda item: item.id)[:DEV_QUESTIONS]
        for name, arm in arms_of(recipe).items():
            if not arm.tuned:
                _answer(current, recipe, base, items, name, arm.build(bench), split_name, file, stop)
    return base


def train(current: Run, recipe: Recipe, base: LanguageModel, stop: Callable[[], bool]) -> None:
    """Tune the base model (its weights change) and save the best checkpoint as the run's model."""
    if (current.folder / "model").is_dir():
        return
    settings, model = recipe.train, base.model
    if settings.method == "lora":
        model = loading.add_adapters(model, rank=settings.lora_rank, alpha=settings.lora_alpha, seed=settings.seed)
    rows, dev = (Prepared(current.folder / "data" / f"{name}.arrow") for name in ("train", "dev"))
    outcome = loop.train(
        model, rows, dev, settings, checkpoints=current.folder / "checkpoints", record=current.record, stop=stop
    )
    loading.save(model, base.tokenizer, base.template, current.folder / "model", outcome.weights)
    current.update(hashes={**current.record_file["hashes"], "model": loading.fingerprint(current.folder / "model")})


def ask_tuned(current: Run, recipe: Recipe, stop: Callable[[], bool]) -> None:
    """The tuned model's answers on test."""
    tuned = load_tuned(current)
    test = Prepared(current.folder / "data" / "test.arrow")
    if test.items()[0].conversation.is_document:
        sheet = _sheet(current, recipe, "answers")
        sheet.continue_documents(tuned, test, arm="fine-tuned", progress=_progress(current, "fine-tuned", "test", stop))
        return
    bench = arms.Bench((), tuned.template, 0, 0, None)
    for name, arm in arms_of(recipe).items():
        if arm.tuned:
            _answer(current, recipe, tuned, test.items(), name, arm.build(bench), "test", "answers", stop)


def judge(current: Run, recipe: Recipe) -> dict[str, Any]:
    """The verdict from the answers on disk."""
    lines = _sheet(current, recipe, "answers").lines()
    result = verdict.assemble(
        lines,
        _sheet(current, recipe, "dev-answers").lines(),
        metric=str(recipe.evaluate.metric),
        metric_reason=_reason(current, "evaluate.metric"),
        alpha=recipe.evaluate.alpha,
        margin=recipe.evaluate.margin,
        seed=recipe.train.seed,
    )
    write_atomic(
        current.folder / "evaluation" / "verdict.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    )
    current.record("verdict", **_without_arms(result))
    return result


def load_tuned(current: Run) -> LanguageModel:
    """The run's model, if it is still used with the template that it was trained with."""
    if not (current.folder / "model").is_dir():
        raise Mistake(
            f"this run has no model yet (it is {current.state}); continue it with `luthier run --run {current.folder}`.",
            where=str(current.folder),
        )
    tuned = loading.load(str(current.folder / "model"))
    if tuned.template.sha256 != current.record_file["hashes"]["template"]:
        raise CorruptedState(
            "the chat template is not the one that the model was trained with; restore model/.",
            where=str(current.folder),
        )
    return tuned


def base_of(current: Run) -> str:
    """The name of the model that a run started from."""
    return recipes.load(current.folder / "recipe.toml").model


def load_model(name: str) -> tuple[LanguageModel, str | None]:
    """A run's tuned model or any other model by name, with the system message that its conversations start with."""
    if (Path(name) / "run.json").is_file():
        current = Run(Path(name))
        return load_tuned(current), recipes.load(current.folder / "recipe.toml").data.system
    return loading.load(name), None


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


def ask_file(name: str, questions: Path, output: Path, *, max_new_tokens: int) -> int:
    """Answer every row of a file of questions; writes JSONL with `question` and `answer` in file order, and counts them."""
    if not output.absolute().parent.is_dir():
        raise Mistake("there is no such folder to write to; make it first.", where=str(output.absolute().parent))
    is_run = (Path(name) / "run.json").is_file()
    asked = file_questions.read(questions, recipes.load(Path(name) / "recipe.toml").data if is_run else None)
    lm, system = load_model(name)
    head = question("", system)[:-1]
    prompts = [prompt if prompt[0].role == "system" else (*head, *prompt) for prompt in asked]
    answers = ask(lm, prompts, max_new_tokens=max_new_tokens)
    lines = [
        json.dumps({"question": prompt[-1].content, "answer": answer}, ensure_ascii=False) + "\n"
        for prompt, answer in zip(asked, answers, strict=True)
    ]
    write_atomic(output, "".join(lines))
    return len(lines)


@dataclass
class Chat:
    """A conversation with a model that remembers what was said."""

    lm: LanguageModel
    system: str | None = None
    max_new_tokens: int = 512

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
        for token in generate.stream(self.lm, prompt, max_new_tokens=self.max_new_tokens):
            ids.append(token)
            text_now = self.lm.template.reply(ids)
            if text_now.startswith(shown) and not text_now.endswith("\ufffd"):  # a character may need several tokens
                yield text_now[len(shown) :]
                shown = text_now
        self.history.append(Message("assistant", self.lm.template.reply(ids)))


def _encode(item: Item, template: Template, limit: int, data: Dataset) -> list[Encoded]:
    """An item's training rows: one, or for a long document several; none, noted in the ledger, if its answer would be cut."""
    try:
        row = template.row(item.conversation)
    except Mistake as mistake:
        data.ledger.drop("refused by the chat template", f"{item.place} ({mistake.message})")
        return []
    if len(row.ids) <= limit:
        return [row]
    if not item.conversation.is_document:
        data.ledger.drop("too long to keep its answer", f"{item.place} ({len(row.ids):,} tokens, {limit:,} fit)")
        return []
    return [Encoded(row.ids[at : at + limit], row.learn[at : at + limit]) for at in range(0, len(row.ids), limit)]


def _pieces(item: Item, encoded: Sequence[Encoded]) -> list[tuple[Item, Encoded]]:
    """An item with each of its rows; the pieces of a long document get ids of their own."""
    if len(encoded) == 1:
        return [(item, encoded[0])]
    return [(replace(item, id=f"{item.id}.{number}"), piece) for number, piece in enumerate(encoded)]


def _answer(
    current: Run, recipe: Recipe, lm: LanguageModel, items: Sequence[Item], name: str, prompt: arms.Prompt, split_name: str,
    file: str, stop: Callable[[], bool],
) -> list[Line]:  # fmt: skip
    assert recipe.evaluate.max_new_tokens
    return _sheet(current, recipe, file).answer(
        lm, items, arm=name, prompt=prompt, max_new_tokens=recipe.evaluate.max_new_tokens,
        progress=_progress(current, name, split_name, stop),
    )  # fmt: skip


def _progress(current: Run, arm: str, split_name: str, stop: Callable[[], bool]) -> Callable[[int, int], None]:
    """Records how far an arm is, and stops between two batches when asked to."""

    def tell(done: int, of: int) -> None:
        current.record("arm", arm=arm, split=split_name, done=done, of=of)
        if stop():
            raise Interrupted(f"stopped while {arm} answered the {split_name} questions; {done} of {of} are kept.")

    return tell


def _sheet(current: Run, recipe: Recipe, file: str) -> Sheet:
    assert recipe.evaluate.metric
    names = (recipe.evaluate.metric, *metrics.ALSO.get(recipe.evaluate.metric, ()))
    scored = {name: metrics.resolve(name) for name in names if name != metrics.BITS_PER_BYTE}
    return Sheet(current.folder / "evaluation" / f"{file}.jsonl", scored)


def _same_model(current: Run, base: LanguageModel) -> None:
    """Note the base model's hashes; a run that is continued must find the same ones."""
    hashes = {"base_model": loading.fingerprint(base.folder), "template": base.template.sha256}
    known = current.record_file.get("hashes", {})
    for name, value in hashes.items():
        if known.get(name, value) != value:
            raise CorruptedState(
                f"the {name.replace('_', ' ')} is not the one that this run was started with; restore it or start a new run.",
                where=base.name,
            )
    current.update(hashes={**known, **hashes})


def _reason(current: Run, key: str) -> str:
    """Why a setting has its value, as recorded when the recipe was computed."""
    reasons = [event["settings"].get(key, [None, "as asked"])[1] for event in current.events("recipe")]
    return str(reasons[0]) if reasons else ""


def _without_arms(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "arms"}


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
