"""Several processes for one training: started here, or by torchrun and its like, which name them in the environment.

The process that the user started is the first one. What it starts gets the run's folder and nothing else: recipe, rows and
model are read from there.
"""

import contextlib
import json
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from luthier.errors import Interrupted, MachineError, UserError
from luthier.train.child import INTERFACE, LOCAL, Child
from luthier.train.watch import Watch
from luthier.train.world import ALONE, POLL_SECONDS, ProcessLost, Store, World

START_SECONDS = 300
"""In which every process has to come: it loads torch and the model."""
HERE_SECONDS = 20
"""In which the first process is found on this machine: it is there before the others, or has died meanwhile."""
EXCHANGE_SECONDS = 1800
"""The longest that one process waits for another that gives signs of life."""
END_SECONDS = 30


TRAIN = ("luthier.train.worker",)
"""The module that the other processes run, and its words before the run's folder."""


@contextlib.contextmanager
def processes(
    folder: Path, size: int, stop: Callable[[], bool] = lambda: False, *, program: Sequence[str] = TRAIN
) -> Iterator[World]:
    """This process as the first of so many on this machine, the others started and ended with the body."""
    if size == 1:
        yield ALONE
        return
    expect_devices(size)
    listening = socket.create_server((LOCAL, 0))  # any port that is free, and heard on this machine only
    port = listening.getsockname()[1]
    store = _table(LOCAL, port, is_master=True, master_listen_fd=listening.detach())
    store.set("beat/0", "0")
    threads = torch.get_num_threads()
    share = max(1, threads // size)
    children = {rank: Child.start((*program, str(folder)), rank, size, port, share) for rank in range(1, size)}
    watch = Watch(lambda: _table(LOCAL, port, is_master=False), 0, size, children)
    torch.set_num_threads(share)
    whole = False
    try:
        watch.start()
        _wait_for(store, watch, size, stop)
        yield _join(store, watch, 0, size)
        whole = True
    finally:
        watch.end()
        torch.set_num_threads(threads)
        _end(children, END_SECONDS if whole else 0)
        if dist.is_initialized():
            dist.destroy_process_group()


@contextlib.contextmanager
def of_environment() -> Iterator[World]:
    """This process as torchrun's variables name it: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT."""
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{error} is not set as torchrun sets it. Start it with torchrun, or with `luthier run … --processes N`.",
            where="environment",
        ) from None
    if size == 1:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = _serve(host, port) if rank == 0 and not agent else _table(host, port, is_master=False)
    watch = Watch(lambda: _table(host, port, is_master=False), rank, size, {})
    try:
        store.set(f"beat/{rank}", "0")  # before the watch's first one, so that who hangs at once is missed as well
        watch.start()
        store.set(f"here/{rank}", "1")
        if rank == 0:
            _wait_for(store, watch, size, lambda: False)
        yield _join(store, watch, rank, size)
    finally:
        watch.end()
        if dist.is_initialized():
            dist.destroy_process_group()


@contextlib.contextmanager
def noting_failure(world: World) -> Iterator[None]:
    """Whatever goes wrong in another process than the first is noted for that one, which tells it."""
    try:
        yield
    except (Interrupted, ProcessLost):
        raise
    except BaseException as error:
        if world.store is not None and not world.is_first:
            said = str(error) if isinstance(error, UserError) else traceback.format_exc().strip()
            world.store.set(f"failed/{world.rank}", json.dumps({"message": said}))
        raise


def expect_devices(size: int) -> None:
    """Refuses more processes than GPUs: two cannot share one."""
    if torch.cuda.is_available() and (found := torch.cuda.device_count()) < size:
        raise UserError(f"{size} processes need {size} GPUs, and this machine has {found}.", where="--processes")


def _table(host: str, port: int, **more: Any) -> Store:
    """The table that all processes share. torchrun's stays over its restarts, so each of them has a part of its own."""
    wait = timedelta(seconds=HERE_SECONDS if host == LOCAL else START_SECONDS)
    table = dist.TCPStore(host, port, wait_for_workers=False, timeout=wait, **more)  # type: ignore[attr-defined]
    table.set_timeout(timedelta(seconds=START_SECONDS))
    found: Store = _part(table, f"luthier/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}")
    return found


def _part(store: Any, name: str) -> Any:
    return dist.PrefixStore(name, store)  # type: ignore[attr-defined]


def _serve(host: str, port: int) -> Store:
    """The table in this process."""
    try:
        return _table(host, port, is_master=True)
    except RuntimeError as error:
        message = f"port {port} cannot be used ({str(error).splitlines()[0][:120]}); set MASTER_PORT to a free one."
        raise MachineError(message, where="MASTER_PORT") from None


def _wait_for(store: Store, watch: Watch, size: int, stop: Callable[[], bool]) -> None:
    """Until all others are here; raises ProcessLost where one ends before, or does not come."""
    until = time.monotonic() + START_SECONDS
    missing = list(range(1, size))
    while missing:
        missing = [rank for rank in missing if not store.check([f"here/{rank}"])]
        if stop():
            raise Interrupted("stopped before the first step, while the processes of the training were started.")
        if lost := watch.lost(store, 0.0):
            raise ProcessLost(lost)
        if time.monotonic() > until:
            raise ProcessLost(f"rank {missing[0]} has not come within {START_SECONDS} seconds.")
        if missing:
            time.sleep(POLL_SECONDS)


def _join(store: Store, watch: Watch, rank: int, size: int) -> World:
    """The world of all processes, which are connected with each other on return."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    wait = timedelta(seconds=EXCHANGE_SECONDS)
    if watch.children:
        os.environ.setdefault(*INTERFACE)
    try:
        dist.init_process_group(backend, store=_part(store, "torch"), rank=rank, world_size=size, timeout=wait)
    except RuntimeError as error:
        what = watch.lost(store, 5.0) or f"the processes could not be connected ({str(error).splitlines()[0][:200]})."
        raise ProcessLost(what) from error
    return World(rank, size, lambda seconds: watch.lost(store, seconds), store)


def _end(children: Mapping[int, Child], seconds: float) -> None:
    """Wait so long for processes to end of themselves, then end them."""
    until = time.monotonic() + seconds
    for child in children.values():
        child.end(max(0.0, until - time.monotonic()))
