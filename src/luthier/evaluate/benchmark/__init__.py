"""EleutherAI's lm-evaluation-harness on our models: its tasks, or files of questions in the shape of its tasks.

    shapes    a file of questions → tasks
    tasks     words → tasks of lm-eval
    model     our model → a model of lm-eval
    results   its output → scores by item, compared in pairs
    card      what is left in the run folder

lm-eval is an optional extra. `tasks` and `model` import it, so nothing imports them but `sit`.
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
from luthier.evaluate.benchmark.card import Card, keep
from luthier.evaluate.benchmark.card import record as _record
from luthier.evaluate.benchmark.results import TaskResult, gather
from luthier.model.loading import LanguageModel
from luthier.model.replies import Room

__all__ = ["Card", "Exam", "harness_version", "keep", "record", "sit"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Exam:
    """What all models are asked: tasks by name or file, at most `limit` items of each, with chat messages or plain text."""

    words: Sequence[str]
    folder: Path | None = None
    limit: int | None = None
    chat: bool = False
    system: str | None = None
    """System message of every chat; without `chat` there is none."""
    thinking_tokens: int | None = None
    """Room for thoughts in every chat; None is the usual room, where a model's template lets it think."""


def harness_version() -> str:
    """lm-eval's version; a UserError with the line that installs it where it is missing."""
    if importlib.util.find_spec("lm_eval") is None:
        raise MachineError(
            "this command runs EleutherAI's lm-eval, which is not installed. Install it with: "
            "pip install 'luthier[benchmark]'",
            where="luthier benchmark",
        )
    return version("lm-eval")


def sit(
    exam: Exam, models: Sequence[Callable[[], LanguageModel]], progress: Callable[[int], Progress]
) -> tuple[list[list[TaskResult]], list[str]]:
    """Each model's results, one model in memory at a time, and remarks on what a task asked for and did not get.

    `progress(number)` is told of the batches of a model. Tasks are loaded before any model, so that a wrong name costs no time.
    """
    harness_version()
    found, notes = [], dict[str, None]()
    with _silence() as aloud:
        from lm_eval.evaluator import evaluate

        from luthier.evaluate.benchmark import tasks as harness_tasks
        from luthier.evaluate.benchmark.model import HarnessModel

        tasks = harness_tasks.load(exam.words, exam.folder)
        for number, load in enumerate(models):
            lm = load()
            thinking = Room.of(lm, 0, exam.thinking_tokens).thinking if exam.chat else 0
            model = HarnessModel(lm, aloud(progress(number)), thinking_tokens=thinking)
            with harness_tasks.seeded(tasks.values()):
                output = evaluate(
                    model,
                    {"tasks": tasks},
                    limit=exam.limit,
                    bootstrap_iters=0,
                    apply_chat_template=exam.chat,
                    system_instruction=exam.system if exam.chat else None,
                )
            found.append(gather(output))
            notes |= dict.fromkeys(model.notes)
            del model, lm
            gc.collect()
    return found, list(notes)


def record(results: Mapping[str, Sequence[TaskResult]], exam: Exam, notes: Sequence[str], *, alpha: float) -> Card:
    """The results of an exam by arm, as they are kept."""
    setting = {"harness": f"lm-eval {harness_version()}", "chat": exam.chat, "limit": exam.limit}
    return _record(results, setting, notes, alpha=alpha)


@contextlib.contextmanager
def _silence() -> Iterator[Callable[[Progress], Progress]]:
    """Keeps lm-eval from drawing bars and from warning of what a user cannot change; gives a way to speak nevertheless."""
    streams = sys.stdout, sys.stderr

    def aloud(progress: Progress) -> Progress:
        def tell(done: int, of: int) -> None:
            with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
                progress(done, of)

        return tell

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
            yield aloud
    finally:
        logger.setLevel(level)
