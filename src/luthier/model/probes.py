"""What is tried on a model instead of trusted to its name: how it makes scores of its last states, and who notices whom.

Families differ in what they do around the matrix product with the head, and there are new ones every month. Each trial is a
forward pass of a few tokens; what it found is kept for as long as the model lives.
"""

import copy
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from luthier.model.causal import CausalModel, base_model, decoder, is_plain, logit_transform

TOKENS = 8  # of a trial
HIGHEST = 30.0  # scores that a trained model gives: where a soft cap shows
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}  # of the largest score; number formats with fewer digits:
COARSE = 3e-2
FAILURES = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)

_heads: "weakref.WeakKeyDictionary[nn.Module, bool]" = weakref.WeakKeyDictionary()
_alone: "weakref.WeakKeyDictionary[nn.Module, tuple[int, int | None]]" = weakref.WeakKeyDictionary()


def transform_logits(scores: Tensor, softcap: float | None, scale: float) -> Tensor:
    """Products with the head as scores."""
    if scale != 1.0:
        scores = scores * scale
    return softcap * torch.tanh(scores / softcap) if softcap else scores


def has_plain_head(model: CausalModel) -> bool:
    """Whether the model's scores are the products of its last states and its head, transformed as `logit_transform` says.

    If not, an adapter may sit on the head, or the family does something else to its scores, and they must be its own.
    """
    if not is_plain(model.get_output_embeddings()):
        return False
    inner = base_model(model)
    if inner not in _heads:
        try:
            _heads[inner] = _gives_plain_scores(inner)
        except FAILURES:
            _heads[inner] = False
    return _heads[inner]


@torch.no_grad()
def _gives_plain_scores(model: PreTrainedModel) -> bool:
    """The model's own scores of states that are put in the place of its decoder's, beside ours."""
    weight = model.get_output_embeddings().weight
    states = torch.randn(1, TOKENS, weight.shape[1], generator=torch.Generator().manual_seed(0))
    states = states.to(weight.device, weight.dtype)
    _, scale = logit_transform(model)
    states *= HIGHEST / (abs(scale) * (states @ weight.T).abs().max().float().clamp(min=1e-9)).to(states.dtype)

    def exchange(module: nn.Module, inputs: Any, output: Any) -> Any:
        exchanged = copy.copy(output)
        exchanged.last_hidden_state = states
        return exchanged

    was_training = model.training
    model.eval()
    hook = decoder(model).register_forward_hook(exchange)
    try:
        own = model(input_ids=_ids(model)[None], use_cache=False).logits.float()
    finally:
        hook.remove()
        model.train(was_training)
    ours = transform_logits((states @ weight.T).float(), *logit_transform(model))
    allowed = ROUNDING.get(weight.dtype, COARSE) * ours.abs().max()
    return own.shape == ours.shape and bool((own - ours).abs().max() <= allowed)


def longest_in_batch(model: CausalModel, longest: int) -> int:
    """Up to which length rows can share a batch whose longest one has so many tokens: `longest` for nearly every model.

    Some stretch the rotation of all positions by the longest row of a batch (LongRoPE, dynamic NTK). What is longer than
    the answer must be computed alone.
    """
    inner = base_model(model)
    known, limit = _alone.get(inner, (0, None))
    if limit is None and longest > known:
        limit = _shortest_that_disturbs(inner, longest)
        _alone[inner] = (max(known, longest), limit)
    return longest if limit is None else min(longest, limit)


def _shortest_that_disturbs(model: PreTrainedModel, longest: int) -> int | None:
    """The greatest length that leaves a short row beside it alone, where one of `longest` does not; else None."""
    if longest <= TOKENS:
        return None
    was_training = model.training
    model.eval()
    try:
        if not _disturbs(model, longest):
            return None
        sound, harmful = TOKENS, longest
        while harmful - sound > 1:
            middle = (sound + harmful) // 2
            sound, harmful = (sound, middle) if _disturbs(model, middle) else (middle, harmful)
        return sound
    except FAILURES:  # it knows no positions
        return None
    finally:
        model.train(was_training)


@torch.no_grad()
def _disturbs(model: PreTrainedModel, length: int) -> bool:
    """Whether a row is computed otherwise beside the last tokens of one that has this length."""
    first = torch.arange(TOKENS, device=model.device)
    ids = _ids(model).repeat(2, 1)
    beside, alone = (
        model(input_ids=ids, position_ids=torch.stack([first, first + shift]), use_cache=False).logits[0].float()
        for shift in (length - TOKENS, 0)
    )
    allowed = ROUNDING.get(model.dtype, COARSE) * alone.abs().max()
    return bool((beside - alone).abs().max() > allowed)


def not_finite(model: nn.Module) -> list[str]:
    """Names of the weights that hold a number which is none, or is infinite."""
    sums = {
        name: weight.detach().sum(dtype=torch.float64 if weight.dtype == torch.float64 else torch.float32)
        for name, weight in model.named_parameters()
        if weight.is_floating_point()
    }
    doubtful = [name for name, total in sums.items() if not torch.isfinite(total)]
    weights = dict(model.named_parameters())
    return [name for name in doubtful if not torch.isfinite(weights[name].detach()).all()]


def _ids(model: PreTrainedModel) -> Tensor:
    vocabulary = int(model.config.get_text_config().vocab_size)
    return torch.arange(3, 3 + TOKENS, device=model.device) % vocabulary
