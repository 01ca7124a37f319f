"""How likely texts are to a model: Σ log p of continuations behind contexts, many at once, nothing generated.

Continuations of one context are computed behind one copy of it, and contexts that begin alike behind one copy of that
prefix (see `tree`). Scores over the vocabulary exist only where a token of a continuation is predicted.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from luthier.model import attention, prefix_tree, probes, products
from luthier.model.causal import decoder, logit_transform
from luthier.model.head import CHUNK
from luthier.model.loading import LanguageModel
from luthier.model.prefix_tree import Ids, Question, TreeRow

NATS_APART = 1e-3  # by how much two fp32 sums may differ and still say the same
EVERYWHERE = 1 << 30
CPU_BATCH, GPU_BATCH = 512, 16384  # tokens; a processor computes small batches faster, because they stay in its cache


class Likelihood(NamedTuple):
    """`logprob` is Σ log p of a continuation in nats; `greedy` says whether each of its tokens is the likeliest one."""

    logprob: float
    greedy: bool


def continuations(
    lm: LanguageModel,
    pairs: Sequence[tuple[Ids, Ids]],
    *,
    tokens_per_batch: int | None = None,
    on_batch: Callable[[dict[int, Likelihood]], None] | None = None,
) -> list[Likelihood]:
    """For each (context, continuation) how likely the continuation is; neither is empty.

    What does not fit into the model's context is scored in windows. `on_batch` sees likelihoods, by index, as soon as they
    are there.
    """
    tokens_per_batch = tokens_per_batch or (CPU_BATCH if lm.device.type == "cpu" else GPU_BATCH)
    sums, greedy = np.zeros(len(pairs)), np.ones(len(pairs), dtype=bool)
    missing = np.zeros(len(pairs), dtype=int)  # tokens that are still to be predicted
    questions: dict[tuple[int, ...], Question] = {}
    for number, pair in enumerate(pairs):
        assert pair[0] and pair[1], "a context and its continuation have one token at least"
        for context, ids in windows(*pair, lm.context):
            questions.setdefault(tuple(context), Question(context)).choices.append((number, ids))
            missing[number] += len(ids)
    together = probes.longest_in_batch(lm.model, max((one.longest for one in questions.values()), default=0))
    trees = _rows(lm, list(questions.values()), tokens_per_batch, together=together)
    rows = sorted(trees, key=lambda row: -len(row.ids))
    while rows:  # the largest batch first: what does not fit into memory shows at once
        count = max(1, tokens_per_batch // len(rows[0].ids)) if rows[0].longest <= together else 1
        batch, rows = rows[:count], rows[count:]
        scored = _score(lm, batch)
        np.add.at(sums, scored.numbers, scored.logprobs)
        np.logical_and.at(greedy, scored.numbers, scored.is_argmax)
        np.subtract.at(missing, scored.numbers, 1)
        if on_batch:
            done = [at for at in np.unique(scored.numbers).tolist() if not missing[at]]
            on_batch({at: Likelihood(float(sums[at]), bool(greedy[at])) for at in done})
    return [Likelihood(float(total), bool(best)) for total, best in zip(sums, greedy, strict=True)]


def windows(context: Ids, continuation: Ids, limit: int) -> Iterator[tuple[Ids, Ids]]:
    """(context, continuation) pairs that predict every token of a continuation once, with at most `limit` tokens of input.

    Each but the last predicts as many tokens as fit, so that behind the first one a single token of context is left; the last
    has all the context that fits. lm-eval cuts long documents in this way.
    """
    whole = [*context, *continuation]
    start = len(context)
    while start < len(whole):
        end = min(start + limit, len(whole))
        yield whole[max(0, end - limit - 1) : start], whole[start:end]
        start = end


def _rows(
    lm: LanguageModel, questions: Sequence[Question], tokens_per_batch: int, *, together: int = EVERYWHERE
) -> list[TreeRow]:
    """The questions as trees, or where the model takes no notice of a tree's mask, each text in a row of its own.

    So are texts of more tokens than those that can share a row, or a batch, with others.
    """
    config = lm.model.config.get_text_config()
    reaches = [getattr(config, name, None) or EVERYWHERE for name in ("sliding_window", "attention_chunk_size")]
    shape = {"width": config.hidden_size, "tokens_per_batch": tokens_per_batch}
    rows = prefix_tree.build_rows(questions, window=min(*reaches, together), **shape)
    if any(row.forks for row in rows) and not takes_trees(lm):
        rows = prefix_tree.build_rows(questions, window=0, **shape)
    return rows


def takes_trees(lm: LanguageModel) -> bool:
    """Whether the model computes in a tree what it computes in plain rows: tried on a small one.

    Layers that carry a state from token to token, or that count distances themselves, do not look at positions or masks.
    """
    if lm.model.config._attn_implementation not in ("sdpa", "eager", attention.NAME):
        return False
    questions = [Question((7, 11, 5), [(0, (9, 13)), (1, (3, 5))]), Question((7, 11, 3), [(2, (13, 9)), (3, (5, 11))])]
    alone = [
        TreeRow((), [Question(question.context, [choice])]) for question in questions for choice in question.choices
    ]
    try:
        together = _score(lm, [TreeRow((7, 11), questions)])
    except (IndexError, RuntimeError, TypeError, ValueError):  # it expects masks of another form
        return False
    sums = [np.bincount(scored.numbers, scored.logprobs) for scored in (together, _score(lm, alone))]
    return bool(np.abs(sums[0] - sums[1]).max() <= NATS_APART)


class _Scored(NamedTuple):
    """For each target of a batch: its number, log p of its token, and whether no token is likelier."""

    numbers: NDArray[np.int64]
    logprobs: NDArray[np.float64]
    is_argmax: NDArray[np.bool_]


@torch.inference_mode()
def _score(lm: LanguageModel, rows: Sequence[TreeRow]) -> _Scored:
    products.install(lm.model)
    batch = prefix_tree.inputs(rows, lm.device, lm.model.dtype)
    named: dict[str, Any] = {"input_ids": batch.ids, "use_cache": False}
    if batch.mask is not None:
        named |= {"attention_mask": batch.mask, "position_ids": batch.positions}
    wanted = sorted(
        (at * batch.ids.shape[1] + target.position, target.token, target.number)
        for at, row in enumerate(rows)
        for target in row.targets
    )
    positions, tokens, numbers = (torch.tensor(column, device=lm.device) for column in zip(*wanted, strict=True))
    positions, which = positions.unique_consecutive(return_inverse=True)  # choices of a question fork at one position
    starts = torch.searchsorted(which, torch.arange(0, len(positions) + CHUNK, CHUNK, device=lm.device)).tolist()
    logprobs, is_argmax = [], []
    for number, scores in enumerate(_scores(lm, named, positions)):
        targets = slice(starts[number], starts[number + 1])
        rows_of, tokens_of = which[targets] - number * CHUNK, tokens[targets]
        best = scores.amax(dim=-1)
        chosen = scores[rows_of, tokens_of]
        normalizer = best + scores.sub_(best[:, None]).exp_().sum(dim=-1).log()
        logprobs.append(chosen - normalizer[rows_of])
        is_argmax.append(chosen >= best[rows_of])
    return _Scored(
        numbers.cpu().numpy(), torch.cat(logprobs).double().cpu().numpy(), torch.cat(is_argmax).cpu().numpy()
    )


def _scores(
    lm: LanguageModel, named: dict[str, Any], positions: Int[Tensor, " positions"]
) -> Iterator[Float[Tensor, "chunk vocab"]]:
    """Scores over the vocabulary, in fp32, at positions of the flattened batch: a few at a time, while the cache holds them."""
    head = lm.model.get_output_embeddings()
    # With an adapter on the head, or scores that the model changes itself, ask the model.
    if not probes.has_plain_head(lm.model):
        logits = lm.model(**named).logits.flatten(0, 1)  # batch*time vocab
        for part in positions.split(CHUNK):
            yield logits[part].float()
        return
    softcap, scale = logit_transform(lm.model)
    hidden = decoder(lm.model)(**named).last_hidden_state.flatten(0, 1)[positions]  # positions width
    for part in hidden.split(CHUNK):
        scores = products.linear(part, head.weight).float()
        if scale != 1.0:
            scores *= scale
        yield softcap * torch.tanh(scores / softcap) if softcap else scores
