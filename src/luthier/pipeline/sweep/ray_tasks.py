"""The points of a sweep as tasks of Ray: on the cores of this machine, or on those of a cluster that `RAY_ADDRESS` names.

A task is told a recipe and a folder, and the folder is all the state there is: a task that was lost is started again, anywhere,
and its run goes on where it stopped. Points that share the answers of another one wait for it.
"""

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from luthier.errors import Interrupted, MachineError, UserError, together
from luthier.extensions import import_optional
from luthier.pipeline import proof
from luthier.pipeline.sweep.work import Listener, Stop, Work
from luthier.runs.signals import stopping

ADDRESS = "RAY_ADDRESS"
"""Ray's own variable with the address of a cluster."""
RETRIES = 2
POLL_SECONDS = 0.5
OBJECTS = 80 << 20  # bytes that tasks may share, the least that Ray takes: they share nothing but a folder
PRIVATE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as on those systems: Ray is heard on 127.0.0.1 and nowhere else
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Variables of a cluster that this process starts for itself."""


class RayTasks:
    """Ray, which gives each point so many cores, and a GPU where there are some."""

    option = " --on ray"

    def __init__(self, cpus: int = 1) -> None:
        self.cpus = cpus

    def do(self, works: Sequence[Work], *, listen: Listener | None, stop: Stop | None) -> Generator[Work, None, None]:
        """Do the works side by side, as far as there are cores, and give each one that is complete.

        One that fails keeps none from going on, but those that need its answers; all errors are raised in the end.
        """
        complete: set[Path] = set()
        for work in works:
            if proof.is_complete(work.folder):
                complete.add(work.folder)
                yield work
        waiting = [work for work in works if work.folder not in complete]
        if not waiting:
            return
        with _cluster(self.cpus) as ray, stopping(lambda: None, stop) as stopped:
            tasks = _Tasks(ray, self.cpus)
            errors: list[UserError] = []
            cancelled = False
            while waiting or tasks.running:
                if stopped() and not cancelled:
                    waiting, cancelled = [], True
                    tasks.cancel()
                for work in [each for each in waiting if each.baselines is None or each.baselines in complete]:
                    waiting.remove(work)
                    tasks.start(work)
                    if listen:
                        listen(work.event())
                if not tasks.running:
                    break  # what still waits needs one that failed
                for work, error in tasks.ended():
                    if error is None:
                        complete.add(work.folder)
                        if listen:
                            listen(work.event("point_done"))
                        yield work
                    elif isinstance(error, Interrupted) and not cancelled and tasks.may_retry(work):
                        waiting.append(work)  # its machine was told to stop, and not this sweep
                    else:
                        errors.append(error)
            if cancelled:
                raise Interrupted(f"stopped; {len(complete)} of {len(works)} points are complete.")
            if errors:
                raise together(errors)


class _Tasks:
    """The tasks that run, each with the work that it does."""

    def __init__(self, ray: Any, cpus: int) -> None:
        self._ray = ray
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        self._task = ray.remote(_do).options(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)
        self._starts: dict[str, int] = {}
        self.running: dict[Any, Work] = {}

    def start(self, work: Work) -> None:
        """A task for a work; Ray chooses where."""
        self._starts[work.name] = self._starts.get(work.name, 0) + 1
        self.running[self._task.remote(work)] = work

    def may_retry(self, work: Work) -> bool:
        """Whether a work may be started again."""
        return self._starts[work.name] <= RETRIES

    def cancel(self) -> None:
        """Ask all to stop: a run then finishes its step and saves, as at Ctrl-C."""
        for reference in self.running:
            self._ray.cancel(reference, force=False)

    def ended(self) -> Iterator[tuple[Work, UserError | None]]:
        """The works that ended meanwhile, each with what went wrong."""
        ready, _ = self._ray.wait(list(self.running), timeout=POLL_SECONDS)
        for reference in ready:
            work = self.running.pop(reference)
            yield work, self._error_of(reference, work)

    def _error_of(self, reference: Any, work: Work) -> UserError | None:
        exceptions = self._ray.exceptions
        try:
            found: UserError | None = self._ray.get(reference)
            return found
        except exceptions.TaskCancelledError:
            return Interrupted(f"point {work.name} was stopped before it began.")
        except exceptions.RayTaskError:  # an error of ours, with the traceback of the task
            raise
        except exceptions.RayError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return MachineError(
                f"point {work.name}: its process was lost {RETRIES + 1} times. Ray says: {reason[:300]}"
            )


def _do(work: Work) -> UserError | None:
    """A task: do the work. What the user can put right comes back as a value, since Ray wraps what is raised."""
    sys.path.append(str(Path.cwd()))
    try:
        work.do()
    except UserError as error:
        return error
    return None


@contextlib.contextmanager
def _cluster(cpus: int) -> Iterator[Any]:
    """Ray, connected with the cluster that `RAY_ADDRESS` names, or with one of this machine that ends with the body."""
    if ADDRESS in os.environ:
        ray = import_optional("ray", "ray", where="--on")
        try:
            ray.init(
                address=os.environ[ADDRESS], log_to_driver=False, configure_logging=False, runtime_env=_environment()
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise MachineError(f"Ray cannot be reached at {os.environ[ADDRESS]}: {reason}", where=ADDRESS) from error
        with contextlib.ExitStack() as at_end:
            at_end.callback(ray.shutdown)
            yield ray
        return
    if cpus > (here := os.cpu_count() or 1):
        raise UserError(f"a point is to have {cpus} cores, and this machine has {here}.", where="--cpus-per-point")
    with contextlib.ExitStack() as at_end:
        folder = tempfile.mkdtemp(prefix="luthier-ray-")  # short: paths of sockets must be
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        at_end.enter_context(_variables(PRIVATE | {"RAY_AUTH_TOKEN": secrets.token_hex(16)}))
        ray = import_optional("ray", "ray", where="--on")
        at_end.callback(ray.shutdown)
        started = ray.init(
            address="local", num_cpus=here, include_dashboard=False, log_to_driver=False, configure_logging=False,
            object_store_memory=OBJECTS, _temp_dir=folder, runtime_env=_environment(),
        )  # fmt: skip
        assert started.address_info["node_ip_address"] == "127.0.0.1", "Ray was imported before its variables were set"
        yield ray


def _environment() -> dict[str, Any]:
    """What tasks find as this process does: its packages, and functions of the user's own."""
    paths = os.pathsep.join([*filter(None, sys.path), os.environ.get("PYTHONPATH", "")])
    return {"env_vars": {"PYTHONPATH": paths}}


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the time of the body."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
