"""What the model makes of held-out rows: the most likely token at each place, and how far the distributions are apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from luthier.engine.llama_cpp import Refused
from luthier.export.parity.limits import TIE
from luthier.export.running import Running
from luthier.model.loading import LanguageModel

POSITIONS = 1024  # tokens of all rows together
LONGEST = 256  # tokens of a row


@dataclass(frozen=True)
class Outputs:
    """Agreement with the original over all positions."""

    positions: int
    top1: float
    """Share of them with the same most likely token; two within `TIE` of each other count as one."""
    kl: float
    first: str | None
    """The first place where another token is most likely, in words."""


def rows_to_compare(rows: Sequence[Sequence[int]], context: int) -> list[list[int]]:
    """Rows from all over the split, as many as the positions allow."""
    longest = min(LONGEST, context)
    usable = [list(row[:longest]) for row in rows if len(row) > 1]
    if not usable:
        return []
    mean = sum(map(len, usable)) / len(usable)
    count = max(1, min(len(usable), int(POSITIONS / mean)))
    return [usable[number * len(usable) // count] for number in range(count)]


def compare(lm: LanguageModel, llama: Running, rows: Sequence[Sequence[int]]) -> Outputs:
    """Both models' distributions after each token of the rows; after what all of them begin with, once."""
    same, kl, positions, first = 0, 0.0, 0, None
    shared = _common_beginning(rows)
    for number, row in enumerate(rows):
        begin = shared if number else 0
        ours = _ours(lm, row, begin)
        theirs = torch.from_numpy(np.array(llama.logits(row, begin=begin))).double()[:, : ours.shape[1]]
        if theirs.shape[1] < ours.shape[1]:
            raise Refused(f"the export has {theirs.shape[1]:,} tokens, and the run's model {ours.shape[1]:,}.")
        margins = ours.amax(-1) - ours.gather(-1, theirs.argmax(-1, keepdim=True))[:, 0]
        agree = margins <= TIE
        if first is None and not bool(agree.all()):
            at = int((~agree).nonzero()[0])
            first = (
                f"row {number}, token {begin + at}: {int(ours[at].argmax())} before {int(theirs[at].argmax())} by "
                f"{float(margins[at]):.3g} logits, in the export the other way round"
            )
        apart, chances = theirs - ours, torch.softmax(ours, -1)
        kl += float(((chances * apart.exp()).sum(-1).log() - (chances * apart).sum(-1)).sum())
        same += int(agree.sum())
        positions += len(agree)
    return Outputs(positions, same / positions, max(kl / positions, 0.0) if kl == kl else kl / positions, first)


def _common_beginning(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens several rows have in common, which leaves each a token of its own."""
    most = min(map(len, rows)) - 1 if len(rows) > 1 else 0
    return next((at for at in range(most) if len({row[at] for row in rows}) > 1), most)


@torch.inference_mode()
def _ours(lm: LanguageModel, row: Sequence[int], begin: int) -> Tensor:
    ids = torch.tensor([list(row)], device=lm.device)
    logits: Tensor = lm.model(ids, logits_to_keep=len(row) - begin).logits[0]
    return logits.double().cpu()
