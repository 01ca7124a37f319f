"""`luthier plan`: what a training will need, before it starts; and what the report says of it afterwards."""

import json
import re
from pathlib import Path

import pytest
from transformers import GPTNeoXConfig

from luthier import pipeline, recipe
from luthier.model import device, memory
from luthier.pipeline import estimate
from luthier.train import memory_estimate

from .conftest import Command


@pytest.fixture
def pythia(tmp_path: Path) -> Path:
    """Pythia-70m's configuration, and nothing else."""
    folder = tmp_path / "pythia-70m"
    GPTNeoXConfig(
        hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048, vocab_size=50304,
        max_position_embeddings=2048, tie_word_embeddings=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_plan_tells_memory_disk_and_time_and_leaves_nothing(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    screen = luthier("plan", data, *quick)
    assert screen.code == 0, screen.err
    for words in (
        "read as question-answer",
        " rows read = ",
        "training rows",
        "train.learning_rate = ",
        "available: fits",
        "optimizer",
        "checkpoints: ",
        "free: fits",
    ):
        assert words in screen.out
    assert re.search(r"Time +about \d+:\d\d to train, estimated from three steps", screen.out)
    assert "Traceback" not in screen.err and sorted(tmp_path.iterdir()) == before


def test_learning_preferences_is_tried_as_it_will_be(luthier: Command, quick: list[str], tmp_path: Path) -> None:
    rows = [
        {"prompt": f"What is half of {2 * number}?", "chosen": f"It is {number}.", "rejected": "No idea."}
        for number in range(40)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    screen = luthier("plan", tmp_path / "pairs.jsonl", *quick, "train.objective=dpo")
    assert screen.code == 0 and "estimated from three steps" in screen.out, screen.err


def test_a_configuration_is_enough_for_sizes(luthier: Command, pythia: Path) -> None:
    screen = luthier("plan", f"model={pythia}", "train.tokens_per_step=8192")
    assert "70,426,624 parameters" in screen.out and "44,670,976 of them are used in matrix products" in screen.out
    assert "2,195.667812352 GFLOPs for a step of 8,192 tokens" in screen.out


@pytest.mark.parametrize("fast", ["bf16", "fp32"])
def test_without_data_the_number_format_is_the_one_that_a_run_would_take(
    pythia: Path, fast: device.Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "pick_precision", lambda where: (fast, "measured"))
    asked = recipe.load(overrides=[f"model={pythia}"])
    assert estimate.training(asked).train.precision == fast
    assert estimate.training(asked, memory_bytes=1 << 33).train.precision == "bf16"  # a GPU's


def test_what_does_not_fit_is_told_with_the_smallest_change_that_does(luthier: Command, pythia: Path) -> None:
    screen = luthier("plan", f"model={pythia}", "--memory", "1")
    assert screen.code == 4
    assert "1.1 GB available: DOES NOT FIT" in screen.out
    remedies = re.findall(r"^ +(train\..+): [\d.]+ [GM]B(, fits)?$", screen.out, re.MULTILINE)
    assert [fits for _, fits in remedies] == [""] * (len(remedies) - 1) + [", fits"]


def test_the_report_holds_the_forecast_against_the_facts(finished: Path) -> None:
    told = json.loads((finished / "report.json").read_text())["training"]["foretold"]
    assert [one["what"] for one in told] == ["memory", "time"]
    assert all(one["foretold"] > 0 and one["measured"] > 0 for one in told)


def test_a_run_takes_the_smallest_change_that_fits(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the program, which is the most of so small a model: a batch of half the size is enough."""
    monkeypatch.setattr(memory_estimate, "rss", lambda: 0)
    whole = pipeline.prepare(recipe.load(None, quick, data=data)).resolved
    monkeypatch.setattr(memory, "available", lambda device: int(0.99 * whole.memory.training / memory_estimate.SPARE))
    screen = luthier("recipe", data, *quick)
    assert "tokens_per_batch = 512  # " in screen.out and "of memory would be needed otherwise" in screen.out
    asked = luthier("recipe", data, *quick, "train.tokens_per_batch=1024")
    assert "tokens_per_batch = 1024  # as asked" in asked.out


def test_a_run_that_will_not_fit_is_warned_of(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    told = luthier("run", data, *quick, "--run", tmp_path / "run")
    assert "it will probably not fit" in told.err and "luthier plan" in told.err


def test_a_plan_for_several_processes_tells_memory_by_rank_and_refuses_what_cannot_fit(
    luthier: Command, pythia: Path
) -> None:
    asked = ["plan", f"model={pythia}", "train.method=full", "train.precision=fp32"]
    whole = luthier(*asked, "--processes", "4", "--memory", "1")
    assert whole.code == 4 and re.search(
        r"to train in 4 processes, each on a GPU, .* available: DOES NOT FIT", whole.out
    )
    assert re.search(r"[\d.]+ [MG]B by each of the ranks 0 to 3:\n", whole.out)
    assert re.search(r"--shard: [\d.]+ MB, fits\n", whole.out)
    shards = luthier(*asked, "--processes", "4", "--memory", "1", "--shard")
    assert shards.code == 0 and "available: fits" in shards.out and "optimizer, a part" in shards.out

    on_this_machine = luthier(*asked, "--processes", "3", "--shard")
    assert re.search(r"to train in 3 processes, all together, ", on_this_machine.out)
    wrong = luthier(*asked[:2], "--processes", "2", "--shard", "train.method=lora")
    assert wrong.code == 2 and "--shard: train.method=lora cannot be trained in shards" in wrong.err
