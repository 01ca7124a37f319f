"""What a job may be asked for, checked when it is asked, and what it means for the recipe of its run."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier import recipe as recipes
from luthier.errors import UserError
from luthier.jobs.errors import InvalidRequest
from luthier.jobs.rows import JobRow, JobSpec, storable
from luthier.recipe import Recipe

EPOCHS = 50
"""The most passes over the data."""
BATCH = 4096
"""The most examples of a step."""
MOST_METADATA, LONGEST_NAME, LONGEST_VALUE = 16, 64, 512
LONGEST_SUFFIX = 64
FEWEST_EXAMPLES = 10
AUTO_EXAMPLES, AUTO_EPOCHS = (100, 25_000), 25
"""Examples, each pass counted, that an automatic number of passes keeps to; and the most that it raises it to."""

_FIXED = ("model", "data.path", "data.dev_path", "train.seed", "train.dpo_beta", "train.objective")
"""Settings that the request has other words for."""


def check(spec: JobSpec) -> None:
    """Raises InvalidRequest for the first value that is not allowed, with the parameter's name and what is allowed."""
    if spec.method not in ("supervised", "dpo"):
        raise _invalid("method.type", spec.method, '"supervised" or "dpo"')
    known = {"n_epochs", "batch_size", "learning_rate_multiplier"} | ({"beta"} if spec.method == "dpo" else set())
    for name, value in spec.hyperparameters.items():
        where = f"hyperparameters.{name}"
        if name not in known:
            raise _invalid(where, value, f"one of {', '.join(sorted(known))} with the method {spec.method}", "unknown")
        if value == "auto":
            continue
        if name in ("n_epochs", "batch_size"):
            most = EPOCHS if name == "n_epochs" else BATCH
            if type(value) is not int or not 1 <= value <= most:
                raise _invalid(where, value, f'"auto" or a whole number from 1 to {most:,}')
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1000:  # nor is NaN
            raise _invalid(where, value, '"auto" or a number above 0 and up to 1000')
    if spec.suffix is not None and not re.fullmatch(rf"[\w .-]{{1,{LONGEST_SUFFIX}}}", spec.suffix, re.ASCII):
        raise _invalid("suffix", spec.suffix, f"1 to {LONGEST_SUFFIX} letters, digits, spaces, points, hyphens")
    if spec.seed is not None and (type(spec.seed) is not int or not 0 <= spec.seed < 2**31):
        raise _invalid("seed", spec.seed, "a whole number from 0 to 2147483647")
    _check_metadata(spec.metadata)
    _check_settings(spec.settings)


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    if len(metadata) > MOST_METADATA:
        raise _invalid("metadata", f"{len(metadata)} pairs", f"at most {MOST_METADATA}")
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise _invalid("metadata", {name: value}, "pairs of texts")
        if storable(name) != name or storable(value) != value:
            raise _invalid("metadata", name, "texts without NUL and halves of surrogate pairs")
        if len(name) > LONGEST_NAME or len(value) > LONGEST_VALUE:
            raise _invalid(
                "metadata", name, f"names of at most {LONGEST_NAME} characters and values of at most {LONGEST_VALUE}"
            )


def _check_settings(settings: Mapping[str, Any]) -> None:
    for key in settings:
        if key in _FIXED or key.partition(".")[0] not in ("train", "evaluate", "data", "chat"):
            raise _invalid("settings", key, "a setting of train, evaluate, data or chat that no other field stands for")
    try:
        recipes.replace(Recipe(), settings)
    except UserError as error:
        raise InvalidRequest(error.message, param="settings") from None


def _invalid(param: str, found: object, expected: str, code: str = "") -> InvalidRequest:
    shown = repr(found)
    shown = shown if len(shown) <= 80 else shown[:79] + "…"
    code = f"{code}_parameter" if code else ""
    return InvalidRequest(
        f"Invalid value for '{param}': found {shown}, expected {expected}.", param=param, code=code or None
    )


def epochs(asked: object, examples: int) -> int:
    """The passes over so many examples: as asked, else 3, but more of few examples and fewer of many."""
    if isinstance(asked, int):
        return asked
    fewest, most = AUTO_EXAMPLES
    if 3 * examples < fewest:
        return min(AUTO_EPOCHS, math.ceil(fewest / examples))
    if 3 * examples > most:
        return max(1, most // examples)
    return 3


def recipe_values(job: JobRow, *, training: Path, validation: Path | None) -> dict[str, Any]:
    """The settings of the job's run by their dotted names, but for those that need its rows in tokens (`with_sizes`)."""
    asked = job.hyperparameters
    values: dict[str, Any] = {"model": _run_of(job.reference), "data.path": training, "train.seed": job.seed}
    if validation is not None:
        values["data.dev_path"] = validation
    if job.method == "dpo":
        values["train.objective"] = "dpo"
    if is_number(asked.get("beta")):
        values["train.dpo_beta"] = asked["beta"]
    if is_number(asked.get("n_epochs")):
        values["train.epochs"] = asked["n_epochs"]
    return values | dict(job.settings)


def _run_of(reference: str) -> str:
    """The run that a model was made by, which knows what the model was trained on; of other models their own name."""
    run = Path(reference).parent
    return str(run) if Path(reference).name == "model" and (run / "run.json").is_file() else reference


def settings_for(job: JobRow, examples: int) -> dict[str, Any]:
    """The job's settings, and of so few examples that a tenth is one, two to test by."""
    few = examples < 2 * FEWEST_EXAMPLES and not {"data.test_items", "data.test_path"} & job.settings.keys()
    return dict(job.settings) | ({"data.test_items": 2} if few else {})


def is_number(value: object) -> bool:
    """Whether a hyperparameter is a number, and not left to us."""
    return isinstance(value, int | float)


def slug(suffix: str | None) -> str:
    """The suffix as it stands in a model's name."""
    return re.sub(r"[^a-z0-9]+", "-", (suffix or "").lower()).strip("-")
