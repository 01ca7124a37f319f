"""Several processes train as one: the same rows in the same order, the same bits each time, and none is lost unnoticed."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from luthier import pipeline
from luthier import recipe as recipes
from luthier.cli.arguments import RECORD_ROWS, without_switches
from luthier.errors import Interrupted, MachineError, UserError
from luthier.model import generate, loading, tuned
from luthier.runs import Run, manifest, verify
from luthier.train import checkpoint, launch, sharding, watch, worker
from luthier.train.order import Steps
from luthier.train.world import ALONE, ProcessLost

LENGTHS = np.random.default_rng(0).integers(5, 60, 200)
SHARED = np.where(np.arange(200) % 3 == 1, 4, 0)


def steps(rank: int, of: int, shared: np.ndarray = SHARED) -> Steps:
    sizes = {"epochs": 2, "max_steps": None, "seed": 3, "tokens_per_step": 256, "tokens_per_batch": 96}
    return Steps(LENGTHS, shared=shared, share=(rank, of), **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("of", [2, 3, 7])
def test_shares_of_a_step_are_its_rows_once_each_whoever_takes_them(of: int) -> None:
    whole, shares = steps(0, 1), [steps(rank, of) for rank in range(of)]
    assert [len(share) for share in shares] == [len(whole)] * of
    for number, step in enumerate(whole):
        parts = [share[number] for share in shares]
        assert all(part.rows == step.rows and part.epoch == step.epoch for part in parts)
        assert sorted(row for part in parts for batch in part.batches for row in batch) == sorted(step.rows)
        assert sorted(row for batch in step.batches for row in batch) == sorted(step.rows)


def test_shares_of_a_step_have_about_as_many_tokens_and_no_batch_too_many() -> None:
    for parts in zip(steps(0, 2, 0 * SHARED), steps(1, 2, 0 * SHARED), strict=True):
        tokens = [[int(LENGTHS[list(batch)].sum()) for batch in part.batches] for part in parts]
        assert max(tokens[0] + tokens[1]) <= 96
        assert abs(sum(tokens[0]) - sum(tokens[1])) <= LENGTHS.max()


def test_a_process_alone_agrees_with_itself() -> None:
    assert ALONE.is_first and ALONE.agree(True) and not ALONE.agree(False)
    assert ALONE.total({"loss": 2.5}) == {"loss": 2.5}


# Real processes, connected by gloo, on a run that is prepared once.

Listen = Callable[[str, dict[str, Any]], None]


@pytest.fixture(scope="module")
def prepared(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its training."""
    folder = tmp_path_factory.mktemp("world")
    rows = [{"question": f"What is {number} times three?", "answer": f"It is {3 * number}."} for number in range(60)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        f"model={tiny_model}", "train.max_steps=8", "train.check_every=2", "train.tokens_per_step=300",
        "train.precision=fp32", "train.learning_rate=1e-3", "evaluate.arms=zero-shot,fine-tuned", "evaluate.guards=[]",
        "evaluate.max_new_tokens=4", "data.test_items=4", "data.dev_items=6", "chat.date=2026-01-01",
    ]  # fmt: skip
    asked = recipes.load(None, words, data=folder / "data.jsonl")
    with pytest.raises(Interrupted, match="stopped before training"):
        pipeline.run(asked, folder / "run", until_training=True, record_rows=True)
    return folder / "run"


@pytest.fixture
def train(prepared: Path, tmp_path: Path) -> Callable[..., Path]:
    """Trains a copy of the prepared run, or goes on with one, in so many processes."""

    def run(size: int, name: str, listen: Listen = lambda kind, fields: None) -> Path:
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(prepared, folder)
        current = Run(folder)

        def record(kind: str, **fields: object) -> None:
            current.record(kind, **fields)
            listen(kind, fields)

        with current.lock(), launch.processes(folder, size) as world:
            base = tuned.starting_model(current, recipes.load(folder / "recipe.toml"))
            worker.tune(current, base, record=record, stop=lambda: False, world=world)
        return folder

    return run


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def rows_used(folder: Path) -> list[tuple[int, list[int]]]:
    """The rows of each step, as the last time that it was made."""
    return sorted({event["step"]: event["rows"] for event in Run(folder).events("step")}.items())


def losses(folder: Path) -> list[float]:
    return list({event["step"]: event["loss"] for event in Run(folder).events("step")}.values())


def trained_by() -> list[psutil.Process]:
    """The processes of a training that this one has started; other tests have started others."""
    return [child for child in psutil.Process().children() if "luthier.train.worker" in child.cmdline()]


def at_step(number: int, blow: Callable[[psutil.Process], None]) -> Listen:
    """Strikes the last process that was started, when this step is made."""

    def listen(kind: str, fields: dict[str, Any]) -> None:
        if kind == "step" and fields["step"] == number:
            blow(trained_by()[-1])

    return listen


def test_two_processes_train_as_one_does_and_each_time_alike(train: Callable[..., Path]) -> None:
    alone, two = train(1, "alone"), train(2, "two")
    assert rows_used(two) == rows_used(alone) and len(rows_used(alone)) == 8
    assert losses(two) == pytest.approx(losses(alone), rel=1e-5)
    mine, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (alone, two))
    assert all(theirs[name].allclose(weight, rtol=1e-3, atol=2e-5) for name, weight in mine.items())

    # One is killed: all stop with one message and a checkpoint, and the run goes on to the same bits.
    with pytest.raises(ProcessLost, match=r"rank 1 \(process \d+\) was ended by signal 9, SIGKILL.*step 3 is saved"):
        train(2, "killed", at_step(3, lambda child: child.kill()))
    assert not trained_by()
    assert not [finding for finding in verify.verify(Run(two.parent / "killed")) if finding.problem]
    other = Path(shutil.copytree(two.parent / "killed", two.parent / "more"))
    assert weights(train(2, "killed")) == weights(two)

    # And on three processes, to the same rows.
    assert rows_used(train(3, "more")) == rows_used(alone)
    assert losses(other) == pytest.approx(losses(alone), rel=1e-5)
    assert any("trained by 2 processes, now by 3" in event["message"] for event in Run(other).events("warning"))


def test_a_process_that_hangs_is_ended_and_named(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SILENT", 2)
    with pytest.raises(ProcessLost, match=r"rank 1 \(process \d+\) has given no sign of life for 2 seconds"):
        train(2, "hung", at_step(2, lambda child: os.kill(child.pid, signal.SIGSTOP)))
    assert not trained_by()


def test_a_process_with_another_recipe_is_named_before_the_first_step(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = worker._inputs
    monkeypatch.setattr(worker, "_inputs", lambda current: inputs(current) | {"version torch": "1.0"})
    seen: list[str] = []
    with pytest.raises(UserError, match=r"rank 1 has version torch 2\.\S+ instead of 1\.0"):
        train(2, "other", lambda kind, fields: seen.append(kind))
    assert "step" not in seen


def test_a_port_in_use_is_said_with_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(socket.create_server(("", 0))) as taken:
        port = taken.getsockname()[1]
        places = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for name, value in places.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError, match=f"port {port} cannot be used.*set MASTER_PORT"), launch.of_environment():
            pass


def test_a_process_whose_first_one_is_gone_already_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "HERE_SECONDS", 1)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as closed:
        port = closed.getsockname()[1]
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match=r"timed out|Timed out|failed to connect"), launch.of_environment():
        pass


def test_without_torchruns_variables_it_says_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="'RANK' is not set as torchrun sets it"), launch.of_environment():
        pass


def test_recording_rows_is_a_word_of_the_command_line_and_no_setting() -> None:
    assert without_switches(["a.jsonl", f"{RECORD_ROWS}=true", "train.epochs=2"]) == (
        ["a.jsonl", "train.epochs=2"],
        True,
    )
    assert without_switches([f"{RECORD_ROWS}=false"]) == ([], False)
    with pytest.raises(UserError, match=r"train.record_rows: found \"maybe\", expected true or false"):
        without_switches([f"{RECORD_ROWS}=maybe"])


def torchrun(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """torchrun as on one host, with this run to train."""
    command = [sys.executable, "-m", "torch.distributed.run", *words, "-m", "luthier.train.worker", str(folder)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


def free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as one:
        return int(one.getsockname()[1])


@pytest.mark.slow
def test_torchrun_trains_as_our_own_processes_do_on_one_host_and_on_two(
    train: Callable[..., Path], prepared: Path, tmp_path: Path
) -> None:
    ours = train(2, "ours")
    static = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", f"{free_port()}"]
    c10d = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    c10d += ["--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    hosts = {
        "one": [["--standalone", "--nproc-per-node", "2"]],
        "two": [[*static, "--node-rank", "0"], [*static, "--node-rank", "1"]],
        "alike": [c10d, c10d],
    }
    for name, started in hosts.items():
        folder = Path(shutil.copytree(prepared, tmp_path / name))
        running = [torchrun(folder, *words) for words in started]
        said = [each.communicate(timeout=200) for each in running]
        assert [each.returncode for each in running] == [0] * len(started), said
        assert f"Trained. Continue with: luthier resume {folder}" in "".join(out for out, _ in said)
        assert weights(folder) == weights(ours) and rows_used(folder) == rows_used(ours)
        assert Run(folder).state == "interrupted"


@pytest.mark.slow
def test_a_model_in_shards_trains_as_a_whole_one_and_goes_on_with_any_number_of_processes(
    train: Callable[..., Path], prepared: Path, tmp_path: Path
) -> None:
    alone = load_file(train(1, "alone") / "model" / "model.safetensors")
    shutil.copytree(prepared, tmp_path / "shards")
    Run(tmp_path / "shards").update(shards=True)
    with pytest.raises(ProcessLost, match=r"rank 1 .* was ended by signal 9"):
        train(2, "shards", at_step(5, lambda child: child.kill()))
    newest, wrong = checkpoint.newest(tmp_path / "shards" / "checkpoints")
    assert newest is not None and newest.step == 4 and newest.is_sharded and not wrong

    # On three processes and on one, from a folder each; the model is a plain folder.
    shutil.copytree(tmp_path / "shards", tmp_path / "one")
    for size, name in ((3, "shards"), (1, "one")):
        folder = train(size, name)
        assert rows_used(folder) == rows_used(tmp_path / "alone")
        tuned_alike = load_file(folder / "model" / "model.safetensors")
        assert all(tuned_alike[key].allclose(weight, rtol=1e-3, atol=2e-5) for key, weight in alone.items())
        assert not [finding for finding in verify.verify(Run(folder)) if finding.problem]
    models = [loading.load(str(tmp_path / name / "model")) for name in ("alone", "shards", "one")]
    prompt = models[0].tokenizer("What is 7 times three?")["input_ids"]
    said = [generate.answer(lm, [prompt], max_new_tokens=12)[0].ids for lm in models]
    assert said[0] == said[1] == said[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="needs prlimit, which Linux has")
def test_a_host_that_cannot_write_its_shard_is_named_and_the_checkpoint_before_it_stays(
    train: Callable[..., Path], prepared: Path, tmp_path: Path
) -> None:
    shutil.copytree(prepared, tmp_path / "shards")
    Run(tmp_path / "shards").update(shards=True)
    full = at_step(3, lambda child: child.rlimit(psutil.RLIMIT_FSIZE, (4096, 4096)))
    with pytest.raises(MachineError, match=r"rank 1 cannot write its part of the checkpoint: .* is kept"):
        train(2, "shards", full)
    assert not trained_by()
    newest, wrong = checkpoint.newest(tmp_path / "shards" / "checkpoints")
    assert newest is not None and newest.step == 2 and not wrong
    assert len(rows_used(train(2, "shards"))) == 8


def test_an_index_of_shards_that_we_did_not_write_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "step-00000002"
    folder.mkdir()
    state = {"state.json": manifest.write_json(folder / "state.json", {})}
    (folder / ".metadata").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    manifest.write(folder, 2, state | {".metadata": hashlib.sha256(b"what we wrote").hexdigest()})
    found, wrong = checkpoint.newest(tmp_path)
    assert found is None and ".metadata: its SHA-256 is not the one" in wrong[folder]


@pytest.mark.parametrize(
    "word", ["train.method=lora", "train.optimizer=adafactor", "train.objective=kto", "train.compile=true"]
)
def test_what_cannot_be_trained_in_shards_is_said(word: str) -> None:
    with pytest.raises(UserError, match=f"{word.replace('true', 'True')} cannot be trained in shards"):
        sharding.check(recipes.load(None, [word]).train)


def test_processes_in_step_have_as_many_batches_each() -> None:
    sizes = {"epochs": 1, "max_steps": None, "seed": 3, "tokens_per_step": 256, "tokens_per_batch": 96, "in_step": True}
    shares = [Steps(LENGTHS, share=(rank, 3), **sizes) for rank in range(3)]  # type: ignore[arg-type]
    for parts in zip(*shares, strict=True):
        assert len({len(part.batches) for part in parts}) == 1
        assert sorted(row for part in parts for batch in part.batches for row in batch) == sorted(parts[0].rows)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: NCCL lets no two processes share one")
def test_two_gpus_train_as_one_does(train: Callable[..., Path]) -> None:
    alone, two = train(1, "alone"), train(2, "two")
    assert rows_used(two) == rows_used(alone)
    assert losses(two) == pytest.approx(losses(alone), rel=1e-4)
    assert weights(train(2, "again")) == weights(two)
