"""What a run tries on its own first rows before the first step: does the loss count what the rows say, and nothing else?

Four questions. Is exactly what is flagged learnt, by the model's own scores? Does each answer end with a token that ends
answers, so that the model learns to stop? Do rows that are packed into one batch leave each other alone? Attention keeps
rows apart by their position ids; layers that carry a state from token to token, or count distances themselves, may not. And
are rows that share a beginning, which is then computed once, what they are alone?
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
from luthier.model.head import CausalModel, row_likelihoods, summed_loss
from luthier.model.packed import TokenRow, pack
from luthier.train.objectives import TokenRows

FIRST = 8  # rows whose flags are looked at
NAMES_SHOWN = 4
PIECE = 16  # tokens of a row that go through the model
NATS_APART, NATS_WRONG = 1e-3, 1e-2  # differences of two fp32 losses that cannot be rounding, and that are another loss
NO_END = (
    "the last token of this row that is learnt does not end an answer, so the model would not learn to stop. Use a chat "
    "template that closes the assistant's messages with an end token."
)


@dataclass(frozen=True)
class Found:
    """What was tried, and what came out."""

    rows: int
    learnt: int
    """Tokens of these rows that are learnt."""
    ends: bool
    """Whether the rows end with a token that ends answers; False where nothing says which tokens do."""
    apart: bool
    """Whether rows that are packed together have the losses that they have alone."""
    shared: bool
    """Whether a beginning that rows share can be computed once for all of them."""
    together: int
    """The longest row that leaves others in its batch as they are: the longest there is, but for few models."""
    plain_head: bool
    """Whether scores can be computed for a few tokens at a time; else those of a whole batch must be kept."""
    seconds: float


@dataclass(frozen=True)
class Piece:
    """A few tokens of a row, and the place of the row."""

    ids: np.ndarray
    learn: np.ndarray
    place: str


def run(model: CausalModel, rows: TokenRows, ends: Collection[int] = (), *, longest: int = 0) -> Found:
    """Try the first rows with the model in fp32; `ends` are the tokens that end an answer, `longest` the longest row of all.

    Raises a UserError that names the row where its tokens are not learnt as they are flagged, or none of them ends the answer;
    or the weights that hold numbers which are none.
    """
    start = time.perf_counter()
    if broken := probes.not_finite(model):
        raise UserError(not_finite(broken), where=model.config.name_or_path or None)
    numbers = range(min(FIRST, len(rows)))
    learnt = 0
    for number in numbers:
        row, place = rows[number], rows.place(number)
        learnt += _counted(row, place, model.device)
        if ends and int(row.ids[np.flatnonzero(row.learn)[-1]]) not in ends:
            raise UserError(NO_END, where=place)
    pieces = [_piece(rows[number], rows.place(number)) for number in (*numbers, *numbers)[:2]]
    was_training = model.training
    model.eval()
    apart = _scored(model, pieces)
    together = probes.longest_in_company(model, max(longest, max(rows.lengths)))
    shared = apart and prefix_sharing.supported(model, max(longest, max(rows.lengths)))
    plain_head = probes.has_plain_head(model)
    model.train(was_training)
    return Found(len(numbers), learnt, bool(ends), apart, shared, together, plain_head, time.perf_counter() - start)


def not_finite(names: Sequence[str]) -> str:
    """The message for a model whose weights are damaged."""
    shown = ", ".join(names[:NAMES_SHOWN]) + (f" and {len(names) - NAMES_SHOWN:,} more" if names[NAMES_SHOWN:] else "")
    return (
        f"weights of the model hold numbers that are none (NaN) or infinite, before anything is learnt: {shown}. "
        "Get its files again, or save it again from where it was trained."
    )


def _counted(row: TokenRow, place: str, device: torch.device) -> int:
    """How many tokens of a row a loss is taken on: those flagged but the first, and one fewer with one flag fewer."""
    flagged = [at for at, flag in enumerate(row.learn) if flag and at]
    if not flagged:
        raise UserError("nothing is learnt of this row: no token behind the first is marked. Take it out.", where=place)
    fewer = np.array(row.learn)
    fewer[flagged[-1]] = False
    found = _places(row, device)
    if found != flagged or _places(Piece(row.ids, fewer, place), device) != flagged[:-1]:
        raise UserError(f"{len(flagged)} tokens of this row are marked as learnt, but {len(found)} count.", where=place)
    return len(flagged)


def _places(row: TokenRow, device: torch.device) -> list[int]:
    """The places of the tokens that a loss is taken on."""
    return (pack([row], device).predicted_from + 1).tolist()


def _piece(row: TokenRow, place: str) -> Piece:
    """The tokens around the first one that is learnt."""
    first = int(np.flatnonzero(np.asarray(row.learn)[1:])[0]) + 1
    part = slice(max(0, first - PIECE // 2), first + PIECE // 2)
    return Piece(row.ids[part], row.learn[part], place)


@torch.inference_mode()
def _scored(model: CausalModel, pieces: Sequence[Piece]) -> bool:
    """Whether two rows in one batch have the losses that they have alone, whatever the other one is.

    Raises a UserError where a row has another loss even in a batch of its own.
    """
    alone = [_plain(model, piece) for piece in pieces]
    for piece, loss in zip(pieces, alone, strict=True):
        if not math.isfinite(loss):
            raise UserError(
                f"the model's own loss on the beginning of this row is {loss}, though its weights are finite: inside it "
                "numbers grow beyond what fp32 holds. Use another model.",
                where=piece.place,
            )
    other = Piece(pieces[0].ids[::-1].copy(), pieces[0].learn, pieces[0].place)  # what the second row must not notice
    together = float(summed_loss(model, pack(pieces, model.device)))
    beside = -float(row_likelihoods(model, pack([other, pieces[1]], model.device))[1])
    if abs(together - sum(alone)) <= NATS_APART and abs(beside - alone[1]) <= NATS_APART:
        return True
    for piece, wanted in zip(pieces, alone, strict=True):
        found = float(summed_loss(model, pack([piece], model.device)))
        if abs(found - wanted) > NATS_WRONG:
            raise UserError(
                f"the loss on the learnt tokens of this row's beginning is {found:.3f}, but by the model's own scores it is "
                f"{wanted:.3f}: Luthier cannot train this kind of model. Use another one.",
                where=piece.place,
            )
    return False


def _plain(model: CausalModel, piece: Piece) -> float:
    """−log p of a piece's learnt tokens, from the scores that the model gives for it alone."""
    ids = torch.from_numpy(np.asarray(piece.ids, dtype=np.int64)).to(model.device)
    scores = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float().log_softmax(-1)
    each: Float[Tensor, " tokens"] = scores.gather(-1, ids[1:, None])[:, 0]
    return -float(each[torch.from_numpy(np.asarray(piece.learn[1:], dtype=bool)).to(model.device)].sum())
