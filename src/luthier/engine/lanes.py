"""Rows that are written together: one batch, a token for each row at every step."""

from collections.abc import Sequence

import torch

from luthier.engine.adapters import RowAdapters
from luthier.engine.picking import pick
from luthier.engine.requests import AnswerFailed
from luthier.engine.rows import Row
from luthier.model import decoding, probes
from luthier.model.decoding import Batch

SHORT = 512  # tokens up to which rows of any length share a batch
APART = 4  # how many times as long as the other the longer one may be beyond that, since all are padded to the longest


class Lane:
    """A batch, its rows, and the token that each is about to read."""

    def __init__(self, adapters: RowAdapters, batch: Batch, rows: list[Row], *, alone: bool = False) -> None:
        self.lm, self.adapters = adapters.lm, adapters
        self.batch, self.rows, self.alone = batch, rows, alone
        self._stretched = 0
        if alone:
            longest = max(row.longest for row in rows)
            self._stretched = probes.longest_in_batch(self.lm.model, longest) + 1

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for any of its rows."""
        return all(row.stream.ended for row in self.rows)

    @property
    def tokens(self) -> int:
        """Of keys and values, padding too."""
        return len(self.batch) * self.batch.columns

    def takes(self, other: "Lane") -> bool:
        """Whether the rows of another lane may join this one."""
        shorter, longer = sorted((self.batch.columns, other.batch.columns))
        fits = longer <= max(SHORT, APART * shorter)
        if not self.adapters.keeps_rows_apart:
            fits = fits and len({row.adapter for row in (*self.rows, *other.rows)}) == 1
        return fits and self.batch.is_plain and other.batch.is_plain and not (self.alone or other.alone)

    def take(self, other: "Lane") -> None:
        """Let its rows join."""
        self.batch.join([other.batch])
        self.rows += other.rows

    def step(self) -> None:
        """A token more for each row; rows that are over are gone."""
        with self.adapters.using([row.adapter for row in self.rows]):
            if self.alone and len(self.rows[0].ids) == self._stretched:
                # as transformers does where LongRoPE changes its factors
                self.batch, scores = decoding.read(self.lm, [self.rows[0].ids], self.rows[0].limit)
            else:
                tokens = torch.tensor([row.written[-1] for row in self.rows], device=self.lm.device)
                scores = self.batch.step(tokens)
        accept(self.rows, scores)
        self.keep_going()

    def keep_going(self) -> None:
        """Leave out rows that are over, where that is worth it."""
        going = [index for index, row in enumerate(self.rows) if not row.stream.ended]
        if len(going) < len(self.rows):
            self.rows = [self.rows[index] for index in self.batch.thin(going)]


def accept(rows: Sequence[Row], scores: torch.Tensor) -> None:
    """Give each row that is not over its next token. What goes wrong with one concerns that one."""
    for row, picked in zip(rows, pick(rows, scores), strict=True):
        if row.stream.ended:
            continue
        if picked.failure is None:
            row.accept(picked.token, picked.logprob)
        else:
            row.stream.put(AnswerFailed(f"the answer cannot be finished: {picked.failure}"))
