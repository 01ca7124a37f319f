#!/usr/bin/env bash
# transformers 5.24.0 with gguf 0.19.0: a GGUF file's attention biases and scaled positions are dropped, and nothing is said.
#
# llama.cpp's converter writes `blk.N.attn_q.bias` for Llama-shaped models with biases, and `rope_freqs.weight` for Llama 3's
# scaling of positions; llama.cpp uses both. `from_pretrained(..., gguf_file=...)` builds a model without biases and with plain
# positions. No weight is reported as missing or unexpected. For Qwen3 the metadata `attention.key_length` is not used: a head
# size other than hidden size / heads ends in an error. Seen, as the greatest difference of a log-probability:
#
#     plain 0.0    biases 5.0, none missing, none unexpected    scaled positions 1.6, likewise    qwen3 RuntimeError
#
# So Luthier reads GGUF files itself, to the last tensor and key, or refuses them (model/gguf.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install -qqq --target "$folder" torch==2.13.0 transformers==5.24.0 tokenizers==0.23.3 \
  gguf==0.19.0 accelerate==1.15.0 || exit 3
PYTHONPATH=$folder FOLDER=$folder TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1 python3 - <<'PYTHON' 2>/dev/null
import os
from pathlib import Path

import torch
from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

SIZES = dict(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=False,
)
LLAMA3 = dict(
    rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
ARCHS = {"llama": MODEL_ARCH.LLAMA, "qwen3": MODEL_ARCH.QWEN3}
ids = torch.tensor([[3, 5, 9, 17, 20, 41]])


def write(model, file):
    """As llama.cpp's convert_hf_to_gguf.py does: names by gguf's own table, rows of queries and keys turned for Llama."""
    config = model.config
    writer = GGUFWriter(file, config.model_type)
    writer.add_name("tiny")
    writer.add_context_length(512)
    writer.add_block_count(2)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(64)
    if config.model_type == "qwen3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    names = get_tensor_name_map(ARCHS[config.model_type], 2)
    for name, weight in model.state_dict().items():
        if config.model_type == "llama" and (".q_proj." in name or ".k_proj." in name):
            heads = 4 if "q_proj" in name else 2
            weight = weight.reshape(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), weight.contiguous().numpy())
    if config.rope_parameters["rope_type"] == "llama3":
        plain = 1 / config.rope_parameters["rope_theta"] ** (torch.arange(0, 8, 2).float() / 8)
        writer.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def there_and_back(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.3)
    place = Path(os.environ["FOLDER"]) / "gguf"
    place.mkdir(exist_ok=True)
    write(model, place / "it.gguf")
    back, info = AutoModelForCausalLM.from_pretrained(
        place, gguf_file="it.gguf", dtype=torch.float32, output_loading_info=True
    )
    with torch.no_grad():
        first, second = (torch.log_softmax(each(ids).logits, -1) for each in (model, back.eval()))
    return float((first - second).abs().max()), tuple(info["missing_keys"]), tuple(info["unexpected_keys"])


plain = there_and_back(LlamaConfig(**SIZES))
biases = there_and_back(LlamaConfig(**SIZES, attention_bias=True))
scaled = there_and_back(LlamaConfig(**SIZES, rope_parameters=LLAMA3))
try:
    qwen3 = there_and_back(Qwen3Config(**SIZES, head_dim=16))
except Exception as error:
    qwen3 = type(error).__name__
for name, found in (("plain", plain), ("biases", biases), ("scaled positions", scaled), ("qwen3", qwen3)):
    print(f"{name:<17}", found)
assert plain[0] < 1e-4 and plain[1:] == ((), ())
assert biases[0] > 0.1 and biases[1:] == ((), ())
assert scaled[0] > 0.01 and scaled[1:] == ((), ())
assert qwen3 == "RuntimeError"
print("as recorded")
PYTHON
