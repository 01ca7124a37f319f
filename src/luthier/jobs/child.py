"""The process in which a job's run goes on: `python -m luthier.jobs.child JOB`, started by a worker.

The worker writes to its standard input: first what to do, a line of JSON; then "beat" as long as it holds the job, and "stop".
Where that is asked, where the input ends because the worker is gone, or where it is silent for longer than its lease, the run
stops at the end of its step with all of it kept. How it ended is a line of JSON on the standard output.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from luthier import pipeline
from luthier import recipe as recipes
from luthier.errors import CorruptedState, Interrupted, MachineError, NonFiniteLoss, UserError
from luthier.jobs import checkpoint_models
from luthier.jobs.orders import Orders, Work
from luthier.recipe import Recipe
from luthier.runs.locking import is_locked

NICE = 5
"""How far a training stands back where the service that answers wants the same processor."""
CODES: tuple[tuple[type[UserError], str], ...] = (
    (MachineError, "machine_error"),
    (CorruptedState, "corrupted_state"),
    (NonFiniteLoss, "training_diverged"),
    (UserError, "training_failed"),
)


def main() -> None:
    """Do the work that stands on the standard input."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints
    os.nice(NICE)
    with open(0, "rb", buffering=0, closefd=False) as source:
        work = Work(**json.loads(source.readline()))
        print(json.dumps(run(work, sys.argv[1], Orders(source, work.lease_seconds))), file=answers, flush=True)


def run(work: Work, job: str, orders: Orders) -> dict[str, str]:
    """Do the run or go on with it; how it ended: "complete", "stopped", "busy", or "failed" with a code and a message."""
    folder = Path(work.folder)
    try:
        if is_locked(folder):
            return {"end": "busy"}
        asked = Recipe() if (folder / "run.json").exists() else asked_for(work)
        pipeline.run(asked, folder, command=f"fine-tuning job {job}", stop=orders.stop)
        checkpoint_models.make(folder)
    except Interrupted:
        return {"end": "stopped"}
    except UserError as error:
        code = next(code for kind, code in CODES if isinstance(error, kind))
        return {"end": "failed", "code": code, "message": str(error)}
    except MemoryError:
        message = "not enough memory. Lower batch_size or train.tokens_per_batch, or take a smaller model."
        return {"end": "failed", "code": "machine_error", "message": message}
    except Exception as error:
        traceback.print_exc()
        message = (
            f"the training ended in an error of ours ({type(error).__name__}); the log of this job has the details"
        )
        return {"end": "failed", "code": "internal_error", "message": f"{message}."}
    return {"end": "complete"}


def asked_for(work: Work) -> Recipe:
    """The recipe; what is asked for in examples and in multiples of a default needs the rows in tokens first."""
    asked = recipes.replace(Recipe(), work.settings)
    if work.batch_size is None and work.rate_multiplier is None:
        return asked
    made = pipeline.prepare(asked)
    values: dict[str, object] = {}
    if work.batch_size is not None:
        values["train.tokens_per_step"] = max(1, round(work.batch_size * made.rows["train"].number("length").mean()))
    if work.rate_multiplier is not None:
        rate = made.recipe.train.learning_rate
        assert rate is not None, "prepared"
        values["train.learning_rate"] = rate * work.rate_multiplier
    return recipes.replace(asked, values)


if __name__ == "__main__":
    main()
