"""Prompts on their way into a lane: a few of like length at a time, and a long one in portions, between the steps of others."""

from collections.abc import Sequence

import torch

from luthier.engine.adapters import RowAdapters
from luthier.engine.lanes import Lane, accept
from luthier.engine.picking import token_logprobs
from luthier.engine.rows import Row
from luthier.model import decoding
from luthier.model.decoding import Batch

SCORED = 256  # tokens of a prompt whose scores over the vocabulary exist at a time


class Reading:
    """Rows that are read together; `known` is what they all begin with, read before, where all have one adapter."""

    def __init__(
        self, adapters: RowAdapters, rows: list[Row], *, known: Batch | None = None, alone: bool = False
    ) -> None:
        self.lm, self.adapters = adapters.lm, adapters
        self.rows, self.alone = rows, alone
        self._known = known
        self._whole = alone or not Batch(self.lm).is_plain  # a cache that is not plain stays as it was read
        self._batch: Batch | None = None
        shared = known.columns if known else 0
        self._tokens, self._mask = decoding.left_padded([row.ids[shared:] for row in rows], self.lm.device)
        self._scored = rows[0].request.prompt_logprobs and not rows[0].written
        self._read = 0  # columns

    @property
    def left(self) -> int:
        """Tokens that are still to be read, with padding."""
        return self._tokens[:, self._read :].numel()

    def advance(self, most: int) -> Lane | None:
        """Read about so many tokens; gives a lane with the rows that are written from now on when all are read."""
        with self.adapters.using([row.adapter for row in self.rows]):
            return self._advance(most)

    def _advance(self, most: int) -> Lane | None:
        if self._whole:
            steps = max(max(1, row.limit - len(row.written)) for row in self.rows)
            batch, scores = decoding.read(self.lm, [row.ids for row in self.rows], steps)
            return self._begin(batch, scores)
        if self._batch is None:
            self._batch = self._beginning()
        width = max(1, most // len(self.rows))
        if self._scored:
            width = min(width, SCORED)
        portion = slice(self._read, min(self._read + width, self._tokens.shape[1]))
        self._read = portion.stop
        tokens = self._tokens[:, portion]
        if self._scored:
            every = self._batch.feed_scored(tokens[0])
            self._note(every, portion)
            scores = every[-1:]
        else:
            scores = self._batch.feed(tokens, self._mask[:, portion])
        return self._begin(self._batch, scores) if self._read == self._tokens.shape[1] else None

    def _beginning(self) -> Batch:
        """What is read on: nothing, or the known beginning for each row."""
        if self._known is None:
            return Batch(self.lm, max(len(row.ids) for row in self.rows))
        batch = self._known.copied()
        if len(self.rows) > 1:
            batch.repeat(len(self.rows))
        return batch

    def _note(self, scores: torch.Tensor, portion: slice) -> None:
        """Log p of the tokens behind those of a portion."""
        following = self._tokens[0, portion.start + 1 : portion.stop + 1]
        if len(following):
            most = [self.rows[0].request.logprobs or 0] * len(following)
            self.rows[0].prompt_logprobs += token_logprobs(scores[: len(following)], following, most)

    def _begin(self, batch: Batch, scores: torch.Tensor) -> Lane:
        """Each row's first token, from the scores behind its prompt."""
        for row in self.rows:
            row.begin()
        accept(self.rows, scores)
        return Lane(self.adapters, batch, self.rows, alone=self.alone)


def groups_with(rows: Sequence[Row], other: Row, shared: int, most: int) -> bool:
    """Whether another row can be read together with these, of like length, within so many tokens."""
    if other.request.prompt_logprobs or rows[0].request.prompt_logprobs:
        return False
    longest = max(len(row.ids) - shared for row in (*rows, other))
    return (len(rows) + 1) * longest <= most
