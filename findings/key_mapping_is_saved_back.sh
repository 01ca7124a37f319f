#!/usr/bin/env bash
# transformers 5.24.0: what `from_pretrained(key_mapping=...)` reads, `save_pretrained` writes under the old names, and they are lost.
#
# A checkpoint that was saved from a compiled model has `_orig_mod.` before every name. `key_mapping` reads it whole. The model
# keeps the mapping, and `save_pretrained` applies it backwards: the saved folder has `_orig_mod.` again. Read in the ordinary
# way, every weight of that folder is missing and drawn at random; a line in the log is all that tells. Seen:
#
#     read with the mapping: 0 missing    saved: _orig_mod.model.embed_tokens.weight, …    read again: all missing
#
# So Luthier takes the mapping off a model that it has mended so (model/weights.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install -qqq --target "$folder" torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 || exit 3
PYTHONPATH=$folder FOLDER=$folder TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1 python3 - <<'PYTHON' 2>/dev/null
import os
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

place = Path(os.environ["FOLDER"])
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2
)
AutoModelForCausalLM.from_config(config).save_pretrained(place / "compiled")
file = place / "compiled" / "model.safetensors"
weights = load_file(file)
save_file({f"_orig_mod.{name}": weight for name, weight in weights.items()}, file, metadata={"format": "pt"})

model, first = AutoModelForCausalLM.from_pretrained(
    place / "compiled", key_mapping={r"^_orig_mod\.": ""}, output_loading_info=True
)
model.save_pretrained(place / "saved")
saved = sorted(load_file(place / "saved" / "model.safetensors"))
again = AutoModelForCausalLM.from_pretrained(place / "saved", output_loading_info=True)[1]
print(f"read with the mapping: {len(first['missing_keys'])} missing; saved: {saved[0]}, …; ", end="")
print(f"read again: {len(again['missing_keys'])} of {len(model.state_dict())} missing")
assert not first["missing_keys"]
assert all(name.startswith("_orig_mod.") for name in saved)
assert len(again["missing_keys"]) == len(model.state_dict())
print("as recorded")
PYTHON
