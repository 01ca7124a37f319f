"""From the words of `--tasks` to lm-eval's tasks: its own by name, task files of the user, files of questions."""

import contextlib
import random
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
import numpy as np
import yaml
from lm_eval.tasks import TaskManager

from luthier.errors import MachineError, UserError, nearest
from luthier.evaluate.benchmark import shapes
from luthier.evaluate.benchmark.shapes import LocalTask

Task = Any
"""lm_eval.api.task.Task."""

SEED, NUMPY_SEED, FEWSHOT_SEED = 0, 1234, 1234
"""What lm-eval sets when it is called: some tasks shuffle choices or draw examples."""


def load(words: Sequence[str], folder: Path | None = None) -> dict[str, Task]:
    """The tasks by name; of a group or a tag, all of its tasks. Their data is read here, from disk or from the hub."""
    if folder is not None and not folder.is_dir():
        raise UserError("no such folder of task files.", where=str(folder))
    found: dict[str, Task] = {}
    index = _Index(folder)
    with seeded():
        for word in words:
            for name, task in _tasks(word, index).items():
                if name in found:
                    raise UserError(f'the task "{name}" is named twice; name it once.', where="--tasks")
                found[name] = task
    if not found:
        raise UserError(
            "no task is named; expected names or files, such as --tasks arc_easy,my_questions.jsonl.", where="--tasks"
        )
    for name, task in found.items():
        if getattr(task, "UNSAFE_CODE", False) or getattr(task.config, "unsafe_code", False):
            raise UserError(
                "this task runs code that the model writes, which Luthier does not do. Leave it out.", where=name
            )
        if getattr(task, "MULTIMODAL", False):
            raise UserError("this task shows pictures or sounds; Luthier's models read text. Leave it out.", where=name)
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
    return found


@contextlib.contextmanager
def seeded(tasks: Iterable[Task] = ()) -> Iterator[None]:
    """The random numbers that lm-eval would draw, for each model anew; those of others go on as before."""
    for task in tasks:
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    before, numpy_before = random.getstate(), np.random.get_state()
    random.seed(SEED)
    np.random.seed(NUMPY_SEED)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)


class _Index:
    """lm-eval's lists of tasks, read when a name asks for them: its own list takes seconds, a folder of the user's none."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._managers: dict[bool, TaskManager] = {}

    def manager(self, *, own: bool) -> TaskManager:
        """The user's tasks, and with `own` lm-eval's too."""
        if own not in self._managers:
            include = [str(self.folder)] if self.folder else None
            self._managers[own] = TaskManager(include_path=include, include_defaults=own)
        return self._managers[own]


def _tasks(word: str, index: _Index) -> dict[str, Task]:
    if shapes.is_data_file(word):
        return {task.name: _build(task, index) for task in shapes.read(Path(word))}
    if Path(word).suffix in (".yaml", ".yml"):
        if not Path(word).is_file():
            raise UserError("no such task file.", where=word)
        return _loaded(word, index.manager(own=False))
    for own in (False, True):
        manager = index.manager(own=own)
        names = [name for name in manager.all_tasks if fnmatch(name, word)] if set(word) & set("*?[") else [word]
        if names and all(name in manager.task_index for name in names):
            return {name: task for entry in names for name, task in _loaded(entry, manager).items()}
    known = index.manager(own=True).all_tasks
    guess = nearest(word, known)
    hint = f', did you mean "{guess}"?' if guess else "."
    where = f' and those in "{index.folder}"' if index.folder else ""
    raise UserError(
        f'unknown task "{word}"{hint} Known are the tasks of lm-eval (`lm-eval ls tasks` lists them){where}, a task file '
        "(.yaml), and a file of questions (.jsonl, .csv) in the shape of ARC, HellaSwag, MMLU or TruthfulQA.",
        where="--tasks",
    )


def _loaded(word: str, manager: TaskManager) -> dict[str, Task]:
    """What lm-eval makes of a name or of a task file, with its data."""
    try:
        return dict(manager.load([word])["tasks"])
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise MachineError(
            f"cannot get the task's data ({_first_line(error)}). Check the network (HF_HUB_OFFLINE, HF_DATASETS_OFFLINE) "
            "or the paths in its task file, or give a file of questions, such as --tasks questions.jsonl.",
            where=word,
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, yaml.YAMLError) as error:
        raise UserError(f"lm-eval cannot load this task: {_first_line(error)}.", where=word) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _build(task: LocalTask, index: _Index) -> Task:
    """lm-eval's task of a file of questions."""
    settings = config(task)
    (built,) = index.manager(own=False).load([settings])["tasks"].values()
    return built


def config(task: LocalTask) -> dict[str, Any]:
    """A file of questions as a task's settings, in the form that lm-eval's TaskManager takes."""
    settings = {"task": task.name, **task.config, "custom_dataset": lambda **_: _rows(task)}
    if task.primer:
        page = Path(lm_eval.tasks.__file__).parent / task.primer
        settings["doc_to_text"] = yaml.safe_load(page.read_text(encoding="utf-8"))["doc_to_text"]
    return settings


def _rows(task: LocalTask) -> Any:
    return datasets.DatasetDict({"test": datasets.Dataset.from_list(list(task.docs))})
