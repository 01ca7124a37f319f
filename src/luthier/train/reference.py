"""log p of answers under the model that a training starts from: its reference, which preferences are learnt against.

They are computed once, from the model itself before its first update, and kept in the run, also where it is stopped on the way:
so no second model is in memory, and they are in the number format of the training, where a fresh model's gains are 0 but for
rounding.
"""

import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from luthier.errors import UserError
from luthier.model import prefix_sharing
from luthier.model.causal import CausalModel
from luthier.model.head import CausalLoss
from luthier.model.packed import TokenRow
from luthier.runs.durable import write_atomic
from luthier.train import order

KEPT_EVERY = 20.0  # seconds between two writings of likelihoods that are not all computed yet


class Advance(Protocol):
    """Tells how many of how many rows have been looked at; raises Interrupted where a stop was asked for."""

    def __call__(self, done: int, of: int) -> None: ...


class Pairs(Protocol):
    """Rows in pairs, and log p of their answers under the model that training starts from."""

    @property
    def reference(self) -> Float[Tensor, "pairs 2"]: ...
    @property
    def pair_lengths(self) -> Sequence[int]:
        """Tokens of both rows of each pair."""

    def __len__(self) -> int: ...
    def pair(self, number: int) -> tuple[TokenRow, TokenRow]: ...


class Likelihoods:
    """What a model says of rows, packed into batches; `tokens_per_batch` of 1: no two rows share one."""

    def __init__(self, model: CausalModel, tokens_per_batch: int) -> None:
        self.model = model
        self.loss = CausalLoss(model)
        self.tokens_per_batch = tokens_per_batch

    def of(self, rows: Sequence[TokenRow]) -> tuple[Float[Tensor, " rows"], int, int]:
        """log p of these rows' loss tokens, how many these are, and how many tokens were computed.

        Rows that begin alike, as those of a pair, share this prefix.
        """
        size = 1 if self.tokens_per_batch == 1 else len(rows)
        parts = (rows[start : start + size] for start in range(0, len(rows), size))
        batches = [prefix_sharing.pack_batch(self.model, part) for part in parts]
        likelihoods = torch.cat([self.loss(batch, by_row=True) for batch in batches])
        return likelihoods, sum(batch.loss_tokens for batch in batches), sum(len(batch.tokens) for batch in batches)

    def of_pairs(self, pairs: Pairs, numbers: Sequence[int]) -> tuple[Float[Tensor, "pairs 2"], int, int]:
        """The same of both rows of these pairs."""
        likelihoods, loss_tokens, computed = self.of([row for number in numbers for row in pairs.pair(number)])
        return likelihoods.view(-1, 2), loss_tokens, computed

    def complete(self, pairs: Pairs, path: Path, advance: Advance) -> None:
        """Fill in the reference of the pairs where it is not known yet, from the model as it is now; kept in a file."""
        try:
            self._compute_missing(pairs, path, advance)
        except BaseException:
            with contextlib.suppress(UserError):  # what stopped it is the thing to tell
                _write(path, pairs.reference)
            raise

    @torch.inference_mode()
    def _compute_missing(self, pairs: Pairs, path: Path, advance: Advance) -> None:
        missing = pairs.reference.isnan().any(dim=1)
        done, kept = len(pairs) - int(missing.sum()), time.monotonic()
        if done == len(pairs):
            return
        was_training = self.model.training
        self.model.eval()
        for numbers in map(list, order.by_length(pairs.pair_lengths, self.tokens_per_batch)):
            if new := int(missing[numbers].sum()):
                pairs.reference[numbers] = self.of_pairs(pairs, numbers)[0].cpu()
                done += new
                if time.monotonic() - kept >= KEPT_EVERY:
                    _write(path, pairs.reference)
                    kept = time.monotonic()
                advance(done, len(pairs))
        _write(path, pairs.reference)
        self.model.train(was_training)


def read(path: Path, count: int) -> Float[Tensor, "pairs 2"]:
    """What a file holds of the likelihoods; NaN where they are not computed yet, or the file is damaged."""
    try:
        found = load_file(path)["likelihoods"]
    except (OSError, KeyError, SafetensorError):
        found = torch.empty(0, 2)
    return found if found.shape == (count, 2) else torch.full((count, 2), math.nan)


def _write(path: Path, likelihoods: Float[Tensor, "pairs 2"]) -> None:
    write_atomic(path, save({"likelihoods": likelihoods}))
