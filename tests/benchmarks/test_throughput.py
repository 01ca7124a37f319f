"""What the training benchmark says of its figures, and where it says it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from luthier.train.order import Steps

Load = Callable[[str], ModuleType]  # a module of the benchmark by its name


def result(module: Load, **changes: Any) -> Any:
    """A measured training with round numbers."""
    plain = {
        "arm": "luthier full", "steps": 12, "tokens": 1200, "tokens_per_second": 400.0, "peak_loading": 1.0,
        "peak_training": 3.0, "peak_finishing": 2.0, "heldout_loss": 1.0, "versions": {"torch": "2"},
    }  # fmt: skip
    return module("task").Result(**plain | changes)


def test_losses_are_equal_only_where_the_whole_interval_is(module: Load) -> None:
    theirs = [result(module, heldout_loss=1.0)] * 3
    near = [result(module, heldout_loss=loss) for loss in (1.001, 1.002, 1.003)]
    far = [result(module, heldout_loss=loss) for loss in (0.99, 1.0, 1.01)]
    equal_loss = module("targets").equal_loss
    # Student's t for two degrees of freedom is 4.303: 0.2 ± 4.303 · 0.1 / √3
    assert equal_loss("full", near, theirs).line().endswith("| +0.20 % (95 % interval ± 0.25, 3 pairs) | reached |")
    unresolved = equal_loss("full", far, theirs)
    assert not unresolved.reached
    assert unresolved.figure.endswith("the pairs do not resolve it")
    assert not equal_loss("full", near[:1], theirs[:1]).reached


def test_speed_counts_by_the_median_and_memory_by_the_largest(module: Load) -> None:
    ours = [
        result(module, tokens_per_second=speed, peak_training=peak) for speed, peak in ((300, 3), (800, 4), (900, 3))
    ]
    theirs = [result(module, tokens_per_second=200, peak_training=5.0)]
    targets = module("targets")
    assert targets.faster("full", ours, theirs, 4.0).line() == (
        "| full: at least 4 × the tokens per second of TRL's best | 4.00 × | reached |"
    )
    assert not targets.faster("full", ours, theirs, 5.0).reached
    smaller = targets.smaller("full", ours, theirs, 4.5)
    assert smaller.figure == "0.80 × (4.00 of 5.00 GB; TRL's most frugal setting takes 4.50)"
    assert not smaller.reached


def test_memory_may_grow_by_each_token_as_much_as_before(module: Load) -> None:
    def linear(*peaks: float) -> Any:
        tokens = (512, 1024, 2048, 4096)
        found = {one: result(module, peak_training=peak) for one, peak in zip(tokens, peaks, strict=True)}
        return module("targets").linear(found)

    steady = linear(3.0, 3.2, 4.2, 6.2)
    assert steady.reached
    assert steady.figure == "GB per 1,024 tokens, from 512: 0.40 to 1,024, 1.00 to 2,048, 1.00 to 4,096"
    assert not linear(3.0, 3.5, 4.5, 7.5).reached


def test_operators_are_told_apart_by_name_shape_and_caller(module: Load) -> None:
    kind_of = module("breakdown").kind_of
    assert kind_of("aten::mm", [[1024, 576], [576, 1536]], [], 49_152) == "products of the layers"
    assert kind_of("aten::mm", [[128, 576], [576, 49_152]], [], 49_152) == "products of the head"
    assert kind_of("aten::bmm", [[24, 384, 64], [24, 64, 128]], [], 49_152) == "attention"
    assert kind_of("aten::_softmax", [[8, 9, 128, 128]], [], 49_152) == "attention"
    assert kind_of("aten::_softmax", [[128, 49_152]], [], 49_152) == "softmax of the head"
    assert kind_of("aten::copy_", [[576], [576]], [], 49_152) == "copies and casts"
    assert kind_of("aten::mul", [[1, 1024, 576], []], [], 49_152) == "norms and element-wise"
    assert kind_of("aten::mul_", [[576], []], ["Optimizer.step#AdamW.step"], 49_152) == "optimizer"
    assert module("breakdown").operations("aten::addmm", [[3], [2, 5], [5, 3], []]) == 2 * 2 * 5 * 3
    into = [[2, 5], [5, 3], [2, 3]]  # torch.mm(…, out=…)
    assert module("breakdown").operations("aten::mm", into) == 2 * 2 * 5 * 3
    assert module("breakdown").operations("aten::linear", [[2, 5], [3, 5]]) == 0  # its mm is counted


def test_a_profile_finds_the_operations_of_a_product(module: Load) -> None:
    left, right = torch.ones(64, 32), torch.ones(32, 16)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profiler:
        left @ right
    found = module("breakdown").read(profiler.events(), vocabulary=99, wall_seconds=1.0, steps=1)
    seconds = found.shares["products of the layers"]  # of one second
    assert found.products_per_second["products of the layers"] * seconds == pytest.approx(2 * 64 * 32 * 16, rel=1e-6)
    assert sum(found.shares.values()) == pytest.approx(1.0)


def test_a_section_is_replaced_and_the_others_stay(module: Load, tmp_path: Path) -> None:
    page, file = module("page"), tmp_path / "RESULTS.md"
    file.write_text("# Benchmark results\n\n## Training throughput\n\nold\n\n### Old\n\n## Another\n\nkept\n")
    page.write_section(file, page.HEADING + "\n\nnew\n")
    assert file.read_text() == "# Benchmark results\n\n## Training throughput\n\nnew\n\n## Another\n\nkept\n"


def test_the_page_names_each_target_of_a_part_with_its_figure(module: Load) -> None:
    page = module("page")
    theirs = result(module, arm="trl grouped", tokens_per_second=100.0, peak_training=6.0)
    found = {"luthier full": [result(module)], "trl grouped": [theirs], "trl our-order": [theirs]}
    search = module("bench").Search(
        "trl grouped", [replace(theirs, arm="trl default"), theirs], {"packed": "no memory"}
    )
    part = {
        "when": "today",
        "versions": ", torch 2",
        "found": found,
        "search": search,
        "rate": 1e-4,
        "loss_noise": 1.05,
    }
    text = page.section({"full": json.loads(json.dumps(page.plain(part)))})
    assert "| full: at least 4 × the tokens per second of TRL's best | 4.00 × | reached |" in text
    assert "| full: peak memory at most 0.6 × TRL's best | 0.50 × (3.00 of 6.00 GB" in text
    assert "Targets reached: 2 of 3." in text
    assert "`packed` gave no result: no memory" in text
    found["trl fp32-our-order"] = [replace(theirs, heldout_loss=2.0)]
    slow = page.section({"full-fp32": json.loads(json.dumps(page.plain(part | {"order": "trl fp32-our-order"})))})
    assert "| full without fast bf16: at least 1.8 × the tokens per second of TRL's best | 4.00 × | reached |" in slow
    assert "held-out loss equal within 1 % | -50.00 %" in slow


def test_our_order_of_rows_is_that_of_our_steps(module: Load) -> None:
    lengths = [5, 3, 8, 2, 9, 4, 4, 7]
    order = module("records").own_order(lengths, seed=3)
    place = 0
    for step in Steps(lengths, epochs=1, max_steps=None, seed=3, tokens_per_step=12, tokens_per_batch=12):
        rows = {row for batch in step.batches for row in batch}
        assert rows == set(order[place : place + len(rows)])
        place += len(rows)
    assert place == len(lengths)
