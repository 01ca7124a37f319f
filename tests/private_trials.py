"""Trials of others' private parts: each fails where a part is gone or does something else; `private_parts.py` has the table.

Some of ours would go on without such a part, and be slow or wrong. A trial gets an empty folder.
"""

import warnings
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, load_peft_weights
from peft.tuners import lora
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM, DynamicCache, LlamaConfig, LlamaForCausalLM

from luthier.chat.rendering import Renderer, TemplateRefusal
from luthier.model import adapters, attention, cache, folder, layers, recomputation
from private_parts import Part


def wide() -> LlamaForCausalLM:
    """A Llama of 2 layers with random weights."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))


def adapted(**more: Any) -> PeftModel:
    return get_peft_model(wide(), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, **more))  # type: ignore[return-value]


def layer_of(model: nn.Module) -> lora.Linear:
    return next(module for module in model.modules() if isinstance(module, lora.Linear))


def compiled_layers(_: Path) -> None:
    layer = nn.Linear(2, 2)
    layer._compiled_call_impl = lambda states: "compiled"
    assert layer(torch.ones(1, 2)) == "compiled", "calls no longer go through it"
    layer._compiled_call_impl = None
    assert isinstance(layer(torch.ones(1, 2)), Tensor), "None no longer means: not compiled"
    layer.compile(backend="eager")
    assert layer._compiled_call_impl is not None, "Module.compile no longer sets it"


def softmax_gradient(_: Path) -> None:
    scores, grad = torch.randn(3, 5, dtype=torch.float64, requires_grad=True), torch.randn(3, 5, dtype=torch.float64)
    weights = scores.softmax(-1)
    weights.backward(grad)
    found = torch.ops.aten._softmax_backward_data(grad, weights.detach(), -1, weights.dtype)
    torch.testing.assert_close(found, scores.grad)


def silu_gradient(_: Path) -> None:
    gate, grad = torch.randn(7, dtype=torch.float64, requires_grad=True), torch.randn(7, dtype=torch.float64)
    nn.functional.silu(gate).backward(grad)
    torch.testing.assert_close(torch.ops.aten.silu_backward(grad, gate.detach()), gate.grad)


def products_by_onednn(_: Path) -> None:
    states, weight, bias = torch.randn(2, 3, 8), torch.randn(5, 8), torch.randn(5)
    found = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    torch.testing.assert_close(found, nn.functional.linear(states, weight, bias))
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, 32)
    torch.testing.assert_close(torch.ops.mkldnn._linear_pointwise(states, packed, bias, "none", [], ""), found)


def words_for_too_little_memory(_: Path) -> None:
    with pytest.raises(RuntimeError, match=r"you tried to allocate \d+ bytes"):
        torch.empty(2**60, dtype=torch.uint8)


def names_in_a_wrapper(_: Path) -> None:
    assert list(torch.compile(nn.Linear(1, 1, bias=False), backend="eager").state_dict()) == ["_orig_mod.weight"]


def adapter_layers(_: Path) -> None:
    model = adapted()
    layer = layer_of(model)
    assert type(layer) is lora.Linear
    states, names = torch.randn(3, 16), list(model.state_dict())
    wanted = layer(states)
    assert adapters.fuse_lora(model) == 2, (
        "peft's layers are no longer taken for plain ones, so that all of them compute slowly"
    )
    ours = layer_of(model)
    assert type(ours) is adapters.LoraLinear
    torch.testing.assert_close(ours(states), wanted)
    assert list(model.state_dict()) == names


def adapter_variants(_: Path) -> None:
    assert not layer_of(adapted()).lora_variant
    assert layer_of(adapted(use_dora=True)).lora_variant, "DoRA no longer stands there, and would be computed as LoRA"


def adapter_names(place: Path) -> None:
    """An adapter that learnt when the model's parts had other names."""
    before = adapted()
    layer_of(before).lora_B["default"].weight.data.fill_(0.5)
    before.save_pretrained(str(place))
    file = place / "adapter_model.safetensors"
    save_file({name.replace(".layers.", ".blocks."): weight for name, weight in load_file(file).items()}, file)
    model = wide()
    model._checkpoint_conversion_mapping = {r"^model\.blocks": "model.layers"}
    renamed = load_peft_weights(str(place), device="cpu", key_mapping=model._checkpoint_conversion_mapping)
    assert all(".layers." in name for name in renamed), "peft no longer takes a mapping of names"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        after = PeftModel.from_pretrained(model, str(place))
    for name, weight in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], weight, rtol=0, atol=0)


def words_for_missing_adapter_weights(place: Path) -> None:
    adapted().save_pretrained(str(place))
    file = place / "adapter_model.safetensors"
    save_file(dict(list(load_file(file).items())[1:]), file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        with pytest.warns(UserWarning, match="^Found missing adapter keys"):
            PeftModel.from_pretrained(wide(), str(place))


def kind_of_attention(_: Path) -> None:
    model = wide()
    assert model.config._attn_implementation == "sdpa"
    attention.install_attention(model)
    assert model.config._attn_implementation == attention.NAME


def attention_beside_ours(_: Path) -> None:
    assert AttentionInterface()["sdpa"] is attention.sdpa_attention_forward, (
        "transformers attends with another function"
    )
    states = torch.randn(1, 2, 3, 4)
    found, none = attention.sdpa_attention_forward(nn.Module(), states, states, states, None, dropout=0.0, scaling=0.5)
    wanted = nn.functional.scaled_dot_product_attention(states, states, states, is_causal=True, scale=0.5)
    assert none is None
    torch.testing.assert_close(found, wanted.transpose(1, 2))


def masks(_: Path) -> None:
    """Called as transformers calls a mask function, with what `attention._mask` looks at."""
    asked: list[dict[str, Any]] = []
    made = attention.sdpa_mask

    def look(*args: Any, **named: Any) -> Any:
        asked.append(named)
        return made(*args, **named)

    model = wide()
    attention.install_attention(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "sdpa_mask", look)
        model(torch.arange(6)[None], position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]]), use_cache=False)
    assert asked, "transformers asks no function for its masks"
    named = asked[0]
    assert (named["batch_size"], named["q_length"], named["kv_length"], named["attention_mask"]) == (1, 6, 6, None)
    assert made(**named)[0, 0, 4].tolist() == [False, False, False, True, True, False], "packed rows are not kept apart"


def layers_by_class(_: Path) -> None:
    model = wide()
    found = [module for module in model.modules() if isinstance(module, layers.GradientCheckpointingLayer)]
    assert found == list(model.model.layers), "the layers of a model can no longer be told by their class"


def caches(_: Path) -> None:
    model, tokens = wide(), torch.arange(9)[None]
    kinds = [type(layer) for layer in DynamicCache(config=model.config).layers]
    assert kinds == [cache.DynamicLayer, cache.DynamicLayer], (
        "a plain layer has another class, and is copied at each token"
    )
    ours, theirs = cache.RoomyLayer(8), cache.DynamicLayer()
    for time in (3, 1):
        states = torch.randn(2, 2, time, 4), torch.randn(2, 2, time, 4)
        for one, other in zip(ours.update(*states), theirs.update(*states), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert ours.is_initialized and ours.get_seq_length() == theirs.get_seq_length() == 4
    kept = cache.roomy(model.config, 9)
    model(tokens[:, :8], cache=kept)
    torch.testing.assert_close(model(tokens[:, 8:], cache=kept).logits, model(tokens).logits[:, 8:])


def architectures(_: Path) -> None:
    causal, masked = folder.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, folder.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    kinds = {"llama", "qwen3", "bert", "t5"}
    assert kinds <= set(folder.CONFIG_MAPPING)
    assert [kind for kind in sorted(kinds) if kind in masked] == ["bert"]
    assert {"llama", "qwen3"} <= set(causal) and "t5" not in causal
    assert "t5" in folder.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES


def names_that_are_saved_back(place: Path) -> None:
    wide().save_pretrained(place)
    file = place / "model.safetensors"
    save_file(
        {f"_orig_mod.{name}": weight for name, weight in load_file(file).items()}, file, metadata={"format": "pt"}
    )
    model: Any = AutoModelForCausalLM.from_pretrained(place, key_mapping={r"^_orig_mod\.": ""})
    assert vars(model)["_weight_conversions"], "the mapping is kept elsewhere, and to set this to None mends nothing"
    vars(model)["_weight_conversions"] = None
    model.save_pretrained(place / "saved")
    assert not any("_orig_mod" in name for name in load_file(place / "saved" / "model.safetensors"))


def norms_and_feed_forwards(_: Path) -> None:
    model = wide()
    found, wanted = recomputation.replace_norms_and_mlps(model), 3 * model.config.num_hidden_layers + 1
    assert found == wanted, "norms or feed-forwards name their parts otherwise, and training takes a third more memory"


def rules_of_namespaces(_: Path) -> None:
    def text(template: str) -> str:
        return Renderer("{% set it = namespace() %}" + template, {}, {}, date(2026, 1, 1)).render(
            [], add_generation_prompt=False
        )

    assert text("{% set it.count = 1 %}{{ it.count }}") == "1"
    with pytest.raises(TemplateRefusal, match="a namespace keeps no name that begins with an underscore"):
        text("{% set it._count = 1 %}")


def four_bits(_: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs the extra: pip install 'luthier[quantised]'")
    layer = bitsandbytes.nn.Linear4bit(64, 64, bias=False)
    assert layer.support_avx512bf16_for_cpu in (True, False), (
        "the kernel that rounds answers to bf16 has another switch"
    )
    assert layer.compute_type_is_set in (True, False), "the number format of a layer is decided in another way"


def harness(_: Path) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra: pip install 'luthier[benchmark]'")
    import datasets
    import lm_eval.tasks
    from lm_eval.api.model import TemplateLM

    from luthier.evaluate.benchmark import shapes

    assert "_loglikelihood_tokens" in TemplateLM.__abstractmethods__, "lm-eval's models answer another question"
    manager = lm_eval.tasks.TaskManager(include_defaults=False)
    assert (list(manager.all_tasks), dict(manager.task_index)) == ([], {})
    stock = Path(lm_eval.tasks.__file__).parent
    for page in {variant.prompt_page for shape in shapes.SHAPES for variant in shape.variants} - {None}:
        assert "doc_to_text:" in (stock / str(page)).read_text(encoding="utf-8"), (
            "the prompts of its tasks stand elsewhere"
        )
    rows = datasets.DatasetDict({"test": datasets.Dataset.from_list([{"q": "1 + 1?"}])})
    settings = {"task": "ours", "custom_dataset": lambda **_: rows, "test_split": "test",
                "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "2"}  # fmt: skip
    assert list(manager.load([settings])["tasks"]) == ["ours"], "a task is made of settings in another way"


def complaint(part: Part, place: Path) -> str | None:
    """What to tell who moved the library's version; None where the part does what it did."""
    try:
        globals()[part.trial](place)
    except (Exception, pytest.fail.Exception) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        places = ", ".join(f"src/luthier/{file}" for file in part.files)
        return (
            f"{part.library} {version(part.library)}: {part.name} is gone or does something else ({first}). {places} needs it "
            f"for {part.why}: mend that, or keep {part.library} below this version in pyproject.toml."
        )
    return None
