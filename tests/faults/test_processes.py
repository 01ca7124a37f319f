"""Any process of a training may be killed at any moment: the run goes on to the same weights, or to the same rows."""

import contextlib
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from luthier import pipeline
from luthier import recipe as recipes
from luthier.errors import Interrupted
from luthier.runs import Run, verify

from .conftest import Tally

KILLS = 15
"""For each number of processes."""
PATIENCE = 900
"""Seconds for a training of three seconds, on a machine that is busy with much else."""

TRAIN = """
import os, signal, sys, threading
from pathlib import Path
import psutil
from luthier import recipe as recipes
from luthier.model import tuned
from luthier.runs import Run
from luthier.train import launch, worker
folder, size, rank, event, seconds = Path(sys.argv[1]), *map(float, sys.argv[2:])
current, events = Run(folder), 0

def strike():
    ranks = [os.getpid(), *(child.pid for child in psutil.Process().children())]
    os.kill(ranks[int(rank)], signal.SIGKILL)

def record(kind, **fields):
    global events
    current.record(kind, **fields)
    if events == event:
        threading.Timer(seconds, strike).start()
    events += 1

with current.lock(), launch.processes(folder, int(size)) as world:
    base = tuned.starting_model(current, recipes.load(folder / "recipe.toml"))
    worker.tune(current, base, record=record, stop=lambda: False, world=world)
"""
"""Trains in so many processes, and kills the one of a rank so many seconds after an event of the training; -1 is none."""


@pytest.fixture(scope="module")
def prepared(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its training, of forty steps."""
    folder = tmp_path_factory.mktemp("processes")
    rows = [{"question": f"What is {number} times three?", "answer": f"It is {3 * number}."} for number in range(60)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        f"model={tiny_model}", "train.max_steps=40", "train.check_every=5", "train.tokens_per_step=300", "train.patience=99",
        "train.precision=fp32", "train.learning_rate=1e-3", "evaluate.arms=zero-shot,fine-tuned", "evaluate.guards=[]",
        "evaluate.max_new_tokens=4", "data.test_items=4", "data.dev_items=6",
    ]  # fmt: skip
    with pytest.raises(Interrupted):
        asked = recipes.load(None, words, data=folder / "data.jsonl")
        pipeline.run(asked, folder / "run", until_training=True, record_rows=True)
    return folder / "run"


def start(folder: Path, size: int, rank: int = -1, event: int = -1, seconds: float = 0) -> "subprocess.Popen[bytes]":
    arguments = [str(each) for each in (folder, size, rank, event, seconds)]
    return subprocess.Popen([sys.executable, "-c", TRAIN, *arguments], stderr=subprocess.PIPE)


def expect_done(run: "subprocess.Popen[bytes]") -> None:
    _, said = run.communicate()
    assert run.returncode == 0, said.decode()


def steps(folder: Path) -> int:
    return sum(event["kind"] == "step" for event in Run(folder).events())


def kill_one(folder: Path, size: int, chance: random.Random) -> str:
    """Goes on with the training and kills one of its processes at a moment of a dozen steps; what happened, or "done"."""
    rank, made = chance.randrange(size), steps(folder)
    first = start(folder, size, rank, chance.randint(0, 15), chance.random() * chance.choice([0.0, 0.02, 0.2]))
    until = time.monotonic() + PATIENCE
    family: dict[int, psutil.Process] = {}
    while first.poll() is None and time.monotonic() < until:
        with contextlib.suppress(psutil.NoSuchProcess):
            family |= {one.pid: one for one in psutil.Process(first.pid).children()}
        time.sleep(0.1)
    assert first.poll() is not None, "still training, or waiting for one that is gone"
    begun = time.monotonic()
    psutil.wait_procs(list(family.values()), timeout=30)
    assert not [one for one in family.values() if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    _, said = first.communicate()
    if first.returncode == 0:
        return "done"
    if rank:
        assert f"rank {rank} (process " in said.decode() and "SIGKILL" in said.decode(), said.decode()
    else:
        assert first.returncode == -signal.SIGKILL
    return f"rank {rank} after {steps(folder) - made} steps, all ended within {time.monotonic() - begun:.1f} s"


def outcome(folder: Path) -> tuple[str, list[tuple[int, list[int]]]]:
    weights = hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()
    return weights, sorted({event["step"]: event["rows"] for event in Run(folder).events("step")}.items())


@pytest.mark.faults
@pytest.mark.parametrize("size", [2, 3])
def test_whichever_process_is_killed_the_run_ends_with_the_same_weights(
    prepared: Path, tmp_path: Path, size: int, tally: Tally
) -> None:
    calm = Path(shutil.copytree(prepared, tmp_path / "calm"))
    expect_done(start(calm, size))
    chance, runs, happened = random.Random(size), 0, list[str]()
    while len(happened) < KILLS:
        folder = Path(shutil.copytree(prepared, tmp_path / f"rough{runs}"))
        runs += 1
        while len(happened) < KILLS and (what := kill_one(folder, size, chance)) != "done":
            happened.append(what)
            tally.add(f"kills of one of {size} processes")
            assert not [finding for finding in verify.verify(Run(folder)) if finding.problem]
        other = Path(shutil.copytree(folder, tmp_path / f"other{runs}"))
        for left, processes in ((folder, size), (other, 1)):
            if not (left / "model").is_dir():
                expect_done(start(left, processes))
        assert outcome(folder) == outcome(calm)
        assert outcome(other)[1] == outcome(calm)[1]
    print(f"{len(happened)} kills in {runs} runs: {'; '.join(happened)}")
