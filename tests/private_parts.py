"""The table of what we use of other libraries beyond what they document: each part with its place and the reason.

Kept apart from the trials (`private_trials.py`), so that it can be read without loading a library.
"""

from typing import NamedTuple


class Part(NamedTuple):
    """Something private; `name` as it stands in the source."""

    library: str
    name: str
    files: tuple[str, ...]
    why: str
    trial: str
    """The function in `private_trials` that fails where the part is gone or does something else."""


PARTS = [
    Part("torch", "_compiled_call_impl", ("model/layers.py",), "taking torch.compile off a layer again", "compiled_layers"),
    Part("torch", "torch.ops.aten._softmax_backward_data", ("model/attention.py",), "the gradient of attention in one pass",
         "softmax_gradient"),
    Part("torch", "torch.ops.aten.silu_backward", ("model/recomputation.py",), "the gradient of gated layers in one pass",
         "silu_gradient"),
    Part("torch", "torch.ops.mkldnn._linear_pointwise", ("model/device.py", "model/products.py"),
         "linear layers in fp32 by oneDNN", "products_by_onednn"),
    Part("torch", "torch.ops.mkldnn._reorder_linear_weight", ("model/products.py",),
         "weights in the order in which oneDNN reads them", "products_by_onednn"),
    Part("torch", "you tried to allocate", ("model/memory.py",), "telling how much memory was asked for in vain",
         "words_for_too_little_memory"),
    Part("torch", "_orig_mod", ("model/weights.py",), "reading weights that were saved from a compiled model",
         "names_in_a_wrapper"),
    Part("peft", "peft.tuners", ("model/adapters.py", "engine/adapters.py"), "knowing a layer with an adapter",
         "adapter_layers"),
    Part("peft", "layer.__dict__", ("model/adapters.py",), "moving its layers into ours with all they hold", "adapter_layers"),
    Part("peft", "lora_variant", ("model/adapters.py", "engine/adapters.py"),
         "leaving DoRA and its like to peft", "adapter_variants"),
    Part("peft", "_checkpoint_conversion_mapping", ("model/weights.py",), "reading adapters with a model's older names",
         "adapter_names"),
    Part("peft", "Found missing adapter keys", ("model/weights.py",), "a message of our own for them",
         "words_for_missing_adapter_weights"),
    Part("transformers", "_attn_implementation", ("model/attention.py", "model/causal.py", "model/likelihood.py",
         "model/prefix_sharing.py"),
         "knowing how a model attends", "kind_of_attention"),
    Part("transformers", "transformers.integrations.sdpa_attention", ("model/attention.py",),
         "attention that ours does not cover", "attention_beside_ours"),
    Part("transformers", "transformers.masking_utils", ("model/attention.py",), "masks that our attention does need", "masks"),
    Part("transformers", "transformers.modeling_layers", ("model/layers.py",), "compiling a model layer by layer",
         "layers_by_class"),
    Part("transformers", "transformers.cache_utils", ("model/cache.py",), "a cache with room for what will be written",
         "caches"),
    Part("transformers", "transformers.models.auto.configuration_auto", ("model/folder.py",),
         "refusing what is no causal language model", "architectures"),
    Part("transformers", "transformers.models.auto.modeling_auto", ("model/folder.py",),
         "refusing what is no causal language model", "architectures"),
    Part("transformers", "_weight_conversions", ("model/weights.py",), "saving mended names as they are mended",
         "names_that_are_saved_back"),
    Part("transformers", "variance_epsilon", ("model/recomputation.py",), "norms that keep less for the backward pass",
         "norms_and_feed_forwards"),
    Part("transformers", "gate_proj", ("model/recomputation.py",), "feed-forwards that keep less for the backward pass",
         "norms_and_feed_forwards"),
    Part("jinja2", "jinja2.utils", ("chat/rendering.py",), "namespaces of templates as transformers has them",
         "rules_of_namespaces"),
    Part("bitsandbytes", "support_avx512bf16_for_cpu", ("model/loading.py",), "answers in 4 bits that are not rounded to bf16",
         "four_bits"),
    Part("bitsandbytes", "compute_type_is_set", ("train/optimizer.py",), "4-bit layers that compute as the rest does",
         "four_bits"),
    Part("lm-eval", "_loglikelihood_tokens", ("evaluate/benchmark/model.py",), "answering lm-eval's tasks", "harness"),
    Part("lm-eval", "lm_eval.tasks", ("evaluate/benchmark/tasks.py",), "finding and building lm-eval's tasks", "harness"),
]  # fmt: skip
