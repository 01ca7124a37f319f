"""From a recipe as it was asked for to everything that a run needs: rows as tokens, splits, every setting with its reason.

`prepare` reads and writes nothing, so that whatever is wrong is found before a run folder exists; `write` leaves the run's own
copy, which every later stage reads.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from luthier import recipe as recipes
from luthier.chat import Template
from luthier.data import encoding, labels, ledger
from luthier.data.checks import actions
from luthier.data.dataset import Dataset, Progress
from luthier.data.documents.pairs import split_of
from luthier.data.readers.values import Value, as_json
from luthier.data.row_store import Rows
from luthier.data.splits import Splits
from luthier.errors import UserError
from luthier.evaluate import error_analysis, guards, metrics, prompt_checks, stages
from luthier.evaluate.context import metric_settings
from luthier.evaluate.judge import sources
from luthier.evaluate.prompts import demonstrations, passages
from luthier.model import conformance, device, memory, methods
from luthier.model.reference import ModelReference
from luthier.pipeline import defaults, documents, row_limit, split_rows
from luthier.pipeline.defaults import FirstChoices, Resolved
from luthier.pipeline.split_rows import SPLITS, SplitRows
from luthier.recipe import Recipe
from luthier.runs import Run
from luthier.runs.durable import format_bytes, write_atomic
from luthier.train import check, memory_estimate, optimizer


@dataclass(frozen=True)
class Preparation:
    """A recipe with every value set and why, the memory that it takes, and the rows that it will use."""

    resolved: Resolved
    model: ModelReference
    template: Template
    found: SplitRows
    material: guards.UserMaterial

    @property
    def dataset(self) -> Dataset:
        return self.found.dataset

    @property
    def splits(self) -> Splits:
        return self.found.splits

    @property
    def rows(self) -> dict[str, Rows]:
        """The rows of each split by its name."""
        return self.found.rows

    @property
    def recipe(self) -> Recipe:
        return self.resolved.recipe

    @property
    def reasons(self) -> dict[str, str]:
        return self.resolved.reasons


def prepare(asked: Recipe, first: FirstChoices | None = None, *, progress: Progress | None = None) -> Preparation:
    """Read the data, tokenize it for the model, split it and compute every default; nothing is written.

    `first` are settings, with their reasons, that an earlier preparation of the same run took from day, machine and memory.
    `progress` is told now and then how many rows are read.
    """
    asked = documents.with_documents(asked)
    material = _check_words(asked)
    model = ModelReference.of(asked.model)

    # What the rows become under this model's template
    actions.check_words(asked.data.findings)
    unpaired = asked.train.objective in labels.UNPAIRED
    read = split_rows.load if unpaired else split_rows.stream
    opened = split_rows.open_data(asked, progress=progress)
    day = _day(asked, first)
    template = model.template(variables=asked.chat.variables, today=day)
    available = memory.available(device.pick_device())
    longest = row_limit.by_default(model.context, documents=opened.documents, first=first)
    limit, _ = defaults.longest_row(asked, model.context, longest)
    found = read(asked, opened, template, limit, progress=progress)
    if asked.train.max_tokens is None and (lower := _lower_limit(asked, model, found, available, first)):
        limit, longest = lower[0], lower
        found = read(asked, split_rows.open_data(asked, progress=progress), template, limit, progress=progress)
    data, splits, rows = found.dataset, found.splits, found.rows
    if len(rows["test"]) < 2:
        raise UserError(
            "found 1 test question, expected at least 2, and 300 to see differences of about 7 points. "
            "Give more data, or set data.test_items higher.",
            where=str(asked.data.path),
        )

    # Every setting that nobody set
    one = splits.train[0].conversation
    facts = defaults.Facts(
        spec=model.spec,
        context=model.context,
        lengths=rows["train"].number("length"),
        shared=rows["train"].number("shared"),
        answer_lengths=rows["train"].number("loss"),
        longest_answers=rows["train"].number("answer"),
        longest_thoughts=rows["train"].number("thoughts"),
        thinks=template.thinks,
        thinking_switch=next(
            (name for name in ("enable_thinking", "thinking") if name in template.known_variables), None
        ),
        day=day if template.reads_date else None,
        documents=one.is_document,
        pairs=one.rejected is not None,
        definition_tokens=demonstrations.definition_tokens(template, splits.train),
        labels=data.choice.format == "classification",
        longest_row=longest,
        disliked=labels.NOT_TRAINED_ON in data.ledger.dropped,
    )
    questions = splits
    if unpaired:
        questions = Splits(*(labels.liked(part) for part in (splits.train, splits.dev, splits.test)))
    resolved = defaults.resolve(asked, data, questions, facts, available, first)

    resolved = replace(resolved, reasons=resolved.reasons | documents.reasons(asked))

    # What can only be tried with all of it
    _check_calls(resolved.recipe, template, splits)
    methods.check_trainable(resolved.recipe.train, model.config)
    optimizer.check_own_optimizer(resolved.recipe.train)
    prompt_checks.try_prompts(resolved.recipe, template, model.context, questions, stages.arms_of(asked), material)
    return Preparation(resolved, model, template, found, material)


def _check_calls(recipe: Recipe, template: Template, splits: Splits) -> None:
    """Refuses to score calls that could not be read in replies: every answer would score 0."""
    called = next((item for item in splits.test if item.conversation.messages[-1].tool_calls), None)
    if called is not None and recipe.evaluate.metric == "tool_call" and not template.reads_calls:
        raise UserError(
            "it calls a function, and the model's chat template writes calls in a form that is not understood, so no reply "
            "could be scored. Use a model with another template, or a metric of your own: "
            "evaluate.metric=package.module:function.",
            where=called.location,
        )


def prepare_again(current: Run) -> Preparation:
    """The preparation of a run that was stopped before it was written; the first choices are those of the first time."""
    asked = recipes.recorded(current.metadata["asked"])
    return prepare(asked, current.metadata.get("of_the_moment"))


def _check_words(asked: Recipe) -> guards.UserMaterial:
    """Raises a UserError for whatever a recipe names that is not there, before any data is read; the guards' own material."""
    settings = asked.evaluate
    stages.check_arms(asked, stages.arms_of(asked))
    if settings.documents is not None:
        passages.read(settings.documents)
    metrics.scorers(settings.metric or "exact_match", metric_settings(asked))
    if settings.judge:
        sources.check(settings.judge)
    material = guards.check_settings(settings)
    error_analysis.user_categories(settings.errors)
    check.check_names(asked.train)
    return material


def _day(asked: Recipe, first: FirstChoices | None) -> date:
    """The day that a chat template with a date writes."""
    if asked.chat.date:
        return asked.chat.date
    return date.fromisoformat(first["chat.date"][0]) if first and "chat.date" in first else today()


def today() -> date:
    """The day on which a run is made."""
    return date.today()


def _lower_limit(
    asked: Recipe, model: ModelReference, found: SplitRows, available: int, first: FirstChoices | None
) -> tuple[int, str] | None:
    """`train.max_tokens` with its reason where the longest of these rows does not fit into memory."""
    if first and "train.max_tokens" in first:
        return None
    together = 2 if found.pairs else 1
    return row_limit.lowered(
        asked.train, model.spec, model.context, available, longest=found.longest, rows_together=together
    )


def write(current: Run, preparation: Preparation) -> None:
    """The run's own copy of rows, documents and recipe, with their checksums; recipe.toml is the last of them."""
    for name in SPLITS:
        preparation.rows[name].write(current.folder / "data" / f"{name}.arrow")
    stages.copy_documents(current, preparation.recipe)
    if evidence := preparation.dataset.ledger.evidence:
        write_atomic(current.folder / "data" / "pairs.jsonl", "".join(f"{as_json({**row})}\n" for row in evidence))
    ledger.write(current.folder / "data" / ledger.FILE, preparation.dataset.ledger)
    write_atomic(current.folder / "data" / "guards.json", preparation.material.to_json())
    data, settings = preparation.dataset, preparation.recipe.model_dump(mode="json")
    current.record(
        "data",
        format=data.choice.format,
        columns=data.choice.columns,
        alternatives=data.choice.alternatives,
        sentence=data.sentence(),
        read=data.ledger.read,
        kept=data.ledger.kept,
        dropped=ledger.first_locations(data.ledger.dropped),
        notes=ledger.first_locations(data.ledger.notes),
        dropped_rows=ledger.counts(data.ledger.dropped),
        noted_rows=ledger.counts(data.ledger.notes),
        ignored=data.ledger.ignored,
        synthetic=data.ledger.synthetic,
        documents=_documents(data.ledger.evidence),
        files=data.files,
        **{name: len(getattr(preparation.splits, name)) for name in SPLITS},
    )
    current.update(hashes={"data": data.sha256}, settled=settings)
    current.record_checksums([current.folder / "data"])
    write_atomic(current.folder / "recipe.toml", recipes.render(preparation.recipe, preparation.reasons))
    current.record_checksums([current.folder / "recipe.toml"])
    current.record(
        "recipe",
        settings={
            key: [recipes.get(settings, key), why] for key, why in preparation.reasons.items() if why != "as asked"
        },
    )
    if lost := data.ledger.dropped.get(encoding.NO_TOOLS):
        message = (
            f"{len(lost):,} row{'s' * (len(lost) > 1)} of {data.ledger.read:,} offer or call functions, which the model's chat "
            "template does not show: dropped, because without its definitions a row would teach something else. A model whose "
            "template shows functions trains on them (luthier template MODEL says so)."
        )
        current.record("warning", message=message)
    if not preparation.splits.train[0].conversation.is_document:
        _record_template(current, preparation)
    _record_memory(current, preparation)


def dropped_of(account: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, str]]:
    """Location and reason of each row that an account lists as dropped."""
    for reason, locations in account.items():
        yield from ((ledger.parted(listed)[0], reason) for listed in locations)


def dropped_rows(current: Run) -> Iterator[tuple[str, str]]:
    """Location and reason of each row that a run has dropped; older runs have no file for them."""
    path = current.folder / "data" / ledger.FILE
    if path.exists():
        yield from ledger.dropped_in(path)
        return
    for event in current.events("data")[-1:]:
        yield from dropped_of(event["dropped"])


def _documents(evidence: Sequence[Mapping[str, Value]]) -> dict[str, int]:
    """How many documents each split has, where documents were given to splits before rows were made of them."""
    found = {name: {row["document"] for row in evidence if split_of(row) == name} for name in SPLITS}
    return {name: len(names) for name, names in found.items()} if any(found.values()) else {}


def _record_template(current: Run, preparation: Preparation) -> None:
    """Whether rows and prompts are those that others make of the model's template; a fault is a warning."""
    found = conformance.examine(preparation.template)
    current.record("template", **found.to_json())
    if not found.clean:
        message = f"the chat template is {found.sentence}. See luthier template {preparation.recipe.model}."
        current.record("warning", message=message)


def _record_memory(current: Run, preparation: Preparation) -> None:
    """What the training will need; a warning where that is more than there is."""
    needed, available = preparation.resolved.memory, preparation.resolved.available
    current.record(
        "needs", training=needed.training, answering=needed.answering, parts=needed.parts, available=available,
        disk=memory_estimate.estimate_disk(preparation.model.spec, preparation.recipe.train),
    )  # fmt: skip
    if not preparation.resolved.fits:
        figures = f"about {format_bytes(needed.training)} of memory, but only {format_bytes(available)} is available"
        message = f"training needs {figures}, so it will probably not fit. `luthier plan` shows what would make it fit."
        current.record("warning", message=message)
