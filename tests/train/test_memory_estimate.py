"""What a training needs, counted before it starts."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, GPTNeoXConfig

from luthier.model.reference import ModelReference
from luthier.model.spec import ModelSpec
from luthier.recipe import Train
from luthier.train import memory_estimate, optimizer
from luthier.train.memory_estimate import LargestBatch
from luthier.train.throughput import Forecast, Throughput

GPU = torch.device("cuda")  # only asked about, so none is needed
SIXTEEN_GIB = 16 * 2**30


def pythia(width: int, depth: int, heads: int, vocabulary: int = 50304) -> ModelSpec:
    return ModelSpec.of(
        GPTNeoXConfig(
            hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * width,
            vocab_size=vocabulary, max_position_embeddings=2048, tie_word_embeddings=False,
        )
    )  # fmt: skip


def train(**changes: object) -> Train:
    values = {"method": "full", "precision": "bf16", "tokens_per_step": 1024, "tokens_per_batch": 1024}
    return Train.model_validate({**values, **changes})


def training(spec: ModelSpec, settings: Train) -> int:
    return memory_estimate.estimate_memory(spec, settings, LargestBatch.of([128] * 100, settings), GPU).training


def test_sixteen_gib_train_one_billion_weights_and_answer_with_seven() -> None:
    """The rule of thumb for a V100 with 16 GiB: 1 B parameters to train, 7 B to answer, in 16-bit numbers."""
    assert training(pythia(2048, 16, 8), train()) < SIXTEEN_GIB  # 1.0 B
    assert training(pythia(2048, 24, 16), train()) > SIXTEEN_GIB  # 1.4 B
    seven, twelve = pythia(4096, 32, 32, 50432), pythia(5120, 36, 40, 50688)
    in_16_bits = [
        memory_estimate.answering_bytes(model, train(), GPU) - 2 * model.parameters for model in (seven, twelve)
    ]
    assert in_16_bits[0] < SIXTEEN_GIB < in_16_bits[1]


def test_a_weight_that_learns_takes_twelve_bytes_in_bf16_as_in_fp32(tiny_model: Path) -> None:
    """Two to compute with and two that make them a master, eight for its moments; in fp32 it is its own master."""
    spec = ModelReference.of(str(tiny_model), weights=False).spec
    wide, narrow = (
        memory_estimate.estimate_memory(spec, train(precision=precision), LargestBatch((10,), 1), GPU).parts
        for precision in ("fp32", "bf16")
    )
    names = ("weights to compute with", "master weights", "optimizer")
    assert sum(narrow.get(name, 0) for name in names) == 12 * spec.parameters
    assert sum(wide.get(name, 0) for name in names) == 12 * spec.parameters


def test_memory_grows_with_the_batch_and_not_with_the_data(tiny_model: Path) -> None:
    spec = ModelReference.of(str(tiny_model), weights=False).spec
    few, many = (LargestBatch.of([100] * rows, train()) for rows in (20, 20_000))
    assert few == many
    kept = [
        memory_estimate.estimate_memory(spec, train(), LargestBatch((100,) * rows, 1), GPU).parts["forward pass"]
        for rows in (2, 4, 6)
    ]
    assert kept[2] - kept[1] == kept[1] - kept[0]


def test_the_largest_batch_holds_the_longest_rows() -> None:
    assert LargestBatch.of([10, 400, 300, 500, 200], train(tokens_per_batch=1000)) == LargestBatch((500, 400), 2)
    assert LargestBatch.of([3000, 10], train()) == LargestBatch((3000,), 1)


def test_where_memory_ran_out_the_smallest_change_is_named_first() -> None:
    advice = memory_estimate.advice(Train(tokens_per_batch=1024, max_tokens=2048, method="full"))
    wanted = ["train.tokens_per_batch=512", "train.max_tokens=1024", "train.method=lora", "name a smaller model"]
    assert sorted(wanted, key=advice.index) == wanted
    assert "lora" not in memory_estimate.advice(Train(tokens_per_batch=1024, method="lora"))


def test_the_smallest_change_comes_first() -> None:
    ways = list(memory_estimate.ways_to_fit(train()))
    assert ways[:4] == [
        {"tokens_per_batch": 512},
        {"tokens_per_batch": 256},
        {"tokens_per_batch": 128},
        {"tokens_per_batch": 128, "gradient_checkpointing": True},
    ]
    assert {"method": "lora"} in ways[4:] and ways[-1]["method"] == "qlora"


def test_all_ways_together_need_a_fraction() -> None:
    spec, settings = pythia(1024, 24, 16), train()
    needed = [training(spec, settings.model_copy(update=dict(way))) for way in memory_estimate.ways_to_fit(settings)]
    assert needed[-1] == min(needed) < training(spec, settings) / 8


def test_checkpoints_on_the_disk_are_counted_at_their_most_numerous(tiny_model: Path) -> None:
    spec = ModelReference.of(str(tiny_model), weights=False).spec
    told = memory_estimate.estimate_disk(spec, train(max_steps=100, check_every=10))
    assert list(told.values()) == [4 * 12 * spec.parameters, 4 * spec.parameters]


def test_the_time_follows_from_the_second_and_third_step() -> None:
    """1,000 tokens took 2 s twice, 0.5 s of it for the update; the first took 1 s more. In ten such steps 10,000 tokens
    take 21 s; 3 looks of 5 s; 2 checkpoints of 4 s."""
    throughput = Throughput(validation_seconds=5.0, save_seconds=4.0)
    for seconds in (3.0, 2.0, 2.0, 99.0):
        throughput.add_step(1000, seconds, update=0.5)
    assert throughput.forecast(10_000, steps=10, checks=2) == Forecast(steps=21.0, validation=15.0, checkpoints=8.0)
    assert throughput.forecast(10_000, steps=10, checks=2).seconds == pytest.approx(44)


def test_small_steps_tell_the_time_of_large_ones() -> None:
    """2,000 tokens take 4 s and an update 1 s: 160,000 tokens in ten steps take 320 s and 10 s, not 80 updates' time."""
    throughput = Throughput()
    for _ in range(3):
        throughput.add_step(2_000, 5.0, update=1.0)
    assert throughput.forecast(160_000, steps=10, checks=0).steps == pytest.approx(330)
    assert throughput.forecast(160_000, steps=80, checks=0).steps == pytest.approx(400)


def test_an_optimizer_of_ones_own_holds_all_masters_and_gradients_in_fp32_at_once() -> None:
    own, ours = (
        memory_estimate.estimate_memory(pythia(2048, 16, 8), train(optimizer=word), LargestBatch((1024,), 1), GPU).parts
        for word in ("own:sgd", "adamw")
    )
    beyond = "gradients, beyond the forward pass"
    parameters = pythia(2048, 16, 8).parameters
    assert own["forward pass"] + own["output head"] + own[beyond] == 8 * parameters
    assert own[beyond] - ours.get(beyond, 0) > 5 * parameters


def test_a_head_that_is_left_to_the_model_keeps_the_scores_of_all_tokens() -> None:
    sizes = {"vocab_size": 1000, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    few = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    config = AutoConfig.for_model("hyperclovax", **sizes, **few, logits_scaling=0.25)
    batch, settings = LargestBatch((50,) * 8, 1), train(precision="fp32", method="lora", lora_rank=2)
    parts = memory_estimate.estimate_memory(ModelSpec.of(config), settings, batch, GPU).parts
    assert parts["output head"] == 400 * 1000 * (4 + 3 * 4)


def test_a_batch_of_rows_of_all_lengths_is_looked_at_besides_the_longest() -> None:
    batch = LargestBatch.of([900, *[10] * 300], train())
    assert batch == LargestBatch((900, *[10] * 12), 2 - 1) and batch.mixture == (900, *[10] * 12)[: len(batch.mixture)]
    mixed = LargestBatch.of([number for number in range(10, 110) for _ in range(5)], train(tokens_per_batch=512))
    assert mixed.lengths == (109, 109, 109, 109) and len(set(mixed.mixture)) > 5 and sum(mixed.mixture) <= 512
    assert LargestBatch.of([100] * 20, train()).mixture == ()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_unlike_rows_keep_hardly_more_than_like_ones_and_that_is_foretold(tiny_model: Path, precision: str) -> None:
    """512 tokens beside fifty rows of 10 kept 4.4 times as much as twice 506."""
    spec = ModelReference.of(str(tiny_model), weights=False).spec
    like, unlike = (spec.saved_activations(lengths, precision) for lengths in ((506, 506), (512, *[10] * 50)))  # type: ignore[arg-type]
    assert unlike < 1.2 * like
    batch = LargestBatch((506, 506), 1, mixture=(512, *[10] * 50))
    assert memory_estimate.estimate_memory(spec, train(precision=precision), batch, GPU).parts["forward pass"] == max(
        like, unlike
    )


def test_the_state_of_each_of_our_optimizers_is_counted() -> None:
    """Any other word counts as AdamW, which is meant for a user's own."""
    assert {*memory_estimate.MOMENTS, "adafactor"} == set(optimizer.OPTIMIZERS)


SMALL = pythia(512, 6, 8)


def ranks(settings: Train, processes: int, device: torch.device = GPU, **how: bool) -> list[dict[str, int]]:
    lengths = [128] * 100
    found = memory_estimate.estimate_ranks(SMALL, settings, lengths, device, processes=processes, **how)
    return [rank.parts for rank in found]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_process_holds_the_whole_model_and_a_share_of_the_rows(precision: str) -> None:
    (alone,), two = ranks(train(precision=precision), 1), ranks(train(precision=precision), 2)
    assert len(two) == 2 and two[0] == two[1]
    for name in ("weights to compute with", "master weights", "optimizer"):
        assert two[0].get(name) == alone.get(name)
    assert two[0]["forward pass"] < 0.7 * alone["forward pass"]


def test_gradients_in_bf16_are_summed_over_processes_in_fp32_beside_them() -> None:
    weights = SMALL.parameters
    beyond = [parts["gradients, beyond the forward pass"] for parts in ranks(train(), 2)]
    saved = [parts["forward pass"] + parts["output head"] for parts in ranks(train(), 2)]
    assert [more + less for more, less in zip(beyond, saved, strict=True)] == [(2 + 4) * weights] * 2


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_shards_are_sixteen_bytes_a_weight_divided_by_the_processes(processes: int) -> None:
    weights = SMALL.parameters
    found = ranks(train(), processes, shards=True)
    assert len(found) == processes
    for parts in found:
        shards = [size for name, size in parts.items() if name.endswith(", a part")]
        assert sum(shards) == pytest.approx(16 * weights / processes, rel=1e-6)


def test_the_first_process_puts_a_sharded_model_together_in_the_processor_s_memory() -> None:
    first, *others = ranks(train(), 4, torch.device("cpu"), shards=True)
    assert all(parts == others[0] for parts in others) and sum(first.values()) > sum(others[0].values())
    weights = SMALL.parameters
    assert sum(first.values()) - first["the program"] == pytest.approx((4 + 4 + 12 / 4) * weights, rel=1e-6)
    assert sum(others[0].values()) - others[0]["the program"] >= 4 * weights  # each has read it once
