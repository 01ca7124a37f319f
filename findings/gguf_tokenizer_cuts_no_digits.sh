#!/usr/bin/env bash
# transformers 5.24.0 with gguf 0.19.0: a tokenizer from a GGUF file with tokenizer.ggml.pre = smollm cuts text as GPT-2 does.
#
# SmolLM's and SmolLM2's tokenizers cut digits one by one before they cut words, and llama.cpp does so for "smollm". The reader
# knows no cut of that name and keeps GPT-2's, without a word, so numbers are merged that the model has never seen merged, and
# line breaks before a digit stay apart. Of 1,906 texts that were tried on SmolLM2-135M-Instruct's own file 296 came out
# otherwise than from llama.cpp. Seen here:
#
#     gpt-2    in 12 → in Ġ12
#     smollm   in 12 → in Ġ12      (llama.cpp: in Ġ 1 2)
#     qwen2    in 12 → in Ġ 1 2
#
# So Luthier sets the cut by `tokenizer.ggml.pre` itself and refuses names that it does not know (model/gguf.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install -qqq --target "$folder" torch==2.13.0 transformers==5.24.0 tokenizers==0.23.3 gguf==0.19.0 ||
  exit 3
PYTHONPATH=$folder FOLDER=$folder TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1 python3 - <<'PYTHON'
import os
from pathlib import Path

from gguf import GGUFWriter
from transformers import AutoTokenizer


def pieces(pre, text):
    place = Path(os.environ["FOLDER"]) / pre
    place.mkdir()
    writer = GGUFWriter(place / "it.gguf", "llama")
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(["Ġ", "i", "n", "1", "2", "in", "12", "Ġ12", "<end>"])
    writer.add_token_types([1, 1, 1, 1, 1, 1, 1, 1, 3])
    writer.add_token_merges(["i n", "1 2", "Ġ 12"])
    writer.add_eos_token_id(8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return AutoTokenizer.from_pretrained(place, gguf_file="it.gguf").tokenize(text)


found = {pre: pieces(pre, "in 12") for pre in ("gpt-2", "smollm", "qwen2")}
for pre, tokens in found.items():
    print(f"{pre:<8} in 12 →", *tokens)
assert found == {"gpt-2": ["in", "Ġ12"], "smollm": ["in", "Ġ12"], "qwen2": ["in", "Ġ", "1", "2"]}
print("as recorded")
PYTHON
