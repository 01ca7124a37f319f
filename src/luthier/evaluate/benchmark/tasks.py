"""From the names in `--tasks` to lm-eval's tasks: its own by name, task files of the user, files of questions."""

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


def load(names: Sequence[str], folder: Path | None = None) -> dict[str, Task]:
    """The tasks by name; of a group or a tag, all of its tasks. Their data is read here, from disk or from the hub."""
    if folder is not None and not folder.is_dir():
        raise UserError("no such folder of task files.", where=str(folder))
    found: dict[str, Task] = {}
    index = _Index(folder)
    with seeded():
        for asked in names:
            for name, task in _tasks(asked, index).items():
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

    def manager(self, *, defaults: bool) -> TaskManager:
        """The user's tasks, and with `defaults` lm-eval's too."""
        if defaults not in self._managers:
            include = [str(self.folder)] if self.folder else None
            self._managers[defaults] = TaskManager(include_path=include, include_defaults=defaults)
        return self._managers[defaults]


def _tasks(name: str, index: _Index) -> dict[str, Task]:
    if shapes.is_data_file(name):
        return {task.name: _build(task, index) for task in shapes.read(Path(name))}
    if Path(name).suffix in (".yaml", ".yml"):
        if not Path(name).is_file():
            raise UserError("no such task file.", where=name)
        return _load(name, index.manager(defaults=False))
    for defaults in (False, True):
        manager = index.manager(defaults=defaults)
        matching = [task for task in manager.all_tasks if fnmatch(task, name)] if set(name) & set("*?[") else [name]
        if matching and all(task in manager.task_index for task in matching):
            return {loaded: task for entry in matching for loaded, task in _load(entry, manager).items()}
    known = index.manager(defaults=True).all_tasks
    guess = nearest(name, known)
    hint = f', did you mean "{guess}"?' if guess else "."
    where = f' and those in "{index.folder}"' if index.folder else ""
    raise UserError(
        f'unknown task "{name}"{hint} Known are the tasks of lm-eval (`lm-eval ls tasks` lists them){where}, a task file '
        "(.yaml), and a file of questions (.jsonl, .csv) in the shape of ARC, HellaSwag, MMLU or TruthfulQA.",
        where="--tasks",
    )


def _load(name: str, manager: TaskManager) -> dict[str, Task]:
    """What lm-eval makes of a name or of a task file, with its data."""
    try:
        return dict(manager.load([name])["tasks"])
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise MachineError(
            f"cannot get the task's data ({_first_line(error)}). Check the network (HF_HUB_OFFLINE, HF_DATASETS_OFFLINE) "
            "or the paths in its task file, or give a file of questions, such as --tasks questions.jsonl.",
            where=name,
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, yaml.YAMLError) as error:
        raise UserError(f"lm-eval cannot load this task: {_first_line(error)}.", where=name) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _build(task: LocalTask, index: _Index) -> Task:
    """lm-eval's task of a file of questions."""
    settings = config(task)
    (built,) = index.manager(defaults=False).load([settings])["tasks"].values()
    return built


def config(task: LocalTask) -> dict[str, Any]:
    """A file of questions as a task's settings, in the form that lm-eval's TaskManager takes."""
    settings = {"task": task.name, **task.config, "custom_dataset": lambda **_: _rows(task)}
    if task.prompt_page:
        page = Path(lm_eval.tasks.__file__).parent / task.prompt_page
        settings["doc_to_text"] = yaml.safe_load(page.read_text(encoding="utf-8"))["doc_to_text"]
    return settings


def _rows(task: LocalTask) -> Any:
    return datasets.DatasetDict({"test": datasets.Dataset.from_list(list(task.docs))})
