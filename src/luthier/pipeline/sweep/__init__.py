"""Several runs of one question: amounts of data, base models, settings; one folder, one chart, an answer in words.

    sweeps/NAME/
      sweep.json               the points, what they have in common, and what came out
      sweep.html  sweep.svg    the chart with its words; the chart alone
      points/POINT/            a run folder like any other

All points answer the same dev and test questions. A smaller amount of data is a part of each larger one. The prompt arms
are asked once for a base model, with the examples of its largest amount; its other points share their answers.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier import recipe as recipes
from luthier.errors import Interrupted, UserError
from luthier.model import reference
from luthier.pipeline import opening, preparation
from luthier.pipeline.documents import with_documents
from luthier.pipeline.sweep.points import AMOUNTS, Point, plan_points
from luthier.pipeline.sweep.results import results
from luthier.pipeline.sweep.work import Executor, Here, Listener, Work
from luthier.recipe import Recipe
from luthier.report import sweep as page
from luthier.runs import lock, now
from luthier.runs.durable import make_folders, write_atomic

__all__ = ["AMOUNTS", "FILE", "Point", "plan_points", "run"]

FILE = "sweep.json"
FIXED = (
    "data.format",
    "data.columns",
    "data.test_items",
    "data.dev_items",
    "evaluate.metric",
    "evaluate.max_new_tokens",
)
"""Settings that are computed from all the data once, so that every point is asked and scored alike."""

HERE = Here()


def run(
    asked: Recipe,
    folder: Path | None = None,
    *,
    amounts: Sequence[float] | None = None,
    models: Sequence[str] = (),
    settings: Mapping[str, Sequence[Any]] | None = None,
    listen: Listener | None = None,
    command: str = "",
    stop: Callable[[], bool] | None = None,
    executor: Executor = HERE,
) -> Path:
    """Run every point that is not complete yet, write the chart, and give the folder.

    In a folder that has a sweep already, its points are continued and those that are asked for now are added.
    `stop` is that of `pipeline.run`; `executor` runs the points.
    """
    folder = folder or _default_folder(asked)
    before = _content(folder)
    record = _open(folder, opening.with_whole_paths(with_documents(asked)), command)
    models = [reference.absolute(model) for model in models]
    asked = recipes.recorded(record["asked"])
    known = [Point(**point) for point in record["points"]]
    if not known or amounts is not None or models or settings:
        new = plan_points(asked, amounts=amounts, models=models, settings=settings or {})
        known += [point for point in new if point.name not in {old.name for old in known}]
    if len(known) < 2:
        raise UserError(
            f"one point is no comparison ({known[0].name}). Name at least two amounts, models or values: "
            "--amounts 50,100, --models A,B or --set train.learning_rate=1e-4,5e-5.",
            where="command line",
        )
    _fix(record, asked, known)
    record["points"] = [asdict(point) for point in known]
    make_folders(folder / "points")
    with lock(folder, option="--folder"):
        if _content(folder) != before:
            raise UserError(
                "another process has changed this sweep meanwhile; start the command again.", where=str(folder)
            )
        _write(folder, record)
        works = _works(folder, known, record, command)
        _run_points(works, known, record, folder=folder, executor=executor, listen=listen, stop=stop)
    return folder


def _run_points(
    works: Sequence[Work],
    points: Sequence[Point],
    record: dict[str, Any],
    *,
    folder: Path,
    executor: Executor,
    listen: Listener | None,
    stop: Callable[[], bool] | None,
) -> None:
    """Each point's run, and after it the sweep's record and chart as far as they are known."""
    asked, complete = recipes.recorded(record["asked"]), set()
    try:
        with contextlib.closing(executor.do(works, listen=listen, stop=stop)) as done:
            for work in done:
                complete.add(work.name)
                if len(complete) > 1:
                    known = [point for point in points if point.name in complete]
                    _write(folder, record | results(folder, known, asked))
                    page.write(folder)
    except Interrupted as stopped:
        raise type(stopped)(f"{stopped} Continue with: luthier sweep --folder {folder}{executor.option}") from None


def _works(folder: Path, points: Sequence[Point], record: Mapping[str, Any], command: str) -> list[Work]:
    """What each point's run is asked for. Those of one model share the answers of the first of them."""
    asked, firsts, works = recipes.recorded(record["asked"]), dict[str, Path](), list[Work]()
    for number, point in enumerate(points, start=1):
        fixed = {**record["fixed"], "evaluate.thinking_tokens": record.get("thinking_tokens", {}).get(point.model)}
        recipe = point.recipe(asked, {**fixed, **_shared(record, point)})
        own = folder.absolute() / "points" / point.name
        works.append(Work(point.name, number, len(points), own, recipe, firsts.get(point.model), command))
        firsts.setdefault(point.model, own)
    return works


def _content(folder: Path) -> bytes | None:
    """The sweep's record as it is on the disk; None for a new sweep."""
    path = folder / FILE
    return path.read_bytes() if path.exists() else None


def _open(folder: Path, asked: Recipe, command: str) -> dict[str, Any]:
    """The sweep's record in this folder, or a new one; refuses to go on with another recipe."""
    path = folder / FILE
    if not path.exists():
        if asked.data.path is None:
            raise UserError("no data: name a file or folder, or with --folder a sweep to continue.", where="data.path")
        if folder.exists() and any(entry.name != "points" and entry.name[0] != "." for entry in folder.iterdir()):
            raise UserError(
                "already exists and is not a sweep's folder; choose another with --folder.", where=str(folder)
            )
        return {"created": now(), "command": command, "asked": asked.model_dump(mode="json"), "fixed": {}, "points": []}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    changes = recipes.differences(opening.with_whole_paths(recipes.recorded(record["asked"])), asked)
    if asked.data.path is not None and changes:
        listed = "; ".join(f"{key} was {old}, now {new}" for key, (old, new) in changes.items())
        raise UserError(
            f"this sweep was started with other settings ({listed}). Continue it with --folder alone, or name a new folder.",
            where=str(folder),
        )
    return record


def _fix(record: dict[str, Any], asked: Recipe, points: Sequence[Point]) -> None:
    """Compute once what all points share, or all of a model, and make sure that all models are asked the same questions."""
    checked = record.setdefault("models", {})
    for model in dict.fromkeys(point.model for point in points):
        if model in checked:
            continue
        made = preparation.prepare(recipes.replace(asked, {**record["fixed"], "model": model}))
        asked_items = {name: sorted(item.id for item in getattr(made.splits, name)) for name in ("dev", "test")}
        digest = hashlib.sha256(json.dumps(asked_items).encode()).hexdigest()
        if checked and digest not in checked.values():
            raise UserError(
                f"it keeps other test questions than {next(iter(checked))}: some rows are too long for one of the models. "
                "Give test and dev rows that fit all models with data.test_path and data.dev_path.",
                where=model,
            )
        checked[model] = digest
        record.setdefault("of_the_moment", {})[model] = {
            key: value for key, (value, _) in made.resolved.first_choices.items() if recipes.get(asked, key) is None
        }
        record.setdefault("thinking_tokens", {})[model] = made.recipe.evaluate.thinking_tokens
        if not record["fixed"]:
            record["fixed"] = {key: recipes.get(made.recipe, key) for key in FIXED}
            record["fixed"]["chat.date"] = asked.chat.date or preparation.today()


def _shared(record: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """What the first plan for the point's model took from the moment; how to fit depends on a point's own settings."""
    found: dict[str, Any] = record.get("of_the_moment", {}).get(point.model, {})
    return {
        key: value for key, value in found.items() if not point.settings or key in ("train.method", "train.precision")
    }


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    write_atomic(folder / FILE, json.dumps(record, indent=2, ensure_ascii=False, default=str) + "\n")


def _default_folder(asked: Recipe) -> Path:
    """sweeps/<data>-<date>-<time>."""
    return Path("sweeps") / opening.default_folder(asked).name
