#!/usr/bin/env bash
# trl 1.16.0 with transformers 5.24.0: 16 of 72 chat templates finish a conversation in a way that nobody could have asked for.
#
# Each template in TRL's wheel writes a conversation of two questions and two answers, and the prompts that a server sends for
# them. What was seen:
#
#     lost      6  contents as plain strings are dropped without a word (Idefics3, SmolVLM) or raise (LLaVA)
#     last     12  the finished text does not begin with the prompt of its own last answer: DeepSeek R1 distills and V3.1 and
#                  Nemotron 3 open a thought in the prompt that finished turns do not have; TRL's training variants of them too
#     earlier   3  not with the prompt of an earlier answer: Qwen3.5 (both kinds) and Qwen3.6
#     form      1  the earlier answer stands behind its prompt, but in another form than alone: Qwen3's closed empty thought is gone
#     sound    50  the finished text has every answer as its prompt asks for it
#
# Who learns from the finished text learns in those 16 to answer where the model is never asked, or in a form that it is not to
# answer in. So Luthier makes a row for each answer there, behind the prompt of its own turn (chat/template.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install -qqq --target "$folder" transformers==5.24.0 tokenizers==0.23.3 jinja2==3.1.6 || exit 3
python3 -m pip install -qqq --no-deps --target "$folder" trl==1.16.0 || exit 3
PYTHONPATH=$folder TRANSFORMERS_VERBOSITY=error TRL=$folder/trl/chat_templates python3 - <<'PYTHON'
import os
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

said = [{"role": role, "content": words} for role, words in zip(["user", "assistant"] * 2, ("Qq1", "Aa1", "Qq2", "Aa2"))]


def text(source, messages, ask=False):
    return render_jinja_template(
        [messages], chat_template=source, add_generation_prompt=ask, bos_token="<s>", eos_token="</s>"
    )[0][0]


found = {"lost": [], "last": [], "earlier": [], "form": [], "sound": []}
for file in sorted(Path(os.environ["TRL"]).glob("*.jinja")):
    source = file.read_text(encoding="utf-8")
    try:
        full, one = text(source, said), text(source, said[:2])
        prompts = [text(source, said[:place], ask=True) for place in (1, 3)]
    except Exception:
        full = ""
    if not all(message["content"] in full for message in said):
        kind = "lost"
    elif not full.startswith(prompts[1]):
        kind = "last"
    elif not full.startswith(prompts[0]):
        kind = "earlier"
    elif not full.startswith(one[: one.index("Aa1") + 3]):
        kind = "form"
    else:
        kind = "sound"
    found[kind].append(file.stem)
for kind, names in found.items():
    print(f"{kind:<8} {len(names):>3}  {', '.join(names)}")
assert {kind: len(names) for kind, names in found.items()} == {
    "lost": 6, "last": 12, "earlier": 3, "form": 1, "sound": 50
}
assert found["earlier"] == ["qwen3_5_nothink", "qwen3_5_think", "qwen3_6"] and found["form"] == ["qwen3"]
print("as recorded")
PYTHON
