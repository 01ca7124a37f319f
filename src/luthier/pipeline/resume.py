"""What must be as it was before a run goes on: data, recipe, base model, tokenizer, template; every refusal says what differs.

A run that has its own copy of the rows needs the user's files no more. That they have changed since is then worth a warning,
and a refusal only where somebody names them again and means the new ones.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from luthier import recipe as recipes
from luthier.data import held_out_files
from luthier.data.prepared import Prepared
from luthier.errors import UserError
from luthier.model.identity import changed_hash
from luthier.pipeline.preparation import dropped_rows
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


def expect_same_data(current: Run, asked: Recipe) -> None:
    """Refuses data files that are no longer those the run began with."""
    changes = _data_changes(current, asked)
    if not changes:
        return
    way = ""
    if is_prepared(current):
        current.expect_whole("data")
        changes += _row_changes(current, asked)
        way = f"Continue with the run's own copy of the rows: luthier resume {current.folder}. "
    raise UserError(
        f"the data has changed since this run began: {'; '.join(changes)}. {way}To use the new data, start a new run.",
        where=str(asked.data.path),
    )


def expect_unchanged(current: Run) -> None:
    """Refuses to go on with another recipe or other rows; warns of what else is not as it was."""
    warn_of_changes(current)
    current.expect_whole("data")
    expect_same_recipe(current)


def warn_of_changes(current: Run) -> None:
    """Warns of what is not as it was and hardly matters: the data files of a run with its own copy, the libraries."""
    try:
        changes = _data_changes(current, recipes.recorded(current.metadata["asked"]))
    except UserError:  # gone, or out of reach
        changes = []
    if changes:
        current.record("warning", message=f"{'; '.join(changes)}. The run continues with its own copy of the rows.")
    warn_of_versions(current)


def warn_of_versions(current: Run) -> None:
    """Warns of libraries that are others than when the run began."""
    before = current.metadata.get("versions", {})
    newer = [
        f"{name} was {before[name]}, now {version(name)}"
        for name in VERSIONS
        if before.get(name, version(name)) != version(name)
    ]
    if newer:
        message = f"{'; '.join(newer)}. The run continues, but its result may differ slightly."
        current.record("warning", message=message)


def expect_same_recipe(current: Run) -> Recipe:
    """The run's recipe, if recipe.toml still says what the run began with."""
    file = current.folder / "recipe.toml"
    recipe = recipes.load(file)
    first = current.metadata.get("settled")
    changes = recipes.differences(recipes.recorded(first), recipe) if first else {}
    changes = {key: pair for key, pair in changes.items() if key not in CHANGEABLE}
    if changes:
        listed = ", ".join(f"{key} was {old}, now {new}" for key, (old, new) in changes.items())
        raise UserError(
            f"changed since this run began ({listed}). Put it back, or start a new run with --recipe {file}.",
            where=str(file),
        )
    return recipe


def change_settings(current: Run, words: Sequence[str]) -> None:
    """Change settings of a run that has begun, of the few that may change; `words` are key=value."""
    asked = recipes.load(None, words)
    keys = [word.partition("=")[0].strip() for word in words]
    if fixed := [key for key in keys if key not in CHANGEABLE]:
        raise UserError(
            f"{', '.join(fixed)} cannot change in a run that has begun, only {', '.join(CHANGEABLE)}; start a new run.",
            where="command line",
        )
    values = {key: recipes.get(asked, key) for key in keys}
    with current.lock():
        before = recipes.recorded(current.metadata["asked"])
        current.update(asked=recipes.replace(before, values).model_dump(mode="json"))
        if is_prepared(current):
            recipe = recipes.replace(expect_same_recipe(current), values)
            settings = next(iter(current.events("recipe")), {}).get("settings", {})
            reasons = {key: str(why) for key, (_, why) in settings.items()} | dict.fromkeys(
                keys, "changed with `luthier resume`"
            )
            current.update(settled=recipe.model_dump(mode="json"))
            write_atomic(current.folder / "recipe.toml", recipes.render(recipe, reasons))
            current.record_checksums([current.folder / "recipe.toml"])


def progress_summary(current: Run) -> list[str]:
    """What a run that goes on need not do again, in words."""
    folder = current.folder
    rows = [event["train"] for event in current.events("data")] if is_prepared(current) else []
    words = [f"{rows[-1]:,} training rows"] if rows else []
    answers = sum(file.read_bytes().count(b"\n") for file in (folder / "evaluation").glob("*answers.jsonl"))
    words += [f"{answers:,} answers"] if answers else []
    checkpoints = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
    words += [f"the checkpoint of step {int(checkpoints[-1].removeprefix('step-')):,}"] if checkpoints else []
    last = max((int(event["step"]) for event in current.events("step")), default=0)
    words[-1:] = [f"{words[-1]} of the {last:,} made"] if checkpoints else words[-1:]
    return words + (["the tuned model"] if (folder / "model").is_dir() else [])


def _data_changes(current: Run, asked: Recipe) -> list[str]:
    """Which data files differ from those that the run began with, and how."""
    before: Sources = current.metadata.get("sources", {})
    if not before or asked.data.path is None:
        return []
    return _changes_of(before, sources(held_out_files.files(asked.data)))


def expect_same_sources(current: Run, now: Sources) -> None:
    """Refuses files that are no longer those the run began with, where it has no copy of its own yet."""
    if changes := _changes_of(current.metadata.get("sources", {}), now):
        message = (
            f"the corpus has changed since this run began: {'; '.join(changes)}. To use the new one, start a new run."
        )
        raise UserError(message, where=str(current.folder))


def _changes_of(before: Sources, now: Sources) -> list[str]:
    """What became of the files of before, in words."""
    changes = [f"{name} is gone" for name in before if name not in now] + [
        f"{name} is new" for name in now if name not in before
    ]
    for name in before:
        if name in now and before[name] != now[name]:
            sizes = f"{before[name]['bytes']:,} bytes, now {now[name]['bytes']:,}"
            changes.append(f"{name} was {sizes} (SHA-256 {changed_hash(before[name]['sha256'], now[name]['sha256'])})")
    return changes


def _row_changes(current: Run, asked: Recipe) -> list[str]:
    """Which rows of the run's own copy are now others or gone, and how many have come, by where they stand (file:line)."""
    old = {
        item.location: item.id.partition(".")[0]
        for name in ("train", "dev", "test")
        for item in Prepared(current.folder / "data" / f"{name}.arrow").items()
    }
    recorded = current.events("data")[-1]
    # Left out by data.train_share or data.test_items; where they stand in the files is not known
    unused = int(recorded["kept"]) - len(old)
    old |= {location: "" for location, _ in dropped_rows(current)}
    try:
        data, held_out = held_out_files.load(asked.data)
    except UserError as error:
        return [f"it can no longer be read ({error})"]
    new = {item.location: item.id for item in (*data.items, *held_out.items)}
    groups = {
        "changed": [location for location, id in old.items() if id and new.get(location, id) != id],
        "removed": [location for location, id in old.items() if id and location not in new],
        "added": [location for location in new if location not in old],
    }
    words = [
        f"{_count_rows(len(group))} {what} ({', '.join(group[:SHOWN])}{' …' if len(group) > SHOWN else ''})"
        for what, group in groups.items()
        if group and not (what == "added" and unused)
    ]
    more = len(groups["added"]) - unused
    return words + ([f"{_count_rows(more)} added"] if unused and more > 0 else [])


def _count_rows(number: int) -> str:
    return f"{number:,} row{'' if number == 1 else 's'}"
