"""A checkpoint that was cut short or changed by a bit is never loaded; the one before is, and that is told."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from faulty import BROKEN, FULL, FaultyDisk, Nursery, disk, weights_hash
from luthier.errors import CorruptedState, MachineError, UserError
from luthier.runs import durable
from luthier.runs import manifest as manifest_of
from luthier.runs.durable import Disk
from luthier.train import checkpoint
from scenarios import save_checkpoint, tensors, three_checkpoints, train

from .conftest import Tally

few_then_all = pytest.mark.parametrize("every", [101, pytest.param(1, marks=pytest.mark.faults)])
SHORT = {"max_steps": 5, "check_every": 1}  # a training with every kind of call, older checkpoints removed among them
FILES = ("tensors.safetensors", "state.json", "manifest.json")


def damaged_copies(content: bytes, every: int) -> list[tuple[int, bytes]]:
    """The file cut short at many places, and with one bit turned at many places: where, and what is left."""
    ends = sorted(
        {0, 1, len(content) // 2, len(content) - 1, *range(0, len(content), max(1, len(content) // 64) * every)}
    )
    cut = [(end, content[:end]) for end in ends]
    bits = range(0, 8 * len(content), max(1, 8 * len(content) // 2000) * every)
    flipped = [
        (bit, content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]) for bit in bits
    ]
    return cut + flipped


@few_then_all
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_found_and_the_checkpoint_before_is_taken(
    tmp_path: Path, tally: Tally, file: str, every: int
) -> None:
    three_checkpoints(tmp_path)
    target = manifest_of.path(tmp_path, 3) / file
    whole = target.read_bytes()
    for _, content in damaged_copies(whole, every):
        target.write_bytes(content)
        found, wrong = checkpoint.newest(tmp_path)
        assert found and found.step == 2, content
        (told,) = wrong.values()
        assert file in told or "not a whole checkpoint" in told
        tally.add("checkpoint files cut short or with a bit turned")
    target.unlink()
    assert checkpoint.newest(tmp_path)[0].step == 2  # type: ignore[union-attr]


def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path: Path) -> None:
    three_checkpoints(tmp_path)
    shutil.move(manifest_of.path(tmp_path, 3), manifest_of.path(tmp_path, 9))
    with pytest.raises(CorruptedState, match="this is the checkpoint of step 3"):
        checkpoint.verify(manifest_of.path(tmp_path, 9))


def test_a_checkpoint_of_a_newer_version_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    three_checkpoints(tmp_path)
    file = manifest_of.path(tmp_path, 3) / "manifest.json"
    manifest = json.loads(file.read_text()) | {"format": 2, "luthier": "9.1"}
    del manifest["sha256"]
    file.write_text(json.dumps(manifest | {"sha256": manifest_of.checksum(manifest)}))
    with pytest.raises(UserError, match=r"made by Luthier 9\.1, which is newer than this one .*; update Luthier"):
        checkpoint.newest(tmp_path)


def test_what_is_saved_is_read_back_alike_in_every_number_format(tmp_path: Path) -> None:
    kinds = [
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.uint8,
        torch.bool,
        torch.float64,
        torch.int8,
    ]
    saved = {str(kind): (torch.arange(5) % 3).to(kind) for kind in kinds} | {
        "scalar": torch.tensor(3.5),
        "none": torch.empty(0, 4),
    }
    saved["turned"] = torch.arange(6.0).reshape(2, 3).T
    read = checkpoint.verify(checkpoint.save(tmp_path, 1, saved, {})).tensors()
    assert saved.keys() == read.keys()
    assert all(torch.equal(saved[name], read[name]) and saved[name].dtype == read[name].dtype for name in saved)


class ForgetfulDisk(Disk):
    """Takes everything and keeps one bit of it wrong."""

    def write(self, descriptor: int, data: memoryview) -> int:
        if len(data) < 1000:
            return super().write(descriptor, data)
        return super().write(descriptor, memoryview(bytes(data[:-1]) + bytes([data[-1] ^ 1])))


def test_a_checkpoint_that_reads_back_otherwise_than_it_was_written_never_gets_its_name(tmp_path: Path) -> None:
    three_checkpoints(tmp_path)
    with disk(ForgetfulDisk()), pytest.raises(MachineError, match="the disk reports an input/output error"):
        save_checkpoint(tmp_path, 4, best=4)
    assert [folder.name[-1] for folder in manifest_of.folders(tmp_path)] == ["3", "2", "1"]


def test_the_only_good_checkpoint_is_never_removed(tmp_path: Path) -> None:
    three_checkpoints(tmp_path)
    for step in (4, 5):
        checkpoint.save(tmp_path, step, tensors(step), {})
        with (manifest_of.path(tmp_path, step) / "tensors.safetensors").open("r+b") as file:
            file.truncate(100)
        assert "SHA-256" in str(checkpoint.rotate(tmp_path, best=1))
    found, wrong = checkpoint.newest(tmp_path)
    assert found and found.step == 3 and len(wrong) == 2


def test_old_ones_go_and_the_best_stays(tmp_path: Path) -> None:
    for step in range(1, 7):
        save_checkpoint(tmp_path, step, best=2)
    assert [folder.name[-1] for folder in manifest_of.folders(tmp_path)] == ["6", "5", "2"]


def test_a_link_in_place_of_an_old_checkpoint_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "step-00000000").symlink_to(tmp_path / "precious")
    for step in (1, 2, 3):
        save_checkpoint(tmp_path / "c", step, best=3)
    assert not (tmp_path / "c" / "step-00000000").exists()
    assert (tmp_path / "precious" / "file").read_text() == "mine"


def test_a_damaged_best_checkpoint_sends_the_run_back_to_where_it_can_be_made_again(
    tmp_path: Path, tiny_model: Path
) -> None:
    wanted = weights_hash(train(tmp_path / "calm", tiny_model).weights)
    folder = tmp_path / "hurt"
    train(folder, tiny_model, max_steps=6)
    found = manifest_of.folders(folder / "checkpoints")
    for one in found[:-1]:
        (one / "state.json").write_text("{}")
    told: list[str] = []
    with pytest.raises(UserError, match=r"made with other settings \(train\.max_steps was 6, now None\)"):
        train(folder, tiny_model)
    outcome = train(folder, tiny_model, max_steps=6, record=lambda kind, **fields: told.append(f"{kind} {fields}"))
    assert sum(line.startswith("warning") for line in told) == len(found) - 1
    assert (
        weights_hash(outcome.weights)
        == weights_hash(train(tmp_path / "short", tiny_model, max_steps=6).weights)
        != wanted
    )


@few_then_all
@pytest.mark.parametrize("fault", [FULL, BROKEN], ids=["full", "broken"])
def test_a_training_whose_disk_fails_at_any_call_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_model: Path, tally: Tally, fault: object, every: int
) -> None:
    with disk(FaultyDisk(None, FULL)) as counting:
        wanted = weights_hash(train(tmp_path / "calm", tiny_model, **SHORT).weights)
    assert isinstance(counting, FaultyDisk)
    for at in range(0, len(counting.calls), min(every, 40)):
        folder = tmp_path / f"failed{at}"
        with disk(FaultyDisk(at, fault)), pytest.raises(MachineError, match="cannot write"):  # type: ignore[arg-type]
            train(folder, tiny_model, **SHORT)
        durable.remove_leftovers(folder)
        assert weights_hash(train(folder, tiny_model, **SHORT).weights) == wanted
        tally.add(f"trainings whose disk failed with {'ENOSPC' if fault is FULL else 'EIO'}")


@few_then_all
def test_a_training_killed_at_any_call_goes_on_to_the_same_weights(
    nursery: Nursery, tmp_path: Path, tiny_model: Path, tally: Tally, every: int
) -> None:
    with disk(FaultyDisk(None, FULL)) as counting:
        train(tmp_path / "calm", tiny_model, **SHORT)
    assert isinstance(counting, FaultyDisk)
    assert nursery.do("train", folder=str(tmp_path / "calm2"), model=str(tiny_model), **SHORT).code == 0
    wanted = (tmp_path / "calm2" / "weights.sha256").read_text()
    for at in range(0, len(counting.calls), min(every, 40)):
        folder = tmp_path / f"killed{at}"
        assert nursery.do("train", folder=str(folder), model=str(tiny_model), die_at_call=at, **SHORT).code == -9
        again = nursery.do("train", folder=str(folder), model=str(tiny_model), **SHORT)
        assert again.code == 0, again.said
        assert (folder / "weights.sha256").read_text() == wanted
        tally.add("trainings killed at a write, flush or rename")


@pytest.mark.parametrize(
    "deaths", [(3, 5, 6, 7, 11), (11, 12, 13, 14)], ids=["five in one epoch", "around an epoch's end"]
)
def test_a_training_killed_again_and_again_ends_with_the_same_weights(
    nursery: Nursery, tmp_path: Path, tiny_model: Path, tally: Tally, deaths: tuple[int, ...]
) -> None:
    wanted = nursery.do("train", folder=str(tmp_path / "calm"), model=str(tiny_model))
    assert wanted.code == 0, wanted.said
    for step in deaths:
        assert nursery.do("train", folder=str(tmp_path / "hurt"), model=str(tiny_model), die_at_step=step).code == -9
        tally.add("kills at a step, several in one epoch")
    assert nursery.do("train", folder=str(tmp_path / "hurt"), model=str(tiny_model)).code == 0
    assert (tmp_path / "hurt" / "weights.sha256").read_text() == (tmp_path / "calm" / "weights.sha256").read_text()
