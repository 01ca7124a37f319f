#!/usr/bin/env bash
# transformers 5.24.0: continuing a final message of "" cuts the line break that ends the assistant's header.
#
# Llama 3, Gemma and many other templates trim contents. `apply_chat_template(continue_final_message=True)` marks the final
# message with a tag that ends in a blank; where the template trims it away, everything blank before the tag goes too. For a
# final message of "" (or "\n") that is the header's own line break: the model is asked behind `<a>` where it was trained, and
# where `add_generation_prompt=True` asks, behind `<a>\n`. Seen with the shape of Llama 3's template:
#
#     generation prompt  '<u>\nHi<e><a>\n'
#     continuing ''      '<u>\nHi<e><a>'
#     continuing 'A'     '<u>\nHi<e><a>\nA'
#
# So Luthier never asks by continuing an empty answer; a prompt is the template's generation prompt (chat/template.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install -qqq --target "$folder" transformers==5.24.0 tokenizers==0.23.3 jinja2==3.1.6 || exit 3
PYTHONPATH=$folder TRANSFORMERS_VERBOSITY=error python3 - <<'PYTHON'
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

template = (
    "{% for m in messages %}<{{ m.role[0] }}>\n{{ m.content | trim }}<e>{% endfor %}"
    "{% if add_generation_prompt %}<a>\n{% endif %}"
)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), chat_template=template)


def text(*messages, **how):
    return tokenizer.apply_chat_template(list(messages), tokenize=False, **how)


question = {"role": "user", "content": "Hi"}
asked = text(question, add_generation_prompt=True)
seen = {words: text(question, {"role": "assistant", "content": words}, continue_final_message=True) for words in ("", "\n", "A")}
print(f"generation prompt  {asked!r}")
for words, found in seen.items():
    print(f"continuing {words!r:<7} {found!r}")
assert asked == "<u>\nHi<e><a>\n"
assert seen == {"": "<u>\nHi<e><a>", "\n": "<u>\nHi<e><a>", "A": "<u>\nHi<e><a>\nA"}
print("as recorded")
PYTHON
