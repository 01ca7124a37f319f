"""What can be refused of a training before anything heavy starts."""

from collections.abc import Sequence

from luthier.data.dataset import Dataset, Item, has_pairs
from luthier.data.labels import Sides
from luthier.errors import UserError, together
from luthier.model import methods
from luthier.recipe import Train
from luthier.train import objectives, optimizer


def check_names(asked: Train) -> None:
    """Refuses names in `train` that stand for nothing, and those whose packages are missing, all at once."""
    errors: list[UserError] = []
    for resolve, word in (
        (methods.resolve, asked.method or "full"),
        (optimizer.resolve, asked.optimizer),
        (objectives.resolve, asked.objective or "sft"),
        (optimizer.resolve_schedule, asked.schedule),
    ):
        try:
            resolve(word)
        except UserError as error:
            errors.append(error)
    if errors:
        raise together(errors)


def check_rows(asked: Train, data: Dataset, dev: Sequence[Item] | None = None) -> None:
    """Refuses an objective that cannot be computed on such rows, or on dev rows of the user's own."""
    if asked.objective == "sft" and data.items[0].conversation.is_document:
        message = '"sft" trains on answers, and texts have none. Leave it out, or set train.objective=text.'
        raise UserError(message, where="train.objective")
    if asked.objective == "dpo" and not has_pairs(data.items):
        raise UserError(objectives.NO_PAIRS, where="train.objective")
    if asked.objective == "dpo" and dev is not None and not has_pairs(dev):
        message = "its rows have no rejected answers, and dpo validates on pairs too. Give it the columns of the data."
        raise UserError(message, where="data.dev_path")
    if asked.objective == "kto":
        _check_labels(data.items, "train.objective")
        if dev is not None:
            _check_labels(dev, "data.dev_path")


def _check_labels(items: Sequence[Item], where: str) -> None:
    """Refuses items of which people liked all or none, or that have no labels."""
    sides = Sides.of(items)
    if not any(sides):
        raise UserError(objectives.NO_LABELS, where=where)
    if not all(sides):
        raise UserError(
            f"kto learns from the difference between answers that people liked and those that they did not, and there are "
            f"{sides}. Expected both (label true and false); for liked answers alone leave train.objective out.",
            where=where,
        )
