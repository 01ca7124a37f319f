"""The proof: what `luthier run` does, stage by stage over one run folder, and the verdict given again.

    recipe → data → base model's answers → training → tuned model's answers → verdict → report

A stage leaves its result in the folder, and one whose result is there is passed over: a second `run` continues the first.
Between two stages a run can be stopped.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from luthier import recipe as recipes
from luthier import report
from luthier.data.dataset import Progress
from luthier.errors import Interrupted
from luthier.evaluate import judging, shared_baselines
from luthier.evaluate import stages as evaluation
from luthier.evaluate.verdict import contamination
from luthier.model import identity, memory, tuned
from luthier.model.loading import LanguageModel
from luthier.model.replies import Ask
from luthier.pipeline import answering, opening, preparation, resume
from luthier.pipeline.opening import Listener, Stop
from luthier.pipeline.preparation import Preparation
from luthier.recipe import Recipe
from luthier.runs import Run
from luthier.runs.signals import stopping
from luthier.train import launch, worker


@dataclass
class Job:
    """A run on its way through its stages, with what only memory holds between two of them."""

    run: Run
    stop: Stop
    preparation: Preparation | None = None
    """What a new run was opened with, until it is on the disk."""
    processes: int = 1
    """How many answer and train together."""
    base: LanguageModel | None = None
    """The base model, from its answers until the tuned model answers; training changes its weights."""

    @property
    def folder(self) -> Path:
        return self.run.folder

    @property
    def recipe(self) -> Recipe:
        """The run's own recipe, once its data is prepared."""
        return recipes.load(self.folder / "recipe.toml")


class Stage(NamedTuple):
    """One stage: what it leaves behind, whether that is there already, and the work."""

    name: str
    is_done: Callable[[Job], bool]
    do: Callable[[Job], None]


def run(
    asked: Recipe,
    folder: Path | None = None,
    *,
    listen: Listener | None = None,
    command: str = "",
    baselines: Path | None = None,
    stop: Stop | None = None,
    processes: int = 1,
    record_rows: bool = False,
    shards: bool = False,
    until_training: bool = False,
) -> Run:
    """Everything from the data to the report. In a folder that has a run already, that run is continued.

    `baselines` is a complete run of the same base model on the same questions; its prompts and their answers are taken over.
    With several `processes` these train together, with the same rows in the same order, and with `shards` each of them keeps a
    part of the weights; `until_training` ends before, for those that torchrun starts (`luthier.train.worker`). `record_rows`
    notes the rows of each step in its event.

    `stop` says whether to stop: it is asked at every step, from whatever thread this runs in, and Interrupted is raised with
    all of it kept. By default Ctrl-C and SIGTERM say so, in the main thread.
    """
    current, made = opening.open_run(
        asked, folder or opening.default_folder(asked), command=command, stop=stop, progress=_reading_events(listen)
    )
    with opening.working_run(
        current, is_complete=is_complete(current.folder), write_report=report.write, listen=listen, stop=stop
    ) as stopped:
        if stopped is None:
            return current
        current.forget_checksums("evaluation")
        if record_rows:
            current.update(record_rows=True)
        if shards:
            current.update(shards=True)
        if baselines is not None and not current.events("borrowed"):
            shared_baselines.share(baselines, current.folder)
            current.record("borrowed", what="the prompt arms' answers", of=baselines.name)
        if resume.is_prepared(current):
            resume.expect_unchanged(current)
        job, made = Job(current, stopped, made, processes), None
        go_through(BEFORE_TRAINING if until_training else PROVE, job)
        if until_training and not _is_trained(job):
            raise Interrupted("stopped before training, as asked: it is for the processes that torchrun starts.")
    return current


def is_complete(folder: Path) -> bool:
    """Whether a folder has a run of which nothing is left to do."""
    results = (folder / "evaluation" / "verdict.json", folder / "model")
    return all(path.exists() for path in results) and Run(folder).state == "complete"


def _reading_events(listen: Listener | None) -> Progress | None:
    """Progress of the reading as an event, which nothing can record: there is no run folder yet."""
    return (lambda rows: listen({"kind": "reading", "rows": rows})) if listen else None


def evaluate(
    folder: Path,
    overrides: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
    *,
    listen: Listener | None = None,
    stop: Stop | None = None,
) -> Run:
    """Judge a run again: what is missing is asked, and other settings of `evaluate` are noted as departures from the plan.

    The settings come as `key=value` words, or by their dotted names; `stop` as in `run`.
    """
    current = Run(folder)
    recipe = evaluation.changed_recipe(current, overrides, settings or {})
    if listen:
        current.listeners.append(listen)
    before = current.state

    def at_end() -> None:
        if before == "complete" and current.state != before:  # the verdict on the disk still holds
            current.update(state=before, reason=None)
        _write_report(current)

    with current.working(at_end), stopping(lambda: current.record("stopping"), stop) as stopped:
        current.record("start", folder=str(folder), state=before, kept=[])
        current.expect_whole("evaluation", "model")  # other data is a departure from the plan
        current.forget_checksums("evaluation")
        with memory.explain_out_of_memory("to answer the questions"):
            evaluation.evaluate_again(current, recipe, stopped)
        _record_evaluation(current)
    return current


def go_through(stages: Sequence[Stage], job: Job) -> None:
    """Each stage in turn, past those that are done; raises Interrupted between two of them when asked to stop."""
    for stage in stages:
        if stage is not stages[0] and job.stop():
            raise Interrupted(f"stopped before {stage.name}; what was complete is kept.")
        if not stage.is_done(job):
            stage.do(job)


def _write_report(current: Run) -> None:
    """The run's page, as soon as there is something to show."""
    if resume.is_prepared(current):
        report.write(current.folder)


# The stages. Those that ask questions are never done beforehand: they ask only what has no answer yet.


def _prepare(job: Job) -> None:
    """The run's own copy of the rows and its recipe; the rows in memory go."""
    made = job.preparation or preparation.prepare_again(job.run)
    job.preparation = None
    preparation.write(job.run, made)


def _compare_splits(job: Job) -> None:
    recipe = job.recipe
    contamination.compare_splits(
        job.run,
        own_test_file=recipe.data.test_path is not None,
        earlier=partial(tuned.earlier_training_rows, recipe.model),
    )


def _ask_base(job: Job) -> None:
    with memory.explain_out_of_memory("to answer the questions"), _answering(job, "base") as ask_model:
        job.base = evaluation.ask_base(job.run, job.recipe, job.stop, ask_model)


def _answering(job: Job, which: answering.Which) -> AbstractContextManager[Ask]:
    """What puts questions to a model: all processes of the run. With shards it is this one, lest each hold the whole model."""
    processes = 1 if job.run.metadata.get("shards") else job.processes
    return answering.together(job.folder, processes, which, job.stop)


def _train(job: Job) -> None:
    """Tune the base model, whose weights change, and save the best checkpoint as the run's model."""
    folder, base = job.folder / "model", job.base
    assert base is not None, "the base model has answered"
    if not folder.is_dir():
        with launch.processes(job.folder, job.processes, job.stop) as world:
            worker.tune(job.run, base, record=job.run.record, stop=job.stop, world=world)
    job.run.record_checksums([folder])
    job.run.update(hashes={**job.run.metadata["hashes"], "model": identity.fingerprint(folder)})


def _is_trained(job: Job) -> bool:
    """Whether the model is saved and its checksums are recorded; an interruption may come between the two."""
    return (job.folder / "model").is_dir() and "model" in job.run.metadata["hashes"]


def _ask_tuned(job: Job) -> None:
    job.base = None
    gc.collect()  # one model in memory, not two
    with memory.explain_out_of_memory("to answer the questions"), _answering(job, "tuned") as ask_model:
        evaluation.ask_tuned(job.run, job.recipe, job.stop, ask_model)


def _judge(job: Job) -> None:
    evaluation.give_verdict(job.run, job.recipe)
    judging.ask_judge(job.run, job.recipe, job.stop)
    _record_evaluation(job.run)


def _record_evaluation(current: Run) -> None:
    """The checksums of answers and verdict. Benchmarks may be added to a run at any time, so they are left out."""
    files = (current.folder / "evaluation").iterdir()
    current.record_checksums(sorted(file for file in files if not file.name.startswith(("benchmark", "."))))


def _never(job: Job) -> bool:
    return False


PROVE = (
    Stage("the data", lambda job: resume.is_prepared(job.run), _prepare),
    Stage("the search for leaked test rows", lambda job: contamination.read(job.run) is not None, _compare_splits),
    Stage("the base model's answers", _never, _ask_base),
    Stage("training", _is_trained, _train),
    Stage("the tuned model's answers", _never, _ask_tuned),
    Stage("the verdict", _never, _judge),
)
"""From the data to the verdict; another story is another tuple."""
BEFORE_TRAINING = PROVE[: [stage.do for stage in PROVE].index(_train)]
