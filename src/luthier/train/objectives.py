"""What training minimises: a table from the word in `train.objective` to rows as it sees them and the loss of a batch.

An objective's loss is a sum over what a batch holds, and a count to divide by; the loop divides by the count of the whole
step, so that cutting a step into other batches changes nothing.
"""

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from luthier import extensions
from luthier.data.prepared import PreparedRow
from luthier.errors import UserError
from luthier.model import prefix_sharing
from luthier.model.causal import CausalModel
from luthier.model.head import CausalLoss
from luthier.model.packed import TokenRow
from luthier.recipe import Train
from luthier.runs.durable import write_atomic
from luthier.train import order
from luthier.train.rows import PairRows, RowView, TokenRows

KEPT_EVERY = 20.0  # seconds between two writings of likelihoods that are not all computed yet


@dataclass(frozen=True)
class Measured:
    """A batch's loss as a sum, what to divide it by, its loss tokens, and other sums over the same count."""

    total: Tensor
    count: int
    loss_tokens: int
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    computed: int | None = None
    """Tokens that went through the model: fewer than its rows have where these share prefixes. None: not told."""


class Advance(Protocol):
    """Tells how many of how many rows have been looked at; raises Interrupted where a stop was asked for."""

    def __call__(self, done: int, of: int) -> None: ...


def _untold(done: int, of: int) -> None:
    pass


class Objective(Protocol):
    """What is minimised."""

    def prepare_rows(self, rows: TokenRows, split: str, advance: Advance = _untold) -> TokenRows:
        """The rows of a split as this objective trains on them. Called before the first update, or on continuing.

        What takes long calls `advance` now and then, having kept what it found.
        """

    def measure(self, model: CausalModel, rows: TokenRows, numbers: Sequence[int]) -> Measured:
        """The loss of these rows, packed into one batch; `rows` is what `prepare_rows` gave."""


class MakeObjective(Protocol):
    """An objective for a model that is as it was before the first update; `folder` is where it may keep what it computes."""

    def __call__(self, model: CausalModel, settings: Train, folder: Path) -> Objective: ...


class AnswerLoss:
    """−log p of the loss tokens that the template marks: the assistant's answers, or all of a document."""

    def __init__(self, model: CausalModel, settings: Train, folder: Path) -> None:
        self.loss = CausalLoss(model)

    def prepare_rows(self, rows: TokenRows, split: str, advance: Advance = _untold) -> TokenRows:
        return rows

    def measure(self, model: CausalModel, rows: TokenRows, numbers: Sequence[int]) -> Measured:
        batch = prefix_sharing.pack_batch(model, [rows[number] for number in numbers])
        assert model is self.loss.model
        return Measured(self.loss(batch), batch.loss_tokens, batch.loss_tokens, computed=len(batch.tokens))


class Texts(AnswerLoss):
    """−log p of every token but a row's first, questions included: plain next-token prediction."""

    def prepare_rows(self, rows: TokenRows, split: str, advance: Advance = _untold) -> TokenRows:
        return EveryToken(rows, range(len(rows)))


class EveryToken(RowView):
    """Rows of which every token is a loss token."""

    def __getitem__(self, number: int) -> PreparedRow:
        ids = super().__getitem__(number).ids
        return PreparedRow(ids, np.ones(len(ids), dtype=bool))


@dataclass(frozen=True)
class Pairs(RowView):
    """Chosen and rejected rows, with log p of their answers under the model that training starts from."""

    reference: Float[Tensor, "pairs 2"]

    @property
    def lengths(self) -> list[int]:
        """Tokens of both rows of a pair, since they share a batch."""
        return [chosen + len(self.pair(number)[1].ids) for number, chosen in enumerate(super().lengths)]

    @property
    def shared_prefixes(self) -> Sequence[int]:
        """None between two pairs: the two rows of a pair share theirs."""
        return [0] * len(self)

    def pair(self, number: int) -> tuple[TokenRow, TokenRow]:
        """The chosen and the rejected row."""
        rejected = self.rejected(number)
        assert rejected is not None, f"{self.location(number)} has no rejected answer"
        return self[number], rejected


class Preferences:
    """Direct preference optimisation (Rafailov et al. 2023, equation 7): −log sigmoid(β · (gain of chosen − gain of rejected)).

    An answer's gain is log p under the tuned model less log p under the model that training started from. The latter are
    computed once, from the model itself before its first update, and kept in the run, also where it is stopped on the way: so
    no second model is in memory, and they are in the number format of the training, where a fresh model's gains are 0 but for
    rounding.
    """

    def __init__(self, model: CausalModel, settings: Train, folder: Path) -> None:
        self.model = model
        self.loss = CausalLoss(model)
        self.beta = settings.dpo_beta
        self.tokens_per_batch = settings.tokens_per_batch or 1
        self.folder = folder

    def prepare_rows(self, rows: TokenRows, split: str, advance: Advance = _untold) -> Pairs:
        if not isinstance(rows, PairRows) or any(rows.rejected(number) is None for number in range(len(rows))):
            raise UserError(NO_PAIRS, where="train.objective")
        path = self.folder / f"reference-{split}.safetensors"
        pairs = Pairs(rows, range(len(rows)), _read_reference(path, len(rows)))
        try:
            self._complete(pairs, path, advance)
        except BaseException:
            with contextlib.suppress(UserError):  # what stopped it is the thing to tell
                _write_reference(path, pairs.reference)
            raise
        return pairs

    def measure(self, model: CausalModel, rows: TokenRows, numbers: Sequence[int]) -> Measured:
        """Besides the loss: the reward margin β · (gain of chosen − gain of rejected), and whether it is above 0 (0: half)."""
        assert isinstance(rows, Pairs)
        likelihoods, loss_tokens, computed = self._likelihoods(model, rows, numbers)
        rewards = self.beta * (likelihoods - rows.reference[list(numbers)].to(model.device))  # pairs 2
        margins = rewards[:, 0] - rewards[:, 1]
        figures = {
            "margin": margins.sum(),
            "accuracy": ((margins > 0) + 0.5 * (margins == 0)).sum(),
            "chosen_reward": rewards[:, 0].sum(),
        }
        total = -torch.nn.functional.logsigmoid(margins).sum()
        figures = {name: figure.detach() for name, figure in figures.items()}
        return Measured(total, len(numbers), loss_tokens, figures, computed)

    @torch.inference_mode()
    def _complete(self, pairs: Pairs, path: Path, advance: Advance) -> None:
        """Fill in log p of the pairs' answers under the model as it is now, where it is not known yet."""
        missing = pairs.reference.isnan().any(dim=1)
        done, kept = len(pairs) - int(missing.sum()), time.monotonic()
        if done == len(pairs):
            return
        was_training = self.model.training
        self.model.eval()
        for numbers in map(list, order.by_length(pairs.lengths, self.tokens_per_batch)):
            if new := int(missing[numbers].sum()):
                pairs.reference[numbers] = self._likelihoods(self.model, pairs, numbers)[0].cpu()
                done += new
                if time.monotonic() - kept >= KEPT_EVERY:
                    _write_reference(path, pairs.reference)
                    kept = time.monotonic()
                advance(done, len(pairs))
        _write_reference(path, pairs.reference)
        self.model.train(was_training)

    def _likelihoods(
        self, model: CausalModel, pairs: Pairs, numbers: Sequence[int]
    ) -> tuple[Float[Tensor, "pairs 2"], int, int]:
        """log p of these pairs' answers, how many tokens they have, and how many were computed.

        The rows of a pair share their prompt. With a budget of 1, no two rows share a batch.
        """
        rows = [row for number in numbers for row in pairs.pair(number)]
        size = 1 if self.tokens_per_batch == 1 else len(rows)
        batches = [prefix_sharing.pack_batch(model, rows[start : start + size]) for start in range(0, len(rows), size)]
        likelihoods = torch.cat([self.loss(batch, by_row=True) for batch in batches])
        computed = sum(len(batch.tokens) for batch in batches)
        return likelihoods.view(-1, 2), sum(batch.loss_tokens for batch in batches), computed


def _read_reference(path: Path, count: int) -> Float[Tensor, "pairs 2"]:
    """What a file holds of the likelihoods; NaN where they are not computed yet, or the file is damaged."""
    try:
        found = load_file(path)["likelihoods"]
    except (OSError, KeyError, SafetensorError):
        found = torch.empty(0, 2)
    return found if found.shape == (count, 2) else torch.full((count, 2), math.nan)


def _write_reference(path: Path, likelihoods: Float[Tensor, "pairs 2"]) -> None:
    write_atomic(path, save({"likelihoods": likelihoods}))


NO_PAIRS = (
    '"dpo" trains on pairs of answers, and this data has none. Expected rows with the columns prompt, chosen and rejected '
    "(data.format=preference); for rows with one answer leave train.objective out."
)

OBJECTIVES: dict[str, MakeObjective] = {"sft": AnswerLoss, "text": Texts, "dpo": Preferences}
"""Objectives by the word in `train.objective`; a dotted name "package.module:function" reaches your own."""


def resolve(word: str) -> MakeObjective:
    """What makes the objective of this name."""
    return extensions.resolve("objective", word, OBJECTIVES, where="train.objective")
