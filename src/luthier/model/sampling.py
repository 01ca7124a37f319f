"""Which token comes next, from a row's scores: drawn at a temperature, from the likeliest, with repetition made dearer."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def draw(
    scores: Float[Tensor, "batch vocab"],
    levels: Sequence[float],
    temperatures: Sequence[float],
    top_p: Sequence[float] | None = None,
) -> Int[Tensor, " batch"]:
    """Draws by inverting each row's distribution function at its level, a uniform number of [0, 1).

    With `top_p`, from the fewest tokens that have this share of the probability together (Holtzman et al. 2020).
    """
    divisors = torch.tensor(temperatures, dtype=torch.float64, device=scores.device)[:, None]
    probabilities = (scores.double() / divisors).softmax(dim=-1)  # batch vocab
    if top_p is not None and min(top_p) < 1:
        probabilities = _nucleus(probabilities, top_p)
    below = probabilities.cumsum(dim=-1)
    sought = torch.tensor(levels, dtype=below.dtype, device=below.device)[:, None] * below[:, -1:]
    return torch.searchsorted(below, sought, right=True).squeeze(-1).clamp(max=below.shape[-1] - 1)


def _nucleus(probabilities: Float[Tensor, "batch vocab"], top_p: Sequence[float]) -> Float[Tensor, "batch vocab"]:
    """Probabilities with 0 for each token that is not needed for a row's share; the likeliest one always stays."""
    shares = torch.tensor(top_p, dtype=probabilities.dtype, device=probabilities.device)[:, None]
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered = ordered.masked_fill((before >= shares) & (before > 0), 0)
    return torch.zeros_like(probabilities).scatter_(1, order, ordered)


def penalise(
    scores: Float[Tensor, " vocab"], counts: Mapping[int, int], *, presence: float, frequency: float
) -> Float[Tensor, " vocab"]:
    """Scores less `presence` for each token that was generated before, and `frequency` for each time that it was.

    As OpenAI defines both: μ[j] − c[j] · frequency − (c[j] > 0) · presence.
    """
    if not counts or not (presence or frequency):
        return scores
    tokens = torch.tensor(list(counts), device=scores.device)
    times = torch.tensor(list(counts.values()), dtype=scores.dtype, device=scores.device)
    return scores.index_add(0, tokens, -(frequency * times + presence))
