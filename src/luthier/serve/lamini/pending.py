"""Answers that are fetched later: streams that are polled, and batches."""

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

from luthier.serve.errors import APIError, not_found
from luthier.serve.lamini.answers import Answers
from luthier.serve.lamini.shapes import CompletionRequest

MOST_PENDING = 256
"""Streams and batches that wait to be fetched; the oldest are forgotten, and what they still do is given up."""


@dataclass
class _Begun:
    """Answers on their way, and who reads them."""

    answers: Answers
    task: "asyncio.Task[None]"
    fetched: bool = field(default=False)
    """Whether somebody has seen the end."""

    def raise_fault(self) -> None:
        """What went wrong while they were written."""
        if self.task.done() and not self.task.cancelled() and (error := self.task.exception()):
            raise error if isinstance(error, APIError) else APIError(500, "The answer could not be computed.")


class Pending:
    """Answers by their ids, for who asked for them only."""

    def __init__(self) -> None:
        self._begun: OrderedDict[tuple[str, str], _Begun] = OrderedDict()

    def add(self, key: str, answers: Answers, held: contextlib.AsyncExitStack) -> str:
        """Go on reading the answers, whose model `held` keeps until then; gives the id by which they are fetched."""

        async def collect() -> None:
            async with held:
                await answers.collect()

        number = secrets.token_hex(16)
        self._begun[key, number] = _Begun(answers, asyncio.create_task(collect()))
        while len(self._begun) > MOST_PENDING:
            _, oldest = self._begun.popitem(last=False)
            oldest.task.cancel()
        return number

    def get(self, key: str, number: str) -> Answers:
        """The answers with this id; raises what went wrong while they were written."""
        found = self._begun.get((key, number))
        if found is None:
            raise not_found("answer", number[:80] if number.isprintable() else "…", param="id")
        found.raise_fault()
        found.fetched |= None not in found.answers.finish_reasons
        return found.answers

    def same(self, key: str, asked: CompletionRequest) -> str | None:
        """The id of answers to this very request whose end nobody has seen yet."""
        ids = (number for (whose, number), each in self._begun.items() if whose == key and not each.fetched)
        return next((number for number in ids if self._begun[key, number].answers.asked == asked), None)

    def knows(self, key: str, number: object) -> bool:
        return isinstance(number, str) and (key, number) in self._begun


PENDING = Pending()
