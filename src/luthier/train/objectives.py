"""What training minimises: a table from the word in `train.objective` to rows as it sees them and the loss of a batch.

An objective's loss is a sum over what a batch holds, and a count to divide by; the loop divides by the count of the whole
step, so that cutting a step into other batches changes nothing.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from luthier import extensions
from luthier.data.prepared import PreparedRow
from luthier.errors import UserError
from luthier.model import prefix_sharing
from luthier.model.causal import CausalModel
from luthier.model.head import loss_of
from luthier.model.packed import TokenRow
from luthier.recipe import Train
from luthier.train import order, reference
from luthier.train.reference import Advance, Likelihoods
from luthier.train.rows import LabelledRows, PairRows, RowView, TokenRows, following_other


@dataclass(frozen=True)
class Measured:
    """A batch's loss as a sum, what to divide it by, its loss tokens, and other sums over the same count."""

    total: Tensor
    count: int
    loss_tokens: int
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    computed: int | None = None
    """Tokens that went through the model: fewer than its rows have where these share prefixes. None: not told."""


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


@runtime_checkable
class StepObjective(Protocol):
    """An objective whose loss of a row depends on all rows of its step, and not on those of its micro-batch alone."""

    def of_step(self, model: CausalModel, rows: TokenRows, numbers: Sequence[int]) -> Objective:
        """The objective for a step that has these rows; called before the step's first micro-batch, without gradients."""


def of_step(objective: Objective, model: CausalModel, rows: TokenRows, numbers: Sequence[int]) -> Objective:
    """The objective for a step, or a dev check, that has these rows; most are the same for all."""
    return objective.of_step(model, rows, numbers) if isinstance(objective, StepObjective) else objective


class MakeObjective(Protocol):
    """An objective for a model that is as it was before the first update; `folder` is where it may keep what it computes."""

    def __call__(self, model: CausalModel, settings: Train, folder: Path) -> Objective: ...


class AnswerLoss:
    """−log p of the loss tokens that the template marks: the assistant's answers, or all of a document."""

    def __init__(self, model: CausalModel, settings: Train, folder: Path) -> None:
        self.loss = loss_of(model)

    def prepare_rows(self, rows: TokenRows, split: str, advance: Advance = _untold) -> TokenRows:
        return rows

    def measure(self, model: CausalModel, rows: TokenRows, numbers: Sequence[int]) -> Measured:
        batch = prefix_sharing.pack_batch(model, [rows[number] for number in numbers])
        assert model is self.loss.model
        total, hits = self.loss(batch)
        figures = {"token_accuracy": hits}
        return Measured(total, batch.loss_tokens, batch.loss_tokens, figures, computed=len(batch.tokens))


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

    pair_lengths = lengths

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

    An answer's gain is log p under the tuned model less log p under the model that training started from (`reference`).
    """

    def __init__(self, model: CausalModel, settings: Train, folder: Path) -> None:
        self.likelihoods = Likelihoods(model, settings.tokens_per_batch or 1)
        self.beta = settings.dpo_beta
        self.folder = folder

    def prepare_rows(self, rows: TokenRows, split: str, advance: Advance = _untold) -> Pairs:
        if not isinstance(rows, PairRows) or any(rows.rejected(number) is None for number in range(len(rows))):
            raise UserError(NO_PAIRS, where="train.objective")
        path = self.folder / f"reference-{split}.safetensors"
        pairs = Pairs(rows, range(len(rows)), reference.read(path, len(rows)))
        self.likelihoods.complete(pairs, path, advance)
        return pairs

    def measure(self, model: CausalModel, rows: TokenRows, numbers: Sequence[int]) -> Measured:
        """Besides the loss: the reward margin β · (gain of chosen − gain of rejected), and whether it is above 0 (0: half)."""
        assert isinstance(rows, Pairs) and model is self.likelihoods.model
        likelihoods, loss_tokens, computed = self.likelihoods.of_pairs(rows, numbers)
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


@dataclass(frozen=True)
class LabelledAnswers(RowView):
    """Rows whose last answer people liked or not, each with a mismatched one: its prompt, and the answer to another.

    `reference` is log p of both answers under the model that training starts from.
    """

    reference: Float[Tensor, "rows 2"]

    @cached_property
    def liked(self) -> np.ndarray:
        """Of each row, whether people liked its answer."""
        return np.array([self.label(number) is True for number in range(len(self))])

    @cached_property
    def prompt_lengths(self) -> list[int]:
        """Of each row, the tokens before its last answer."""
        return [_answer_start(self[number].loss_mask) for number in range(len(self))]

    @cached_property
    def others(self) -> list[int]:
        """Of each row, the one whose answer is put behind its prompt: the next one in the data that has another prompt."""
        starts = enumerate(self.prompt_lengths)
        return following_other([hash(self[number].ids[:start].tobytes()) for number, start in starts])

    @cached_property
    def weights(self) -> np.ndarray:
        """Of each row, what its loss is multiplied by: both sides have the same sum, and the mean of all is 1."""
        sizes = {side: int((self.liked == side).sum()) for side in (True, False)}
        sides = sum(size > 0 for size in sizes.values())
        return np.array([len(self) / (sides * sizes[side]) for side in self.liked.tolist()])

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.lengths, default=0)

    @cached_property
    def mismatched_lengths(self) -> list[int]:
        """Tokens of each mismatched row: at most as many as the longest row has, whose answer then loses its end."""
        lengths, starts = self.lengths, self.prompt_lengths
        answers = [length - start for length, start in zip(lengths, starts, strict=True)]
        return [min(start + answers[other], self.longest) for start, other in zip(starts, self.others, strict=True)]

    @property
    def pair_lengths(self) -> list[int]:
        return [own + other for own, other in zip(self.lengths, self.mismatched_lengths, strict=True)]

    def pair(self, number: int) -> tuple[TokenRow, TokenRow]:
        """The row, and the mismatched one."""
        return self[number], self.mismatched(number)

    def mismatched(self, number: int) -> TokenRow:
        """The row's prompt, with the answer of another behind it."""
        start, other = self.prompt_lengths[number], self.others[number]
        answer = self[other].ids[self.prompt_lengths[other] :][: self.longest - start]
        ids = np.concatenate([self[number].ids[:start], answer])
        return PreparedRow(ids, np.arange(len(ids)) >= start)


def _answer_start(loss_mask: np.ndarray) -> int:
    """Where the last run of loss tokens begins."""
    last = int(np.flatnonzero(loss_mask)[-1])
    return int(np.flatnonzero(np.append(False, loss_mask[:last]) == 0)[-1])


class UnpairedPreferences:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, equation 7): λ · (1 − sigmoid(±β · (gain − KL))).

    Plus for an answer that people liked, minus for one that they did not. A gain is that of `Preferences`. λ balances the
    two: disliked answers count as much as liked ones, however many there are of either (the paper wants a ratio between 1
    and 4/3).

    KL, how far the tuned model has moved from where it started, is the mean gain of mismatched answers over the step, at least
    0, and has no gradient. Behind the prompt of each row stands the answer of the next row in the data with another prompt,
    the first row following the last: a pairing that depends on the data alone. So its reference is computed once, like that of
    the answers; and since the mean is over the step, the cut into micro-batches changes nothing.
    """

    def __init__(self, model: CausalModel, settings: Train, folder: Path) -> None:
        self.likelihoods = Likelihoods(model, settings.tokens_per_batch or 1)
        self.beta = settings.dpo_beta
        self.folder = folder
        self.divergence = 0.0  # the estimate of KL, in nats

    def prepare_rows(self, rows: TokenRows, split: str, advance: Advance = _untold) -> LabelledAnswers:
        if not isinstance(rows, LabelledRows) or any(rows.label(number) is None for number in range(len(rows))):
            raise UserError(NO_LABELS, where="train.objective")
        path = self.folder / f"reference-{split}.safetensors"
        answers = LabelledAnswers(rows, range(len(rows)), reference.read(path, len(rows)))
        self.likelihoods.complete(answers, path, advance)
        return answers

    @torch.no_grad()
    def of_step(self, model: CausalModel, rows: TokenRows, numbers: Sequence[int]) -> "UnpairedPreferences":
        """This objective with the KL of a step that has these rows."""
        assert isinstance(rows, LabelledAnswers)
        was_training = model.training
        model.eval()
        lengths = rows.mismatched_lengths
        gain = 0.0
        for batch in order.by_length([lengths[number] for number in numbers], self.likelihoods.tokens_per_batch):
            chosen = [numbers[at] for at in batch]
            likelihoods, _, _ = self.likelihoods.of([rows.mismatched(number) for number in chosen])
            gain += float((likelihoods - rows.reference[chosen, 1].to(model.device)).double().sum())
        model.train(was_training)
        found = copy.copy(self)
        found.divergence = max(0.0, gain / max(1, len(numbers)))
        return found

    def measure(self, model: CausalModel, rows: TokenRows, numbers: Sequence[int]) -> Measured:
        """Besides the loss: the mean reward of liked answers, β · gain, and by how much it is above that of disliked ones.

        And KL; and the share of answers that gained if people liked them, and lost if not, both sides counting half.
        """
        assert isinstance(rows, LabelledAnswers) and model is self.likelihoods.model
        chosen = list(numbers)
        likelihoods, loss_tokens, computed = self.likelihoods.of([rows[number] for number in chosen])
        rewards = self.beta * (likelihoods - rows.reference[chosen, 0].to(model.device))
        weights = torch.tensor(rows.weights[chosen], dtype=rewards.dtype, device=model.device)
        liked = torch.tensor(rows.liked[chosen], device=model.device)
        signs = 2.0 * liked - 1
        above = signs * (rewards - self.beta * self.divergence)
        total = (weights * torch.sigmoid(-above)).sum()  # 1 − sigmoid(x) = sigmoid(−x)
        figures = {
            "margin": (2 * weights * signs * rewards).sum(),
            "accuracy": (weights * ((signs * rewards > 0) + 0.5 * (rewards == 0))).sum(),
            "chosen_reward": (2 * weights * liked * rewards).sum(),
            "kl": torch.tensor(self.divergence * len(chosen)),
        }
        figures = {name: figure.detach() for name, figure in figures.items()}
        return Measured(total, len(chosen), loss_tokens, figures, computed)


NO_PAIRS = (
    '"dpo" trains on pairs of answers, and this data has none. Expected rows with the columns prompt, chosen and rejected '
    "(data.format=preference); for rows with one answer leave train.objective out."
)

NO_LABELS = (
    '"kto" learns from answers that people liked or did not like, and this data says so of none. Expected rows with the '
    "column label, true or false, or with chosen and rejected answers; for answers without labels leave train.objective out."
)

OBJECTIVES: dict[str, MakeObjective] = {
    "sft": AnswerLoss,
    "text": Texts,
    "dpo": Preferences,
    "kto": UnpairedPreferences,
}
"""Objectives by the word in `train.objective`; a dotted name "package.module:function" reaches your own."""


def resolve(word: str) -> MakeObjective:
    """What makes the objective of this name."""
    return extensions.resolve("objective", word, OBJECTIVES, where="train.objective")
