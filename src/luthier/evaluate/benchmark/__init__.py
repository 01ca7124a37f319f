"""EleutherAI's lm-evaluation-harness on our models: its tasks, or files of questions in the shape of its tasks.

    shapes    a file of questions → tasks
    tasks     words → tasks of lm-eval
    model     our model → a model of lm-eval
    results   its output → scores by item, compared in pairs
    record    what is left in the run folder

lm-eval is an optional extra. `tasks` and `model` import it, so nothing imports them but `run_benchmark`. A file's shape that
is not known yet goes into `shapes.SHAPES`.
"""

import contextlib
import gc
import importlib.util
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from luthier.errors import MachineError
from luthier.evaluate.benchmark import record
from luthier.evaluate.benchmark.record import BenchmarkRecord, save_record
from luthier.evaluate.benchmark.results import TaskResult, from_harness
from luthier.model.loading import LanguageModel
from luthier.model.replies import TokenBudget

__all__ = ["BenchmarkRecord", "BenchmarkSettings", "harness_version", "make_record", "run_benchmark", "save_record"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BenchmarkSettings:
    """What all models are asked: tasks by name or file, at most `limit` items of each, with chat messages or plain text."""

    tasks: Sequence[str]
    task_folder: Path | None = None
    limit: int | None = None
    chat: bool = False
    system: str | None = None
    """System message of every chat; without `chat` there is none."""
    thinking_tokens: int | None = None
    """Tokens for thoughts in every chat; None is the usual number, where a model's template lets it think."""


def harness_version() -> str:
    """lm-eval's version; a UserError with the line that installs it where it is missing."""
    if importlib.util.find_spec("lm_eval") is None:
        raise MachineError(
            "this command runs EleutherAI's lm-eval, which is not installed. Install it with: "
            "pip install 'luthier[benchmark]'",
            where="luthier benchmark",
        )
    return version("lm-eval")


def run_benchmark(
    settings: BenchmarkSettings, models: Sequence[Callable[[], LanguageModel]], progress: Callable[[int], Progress]
) -> tuple[list[list[TaskResult]], list[str]]:
    """Each model's results, one model in memory at a time, and remarks on what a task asked for and did not get.

    `progress(number)` is called after each batch of a model. Tasks are loaded before any model: a wrong name costs no time.
    """
    harness_version()
    found, notes = [], dict[str, None]()
    with _quiet_harness() as unmuted:
        from lm_eval.evaluator import evaluate

        from luthier.evaluate.benchmark import tasks as harness_tasks
        from luthier.evaluate.benchmark.model import HarnessModel

        tasks = harness_tasks.load(settings.tasks, settings.task_folder)
        for number, load in enumerate(models):
            lm = load()
            thinking = TokenBudget.of(lm, 0, settings.thinking_tokens).thinking if settings.chat else 0
            model = HarnessModel(lm, unmuted(progress(number)), thinking_tokens=thinking)
            with harness_tasks.seeded(tasks.values()):
                output = evaluate(
                    model,
                    {"tasks": tasks},
                    limit=settings.limit,
                    bootstrap_iters=0,
                    apply_chat_template=settings.chat,
                    system_instruction=settings.system if settings.chat else None,
                )
            found.append(from_harness(output))
            notes |= dict.fromkeys(model.notes)
            del model, lm
            gc.collect()
    return found, list(notes)


def make_record(
    results: Mapping[str, Sequence[TaskResult]], settings: BenchmarkSettings, notes: Sequence[str], *, alpha: float
) -> BenchmarkRecord:
    """The results by arm, as they are kept."""
    setting = {"harness": f"lm-eval {harness_version()}", "chat": settings.chat, "limit": settings.limit}
    return record.make_record(results, setting, notes, alpha=alpha)


@contextlib.contextmanager
def _quiet_harness() -> Iterator[Callable[[Progress], Progress]]:
    """Keeps lm-eval from drawing bars and from warning of what a user cannot change; gives what lets a callback print."""
    streams = sys.stdout, sys.stderr

    def unmuted(progress: Progress) -> Progress:
        def report(done: int, of: int) -> None:
            with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
                progress(done, of)

        return report

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield unmuted
    finally:
        logger.setLevel(level)
