"""A tiny model in Qwen3's manner: its chat template, thoughts between `<think>` and `</think>`, and how it learns to think."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from luthier.chat import Conversation
from luthier.model import loading

TEMPLATE = """\
{%- if messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{% endif %}
{%- set seen = namespace(last=0) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set seen.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{%- set answer = message.content %}
{%- set thoughts = message.reasoning_content if message.reasoning_content is string else '' %}
{%- if not thoughts and '</think>' in answer %}
{%- set thoughts = answer.split('</think>')[0].split('<think>')[-1] %}
{%- set answer = answer.split('</think>')[-1] %}
{%- endif %}
{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > seen.last and (loop.last or thoughts) %}
{{- '<think>\\n' + thoughts.strip('\\n') + '\\n</think>\\n\\n' }}{% endif %}
{{- answer.lstrip('\\n') + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}"""
"""As Qwen3's own does: thoughts are shown behind the last question only, and closed where they are switched off."""

DATED = "{{- '<|im_start|>system\\nToday is ' + strftime_now('%d %B %Y') + '.<|im_end|>\\n' }}\n" + TEMPLATE
"""The same with a date before everything."""


def make(folder: Path, texts: Sequence[str], *, template: str = TEMPLATE, context: int = 512) -> Path:
    """A folder with such a model, which knows nothing, and a tokenizer made of these texts."""
    logging.disable_progress_bar()
    coder = Tokenizer(models.BPE())
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    coder.train_from_iterator(texts, trainer)
    coder.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=coder, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, max_position_embeddings=context, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def teach(folder: Path, conversations: Sequence[Conversation], *, today: date, steps: int = 250) -> None:
    """Have the model learn these by heart, so well that every processor agrees: plain gradient steps on all of them at once."""
    lm = loading.load(str(folder), today=today)
    rows = [row for conversation in conversations for row in lm.template.rows(conversation)]
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), -100)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        labels[number, : len(row.ids)] = torch.tensor(row.ids).where(torch.tensor(row.loss_mask), torch.tensor(-100))
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=6e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    lm.model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = lm.model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        schedule.step()
    lm.model.save_pretrained(folder)  # type: ignore[operator]
