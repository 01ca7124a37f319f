"""A given model that learns more text: the rows that are mixed in, and what became of what it could do before.

rows      labelled rows become the run's own, split and tokenized as for fine-tuning
before    held-out text, general knowledge, and answers to the rows' test questions, by the model as it was given
after     the same by the one that learnt, and both compared
"""

import json
from collections.abc import Callable
from pathlib import Path

from luthier import recipe as recipes
from luthier.data import ledger
from luthier.data.checks.findings import plural
from luthier.data.corpora import CorpusRows
from luthier.data.dataset import Progress
from luthier.data.prepared import Prepared
from luthier.errors import Interrupted, UserError
from luthier.evaluate import chat_check, guards, metrics
from luthier.evaluate.guards import CheckResult
from luthier.model import tuned
from luthier.model.loading import LanguageModel
from luthier.model.reference import ModelReference
from luthier.pipeline import held_out, scaling, split_rows
from luthier.pipeline.held_out import HeldOut
from luthier.pipeline.opening import Stop
from luthier.pipeline.scaling import Existing, Measure, Scaled
from luthier.pipeline.split_rows import SplitRows
from luthier.recipe import Evaluate, PretrainRecipe, Recipe
from luthier.runs import Run
from luthier.runs.durable import write_atomic
from luthier.train.rows import MixedRows, TokenRows

HELD_OUT_BEFORE = "held-out-before.json"
GUARDS = Evaluate(guards=("forgetting",))
FEWEST = 2
"""Questions that make a comparison."""
LAST = "test.arrow"
"""What is written last of the rows."""


def check(asked: PretrainRecipe) -> list[str]:
    """Raises a UserError where the model or the rows cannot be used; the files that the rows are in."""
    reference = ModelReference.of(asked.model)
    reference.template()
    wanted = asked.pretrain.context
    if wanted is not None and wanted > reference.context:
        raise UserError(
            f"the model can look back on {reference.context:,} tokens. Expected no more.", where="pretrain.context"
        )
    if asked.pretrain.rows is None:
        return []
    opened = split_rows.open_data(_rows_recipe(asked))
    if opened.documents:
        raise UserError(
            "these are texts and no questions with answers; put them into the corpus.", where="pretrain.rows"
        )
    return [file for reading in opened.readings.values() for file in reading.files]


def _rows_recipe(asked: PretrainRecipe) -> Recipe:
    """What the rows would be tuned with."""
    return recipes.replace(Recipe(), {"model": asked.model, "data.path": asked.pretrain.rows})


def existing(asked: PretrainRecipe) -> Existing:
    """The model's size, and the tokens of a row."""
    reference = ModelReference.of(asked.model)
    usual = min(reference.context, scaling.usual_context(reference.spec.parameters))
    return Existing(reference.config, reference.spec.parameters, asked.pretrain.context or usual)


# The rows.


def has_rows(current: Run, asked: PretrainRecipe) -> bool:
    """Whether the rows are the run's own by now; none asked for are there."""
    return asked.pretrain.rows is None or (current.folder / "data" / LAST).is_file()


def prepare_rows(current: Run, asked: PretrainRecipe, stop: Stop) -> None:
    """Read the rows, split them, and write them down as tokens; those too long for a row lose their oldest turns."""

    def progress(rows: int) -> None:
        current.emit("reading", rows=rows)
        if stop():
            raise Interrupted("stopped while the rows were read; they are read again.")

    found = _read_rows(asked, progress)
    if (questions := len(found.rows["test"])) < FEWEST:
        raise UserError(
            f"found {plural(questions, 'test question')}, expected at least {FEWEST} to ask before and after. "
            "Give more rows.",
            where=str(asked.pretrain.rows),
        )
    for name in split_rows.SPLITS:
        found.rows[name].write(current.folder / "data" / f"{name}.arrow")
    data = found.dataset
    ledger.write(current.folder / "data" / ledger.FILE, data.ledger)
    current.record(
        "rows", sentence=data.sentence(), read=data.ledger.read, kept=data.ledger.kept, files=data.files,
        dropped_rows=ledger.counts(data.ledger.dropped), **{name: len(found.rows[name]) for name in split_rows.SPLITS},
    )  # fmt: skip


def _read_rows(asked: PretrainRecipe, progress: Progress | None = None) -> SplitRows:
    recipe, template = _rows_recipe(asked), ModelReference.of(asked.model).template()
    opened = split_rows.open_data(recipe, progress=progress)
    return split_rows.stream(recipe, opened, template, existing(asked).context, progress=progress)


def tokens_of_rows(asked: PretrainRecipe) -> int:
    """Tokens that the rows add to a pass; nothing is written."""
    if asked.pretrain.rows is None:
        return 0
    return round(asked.pretrain.rows_weight * int(_read_rows(asked).rows["train"].number("length").sum()))


def _rows(current: Run, split: str) -> Prepared | None:
    path = current.folder / "data" / f"{split}.arrow"
    return Prepared(path) if path.is_file() else None


def mixed(texts: TokenRows, current: Run, recipe: PretrainRecipe, split: str) -> TokenRows:
    """Texts with the run's rows among them: of train as often as asked, of dev so many that their share is the same."""
    rows, of_train = _rows(current, split), _rows(current, "train")
    if rows is None or of_train is None:
        return texts
    weight = recipe.pretrain.rows_weight
    if split != "train":
        all_texts = CorpusRows(current.folder / "data", "train", context=recipe.pretrain.context or 0).tokens
        share = weight * of_train.tokens / all_texts
        weight = min(1.0, share * sum(texts.lengths) / rows.tokens)
    return MixedRows(texts, rows, weight)


def resolve(asked: PretrainRecipe, folder: Path, measure: Measure) -> Scaled:
    """The recipe for the tokens in a folder and the rows beside them."""
    model, rows = existing(asked), folder / "data" / "train.arrow"
    tokens = CorpusRows(folder / "data", "train", context=model.context, weights=asked.pretrain.weights).tokens
    of_rows = round(asked.pretrain.rows_weight * Prepared(rows).tokens) if rows.is_file() else 0
    return scaling.resolve_existing(asked, model, tokens=tokens, mixed=of_rows, measure=measure)


# Before and after.


def base_model(current: Run, recipe: PretrainRecipe) -> LanguageModel:
    """The given model, if it is still the one that the run began with."""
    base = tuned.starting_model(current, recipe)
    tuned.expect_same_base(current, base)
    return base


def is_asked_before(current: Run, recipe: PretrainRecipe) -> bool:
    """Whether all is known of the given model that is compared later; of random weights there is nothing to know."""
    return not recipe.continues or (current.folder / "evaluation" / HELD_OUT_BEFORE).is_file()


def ask_before(current: Run, recipe: PretrainRecipe, stop: Stop) -> None:
    """What the given model makes of everything that is asked of the other one later."""
    base = base_model(current, recipe)
    _ask(current, recipe, base, guards.BASE, stop)
    found = measure_held_out(current, recipe, base, stop)
    write_atomic(current.folder / "evaluation" / HELD_OUT_BEFORE, json.dumps(found.to_json(), indent=2) + "\n")
    current.record("held-out-before", **found.to_json())


def measure_held_out(current: Run, recipe: PretrainRecipe, lm: LanguageModel, stop: Stop) -> HeldOut:
    """Bits per byte of the text that was held out and never looked at."""
    rows = CorpusRows(current.folder / "data", "test", context=lm.context)
    return held_out.measure(lm, rows, int(lm.tokenizer.eos_token_id), seed=recipe.train.seed, stop=stop)


def is_compared(current: Run, recipe: PretrainRecipe) -> bool:
    """Whether it is known what became of what the given model could do."""
    return not recipe.continues or (current.folder / "evaluation" / "guards.json").is_file()


def compare(current: Run, recipe: PretrainRecipe, lm: LanguageModel, stop: Stop) -> None:
    """Ask the model that learnt, and compare it with the given one, check by check."""
    _ask(current, recipe, lm, guards.TUNED, stop)
    folder, seed = current.folder / "evaluation", recipe.train.seed
    results: list[CheckResult] = guards.check_results(_inputs(recipe), folder / "guard-answers.jsonl", ())
    if (answers := folder / "answers.jsonl").is_file():
        results += chat_check.check_results(answers, _metric(current), alpha=GUARDS.alpha, seed=seed)
    content = {"guards": [result.to_json() for result in results]}
    write_atomic(folder / "guards.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    current.record("guards", findings=guards.summary(results))


def _ask(current: Run, recipe: PretrainRecipe, lm: LanguageModel, arm: str, stop: Stop) -> None:
    """Luthier's own texts and questions, and the rows' test questions, as far as they are not answered yet."""

    def progress(split: str) -> Callable[[int, int], None]:
        def record_progress(done: int, of: int) -> None:
            current.record("arm", arm=arm, split=split, done=done, of=of)
            if stop():
                raise Interrupted(f"stopped while {arm} answered; {done} of {of} answers are kept.")

        return record_progress

    folder = current.folder / "evaluation"
    guards.ask(lm, arm, _inputs(recipe), folder / "guard-answers.jsonl", progress("guard"))
    if (rows := _rows(current, "test")) is not None:
        path, limit = folder / "answers.jsonl", _answer_tokens(current, lm)
        chat_check.ask(lm, arm, rows.items(), path, _metric(current), limit, progress("test"))


def _inputs(recipe: PretrainRecipe) -> guards.GuardInputs:
    return guards.GuardInputs((), (), GUARDS, None, recipe.train.seed)


def _metric(current: Run) -> str:
    """How answers to the rows are scored: as fine-tuning would."""
    rows = _rows(current, "train")
    assert rows is not None
    references = [item.conversation.answer for item in rows.items()]
    return metrics.choose_metric(references, are_labels=False, where=str(current.folder)).name


def _answer_tokens(current: Run, lm: LanguageModel) -> int:
    """Room for an answer: half as much again as the longest one of the rows, and no more than half of the context."""
    rows = _rows(current, "train")
    assert rows is not None
    longest = max(int(rows[number].loss_mask.sum()) for number in range(len(rows)))
    return min(lm.context // 2, longest + longest // 2)
