"""Questions that several processes answer together: each has the model, and answers its share of every batch.

The first process asks and writes as it would alone, so the answers stand in the files in the same order, and batch by batch, as
ever. The others are told prompts and give back answers; which model they load, the run's folder says.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from luthier import recipe as recipes
from luthier.errors import UserError
from luthier.evaluate.context import Context, load_base, load_tuned
from luthier.model import generate, replies
from luthier.model.generate import Sampling
from luthier.model.loading import LanguageModel
from luthier.model.replies import Answer, Ask, TokenBudget
from luthier.runs import Run
from luthier.runs.signals import stopping
from luthier.train import launch
from luthier.train.world import World

Which = Literal["base", "tuned"]

MODULE = "luthier.pipeline.answering"


@contextlib.contextmanager
def together(folder: Path, processes: int, which: Which, stop: Callable[[], bool]) -> Iterator[Ask]:
    """`replies.ask` by so many processes, for the run's base or tuned model; they start with the first questions.

    Raises ProcessLost where one of them is gone; the batches before that are written.
    """
    if processes == 1:
        yield replies.ask
        return
    with contextlib.ExitStack() as started:
        several = _Several(folder, processes, which, stop, started)
        yield several.ask
        several.dismiss()


@dataclass(frozen=True)
class _Questions:
    """The prompts of one batch, with all that their answers depend on."""

    prompts: list[list[int]]
    budget: tuple[int, int]
    temperature: float = 0.0
    seeds: list[list[int]] | None = None

    def share(self, rank: int, of: int) -> "_Questions":
        """What a process answers: the prompts are sorted by length, so every share has some of each."""
        seeds = None if self.seeds is None else self.seeds[rank::of]
        return _Questions(self.prompts[rank::of], self.budget, self.temperature, seeds)

    def answered_by(self, lm: LanguageModel) -> list[Answer]:
        sampling = None if self.seeds is None else Sampling(self.temperature, self.seeds)
        return replies.ask(lm, self.prompts, TokenBudget(*self.budget), sampling=sampling)


class _Several:
    """The first of the processes, and its way to the others."""

    def __init__(
        self, folder: Path, size: int, which: Which, stop: Callable[[], bool], started: contextlib.ExitStack
    ) -> None:
        self.folder, self.size, self.which, self.stop, self.started = folder, size, which, stop, started
        self.world: World | None = None
        self.batches = 0

    def ask(
        self,
        lm: LanguageModel,
        prompts: Sequence[Sequence[int]],
        room: TokenBudget,
        *,
        sampling: Sampling | None = None,
        on_batch: Callable[[dict[int, Answer]], None] | None = None,
    ) -> list[Answer]:
        """As `replies.ask`, in the same batches."""
        if self.world is None and len(prompts) < self.size:
            return replies.ask(lm, prompts, room, sampling=sampling, on_batch=on_batch)
        answers: dict[int, Answer] = {}
        for batch in generate.batches(lm, prompts, generate.limits_of(lm, prompts, room.tokens)):
            asked = _Questions(
                [list(prompts[number]) for number in batch],
                (room.answer, room.thinking),
                sampling.temperature if sampling else 0.0,
                [list(sampling.seeds[number]) for number in batch] if sampling else None,
            )
            done = dict(zip(batch, self._answer(lm, asked), strict=True))
            answers.update(done)
            if on_batch:
                on_batch(done)
        return [answers[number] for number in range(len(prompts))]

    def _answer(self, lm: LanguageModel, asked: _Questions) -> list[Answer]:
        """The answers of a batch, in its order."""
        if self.world is None:
            start = launch.processes(self.folder, self.size, self.stop, program=(MODULE, self.which))
            self.world = self.started.enter_context(start)
        self._call(asdict(asked))
        shares = self.world.exchange(_as_json(asked.share(0, self.size).answered_by(lm)))
        answers = [Answer(**shares[number % self.size][number // self.size]) for number in range(len(asked.prompts))]
        return answers

    def dismiss(self) -> None:
        """Nothing more is asked."""
        if self.world is not None:
            self._call(None)

    def _call(self, asked: Mapping[str, Any] | None) -> None:
        """Tell the others what is asked, for which they may have waited long."""
        assert self.world is not None
        self.world.wait_for_first(f"asked/{self.batches}")
        self.world.exchange(asked)
        self.batches += 1


def _as_json(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    return [asdict(answer) for answer in answers]


def main() -> None:
    """Another process than the first: answer what that one asks, until it asks no more."""
    sys.path.append(str(Path.cwd()))
    which, folder = sys.argv[1], Path(sys.argv[2])
    try:
        with launch.of_environment() as world, launch.noting_failure(world), stopping(lambda: None):
            current = Run(folder)
            context = Context(current, recipes.load(folder / "recipe.toml"))
            answer(world, load_base(context) if which == "base" else load_tuned(current))
    except UserError as error:
        print(f"luthier: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def answer(world: World, lm: LanguageModel) -> None:
    """Answer this process's share of each batch."""
    batches = 0
    while True:
        world.wait_for_first(f"asked/{batches}")
        asked = world.exchange(None)[0]
        if asked is None:
            return
        world.exchange(_as_json(_Questions(**asked).share(world.rank, world.size).answered_by(lm)))
        batches += 1


if __name__ == "__main__":
    main()
