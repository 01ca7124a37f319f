"""The writes that must survive anything: how things stand before, the write, and what may be there after a fault."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from luthier.chat import Conversation, Encoded, Message
from luthier.data import prepared
from luthier.data.dataset import Item
from luthier.errors import CorruptedState, UserError
from luthier.evaluate.verdict import analysis_plan
from luthier.model import loading
from luthier.recipe import Train
from luthier.runs import Run, durable, manifest
from luthier.train import checkpoint, loop
from token_rows import counting

Act = Callable[[], None]


@dataclass(frozen=True)
class Scenario:
    """A write. `before` makes the folder ready for it once; `ready` gives the write itself; `check` says what is torn.

    `check` gets whether the write came to its end.
    """

    before: Callable[[Path], None]
    ready: Callable[[Path, Path], Act]
    check: Callable[[Path, bool], None]


def nothing(folder: Path) -> None:
    """An empty folder is what it begins with."""


# A checkpoint, written where three older ones are, two of which then go.


def tensors(step: int) -> dict[str, torch.Tensor]:
    """What the checkpoint of a step holds here: masters and a step counter, larger than one write."""
    return {
        "weight/w": torch.full((300, 100), float(step)),
        "weight/b": torch.arange(7.0) + step,
        "step/w": torch.tensor(float(step)),
    }


def save_checkpoint(folder: Path, step: int, *, best: int) -> None:
    checkpoint.save(folder, step, tensors(step), {"progress": {"step": step, "best_step": best}})
    checkpoint.rotate(folder, best=best)


def three_checkpoints(folder: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(folder, step, best=1)


def check_checkpoints(folder: Path, done: bool) -> None:
    """Every folder that has a checkpoint's name is one, and holds what was saved."""
    found = [checkpoint.verify(one) for one in manifest.folders(folder)]
    for one in found:
        held = one.tensors()
        assert {name: tensor.tolist() for name, tensor in tensors(one.step).items()} == {
            name: held[name].tolist() for name in held
        }
    assert [one.step for one in found][:2] == [4, 3] if done else found[0].step in (3, 4)
    if done:
        assert [one.step for one in found] == [4, 3]


# A run: its folder, its record, its events.


def make_run(folder: Path) -> None:
    Run.create(folder / "run", command="luthier run x").update(note="old")


def create_run(folder: Path) -> None:
    """What `luthier run` does: a run that is there already is not made again."""
    if not (folder / "run" / "run.json").exists():
        Run.create(folder / "run", command="luthier run x")


def check_update(folder: Path, done: bool) -> None:
    run = Run(folder / "run")
    assert run.metadata["note"] == "new" if done else run.metadata["note"] in ("old", "new")


def check_created(folder: Path, done: bool) -> None:
    """Either a whole run, or nothing that would keep one from being made there."""
    try:
        Run(folder / "run")
    except UserError as error:
        assert not done and not isinstance(error, CorruptedState)
        Run.create(folder / "run", command="luthier run x")


# Answers, appended to others; the last line was cut short before.


def some_answers(folder: Path) -> None:
    durable.append_json_lines(folder / "answers.jsonl", [{"item": number} for number in range(3)])
    with (folder / "answers.jsonl").open("a") as file:
        file.write('{"item": 3, "ans')


def check_answers(folder: Path, done: bool) -> None:
    durable.repair(folder / "answers.jsonl")
    items = [line["item"] for line in durable.read_json_lines(folder / "answers.jsonl")]
    assert items == list(range(len(items))) and len(items) >= 3
    assert not done or len(items) == 43


# The plan of the proof: frozen once, its hash noted in the run's record.


def freeze_plan(folder: Path) -> None:
    run = Run(folder / "run")
    made = analysis_plan.freeze(
        {"arms": ["zero-shot", "fine-tuned"], "n": 300}, folder / "run" / "evaluation" / "plan.json"
    )
    run.update(hashes={"plan": made.sha256})


def check_plan(folder: Path, done: bool) -> None:
    """No plan, or the whole of it; its hash is noted only where it is."""
    found = analysis_plan.read(folder / "run" / "evaluation" / "plan.json")
    noted = Run(folder / "run").metadata.get("hashes", {}).get("plan")
    assert noted in (None, found and found.sha256)
    assert not done or (noted and found and found.content["n"] == 300)


# Rows, prepared anew over older ones.


def rows(number: int) -> list[tuple[Item, Encoded]]:
    return [
        (
            Item(
                f"{one:016}",
                f"a.jsonl:{one}",
                "g",
                Conversation((Message("user", "?"), Message("assistant", str(one)))),
            ),
            Encoded([one, 2], [False, True]),
        )
        for one in range(number)
    ]


def check_rows(folder: Path, done: bool) -> None:
    count = len(prepared.Prepared(folder / "train.arrow"))
    assert count == 1500 if done else count in (20, 1500)


# The model of a run, and one that is made anew.


def saving_a_model(folder: Path, model: Path) -> Act:
    lm = loading.load(str(model))
    weights = {name: weight.detach() + 1 for name, weight in lm.model.named_parameters()}
    return lambda: loading.save(lm.model, lm.tokenizer, lm.template, folder / "model", weights)


def check_model(folder: Path, done: bool) -> None:
    assert done or not (folder / "model").exists() or (folder / "model").is_dir()
    if (folder / "model").exists():
        lm = loading.load(str(folder / "model"))
        assert min(float(weight.detach().min()) for weight in lm.model.parameters()) > 0.5
        json.loads((folder / "model" / "config.json").read_text())


# A folder in the place of an older one.


def fill_folder(folder: Path, content: bytes) -> None:
    with durable.whole_folder(folder / "filled") as new, durable.flushed_file(new / "x") as file:
        file.write(content)


def check_folder(folder: Path, done: bool) -> None:
    """The old or the new; a kill between the two renames is put right by the next start."""
    durable.remove_leftovers(folder)
    content = (folder / "filled" / "x").read_bytes()
    assert content == b"new" if done else content in (b"old", b"new")
    assert [path.name for path in folder.iterdir()] == ["filled"]


SCENARIOS = {
    "folder": Scenario(
        lambda folder: fill_folder(folder, b"old"),
        lambda folder, model: lambda: fill_folder(folder, b"new"),
        check_folder,
    ),
    "checkpoint": Scenario(
        three_checkpoints, lambda folder, model: lambda: save_checkpoint(folder, 4, best=4), check_checkpoints
    ),
    "run.json": Scenario(make_run, lambda folder, model: lambda: Run(folder / "run").update(note="new"), check_update),
    "new run": Scenario(nothing, lambda folder, model: lambda: create_run(folder), check_created),
    "answers": Scenario(
        some_answers,
        lambda folder, model: (
            lambda: durable.append_json_lines(folder / "answers.jsonl", [{"item": one} for one in range(3, 43)])
        ),
        check_answers,
    ),
    "plan": Scenario(make_run, lambda folder, model: lambda: freeze_plan(folder), check_plan),
    "rows": Scenario(
        lambda folder: prepared.write(folder / "train.arrow", rows(20)),
        lambda folder, model: lambda: prepared.write(folder / "train.arrow", rows(1500)),
        check_rows,
    ),
    "model": Scenario(nothing, saving_a_model, check_model),
}


# Training on rows that follow a rule.


def train(
    folder: Path, model: Path, *, record: loop.Record = lambda kind, **fields: None, **changes: Any
) -> loop.Outcome:
    """A training of a second on the tiny model: two epochs of twelve steps, a checkpoint at every third step."""
    values = {
        "epochs": 2, "learning_rate": 5e-3, "warmup_steps": 2, "tokens_per_step": 100, "tokens_per_batch": 100,
        "check_every": 3, "precision": "fp32", "patience": 99,
    }  # fmt: skip
    tiny = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    settings = Train(**(values | changes))
    return loop.train(
        tiny, counting(60), counting(8, seed=1), settings, checkpoints=folder / "checkpoints", record=record
    )
