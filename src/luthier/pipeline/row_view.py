"""Any row as the model will see it: `luthier inspect DATA --row 118`, and the same for the rows that a run has kept.

The rows are prepared as a run prepares them, or are a run's own, and what is shown is taken out of the micro-batch that its
training packs (`train/batch_view.py`).
"""

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from luthier import recipe as recipes
from luthier.chat import Template
from luthier.data.prepared import Prepared
from luthier.data.token_view import BatchPosition, RowsView, ViewedRow, view_tokens
from luthier.errors import UserError
from luthier.model.reference import ModelReference
from luthier.pipeline import preparation
from luthier.pipeline.split_rows import SPLITS
from luthier.recipe import Recipe, Train
from luthier.runs import Run, durable
from luthier.train import batch_view
from luthier.train.objectives import LabelledAnswers
from luthier.train.rows import TokenRows

NOT_TRAINED = {
    "dev": "in dev: a loss is computed on it to choose by, and nothing is learnt from it",
    "test": "in test: opened for the verdict, and nothing is learnt from it",
}
UNREACHED = "in train, but the training ends before it comes to this row (train.max_steps)"
ONE_BY_ONE = "this model mixes rows that share a batch, so each row gets a batch of its own"
OWN_OBJECTIVE = "train.objective is your own function, which may pack rows in another way; shown as sft does"
_NUMBER = re.compile(r":(?:[a-z]+ )?(\d+)(?:, record \d+)?$")
"""How a location ends: `:118`, `:row 118`, `:1, record 12`."""


Dropped = Callable[[], Iterable[tuple[str, str]]]


@dataclass(frozen=True)
class _Splits:
    """Rows on a disk as a training takes them, and how."""

    rows: dict[str, Prepared]
    settings: Train
    prefixes_shared: bool
    notes: tuple[str, ...]
    dropped: Dropped
    """Location and reason of rows that are in no split."""


def of_data(asked: Recipe, wanted: Sequence[str], *, beside: str | None = None) -> RowsView:
    """These rows of the data as a run with this recipe would train on them; nothing is kept."""
    made = preparation.prepare(asked)
    with durable.scratch_folder(Path(tempfile.gettempdir())) as folder:
        for split in SPLITS:
            made.rows[split].write(folder / f"{split}.arrow")
        rows = {split: Prepared(folder / f"{split}.arrow") for split in SPLITS}
        found = batch_view.try_rows(made.model.spec, _longest(rows)).fields()
        splits = _checked(rows, made.recipe.train, found, partial(preparation.dropped_of, made.dataset.ledger.dropped))
        return _view(splits, made.recipe, made.template, wanted, beside)


def of_run(folder: Path, wanted: Sequence[str], *, beside: str | None = None) -> RowsView:
    """These of the rows that a run has kept, as it trains on them."""
    current = Run(folder)
    if not (folder / "recipe.toml").is_file():
        raise UserError(
            "this run was stopped before its rows were written; `luthier resume` goes on.", where=str(folder)
        )
    recipe = recipes.load(folder / "recipe.toml")
    rows = {split: Prepared(folder / "data" / f"{split}.arrow") for split in SPLITS}
    model = _reference_of(folder, recipe.model)
    template = model.template(variables=recipe.chat.variables, today=recipe.chat.date)
    dropped = partial(preparation.dropped_rows, current)
    events = current.events("selftest")
    found = events[-1] if events else batch_view.try_rows(model.spec, _longest(rows)).fields()
    return _view(_checked(rows, recipe.train, found, dropped), recipe, template, wanted, beside)


def _longest(rows: Mapping[str, Prepared]) -> int:
    return max(max(rows[split].lengths, default=0) for split in ("train", "dev"))


def _checked(rows: dict[str, Prepared], settings: Train, found: Mapping[str, Any], dropped: Dropped) -> _Splits:
    """The rows with the settings that a training has after its sanity check, of which `found` are the fields."""
    settings, prefixes_shared = batch_view.as_checked(
        settings, apart=found["apart"], shared=found["shared"], together=found["together"], longest=_longest(rows)
    )
    return _Splits(rows, settings, prefixes_shared, () if found["apart"] else (ONE_BY_ONE,), dropped)


def _reference_of(folder: Path, name: str) -> ModelReference:
    """The model that a run starts from; its tokenizer and template are the tuned model's too."""
    try:
        return ModelReference.of(name, weights=False)
    except UserError:
        if not (folder / "model").is_dir():
            raise
        return ModelReference.of(str(folder / "model"), weights=False)


def _view(splits: _Splits, recipe: Recipe, template: Template, wanted: Sequence[str], beside: str | None) -> RowsView:
    chosen = {split: _find(rows, wanted) for split, rows in splits.rows.items()}
    _expect_found(splits, chosen, wanted, recipe.data.train_share)
    rows = [*_trained_rows(splits, chosen["train"], template)]
    for split in ("dev", "test"):
        rows += _other_rows(splits.rows[split], split, chosen[split], template)
    other = _beside(splits, chosen, beside, recipe) if beside else None
    return RowsView(recipe.model, template.name, tuple(rows), other)


def matches(location: str, wanted: str) -> bool:
    """Whether a row is meant: by its line or number (`118`), with its file (`tickets.jsonl:118`), or by its whole location."""
    if location == wanted or location.endswith((f"/{wanted}", f":{wanted}")):
        return True
    file, _, number = wanted.rpartition(":")
    found = _NUMBER.search(location)
    return (
        found is not None
        and found[1] == number
        and f"/{location[: found.start()]}".endswith(f"/{file}" if file else "")
    )


def _find(rows: Prepared, wanted: Sequence[str]) -> list[int]:
    return [number for number in range(len(rows)) if any(matches(rows.location(number), each) for each in wanted)]


def _expect_found(
    splits: _Splits, chosen: Mapping[str, Sequence[int]], wanted: Sequence[str], train_share: float
) -> None:
    """Refuses rows that are in no split, with the ledger's reason where it has one, else with the row before."""
    found = [splits.rows[split].location(number) for split, numbers in chosen.items() for number in numbers]
    for each in wanted:
        if any(matches(location, each) for location in found):
            continue
        for location, reason in splits.dropped():
            if matches(location, each):
                raise UserError(f"this row is dropped: {reason}.", where=each)
        everywhere = [rows.location(number) for rows in splits.rows.values() for number in range(len(rows))]
        share = f"; data.train_share={train_share:g} leaves some out of train" if train_share < 1 else ""
        raise UserError(f"no row of train, dev or test begins here{share}. {_near(each, everywhere)}", where=each)


def _near(wanted: str, locations: Sequence[str]) -> str:
    """The last row that begins before a line, in which a record of several lines may go on; else how rows are named."""
    file, _, line = wanted.rpartition(":")
    before = [
        (int(found[1]), location)
        for location in locations
        if (found := _NUMBER.search(location)) and location[: found.start()].endswith(file) and line.isdecimal()
        if int(found[1]) < int(line)
    ]
    if before:
        return f"The one before begins at {max(before)[1]}."
    return f"A row is named by its line or number, such as {locations[0]}."


def _trained_rows(splits: _Splits, numbers: Sequence[int], template: Template) -> Iterator[ViewedRow]:
    """Rows of train, out of the micro-batch that each is in first."""
    objective = splits.settings.objective
    rows = batch_view.as_trained(objective, splits.rows["train"])
    notes = (*splits.notes, *((OWN_OBJECTIVE,) if objective and ":" in objective else ()))
    found = batch_view.find(rows, numbers, splits.settings, prefixes_shared=splits.prefixes_shared)
    batched = {one.number: one for one in found}
    for number, part in _parts(splits.rows["train"], numbers):
        location = rows.location(number)
        one = batched.get(number)
        if one is None:
            [alone] = batch_view.unpack(batch_view.pack_rows([rows[number]], share=False))
            yield _viewed(location, "train", alone, template, part, None, "", (UNREACHED,))
            continue
        sides = ("chosen", "rejected") if len(one.rows) == 2 else (_liking(rows, number),)
        for side, row in zip(sides, one.rows, strict=True):
            shared_with = one.names[row.shared_with] if row.shared else ""
            named = ", ".join(word for word in (part, side) if word)
            yield _viewed(location, "train", row, template, named, one.position, shared_with, notes)


def _liking(rows: TokenRows, number: int) -> str:
    """What people thought of a row's answer, where that is learnt."""
    if not isinstance(rows, LabelledAnswers):
        return ""
    return "liked" if rows.liked[number] else "not liked"


def _other_rows(rows: Prepared, split: str, numbers: Sequence[int], template: Template) -> Iterator[ViewedRow]:
    """Rows of dev and test, alone: what they are packed with changes nothing for them, and nothing is learnt."""
    for number, part in _parts(rows, numbers):
        [row] = batch_view.unpack(batch_view.pack_rows([rows[number]], share=False))
        yield _viewed(rows.location(number), split, row, template, part, None, "", (NOT_TRAINED[split],))


def _viewed(
    location: str,
    split: str,
    row: batch_view.PackedRow,
    template: Template,
    part: str,
    position: BatchPosition | None,
    shared_with: str,
    notes: tuple[str, ...],
) -> ViewedRow:
    tokens = view_tokens(row.ids, row.loss_mask, template, shared=row.shared)
    return ViewedRow(location, split, tokens, part, position, shared_with, notes)


def _parts(rows: Prepared, numbers: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Rows with what each is of its record, where that has several: `row 2 of 3`, `piece 1 of 4`."""
    locations = [rows.location(number) for number in numbers]
    seen: dict[str, int] = {}
    for number, location in zip(numbers, locations, strict=True):
        seen[location] = seen.get(location, 0) + 1
        count = locations.count(location)
        word = "piece" if rows.documents else "row"
        yield number, f"{word} {seen[location]} of {count}" if count > 1 else ""


def _beside(splits: _Splits, chosen: dict[str, list[int]], model: str, recipe: Recipe) -> RowsView:
    """The same conversations in another model's template."""
    try:
        template = ModelReference.of(model, weights=False).template(today=recipe.chat.date)
    except UserError as error:
        raise type(error)(error.message, where=f"--beside {model}") from None
    viewed: list[ViewedRow] = []
    for split in SPLITS:
        rows = splits.rows[split]
        for number, part in _parts(rows, chosen[split]):
            said = next(islice(rows.stream(), number, None)).conversation
            if said.is_document and part and not part.startswith("piece 1 "):
                continue  # its whole text stands beside the first piece
            try:
                rendered = template.rows(said)
            except UserError as error:
                raise UserError(
                    f"the template of {model} refuses this row: {error.message}", where=rows.location(number)
                ) from None
            for row in rendered[-1:] if part and not said.is_document else rendered:
                tokens = view_tokens(row.ids, row.loss_mask, template)
                viewed.append(ViewedRow(rows.location(number), split, tokens, part))
    return RowsView(model, template.name, tuple(viewed))
