"""The same loss and the same answers as plain transformers, for the model families that people name."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from luthier.model import generate
from luthier.model.head import summed_loss
from luthier.model.loading import LanguageModel
from luthier.model.tokenizer import template_of

SIZE = {
    "vocab_size": 384,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
FAMILIES = {
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 8},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": GROUPED,
    "phi3": {"num_key_value_heads": 2},
    "gpt_neox": {},
    "olmo2": {"num_key_value_heads": 2},
    "gemma2": GROUPED | {"final_logit_softcapping": 3.0, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": GROUPED | {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "granite": {"num_key_value_heads": 2, "logits_scaling": 4.0},
    "cohere": {"num_key_value_heads": 2, "logit_scale": 0.25},
}


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    config = AutoConfig.for_model(request.param, **(SIZE | FAMILIES[request.param]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made: torch.nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for weight in made.parameters():  # larger than at the start of pretraining, so that scores differ
            if weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.4)
    return made.eval()


def test_the_loss_is_that_of_the_model_s_own_scores(model: torch.nn.Module) -> None:
    tokens = torch.randint(3, 384, (2, 20), generator=torch.Generator().manual_seed(0))
    learn = torch.rand(2, 20, generator=torch.Generator().manual_seed(1)) < 0.5
    ours = summed_loss(model, tokens, learn)  # type: ignore[arg-type]
    ours.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    scores = model(input_ids=tokens).logits[:, :-1][learn[:, 1:]].float()
    wanted = torch.nn.functional.cross_entropy(scores, tokens[:, 1:][learn[:, 1:]], reduction="sum")
    wanted.backward()
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-4)
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(gradients[name], weight.grad, rtol=2e-3, atol=2e-3)


def test_batched_answers_are_those_of_generate(model: torch.nn.Module, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    lm = LanguageModel("tiny", tiny_model, model, tokenizer, template_of(tokenizer))  # type: ignore[arg-type]
    prompts = [[5 + (7 * place + number) % 300 for place in range(4 + 9 * number)] for number in range(3)]
    for prompt, reply in zip(prompts, generate.answer(lm, prompts, max_new_tokens=12), strict=True):
        plain = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :].tolist()
        assert reply.ids == plain
