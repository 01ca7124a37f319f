"""The same loss and the same answers as plain transformers, for the model families that people name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from luthier.model import attention, generate
from luthier.model.head import row_likelihoods, summed_loss
from luthier.model.likelihood import continuations
from luthier.model.loading import LanguageModel
from luthier.model.packed import pack
from luthier.model.tokenizer import template_of
from token_rows import Row

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
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2},
    "cohere": {"num_key_value_heads": 2, "logit_scale": 0.25},
}


ROWS = [(1, 20), (2, 7), (3, 13)]  # where their tokens start, and their lengths


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


@pytest.mark.parametrize("implementation", ["own", attention.NAME])
def test_the_loss_is_that_of_the_model_s_own_scores(model: torch.nn.Module, implementation: str) -> None:
    own = model.config._attn_implementation
    if implementation != "own" and own != "sdpa":
        pytest.skip(f"this family attends by {own}")
    rows = [Row(5 + (13 * start + 7 * np.arange(length)) % 300, np.arange(length) % 3 > 0) for start, length in ROWS]
    model.set_attn_implementation(own if implementation == "own" else implementation)
    ours = summed_loss(model, pack(rows, torch.device("cpu")))  # type: ignore[arg-type]
    ours.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    model.set_attn_implementation(own)
    wanted = torch.zeros(())
    for row in rows:
        scores = model(input_ids=torch.tensor(row.ids)[None]).logits[0, :-1][row.learn[1:]].float()
        answers = torch.tensor(row.ids[1:][row.learn[1:]])
        wanted = wanted + torch.nn.functional.cross_entropy(scores, answers, reduction="sum")
    wanted.backward()
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-4)
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(gradients[name], weight.grad, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("implementation", ["own", attention.NAME])
def test_a_row_has_the_loss_that_it_has_alone_whatever_it_is_packed_with(
    model: torch.nn.Module, implementation: str
) -> None:
    if implementation != "own" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(implementation)  # type: ignore[operator]
    rows = [Row(5 + (13 * start + 7 * np.arange(length)) % 300, np.arange(length) > 0) for start, length in ROWS]
    changed = Row((rows[1].ids + 31) % 300, rows[1].learn)

    def losses(*rows: Row) -> torch.Tensor:
        return row_likelihoods(model, pack(rows, torch.device("cpu"))).detach()  # type: ignore[arg-type]

    alone = torch.cat([losses(row) for row in rows])
    torch.testing.assert_close(losses(*rows), alone, rtol=1e-5, atol=1e-4)
    beside = losses(rows[0], changed, rows[2])
    torch.testing.assert_close(beside[[0, 2]], alone[[0, 2]], rtol=1e-5, atol=1e-4)
    assert (beside[1] - alone[1]).abs() > 0.1


def test_batched_answers_are_those_of_generate(model: torch.nn.Module, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    lm = LanguageModel("tiny", tiny_model, model, tokenizer, template_of(tokenizer))  # type: ignore[arg-type]
    prompts = [[5 + (7 * place + number) % 300 for place in range(4 + 9 * number)] for number in range(3)]
    for prompt, reply in zip(prompts, generate.answer(lm, prompts, max_new_tokens=12), strict=True):
        plain = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :].tolist()
        assert reply.ids == plain


def test_likelihoods_are_those_of_the_model_s_own_scores(model: torch.nn.Module, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    lm = LanguageModel("tiny", tiny_model, model, tokenizer, template_of(tokenizer))  # type: ignore[arg-type]
    beginning = [(7 * place) % 300 + 5 for place in range(40)]
    contexts = [[9, 4, 30], [9, 4, 30], [*beginning, 8], [*beginning, 11], [6]]
    choices = [[12, 7, 20], [13], [50, 51], [50, 52, 53], [5, 5]]
    found = continuations(lm, list(zip(contexts, choices, strict=True)))
    for context, choice, ours in zip(contexts, choices, found, strict=True):
        with torch.inference_mode():
            logprobs = (
                model(input_ids=torch.tensor([context + choice])).logits[0, len(context) - 1 : -1].log_softmax(-1)
            )
        wanted = logprobs.gather(-1, torch.tensor(choice)[:, None]).sum().item()
        assert ours.logprob == pytest.approx(wanted, rel=1e-4, abs=1e-3)
