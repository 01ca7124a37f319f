"""Pretraining: what `luthier pretrain` does, stage by stage over one run folder.

    corpus → tokenizer → rows → tokens → recipe → the given model → training → held-out text → what it still can → report

As with the proof, a stage leaves its result in the folder, and one whose result is there is passed over. Rows, the given model
and what it still can are of a model that learns on (`pipeline.continued`); where random weights are trained there are none.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from luthier import recipe as recipes
from luthier.data import corpora
from luthier.data.corpora import Account, Corpus, CorpusRows
from luthier.errors import MachineError, UserError
from luthier.model import device, fresh, identity, loading, memory, new_tokenizer
from luthier.model import reference as references
from luthier.model.fresh import Shape
from luthier.model.generate import Sampling, answer
from luthier.model.loading import LanguageModel
from luthier.model.reference import ModelReference
from luthier.model.spec import ModelSpec
from luthier.model.tokenizer import HubTokenizer, template_of
from luthier.pipeline import continued, opening, resume, scaling, vocabulary
from luthier.pipeline.opening import Listener, Stop
from luthier.pipeline.proof import Job, Stage, go_through
from luthier.pipeline.scaling import Existing, Scaled
from luthier.pipeline.trial import tokens_per_second
from luthier.recipe import SCRATCH, PretrainRecipe, Recipe
from luthier.report import pretraining as report
from luthier.runs import Run
from luthier.runs.durable import format_bytes, write_atomic
from luthier.train import loop, memory_estimate
from luthier.train.memory_estimate import LargestBatch
from luthier.train.rows import RowView

HELD_OUT_BYTES = 2_000_000
LARGEST_SHARE = 0.05
"""Held out for dev, and as much for test: about so many bytes, but no more than this share."""
DEV_TOKENS = 8192
"""Fewest tokens of a dev check."""
SAMPLE_TOKENS = 48
TEMPERATURE = 0.7
HELD_OUT = "held-out.json"


def pretrain(
    asked: Recipe,
    folder: Path | None = None,
    *,
    listen: Listener | None = None,
    command: str = "",
    stop: Stop | None = None,
) -> Run:
    """Everything from the corpus to a base model and what it makes of held-out text. A run that is there is continued."""
    current = _open(asked, folder or opening.default_folder(asked), command=command)
    complete = current.state == "complete" and (current.folder / "model").exists()
    with opening.working_run(
        current, is_complete=complete, write_report=report.write, listen=listen, stop=stop
    ) as stopped:
        if stopped is None:
            return current
        if resume.is_prepared(current):
            resume.warn_of_versions(current)
            current.expect_whole("data", "tokenizer")
            resume.expect_same_recipe(current)
        go_through(PRETRAIN, Job(current, stopped))
    return current


def is_pretraining(folder: Path) -> bool:
    """Whether a folder holds a run of `luthier pretrain`."""
    return (folder / "run.json").is_file() and "pretrain" in Run(folder).metadata.get("asked", {})


def _open(asked: Recipe, folder: Path, *, command: str) -> Run:
    """The run in this folder: a new one, or one to be continued with the settings that it was started with."""
    if (folder / "run.json").exists():
        current = Run(folder)
        before = recipes.recorded(current.metadata["asked"])
        if not isinstance(before, PretrainRecipe):
            raise UserError("no pretraining; continue it with luthier resume, or name a new folder.", where=str(folder))
        if asked.data.path is not None and (changes := recipes.differences(before, whole_recipe(asked))):
            listed = "; ".join(f"{key} was {old}, now {new}" for key, (old, new) in changes.items())
            raise UserError(
                f"this run was started with other settings ({listed}). Continue it with luthier resume {folder}, or name a "
                "new folder.",
                where=str(folder),
            )
        if not _is_tokenized(Job(current, lambda: False)):
            rows = continued.check(before) if before.continues else []
            resume.expect_same_sources(current, _sources(corpora.find(_path(before)), rows))
        return current
    asked = whole_recipe(asked)
    scaling.check(asked)
    rows = continued.check(asked) if asked.continues else []
    corpus = corpora.find(_path(asked))
    next(vocabulary.training_texts(corpus), None)  # what cannot be read at all is told now
    if (folder_asked := asked.pretrain.tokenizer) is not None:
        HubTokenizer(new_tokenizer.read(folder_asked))
    return Run.create(
        folder,
        luthier=version("luthier"),
        command=command or "luthier.pretrain(…)",
        asked=asked.model_dump(mode="json"),
        sources=_sources(corpus, rows),
        versions={name: version(name) for name in resume.VERSIONS} | {"python": platform.python_version()},
    )


def whole_recipe(asked: Recipe) -> PretrainRecipe:
    """The recipe as one of pretraining, what is on this machine by its whole path.

    A given model learns with AdamW unless asked otherwise, as the one that it was trained with: Muon's gain is that of random
    weights.
    """
    content = asked.model_dump(exclude_unset=True)
    dials = content.setdefault("pretrain", {})
    for name in ("tokenizer", "rows"):
        if dials.get(name) is not None:
            dials[name] = Path(dials[name]).expanduser().absolute()
    if content.get("model", SCRATCH) != SCRATCH:
        content["model"] = references.absolute(content["model"])
        content.setdefault("train", {}).setdefault("optimizer", "adamw")
    return PretrainRecipe.model_validate(content)


def _path(recipe: Recipe) -> Path:
    assert recipe.data.path is not None
    return recipe.data.path


def _sources(corpus: Corpus, rows: Sequence[str]) -> resume.Sources:
    return resume.sources(sorted({str(source.path) for _, source in corpus.files} | set(rows)))


def asked_of(job: Job) -> PretrainRecipe:
    """What the run was asked for."""
    found = recipes.recorded(job.run.metadata["asked"])
    assert isinstance(found, PretrainRecipe)
    return found


# The stages.


def _has_tokenizer(job: Job) -> bool:
    return (job.folder / "tokenizer").is_dir()


def _make_tokenizer(job: Job) -> None:
    asked = asked_of(job)
    if asked.continues:
        new_tokenizer.save(ModelReference.of(asked.model).tokenizer, job.folder / "tokenizer")
        return
    if asked.pretrain.tokenizer is not None:
        new_tokenizer.save(new_tokenizer.read(asked.pretrain.tokenizer), job.folder / "tokenizer")
        return
    entries, _ = scaling.vocabulary(asked.pretrain)
    corpus = corpora.find(_path(asked))
    made = new_tokenizer.train(
        vocabulary.training_texts(corpus), entries, where=str(corpus.path), fewer=asked.pretrain.vocab is None
    )
    new_tokenizer.expect_round_trip(made, vocabulary.first_texts(corpus))
    new_tokenizer.save(made, job.folder / "tokenizer")


def _is_tokenized(job: Job) -> bool:
    file = job.folder / "data" / "tokens.json"
    return file.is_file() and json.loads(file.read_text(encoding="utf-8"))["position"] is None


def _tokenize(job: Job) -> None:
    asked, folder = asked_of(job), job.folder / "tokenizer"
    corpus, tokenizer = corpora.find(_path(asked)), new_tokenizer.read(folder)
    plan = corpora.Plan(
        HubTokenizer(tokenizer).encode_texts, new_tokenizer.identity(folder), int(tokenizer.eos_token_id), len(tokenizer),
        min(LARGEST_SHARE, HELD_OUT_BYTES / max(1, corpus.bytes)), asked.pretrain.deduplicate,
    )  # fmt: skip
    account = corpora.tokenize(
        corpus, plan, job.folder / "data",
        progress=lambda account: job.run.emit("reading", rows=account.documents), stop=job.stop,
    )  # fmt: skip
    _expect_enough(account, str(corpus.path))
    files = [source.name for _, source in corpus.files]
    job.run.record("corpus", files=files, ignored=corpus.ignored, **asdict(account))


def _expect_enough(account: Account, where: str) -> None:
    if not all(account.kept.values()):
        raise UserError(
            f"{account.passages:,} passages are too few to hold some out. Expected a longer text, or files that are named "
            "val and test.",
            where=where,
        )


def _resolve(job: Job) -> None:
    """Every setting with its reason, from what the corpus turned out to be."""
    asked = asked_of(job)
    scaled = resolve(asked, job.folder)
    _expect_memory(scaled)
    tokens = json.loads((job.folder / "data" / "tokens.json").read_text(encoding="utf-8"))
    settings = scaled.recipe.model_dump(mode="json")
    job.run.update(
        hashes={"data": tokens["sha256"], "tokenizer": tokens["tokenizer"]}, settled=settings,
    )  # fmt: skip
    job.run.record_checksums([job.folder / "data", job.folder / "tokenizer"])
    write_atomic(job.folder / "recipe.toml", recipes.render(scaled.recipe, scaled.reasons))
    job.run.record_checksums([job.folder / "recipe.toml"])
    job.run.record("recipe", settings={key: [recipes.get(settings, key), why] for key, why in scaled.reasons.items()})


def resolve(asked: PretrainRecipe, folder: Path) -> Scaled:
    """The recipe for the tokens in a folder; where minutes decide, a few steps are made on them to measure the speed."""
    tokenizer = new_tokenizer.read(folder / "tokenizer")
    weights = asked.pretrain.weights
    tokens = CorpusRows(folder / "data", "train", context=256, weights=weights).tokens

    def measure(shape: Shape | Existing, settings: recipes.Train) -> float:
        rows = CorpusRows(folder / "data", "train", context=shape.context, weights=weights)
        return tokens_per_second(scaling.config_of(shape), rows, settings, beside=folder)

    if asked.continues:
        return continued.resolve(asked, folder, measure)
    return scaling.resolve(
        asked, tokens=tokens, vocabulary=len(tokenizer), made=asked.pretrain.tokenizer is None, measure=measure
    )


def _expect_memory(scaled: Scaled) -> None:
    """Refuses a size that this machine has no memory for, before it is tried."""
    needed, available = estimate_memory(scaled).training, memory.available(device.pick_device())
    if needed > available:
        learns_on = scaled.recipe.continues
        raise MachineError(
            f"a model of {scaled.shape.parameters:,} weights needs about {format_bytes(needed)} to train, and "
            f"{format_bytes(available)} are available. {'Take a smaller one' if learns_on else 'Set it lower'}, or set "
            "train.tokens_per_batch lower.",
            where="model" if learns_on else "pretrain.parameters",
        )


def estimate_memory(scaled: Scaled) -> memory_estimate.MemoryEstimate:
    """The memory of the training by part."""
    spec = ModelSpec.of(scaling.config_of(scaled.shape))
    settings, context = scaled.recipe.train, scaled.shape.context
    rows = np.full(max(1, (settings.tokens_per_batch or 1) // context), context)
    return memory_estimate.estimate_memory(spec, settings, LargestBatch.of(rows, settings), device.pick_device())


def recipe_of(folder: Path) -> PretrainRecipe:
    """A pretraining's own recipe, every value set."""
    found = recipes.load(folder / "recipe.toml")
    assert isinstance(found, PretrainRecipe)
    return found


def _train(job: Job) -> None:
    """Train from random weights, or those of the given model, and save the best checkpoint as the run's model."""
    recipe, folder = recipe_of(job.folder), job.folder / "model"
    settings, dials = recipe.train, recipe.pretrain
    if not folder.is_dir():
        with memory.explain_out_of_memory("to train", memory_estimate.advice(settings)):
            lm = continued.base_model(job.run, recipe) if recipe.continues else _new_model(job.folder, recipe)
            name, template = f"a new {dials.family}", "the chat template of its tokenizer"
            if recipe.continues:
                name, template = recipe.model, lm.template.name
            job.run.record(
                "model", name=name, parameters=lm.model.num_parameters(), trainable="all", method="full",
                precision=settings.precision, device=str(lm.device), template=template,
            )  # fmt: skip
            assert dials.context
            rows, dev = (
                CorpusRows(job.folder / "data", split, context=dials.context, weights=dials.weights)
                for split in ("train", "dev")
            )
            outcome = loop.train(
                lm.model,
                continued.mixed(rows, job.run, recipe, "train"),
                continued.mixed(_some_of(dev, dials.tokens or 0), job.run, recipe, "dev"),
                settings,
                checkpoints=job.folder / "checkpoints",
                record=_Recorder(job.run, lm, dials.prompts),
                stop=job.stop,
            )
            loading.save(lm.model, lm.tokenizer, lm.template, folder, outcome.weights)
    job.run.record_checksums([folder])
    job.run.update(hashes={**job.run.metadata["hashes"], "model": identity.fingerprint(folder)})


def _new_model(folder: Path, recipe: PretrainRecipe) -> LanguageModel:
    """Random weights of the recipe's shape, with the run's tokenizer."""
    tokenizer = new_tokenizer.read(folder / "tokenizer")
    shape = scaling.shape_of(recipe, len(tokenizer))
    config = fresh.config_of(shape, end=tokenizer.eos_token_id, pad=tokenizer.pad_token_id)
    model = fresh.build(config, recipe.train.seed, device.pick_device())
    return LanguageModel(ModelReference(SCRATCH, folder), model, tokenizer, template_of(tokenizer))


def _some_of(dev: CorpusRows, budget: int) -> RowView:
    """Rows from all over dev, so few that looking at them ten times takes a small part of the training's time."""
    wanted = max(DEV_TOKENS, budget // 300) // dev.context
    return RowView(dev, range(0, len(dev), max(1, len(dev) // max(1, wanted))))


class _Recorder:
    """Records the events of a training, and with each dev check what the model writes by then."""

    def __init__(self, run: Run, lm: LanguageModel, prompts: Sequence[str]) -> None:
        self.run, self.lm, self.tokenizer, self.prompts = run, lm, HubTokenizer(lm.tokenizer), prompts

    def __call__(self, kind: str, **fields: object) -> None:
        self.run.record(kind, **fields)
        if kind == "dev" and self.prompts:
            was_training = self.lm.model.training
            self.lm.model.eval()
            for prompt, text in zip(self.prompts, self._continued(int(str(fields["step"]))), strict=True):
                self.run.record("sample", step=fields["step"], prompt=prompt, text=text)
            self.lm.model.train(was_training)

    def _continued(self, step: int) -> list[str]:
        """What the model makes of the prompts, drawn with a seed that the step decides."""
        sampling = Sampling(TEMPERATURE, [(step, number) for number in range(len(self.prompts))])
        ids = self.tokenizer.encode_texts(self.prompts)
        with torch.inference_mode():
            replies = answer(self.lm, ids, max_new_tokens=SAMPLE_TOKENS, sampling=sampling)
        return [self.tokenizer.decode(reply.ids) for reply in replies]


def _is_trained(job: Job) -> bool:
    return (job.folder / "model").is_dir() and "model" in job.run.metadata["hashes"]


def _is_measured(job: Job) -> bool:
    return (job.folder / "evaluation" / HELD_OUT).is_file()


def _measure(job: Job) -> None:
    """Bits per byte of the text that was held out and never looked at."""
    lm = loading.load(str(job.folder / "model"))
    found = continued.measure_held_out(job.run, recipe_of(job.folder), lm, job.stop)
    write_atomic(job.folder / "evaluation" / HELD_OUT, json.dumps(found.to_json(), indent=2) + "\n")
    job.run.record("held-out", **found.to_json())
    job.run.record_checksums([job.folder / "evaluation" / HELD_OUT])


def _compare(job: Job) -> None:
    """What the given model could do and this one still can."""
    continued.compare(job.run, recipe_of(job.folder), loading.load(str(job.folder / "model")), job.stop)
    files = (job.folder / "evaluation").iterdir()
    job.run.record_checksums(sorted(file for file in files if not file.name.startswith(("benchmark", "."))))


PRETRAIN = (
    Stage("the tokenizer", _has_tokenizer, _make_tokenizer),
    Stage(
        "the rows",
        lambda job: continued.has_rows(job.run, asked_of(job)),
        lambda job: continued.prepare_rows(job.run, asked_of(job), job.stop),
    ),
    Stage("the tokens", _is_tokenized, _tokenize),
    Stage("the recipe", lambda job: resume.is_prepared(job.run), _resolve),
    Stage(
        "the given model's answers",
        lambda job: continued.is_asked_before(job.run, recipe_of(job.folder)),
        lambda job: continued.ask_before(job.run, recipe_of(job.folder), job.stop),
    ),
    Stage("training", _is_trained, _train),
    Stage("held-out text", _is_measured, _measure),
    Stage("what it still can", lambda job: continued.is_compared(job.run, recipe_of(job.folder)), _compare),
)
"""From raw text to a base model, or from a given model to one that knows the text as well: another story than PROVE."""
