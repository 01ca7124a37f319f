"""A check on a run's own first rows before the first step: does the loss count what the rows say, and nothing else?

Four questions. Is the loss taken on exactly the loss tokens, by the model's own logits? Does each answer end with a token
that ends answers, so that the model learns to stop? Do rows that are packed into one batch leave each other alone? Attention
keeps rows apart by their position ids; layers that carry a state from token to token, or count distances themselves, may not.
And do rows that share a prefix, which is then computed once, have the losses that they have alone?
"""

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from luthier.errors import UserError
from luthier.model import prefix_sharing, probes
from luthier.model.causal import CausalModel
from luthier.model.head import row_likelihoods, summed_loss
from luthier.model.packed import TokenRow, pack
from luthier.train.rows import TokenRows

ROWS_CHECKED = 8  # whose loss tokens are counted
NAMES_SHOWN = 4
EXCERPT = 16  # tokens of a row that go through the model
NATS_APART, NATS_WRONG = 1e-3, 1e-2  # differences of two fp32 losses that cannot be rounding, and that are another loss
NO_END = (
    "the last loss token of this row does not end an answer, so the model would not learn to stop. Use a chat "
    "template that closes the assistant's messages with an end token."
)


@dataclass(frozen=True)
class SanityCheck:
    """What was checked, and what came out."""

    rows: int
    loss_tokens: int
    """Of these rows."""
    rows_end: bool
    """Whether the rows end with a token that ends answers; False where nothing says which tokens do."""
    rows_apart: bool
    """Whether rows that are packed together have the losses that they have alone."""
    prefixes_shared: bool
    """Whether a prefix that rows share can be computed once for all of them."""
    longest_packed: int
    """The longest row that leaves others in its batch as they are: the longest there is, but for few models."""
    plain_head: bool
    """Whether logits can be computed for a few tokens at a time; else those of a whole batch must be kept."""
    seconds: float

    def fields(self) -> dict[str, int | bool | float]:
        """What an event says of it."""
        return {
            "rows": self.rows, "learnt": self.loss_tokens, "ends": self.rows_end, "apart": self.rows_apart,
            "shared": self.prefixes_shared, "together": self.longest_packed, "plain_head": self.plain_head,
            "seconds": self.seconds,
        }  # fmt: skip


@dataclass(frozen=True)
class Excerpt:
    """A few tokens of a row, and where the row came from."""

    ids: np.ndarray
    loss_mask: np.ndarray
    location: str


def run(model: CausalModel, rows: TokenRows, end_tokens: Collection[int] = (), *, longest: int = 0) -> SanityCheck:
    """Check the first rows with the model in fp32; `end_tokens` end an answer, and `longest` is the longest row of all.

    Raises a UserError that names the row where the loss is not taken on its loss tokens, or none of them ends the answer; or
    the weights that hold values which are no numbers.
    """
    start = time.perf_counter()
    if broken := probes.not_finite(model):
        raise UserError(not_finite(broken), where=model.config.name_or_path or None)
    numbers = range(min(ROWS_CHECKED, len(rows)))
    loss_tokens = 0
    for number in numbers:
        row, location = rows[number], rows.location(number)
        loss_tokens += _count_loss_tokens(row, location, model.device)
        if end_tokens and int(row.ids[np.flatnonzero(row.loss_mask)[-1]]) not in end_tokens:
            raise UserError(NO_END, where=location)
    excerpts = [_excerpt(rows[number], rows.location(number)) for number in (*numbers, *numbers)[:2]]
    was_training = model.training
    model.eval()
    rows_apart = _keeps_rows_apart(model, excerpts)
    prefixes_shared = rows_apart and prefix_sharing.supported(model, max(longest, max(rows.lengths)))
    longest_packed = probes.longest_in_batch(model, max(longest, max(rows.lengths)))
    plain_head = probes.has_plain_head(model)
    model.train(was_training)
    seconds = time.perf_counter() - start
    return SanityCheck(
        len(numbers), loss_tokens, bool(end_tokens), rows_apart, prefixes_shared, longest_packed, plain_head, seconds
    )


def not_finite(names: Sequence[str]) -> str:
    """The message for a model with weights that are no numbers."""
    shown = ", ".join(names[:NAMES_SHOWN]) + (f" and {len(names) - NAMES_SHOWN:,} more" if names[NAMES_SHOWN:] else "")
    return (
        f"weights of the model hold values that are no numbers (NaN) or infinite, before any training: {shown}. "
        "Get its files again, or save it again from where it was trained."
    )


def _count_loss_tokens(row: TokenRow, location: str, device: torch.device) -> int:
    """How many tokens of a row a loss is taken on: all of its mask but the first token, and one fewer with a smaller mask."""
    masked = [position for position, in_loss in enumerate(row.loss_mask) if in_loss and position]
    if not masked:
        raise UserError("this row has no loss tokens behind its first token. Take it out.", where=location)
    smaller = np.array(row.loss_mask)
    smaller[masked[-1]] = False
    found = _loss_positions(row, device)
    if found != masked or _loss_positions(Excerpt(row.ids, smaller, location), device) != masked[:-1]:
        raise UserError(f"this row has {len(masked)} loss tokens, but {len(found)} count.", where=location)
    return len(masked)


def _loss_positions(row: TokenRow, device: torch.device) -> list[int]:
    """The positions of the tokens that a loss is taken on."""
    return (pack([row], device).predicted_from + 1).tolist()


def _excerpt(row: TokenRow, location: str) -> Excerpt:
    """The tokens around the first loss token."""
    first = int(np.flatnonzero(np.asarray(row.loss_mask)[1:])[0]) + 1
    part = slice(max(0, first - EXCERPT // 2), first + EXCERPT // 2)
    return Excerpt(row.ids[part], row.loss_mask[part], location)


@torch.inference_mode()
def _keeps_rows_apart(model: CausalModel, excerpts: Sequence[Excerpt]) -> bool:
    """Whether two rows in one batch have the losses that they have alone, whatever the other one is.

    Raises a UserError where a row has another loss even in a batch of its own.
    """
    alone = [_plain_loss(model, excerpt) for excerpt in excerpts]
    for excerpt, loss in zip(excerpts, alone, strict=True):
        if not math.isfinite(loss):
            raise UserError(
                f"the model's own loss on the beginning of this row is {loss}, though its weights are finite: inside it "
                "numbers grow beyond what fp32 holds. Use another model.",
                where=excerpt.location,
            )
    first, second = excerpts
    other = Excerpt(first.ids[::-1].copy(), first.loss_mask, first.location)  # what the second row must not notice
    together = float(summed_loss(model, pack(excerpts, model.device)))
    beside = -float(row_likelihoods(model, pack([other, second], model.device))[1])
    if abs(together - sum(alone)) <= NATS_APART and abs(beside - alone[1]) <= NATS_APART:
        return True
    for excerpt, expected in zip(excerpts, alone, strict=True):
        found = float(summed_loss(model, pack([excerpt], model.device)))
        if abs(found - expected) > NATS_WRONG:
            raise UserError(
                f"the loss on the beginning of this row is {found:.3f}, but by the model's own logits it is "
                f"{expected:.3f}: Luthier cannot train this kind of model. Use another one.",
                where=excerpt.location,
            )
    return False


def _plain_loss(model: CausalModel, excerpt: Excerpt) -> float:
    """−log p of an excerpt's loss tokens, from the logits that the model gives for it alone."""
    ids = torch.from_numpy(np.asarray(excerpt.ids, dtype=np.int64)).to(model.device)
    scores = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float().log_softmax(-1)
    each: Float[Tensor, " tokens"] = scores.gather(-1, ids[1:, None])[:, 0]
    return -float(each[torch.from_numpy(np.asarray(excerpt.loss_mask[1:], dtype=bool)).to(model.device)].sum())
