"""The folder of a run: a new one, of which nothing is written before its data is prepared, or one that goes on; and the work on
it, from its lock to its report."""

import contextlib
import json
import platform
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from luthier import recipe as recipes
from luthier.data.dataset import Progress
from luthier.errors import Interrupted, UserError
from luthier.model import gguf_file, reference
from luthier.pipeline import preparation, resume
from luthier.pipeline.documents import with_documents
from luthier.pipeline.preparation import Preparation
from luthier.recipe import PretrainRecipe, Recipe
from luthier.runs import Run
from luthier.runs.signals import stopping

Listener = Callable[[dict[str, Any]], None]
Stop = Callable[[], bool]


@contextlib.contextmanager
def working_run(
    current: Run,
    *,
    is_complete: bool,
    write_report: Callable[[Path], object],
    listen: Listener | None,
    stop: Stop | None,
) -> Iterator[Stop | None]:
    """Inside, the run is locked, and what says whether to stop is given; whatever the end is, it is noted and reported.

    None is given where the run is complete and nothing is left to do.
    """
    if listen:
        current.listeners.append(listen)
    state = current.state
    if is_complete:
        current.emit("start", folder=str(current.folder), state=state, kept=[])
        yield None
        return

    def at_end() -> None:
        if resume.is_prepared(current):  # as soon as there is something to show
            write_report(current.folder)

    with current.working(at_end), stopping(lambda: current.record("stopping"), stop) as stopped:
        done = [] if state == "new" else resume.progress_summary(current)
        current.record("start", folder=str(current.folder), state=state, kept=done)
        yield stopped


def open_run(
    asked: Recipe,
    folder: Path,
    *,
    command: str,
    stop: Callable[[], bool] | None = None,
    progress: Progress | None = None,
) -> tuple[Run, Preparation | None]:
    """The run in this folder: a new one with its preparation, or one to be continued, which has one on its disk.

    Refuses to continue a run with other settings than it was started with. Models are noted by their whole paths.
    """
    if isinstance(asked, PretrainRecipe):
        raise UserError("settings of pretrain belong to `luthier pretrain CORPUS`.", where="pretrain")
    asked = with_whole_paths(with_documents(asked))
    if not (folder / "run.json").exists():
        return _new_run(asked, folder, command, stop, progress)
    current = Run(folder)
    before = with_whole_paths(recipes.recorded(current.metadata["asked"]))
    if isinstance(before, PretrainRecipe):
        raise UserError(f"a pretraining; continue it with luthier resume {folder}.", where=str(folder))
    if asked.data.path is not None and (changes := recipes.differences(before, asked)):
        listed = "; ".join(f"{key} was {_short(old)}, now {_short(new)}" for key, (old, new) in changes.items())
        raise UserError(
            f"this run was started with other settings ({listed}). Continue it with --run alone, or name a new folder.",
            where=str(folder),
        )
    if asked.data.path is not None or not resume.is_prepared(current):
        resume.expect_same_data(current, before)
    return current, None


def _new_run(
    asked: Recipe, folder: Path, command: str, stop: Callable[[], bool] | None, progress: Progress | None
) -> tuple[Run, Preparation]:
    if asked.data.path is None:
        raise UserError("no data: name a file or folder, or the folder of a run to continue.", where="data.path")
    with stopping(_stop_at_once, stop) as stopped:
        made = preparation.prepare(asked, progress=progress)
        stopped()
    current = Run.create(
        folder,
        luthier=version("luthier"),
        command=command or "luthier.finetune(…)",
        asked=asked.model_dump(mode="json"),
        sources=resume.sources(made.dataset.files),
        versions={name: version(name) for name in resume.VERSIONS} | {"python": platform.python_version()},
        of_the_moment=made.resolved.first_choices,
    )
    return current, made


def _stop_at_once() -> None:
    """While the data is read there is no step to finish and nothing to keep."""
    raise Interrupted("stopped while the data was read; nothing was written yet. Start it again with the same command.")


def with_whole_paths(asked: Recipe) -> Recipe:
    """The recipe with models on this machine named by their whole paths, which are found from every directory."""
    judge, embedder = asked.evaluate.judge, asked.evaluate.embedder
    values: dict[str, object] = {"model": reference.absolute(asked.model)}
    if judge and ":" not in judge:
        values["evaluate.judge"] = reference.absolute(judge)
    if embedder:
        values["evaluate.embedder"] = embedder.absolute()
    if files := {name: one for name, one in asked.evaluate.endpoints.items() if gguf_file.is_file(one.url)}:
        stated = {name: one.model_dump(exclude_unset=True) for name, one in asked.evaluate.endpoints.items()}
        whole = {name: {**stated[name], "url": reference.absolute(one.url)} for name, one in files.items()}
        values["evaluate.endpoints"] = stated | whole
    return recipes.replace(asked, values)


def default_folder(asked: Recipe) -> Path:
    """runs/<data>-<date>-<time>."""
    path = asked.data.path or Path("run")
    name = re.split(r"[.#]", path.name)[0] or "run"
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def base_of(current: Run) -> str:
    """The name of the model that a run started from."""
    return recipes.load(current.folder / "recipe.toml").model


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
