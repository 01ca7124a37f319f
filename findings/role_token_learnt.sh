#!/usr/bin/env bash
# transformers 5.24.0 with tokenizers 0.23.3: the mask of the assistant's tokens takes in the role token before an answer.
#
# Phi-3's role tokens swallow the blanks behind them (`rstrip=True`), and a token's offsets reach to the end of what it
# swallowed. `return_assistant_tokens_mask` counts each token that overlaps a `{% generation %}` block. An answer that begins
# with a blank has that blank swallowed by `<a>`, so the role token itself is marked as the assistant's: a trainer that masks
# by it learns to predict `<a>` from the user's words. The blank is gone from the ids. Seen:
#
#     'Yes'   <u> 0  Q 0  <a> 0  Yes 1
#     ' Yes'  <u> 0  Q 0  <a> 1  Yes 1
#
# So Luthier takes where learning begins from the number of the prompt's tokens, never from offsets (chat/template.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install -qqq --target "$folder" transformers==5.24.0 tokenizers==0.23.3 jinja2==3.1.6 || exit 3
PYTHONPATH=$folder TRANSFORMERS_VERBOSITY=error python3 - <<'PYTHON'
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

coder = Tokenizer(models.WordLevel({"?": 0, "Q": 1, "Yes": 2}, unk_token="?"))
coder.pre_tokenizer = pre_tokenizers.Whitespace()
coder.add_tokens([AddedToken(token, special=True, rstrip=True) for token in ("<u>", "<a>")])
template = (
    "{% for m in messages %}{% if m.role == 'user' %}<u>\n{{ m.content }}{% else %}<a>\n"
    "{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}"
)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=coder, chat_template=template)


def marked(answer):
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": answer}]
    found = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True)
    return list(zip(tokenizer.convert_ids_to_tokens(found["input_ids"]), found["assistant_masks"]))


plain, blank = marked("Yes"), marked(" Yes")
for answer, found in (("Yes", plain), (" Yes", blank)):
    print(f"{answer!r:<7}", "  ".join(f"{token} {mark}" for token, mark in found))
assert plain == [("<u>", 0), ("Q", 0), ("<a>", 0), ("Yes", 1)]
assert blank == [("<u>", 0), ("Q", 0), ("<a>", 1), ("Yes", 1)]
print("as recorded")
PYTHON
