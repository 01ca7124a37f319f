"""Any process of a training may be killed at any moment: the run goes on to the same weights, or to the same rows."""

import hashlib
import json
import random
import shutil
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

TRAIN = """
import sys
from pathlib import Path
from luthier import recipe as recipes
from luthier.model import tuned
from luthier.runs import Run
from luthier.train import launch, worker
folder, size = Path(sys.argv[1]), int(sys.argv[2])
current = Run(folder)
with current.lock(), launch.processes(folder, size) as world:
    base = tuned.starting_model(current, recipes.load(folder / "recipe.toml"))
    worker.tune(current, base, record=current.record, stop=lambda: False, world=world)
"""


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


def start(folder: Path, size: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", TRAIN, str(folder), str(size)], stderr=subprocess.PIPE)


def steps(folder: Path) -> int:
    return sum(event["kind"] == "step" for event in Run(folder).events())


def kill_one(folder: Path, size: int, chance: random.Random) -> str:
    """Starts the training and kills one of its processes after some steps; what happened, or "done"."""
    first = start(folder, size)
    made, wait, until = steps(folder), chance.randint(0, 14), time.monotonic() + 120
    while first.poll() is None and steps(folder) < made + wait and time.monotonic() < until:
        time.sleep(0.02)
    ranks = [psutil.Process(first.pid), *psutil.Process(first.pid).children()] if first.poll() is None else []
    struck = chance.randrange(len(ranks)) if ranks else None
    if struck is not None:
        ranks[struck].kill()
    begun = time.monotonic()
    psutil.wait_procs(ranks, timeout=30)
    assert not [one for one in ranks if one.is_running() and one.status() != psutil.STATUS_ZOMBIE], "still running"
    first.communicate()
    return "done" if first.returncode == 0 else f"rank {struck} of {size}, {time.monotonic() - begun:.1f} s"


def outcome(folder: Path) -> tuple[str, list[tuple[int, list[int]]]]:
    weights = hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()
    return weights, sorted({event["step"]: event["rows"] for event in Run(folder).events("step")}.items())


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kills", [pytest.param(15, marks=pytest.mark.faults)])
def test_whichever_process_is_killed_the_run_ends_with_the_same_weights(
    prepared: Path, tmp_path: Path, size: int, kills: int
) -> None:
    calm = Path(shutil.copytree(prepared, tmp_path / "calm"))
    assert start(calm, size).wait() == 0
    chance, number, happened = random.Random(size), 0, []
    while len(happened) < kills:
        folder = Path(shutil.copytree(prepared, tmp_path / f"rough{number}"))
        number += 1
        while (what := kill_one(folder, size, chance)) != "done" and len(happened) < kills:
            happened.append(what)
            assert not [finding for finding in verify.verify(Run(folder)) if finding.problem]
        other = Path(shutil.copytree(folder, tmp_path / f"other{number}"))
        for left, processes in ((folder, size), (other, 1)):
            if not (left / "model").is_dir():
                run = start(left, processes)
                _, said = run.communicate()
                assert run.returncode == 0, said.decode()
        assert outcome(folder) == outcome(calm)
        assert outcome(other)[1] == outcome(calm)[1]
    print(f"{len(happened)} kills in {number} runs: {'; '.join(happened)}")
