"""From a recipe as it was asked for to everything that a run needs: rows as tokens, splits, every setting with its reason.

`prepare` reads and writes nothing, so that whatever is wrong is found before a run folder exists; `write` leaves the run's own
copy, which every later stage reads.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from luthier import recipe as recipes
from luthier.chat import Encoded, Template
from luthier.data import encoding, held_out_files, labels, prefixes, prepared
from luthier.data.checks import actions
from luthier.data.checks.rows import Scope
from luthier.data.dataset import Dataset, Item, has_pairs
from luthier.data.documents.pairs import split_of
from luthier.data.held_out_files import HeldOut
from luthier.data.readers.values import Value, as_json
from luthier.data.refusals import refusal_pattern
from luthier.data.splits import Splits, split, split_labelled
from luthier.errors import UserError
from luthier.evaluate import error_analysis, guards, metrics, prompt_checks, stages
from luthier.evaluate.context import metric_settings
from luthier.evaluate.judge import sources
from luthier.evaluate.prompts import demonstrations, passages
from luthier.model import conformance, device, memory, methods
from luthier.model.reference import ModelReference
from luthier.pipeline import defaults, documents, row_limit
from luthier.pipeline.defaults import FirstChoices, Resolved
from luthier.recipe import Recipe
from luthier.runs import Run
from luthier.runs.durable import format_bytes, write_atomic
from luthier.train import check, memory_estimate, optimizer

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Preparation:
    """A recipe with every value set and why, the memory that it takes, and the rows that it will use."""

    resolved: Resolved
    model: ModelReference
    template: Template
    dataset: Dataset
    splits: Splits
    rows: dict[str, list[tuple[Item, Encoded]]]
    material: guards.UserMaterial

    @property
    def recipe(self) -> Recipe:
        return self.resolved.recipe

    @property
    def reasons(self) -> dict[str, str]:
        return self.resolved.reasons


def prepare(asked: Recipe, first: FirstChoices | None = None) -> Preparation:
    """Read the data, tokenize it for the model, split it and compute every default; nothing is written.

    `first` are settings, with their reasons, that an earlier preparation of the same run took from day, machine and memory.
    """
    asked = documents.with_documents(asked)
    material = _check_words(asked)
    model = ModelReference.of(asked.model)

    # What the rows become under this model's template
    actions.check_words(asked.data.findings)
    data, held_out = held_out_files.load(asked.data)
    data = actions.apply(
        data, asked.data.findings, Scope(refusal=refusal_pattern(asked.evaluate.errors.get("refusal")))
    )
    check.check_rows(asked.train, data, held_out.dev)
    unpaired = asked.train.objective in labels.UNPAIRED
    data, held_out = labels.select(data, held_out, unpaired=unpaired)
    day = _day(asked, first)
    template = model.template(variables=asked.chat.variables, today=day)
    available = memory.available(device.pick_device())
    longest = row_limit.by_default(model.context, documents=data.items[0].conversation.is_document, first=first)
    limit, _ = defaults.longest_row(asked, model.context, longest)
    ledger = copy.deepcopy(data.ledger)  # as it is before rows are encoded
    encoded = _encode(asked, data, held_out, template, limit)
    if asked.train.max_tokens is None and (lower := _lower_limit(asked, model, encoded, available, first)):
        limit, data, longest = lower[0], replace(data, ledger=ledger), lower
        encoded = _encode(asked, data, held_out, template, limit)
    splits = _split(asked, data, held_out, encoded, limit)
    rows = {name: _rows(getattr(splits, name), encoded, last=name != "train") for name in SPLITS}
    if unpaired:
        rows |= {name: [side for row in rows[name] for side in encoding.both_sides(*row)] for name in ("train", "dev")}
    if len(rows["test"]) < 2:
        raise UserError(
            "found 1 test question, expected at least 2, and 300 to see differences of about 7 points. "
            "Give more data, or set data.test_items higher.",
            where=str(asked.data.path),
        )

    # Every setting that nobody set
    facts = defaults.Facts(
        spec=model.spec,
        context=model.context,
        lengths=[piece.tokens for _, piece in rows["train"]],
        shared=prefixes.shared_with_previous(
            (item.location for item, _ in rows["train"]), lambda number: rows["train"][number][1].ids
        ),
        answer_lengths=[piece.loss_tokens for _, piece in rows["train"]],
        replies=[encoding.parts(piece, template) for _, piece in rows["train"]],
        thinks=template.thinks,
        thinking_switch=next(
            (name for name in ("enable_thinking", "thinking") if name in template.known_variables), None
        ),
        day=day if template.reads_date else None,
        documents=rows["train"][0][0].conversation.is_document,
        pairs=rows["train"][0][0].conversation.rejected is not None,
        definition_tokens=demonstrations.definition_tokens(template, splits.train),
        labels=data.choice.format == "classification",
        longest_row=longest,
        disliked=labels.NOT_TRAINED_ON in data.ledger.dropped,
    )
    questions = Splits(*(labels.liked(part) for part in (splits.train, splits.dev, splits.test)))
    resolved = defaults.resolve(asked, data, questions, facts, available, first)

    resolved = replace(resolved, reasons=resolved.reasons | documents.reasons(asked))

    # What can only be tried with all of it
    _check_calls(resolved.recipe, template, splits)
    methods.check_trainable(resolved.recipe.train, model.config)
    optimizer.check_own_optimizer(resolved.recipe.train)
    prompt_checks.try_prompts(resolved.recipe, template, model.context, questions, stages.arms_of(asked), material)
    return Preparation(resolved, model, template, data, splits, rows, material)


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
    asked = Recipe.model_validate(current.metadata["asked"])
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


def _encode(
    asked: Recipe, data: Dataset, held_out: HeldOut, template: Template, limit: int
) -> dict[str, list[Encoded]]:
    """The rows of each item, by the item's place in the files; with rejected answers where preferences are trained."""
    pairs = asked.train.objective not in (None, "sft", "text") and has_pairs(data.items)
    only_asked = {item.location for item in held_out.test or ()}
    everything = [*data.items, *held_out.items]
    unpaired = asked.train.objective in labels.UNPAIRED
    in_pairs = [item for item in everything if not unpaired or item.conversation.rejected is not None]
    with_pairs = {item.location for item in in_pairs} - only_asked if pairs else frozenset()
    encoded = encoding.encode_all(everything, template, limit, data.ledger, pairs=with_pairs)
    return {location: encoding.of_last_answer(rows) for location, rows in encoded.items()} if unpaired else encoded


def _lower_limit(
    asked: Recipe,
    model: ModelReference,
    encoded: Mapping[str, list[Encoded]],
    available: int,
    first: FirstChoices | None,
) -> tuple[int, str] | None:
    """`train.max_tokens` with its reason where the longest of these rows does not fit into memory."""
    if first and "train.max_tokens" in first:
        return None
    longest = max((row.tokens for rows in encoded.values() for row in rows), default=0)
    together = 2 if any(row.rejected for rows in encoded.values() for row in rows) else 1
    return row_limit.lowered(asked.train, model.spec, model.context, available, longest=longest, rows_together=together)


def _split(asked: Recipe, data: Dataset, held_out: HeldOut, encoded: Mapping[str, list[Encoded]], limit: int) -> Splits:
    """Train, dev and test, of the items that have a row at all; raises a UserError where there is none."""

    def usable(items: Sequence[Item] | None) -> list[Item] | None:
        return None if items is None else [item for item in items if encoded[item.location]]

    items, test, dev = usable(data.items), usable(held_out.test), usable(held_out.dev)
    if not items or [] in (test, dev):
        raise UserError(encoding.why_none(data.ledger, limit), where=", ".join(data.files))
    divide = split_labelled if asked.train.objective in labels.UNPAIRED else split
    found = divide(
        items, test_items=asked.data.test_items, dev_items=asked.data.dev_items, test=test, dev=dev,
        share=asked.data.train_share,
    )  # fmt: skip
    if test is None:
        asked_groups = {item.group for item in found.test}
        for item in items:
            if item.conversation.label is False and item.group in asked_groups:
                data.ledger.drop(labels.NOT_ASKED, item.location)
    return actions.without_relatives(found, asked.data.findings)


def _rows(items: Sequence[Item], encoded: Mapping[str, list[Encoded]], *, last: bool) -> list[tuple[Item, Encoded]]:
    """Each item's rows; with `last` only that of its last answer."""
    return [row for item in items for row in encoding.pieces(item, encoded[item.location], last=last)]


def write(current: Run, preparation: Preparation) -> None:
    """The run's own copy of rows, documents and recipe, with their checksums; recipe.toml is the last of them."""
    for name in SPLITS:
        prepared.write(current.folder / "data" / f"{name}.arrow", preparation.rows[name])
    stages.copy_documents(current, preparation.recipe)
    if evidence := preparation.dataset.ledger.evidence:
        write_atomic(current.folder / "data" / "pairs.jsonl", "".join(f"{as_json({**row})}\n" for row in evidence))
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
        dropped=data.ledger.dropped,
        notes=data.ledger.notes,
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
    if not preparation.rows["train"][0][0].conversation.is_document:
        _record_template(current, preparation)
    _record_memory(current, preparation)


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
