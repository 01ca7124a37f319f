"""What must be as it was before a run goes on: data, recipe, base model, tokenizer, template; every refusal says what differs.

A run that has its own copy of the rows needs the user's files no more. That they have changed since is then worth a warning,
and a refusal only where somebody names them again and means the new ones.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from luthier import recipe as recipes
from luthier.data import held_out_files
from luthier.data.prepared import Prepared
from luthier.errors import Interrupted, UserError
from luthier.model.identity import changed_hash
from luthier.recipe import Recipe
from luthier.runs import Run
from luthier.runs.durable import digest, write_atomic

CHANGEABLE = ("train.tokens_per_batch",)
"""Settings that a run may go on with: the result is the same but for rounding."""
VERSIONS = ("torch", "transformers", "peft", "safetensors")
SHOWN = 3

Sources = dict[str, dict[str, Any]]


def sources(files: Sequence[str]) -> Sources:
    """Size and SHA-256 of each data file by its name, for run.json."""
    return {name: {"bytes": Path(name).stat().st_size, "sha256": digest(Path(name))} for name in files}


def is_prepared(current: Run) -> bool:
    """Whether the run has its recipe and its own copy of the rows."""
    return (current.folder / "recipe.toml").exists()


def same_data(current: Run, asked: Recipe) -> None:
    """Refuses data files that are no longer those the run began with."""
    told = _data_changes(current, asked)
    if not told:
        return
    way = ""
    if is_prepared(current):
        current.expect_whole("data")
        told += _row_changes(current, asked)
        way = f"Continue with the run's own copy of the rows: luthier resume {current.folder}. "
    raise UserError(
        f"the data has changed since this run began: {'; '.join(told)}. {way}To use the new data, start a new run.",
        where=str(asked.data.path),
    )


def warn(current: Run) -> None:
    """Tells what is not as it was and does not matter, or hardly: the data files of a run with its own copy, the libraries."""
    try:
        told = _data_changes(current, Recipe.model_validate(current.record_file["asked"]))
    except UserError:  # gone, or out of reach
        told = []
    if told:
        current.record(
            "warning", message=f"{'; '.join(told)}. The run goes on with the copy that it made when it began."
        )
    before = current.record_file.get("versions", {})
    told = [
        f"{name} was {before[name]}, now {version(name)}"
        for name in VERSIONS
        if before.get(name, version(name)) != version(name)
    ]
    if told:
        current.record("warning", message=f"{'; '.join(told)}: the run goes on, but perhaps not bit for bit.")


def same_recipe(current: Run) -> Recipe:
    """The run's recipe, if recipe.toml still says what the run began with."""
    file = current.folder / "recipe.toml"
    recipe = recipes.load(file)
    settled = current.record_file.get("settled")
    changes = recipes.differences(Recipe.model_validate(settled), recipe) if settled else {}
    changes = {key: pair for key, pair in changes.items() if key not in CHANGEABLE}
    if changes:
        told = ", ".join(f"{key} was {old}, now {new}" for key, (old, new) in changes.items())
        raise UserError(
            f"changed since this run began ({told}). Put it back, or start a new run with --recipe {file}.",
            where=str(file),
        )
    return recipe


def change(current: Run, words: Sequence[str]) -> None:
    """Change settings of a run that has begun, of the few that may change; `words` are key=value."""
    asked = recipes.load(None, words)
    keys = [word.partition("=")[0].strip() for word in words]
    if fixed := [key for key in keys if key not in CHANGEABLE]:
        raise UserError(
            f"{', '.join(fixed)} cannot change in a run that has begun, only {', '.join(CHANGEABLE)}; start a new run.",
            where="command line",
        )
    values = {key: recipes.get(asked, key) for key in keys}
    with current.held():
        before = Recipe.model_validate(current.record_file["asked"])
        current.update(asked=recipes.replace(before, values).model_dump(mode="json"))
        if is_prepared(current):
            recipe = recipes.replace(same_recipe(current), values)
            settings = next(iter(current.events("recipe")), {}).get("settings", {})
            reasons = {key: str(why) for key, (_, why) in settings.items()} | dict.fromkeys(keys, "changed on the way")
            current.update(settled=recipe.model_dump(mode="json"))
            write_atomic(current.folder / "recipe.toml", recipes.render(recipe, reasons))
            current.seal([current.folder / "recipe.toml"])


def nothing_yet() -> None:
    """Stops at once, while the data is read: there is no step to finish."""
    raise Interrupted("stopped while the data was read; nothing was written yet. Start it again with the same command.")


def pause(stop: Callable[[], bool], when: str) -> None:
    """The place between two stages where a run stops if it was asked to."""
    if stop():
        raise Interrupted(f"stopped {when}; all of it is kept.")


def kept(current: Run) -> list[str]:
    """What a run that goes on need not do again, in words."""
    folder = current.folder
    rows = [event["train"] for event in current.events("data")] if is_prepared(current) else []
    words = [f"{rows[-1]:,} training rows"] if rows else []
    answers = sum(file.read_bytes().count(b"\n") for file in (folder / "evaluation").glob("*answers.jsonl"))
    words += [f"{answers:,} answers"] if answers else []
    checkpoints = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
    words += [f"the checkpoint of step {int(checkpoints[-1].removeprefix('step-')):,}"] if checkpoints else []
    last = max((int(event["step"]) for event in current.events("step")), default=0)
    words[-1:] = [f"{words[-1]} ({last:,} were made)"] if checkpoints else words[-1:]
    return words + (["the tuned model"] if (folder / "model").is_dir() else [])


def _data_changes(current: Run, asked: Recipe) -> list[str]:
    """Which data files differ from those that the run began with, and how."""
    before: Sources = current.record_file.get("sources", {})
    if not before or asked.data.path is None:
        return []
    now = sources(held_out_files.files(asked.data))
    told = [f"{name} is gone" for name in before if name not in now] + [
        f"{name} is new" for name in now if name not in before
    ]
    for name in before:
        if name in now and before[name] != now[name]:
            sizes = f"{before[name]['bytes']:,} bytes, now {now[name]['bytes']:,}"
            told.append(f"{name} was {sizes} (SHA-256 {changed_hash(before[name]['sha256'], now[name]['sha256'])})")
    return told


def _row_changes(current: Run, asked: Recipe) -> list[str]:
    """Which rows of the run's own copy are now others or gone, and how many have come, by their places."""
    old = {
        item.place: item.id.partition(".")[0]
        for name in ("train", "dev", "test")
        for item in Prepared(current.folder / "data" / f"{name}.arrow").items()
    }
    told = current.events("data")[-1]
    unused = int(told["kept"]) - len(old)  # left out by data.train_share or data.test_items; their places are not known
    for places in told["dropped"].values():
        old |= {str(place).partition(" (")[0]: "" for place in places}
    try:
        data, held_out = held_out_files.load(asked.data)
    except UserError as error:
        return [f"it can no longer be read ({error})"]
    new = {item.place: item.id for item in (*data.items, *held_out.items)}
    groups = {
        "changed": [place for place, id in old.items() if id and new.get(place, id) != id],
        "gone": [place for place, id in old.items() if id and place not in new],
        "new": [place for place in new if place not in old],
    }
    words = [
        f"{len(places)} rows {what} ({', '.join(places[:SHOWN])}{' …' if len(places) > SHOWN else ''})"
        for what, places in groups.items()
        if places and not (what == "new" and unused)
    ]
    return words + [f"{more} rows new" for more in [len(groups["new"]) - unused] if unused and more > 0]
