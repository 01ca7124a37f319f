"""The same loss and the same answers as plain transformers, for the model families that people name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from luthier.model import attention, generate, probes
from luthier.model.head import loss_and_hits, row_likelihoods, summed_loss
from luthier.model.likelihood import continuations
from luthier.model.loading import LanguageModel
from luthier.model.packed import pack
from luthier.model.reference import ModelReference
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


BENT = {  # heads that do something else to their scores, or keep rows apart in no way
    "hyperclovax": GROUPED | {"logits_scaling": 0.25},
    "recurrent_gemma": {"num_key_value_heads": 1, "lru_width": 32, "attention_window_size": 64, "logits_soft_cap": 3.0},
    "falcon_h1": GROUPED
    | {"lm_head_multiplier": 0.25, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8},
    "llama4_text": GROUPED | {"intermediate_size_mlp": 64, "num_local_experts": 2},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gptj": {"n_embd": 32, "n_head": 4, "n_layer": 2, "rotary_dim": 4, "n_positions": 256},
    "nanochat": GROUPED,
}
ROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
LONGROPE = {"num_key_value_heads": 2, "rope_parameters": ROPE, "original_max_position_embeddings": 16}
ROWS = [(1, 20), (2, 7), (3, 13)]  # where their tokens start, and their lengths


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    return made(request.param, FAMILIES[request.param])


@pytest.fixture(params=BENT)
def bent(request: pytest.FixtureRequest) -> torch.nn.Module:
    return made(request.param, BENT[request.param])


@pytest.fixture
def longrope() -> torch.nn.Module:
    return made("phi3", LONGROPE)


def made(family: str, settings: dict[str, object]) -> torch.nn.Module:
    config = AutoConfig.for_model(family, **(SIZE | settings))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made: torch.nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for weight in made.parameters():  # larger than at the start of pretraining, so that scores differ
            if weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.4)
    return made.eval()


def test_hits_are_the_tokens_that_the_model_s_own_scores_find_likeliest(model: torch.nn.Module) -> None:
    expect_hits(model)


def test_hits_are_counted_where_a_model_bends_its_scores_too(bent: torch.nn.Module) -> None:
    expect_hits(bent)


def expect_hits(model: torch.nn.Module) -> None:
    """Of a row whose every third token is the likeliest one, as the model itself says."""
    ids = 5 + (13 * np.arange(14)) % 300
    with torch.no_grad():
        for end in range(3, len(ids), 3):
            ids[end] = int(model(input_ids=torch.tensor(ids[:end])[None], use_cache=False).logits[0, -1].argmax())
        own = model(input_ids=torch.tensor(ids)[None], use_cache=False).logits[0, :-1].argmax(-1).numpy()
        row = Row(ids, np.arange(len(ids)) % 3 != 1)
        likeliest = int((own == ids[1:])[row.loss_mask[1:]].sum())
        assert 4 <= likeliest < int(row.loss_mask[1:].sum())
        batch = pack([row], torch.device("cpu"))
        assert int(loss_and_hits(model, batch)[1]) == likeliest  # type: ignore[arg-type]
    loss, hits = loss_and_hits(model, batch)  # type: ignore[arg-type]
    assert int(hits) == likeliest and loss.requires_grad and not hits.requires_grad


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
        scores = model(input_ids=torch.tensor(row.ids)[None]).logits[0, :-1][row.loss_mask[1:]].float()
        answers = torch.tensor(row.ids[1:][row.loss_mask[1:]])
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
    changed = Row((rows[1].ids + 31) % 300, rows[1].loss_mask)

    def losses(*rows: Row) -> torch.Tensor:
        return row_likelihoods(model, pack(rows, torch.device("cpu"))).detach()  # type: ignore[arg-type]

    alone = torch.cat([losses(row) for row in rows])
    torch.testing.assert_close(losses(*rows), alone, rtol=1e-5, atol=1e-4)
    beside = losses(rows[0], changed, rows[2])
    torch.testing.assert_close(beside[[0, 2]], alone[[0, 2]], rtol=1e-5, atol=1e-4)
    assert (beside[1] - alone[1]).abs() > 0.1


def test_batched_answers_are_those_of_generate(model: torch.nn.Module, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    lm = LanguageModel(ModelReference("tiny", tiny_model), model, tokenizer, template_of(tokenizer))  # type: ignore[arg-type]
    prompts = [[5 + (7 * place + number) % 300 for place in range(4 + 9 * number)] for number in range(3)]
    for prompt, reply in zip(prompts, generate.answer(lm, prompts, max_new_tokens=12), strict=True):
        plain = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :].tolist()
        assert reply.ids == plain


def test_likelihoods_are_those_of_the_model_s_own_scores(model: torch.nn.Module, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    lm = LanguageModel(ModelReference("tiny", tiny_model), model, tokenizer, template_of(tokenizer))  # type: ignore[arg-type]
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


def embodied(model: torch.nn.Module, folder: Path) -> LanguageModel:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return LanguageModel(ModelReference("tiny", folder), model, tokenizer, template_of(tokenizer))  # type: ignore[arg-type]


@torch.inference_mode()
def own_likelihood(model: torch.nn.Module, context: list[int], choice: list[int]) -> float:
    scores = model(input_ids=torch.tensor([context + choice]), use_cache=False).logits[0, len(context) - 1 : -1]
    return float(scores.float().log_softmax(-1).gather(-1, torch.tensor(choice)[:, None]).sum())


def test_a_head_that_bends_scores_in_its_own_way_is_left_to_the_model(bent: torch.nn.Module, tiny_model: Path) -> None:
    pairs = [([9, 4, 30, 8], [12, 7, 20]), ([9, 4, 30, 8], [13]), ([6], [5, 5])]
    for (context, choice), found in zip(pairs, continuations(embodied(bent, tiny_model), pairs), strict=True):
        assert found.logprob == pytest.approx(own_likelihood(bent, context, choice), rel=1e-4, abs=1e-3)
    row = Row(np.arange(5, 19), np.arange(14) % 3 > 0)
    wanted = -sum(own_likelihood(bent, row.ids[:at].tolist(), [int(row.ids[at])]) for at in range(1, 14) if at % 3)
    loss = summed_loss(bent, pack([row], torch.device("cpu")))  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(wanted, rel=1e-4)
    loss.backward()
    bent.zero_grad()
    alone = row_likelihoods(bent, pack([row], torch.device("cpu")))  # type: ignore[arg-type]
    assert -alone[0].item() == pytest.approx(wanted, rel=1e-4)


def test_known_heads_are_computed_a_few_tokens_at_a_time(model: torch.nn.Module) -> None:
    assert probes.has_plain_head(model) and probes.longest_in_batch(model, 256) == 256  # type: ignore[arg-type]


def test_rows_of_a_model_that_stretches_by_the_longest_are_not_told_apart_by_company(
    longrope: torch.nn.Module, tiny_model: Path
) -> None:
    assert probes.longest_in_batch(longrope, 12) == 12  # type: ignore[arg-type]
    assert probes.longest_in_batch(longrope, 200) == 16  # type: ignore[arg-type]
    lm = embodied(longrope, tiny_model)
    long = [(7 * place) % 300 + 5 for place in range(40)]
    pairs = [([9, 4, 30, 8], [12, 7, 20]), (long, [13, 9]), ([9, 4, 30, 8], [11, *long]), ([9, 4, 30, 8], [13])]
    for (context, choice), found in zip(pairs, continuations(lm, pairs), strict=True):
        assert found.logprob == pytest.approx(own_likelihood(longrope, context, choice), rel=1e-4, abs=1e-3)
    prompts = [long[:5], long, long[3:9], long[:14]]
    together = generate.answer(lm, prompts, max_new_tokens=6)
    assert [reply.ids for reply in together] == [
        generate.answer(lm, [prompt], max_new_tokens=6)[0].ids for prompt in prompts
    ]


@pytest.mark.parametrize("length", [5, 10, 16, 17, 30])
def test_an_answer_that_crosses_the_stretch_is_that_of_generate(
    longrope: torch.nn.Module, tiny_model: Path, length: int
) -> None:
    prompt = [(7 * place) % 300 + 5 for place in range(length)]
    (reply,) = generate.answer(embodied(longrope, tiny_model), [prompt], max_new_tokens=14)
    plain = longrope.generate(torch.tensor([prompt]), max_new_tokens=14, do_sample=False)[0, length:].tolist()  # type: ignore[operator]
    assert reply.ids == plain
