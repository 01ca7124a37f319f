"""A point's run as it is given to whoever does it; and who does them one after the other: this process."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from luthier.errors import Interrupted, UserError
from luthier.pipeline import proof
from luthier.recipe import Recipe

Listener = Callable[[dict[str, Any]], None]
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Work:
    """One point: what is asked of its run, and the folder that holds all that becomes of it."""

    name: str
    number: int
    """From 1."""
    of: int
    folder: Path
    recipe: Recipe
    baselines: Path | None
    """The point whose answers of prompts are taken over, once it is complete."""
    command: str

    def do(self, listen: Listener | None = None, stop: Stop | None = None) -> None:
        """Do the run, or what is left of it."""
        try:
            proof.run(
                self.recipe, self.folder, listen=listen, command=self.command, baselines=self.baselines, stop=stop
            )
        except Interrupted:
            raise
        except UserError as error:
            raise type(error)(f"point {self.name}: {error}") from None

    def event(self, kind: str = "point") -> dict[str, Any]:
        """The event that says where the sweep is."""
        return {"kind": kind, "number": self.number, "of": self.of, "name": self.name, "folder": str(self.folder)}


class Executor(Protocol):
    """Who runs the points of a sweep."""

    option: str
    """What the command line says for it, with a space before it."""

    def do(self, works: Sequence[Work], *, listen: Listener | None, stop: Stop | None) -> Generator[Work, None, None]:
        """Do them, and give each one that is complete; `stop` as in `pipeline.run`."""
        ...


class Here:
    """This process: one point after the other, in their order."""

    option = ""

    def do(self, works: Sequence[Work], *, listen: Listener | None, stop: Stop | None) -> Generator[Work, None, None]:
        for work in works:
            if listen:
                listen(work.event())
            work.do(listen, stop)
            yield work
