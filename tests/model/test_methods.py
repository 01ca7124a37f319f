"""What learns is what the method says, and what it saves answers alike beside its base, merged, and in plain peft."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

from luthier.errors import UserError
from luthier.model import attention, generate, loading, methods, recomputation
from luthier.model.causal import decoder
from luthier.model.head import summed_loss
from luthier.model.loading import LanguageModel
from luthier.model.packed import pack
from luthier.model.reference import ModelReference
from luthier.recipe import Train
from luthier.train.optimizer import MasterOptimizer
from token_rows import Row

PROMPTS = [[5, 90, 17, 33, 200], [7, 8, 9], [150, 4, 250, 11, 60, 61]]


def row(seed: int) -> Row:
    return Row(np.random.default_rng(seed).integers(0, 300, 20), np.arange(20) >= 4)


@pytest.fixture(params=["lora", "dora", "qlora"])
def method(request: pytest.FixtureRequest) -> str:
    if request.param == "qlora":
        pytest.importorskip("bitsandbytes")
    return str(request.param)


def base_for(method: str, folder: Path) -> LanguageModel:
    return loading.load(str(folder), quantised=methods.resolve(method).quantised)


def settings(method: str, precision: str = "fp32", seed: int = 0) -> Train:
    return Train(method=method, precision=precision, lora_rank=4, lora_alpha=8, seed=seed)  # type: ignore[arg-type]


@pytest.fixture
def tuned(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Adapters with strong random values, saved as a run saves them."""

    def make(method: str, name: str, seed: int = 0) -> Path:
        lm = base_for(method, tiny_model)
        model = methods.resolve(method).prepare(lm.model, settings(method, seed=seed))
        generator = torch.Generator().manual_seed(seed)
        weights = {
            name: 0.3 * torch.randn(weight.shape, generator=generator) + (weight if "magnitude" in name else 0)
            for name, weight in model.named_parameters()
            if weight.requires_grad
        }
        loading.save(model, lm.tokenizer, lm.template, tmp_path / name, weights)
        return tmp_path / name

    return make


def tokens(lm: LanguageModel) -> list[list[int]]:
    return [reply.ids for reply in generate.answer(lm, PROMPTS, max_new_tokens=12)]


def loss_of(model: Any, seed: int = 0) -> torch.Tensor:
    return summed_loss(model, pack([row(seed), row(seed + 1)], torch.device("cpu")))


def test_fresh_adapters_change_nothing(tiny_model: Path, method: str) -> None:
    lm = base_for(method, tiny_model)
    before = loss_of(lm.model).detach()
    torch.testing.assert_close(loss_of(methods.resolve(method).prepare(lm.model, settings(method))).detach(), before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_backward_stops_below_the_lowest_adapter_and_makes_nothing_for_frozen_weights(
    tiny_model: Path, method: str, precision: str
) -> None:
    config = settings(method, precision)
    model = methods.resolve(method).prepare(base_for(method, tiny_model).model, config)
    frozen = {name: weight.clone() for name, weight in model.named_parameters() if not weight.requires_grad}
    attention.install_attention(model)
    recomputation.replace_norms_and_mlps(model)
    optimizer = MasterOptimizer(model, config)
    asks: list[bool] = []
    lowest = decoder(model)
    lowest.embed_tokens.register_forward_hook(lambda *call: asks.append(call[-1].requires_grad))
    lowest.layers[0].input_layernorm.register_forward_hook(lambda *call: asks.append(call[-1].requires_grad))
    loss_of(model).backward()
    assert asks and not any(asks)
    learning = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert learning == set(optimizer.masters) and all("lora_" in name for name in learning)
    assert all(optimizer.masters[name].tensor().dtype == torch.float32 for name in learning)
    optimizer.accumulate()
    optimizer.step(0.1, optimizer.clip(1, 1.0).scale)
    for name, weight in model.named_parameters():
        if name in frozen:
            assert weight.grad is None and torch.equal(weight, frozen[name].to(weight.dtype)), name
        else:
            wide = precision == "fp32" or method == "dora"
            assert weight.dtype == (torch.float32 if wide else torch.bfloat16)
            assert torch.equal(weight, optimizer.masters[name].tensor().to(weight.dtype))


def test_adapters_that_computed_in_bf16_are_saved_as_their_fp32_masters(tiny_model: Path, tmp_path: Path) -> None:
    lm, config = base_for("lora", tiny_model), settings("lora", "bf16")
    model = methods.resolve("lora").prepare(lm.model, config)
    recomputation.replace_norms_and_mlps(model)
    optimizer = MasterOptimizer(model, config)
    loss_of(model).backward()
    optimizer.accumulate()
    optimizer.step(1e-3, optimizer.clip(1, 1.0).scale)
    masters = {name: master.tensor().clone() for name, master in optimizer.masters.items()}
    assert not all(torch.equal(master, master.bfloat16().float()) for master in masters.values())
    loading.save(model, lm.tokenizer, lm.template, tmp_path / "a", masters)
    loaded = dict(loading.load(str(tmp_path / "a")).model.named_parameters())
    assert all(torch.equal(loaded[name], master) for name, master in masters.items())


def test_a_model_that_has_answered_still_passes_gradients_down(tiny_model: Path, method: str) -> None:
    gradients = []
    for answers_first in (False, True):
        lm = base_for(method, tiny_model)
        if answers_first:
            tokens(lm)
        model = methods.resolve(method).prepare(lm.model, settings(method)).train()
        loss_of(model).backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    for name, wanted in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], wanted)
        assert wanted.abs().max() > 0 or "lora_A" in name  # while B is 0, A has no gradient


def test_four_bits_are_four_bits(tiny_model: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model = base_for("qlora", tiny_model).model
    weight = model.model.layers[0].mlp.up_proj.weight
    assert (weight.dtype, weight.numel()) == (torch.uint8, 32 * 64 // 2)
    assert model.get_output_embeddings().weight.dtype == torch.float32


def test_saved_adapters_answer_alike_in_plain_peft(tuned: Callable[..., Path], tiny_model: Path, method: str) -> None:
    folder = tuned(method, "a")
    lm = loading.load(str(folder))
    bits = (
        {"quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )}
        if method == "qlora" else {}
    )  # fmt: skip
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, **bits)
    if bits:
        plain = plain.dequantize(torch.float32)  # on some processors, 4-bit kernels compute in bf16
    plain = PeftModel.from_pretrained(plain, str(folder)).eval()
    for prompt, ours in zip(PROMPTS, tokens(lm), strict=True):
        theirs = plain.generate(
            input_ids=torch.tensor([prompt]), max_new_tokens=12, do_sample=False,
            eos_token_id=list(lm.template.stop_ids),
        )  # fmt: skip
        assert theirs[0, len(prompt) :].tolist() == ours


def test_a_merged_adapter_gives_the_same_tokens(tuned: Callable[..., Path], tmp_path: Path, method: str) -> None:
    folder = tuned(method, "a")
    loading.merge(ModelReference.of(str(folder)), tmp_path / "whole")
    assert not ModelReference.of(str(tmp_path / "whole")).is_adapter
    whole = loading.load(str(tmp_path / "whole"))
    assert not any(weight.dtype == torch.uint8 for weight in whole.model.parameters())
    assert tokens(whole) == tokens(loading.load(str(folder)))


@pytest.mark.filterwarnings("error")  # none of peft's own reaches a user
def test_two_adapters_share_a_base_and_answer_as_if_they_were_alone(
    tuned: Callable[..., Path], tiny_model: Path, method: str
) -> None:
    folders = [tuned(method, name, seed) for name, seed in (("a", 1), ("b", 2))]
    lm, names = loading.load_adapters(str(tiny_model), [str(folder) for folder in folders])
    assert isinstance(lm.model, PeftModel)
    answers = []
    for name in (*names, names[0]):
        lm.model.set_adapter(name)
        answers.append(tokens(lm))
    assert answers[0] == answers[2] != answers[1]
    assert answers[:2] == [tokens(loading.load(str(folder))) for folder in folders]
    with lm.model.disable_adapter():
        assert tokens(lm) == tokens(base_for(method, tiny_model))


def test_an_adapter_of_another_base_is_refused(tuned: Callable[..., Path], tiny_model: Path, tmp_path: Path) -> None:
    other = loading.load(str(tiny_model))
    with torch.no_grad():
        next(other.model.parameters()).add_(0.1)
    loading.save(other.model, other.tokenizer, other.template, tmp_path / "other", {})
    with pytest.raises(UserError, match=r"this adapter was trained beside another base, not beside"):
        loading.load_adapters(str(tmp_path / "other"), [str(tuned("lora", "a"))])


def test_a_whole_model_is_no_adapter(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a whole model, not an adapter"):
        loading.load_adapters(str(tiny_model), [str(tiny_model)])
    with pytest.raises(UserError, match="there is nothing to merge"):
        loading.merge(ModelReference.of(str(tiny_model)), tmp_path / "whole")


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r'train\.method: unknown method "qlor", did you mean "qlora"'):
        methods.resolve("qlor")


def test_four_bit_weights_compute_in_the_precision_of_training_whatever_came_before(tiny_model: Path) -> None:
    pytest.importorskip("bitsandbytes")
    losses = []
    for answers_first in (False, True):
        lm, config = base_for("qlora", tiny_model), settings("qlora", "bf16")
        if answers_first:
            tokens(lm)
        model = methods.resolve("qlora").prepare(lm.model, config)
        loss_of(model)
        MasterOptimizer(model, config)
        kinds = {module.compute_dtype for module in model.modules() if hasattr(module, "compute_type_is_set")}
        assert kinds == {torch.bfloat16}
        losses.append(loss_of(model).item())
    assert losses[0] == losses[1]


def test_weights_that_are_in_4_bits_in_their_files_learn_beside_adapters_only() -> None:
    whole, packed = (
        LlamaConfig(),
        LlamaConfig(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
    )
    for method, config in (("full", whole), ("lora", packed), ("qlora", packed)):
        methods.check_trainable(settings(method), config)
    with pytest.raises(UserError, match=r"train.method: the model's weights are in 4 bits .*: train.method=qlora"):
        methods.check_trainable(settings("full"), packed)


def test_a_model_that_was_saved_in_4_bits_answers_as_before(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    lm = loading.load(str(tiny_model), quantised=True)
    lm.model.save_pretrained(tmp_path / "packed")
    lm.tokenizer.save_pretrained(tmp_path / "packed")
    tokens = torch.tensor([PROMPTS[0]])
    for quantised in (False, True):
        again = loading.load(str(tmp_path / "packed"), quantised=quantised)
        torch.testing.assert_close(again.model(tokens).logits, lm.model(tokens).logits, rtol=0, atol=0)
