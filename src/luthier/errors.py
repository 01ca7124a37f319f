"""What a user can put right: one exception family, one wording, one exit code each.

A `UserError` says where (file:line or recipe key), what was found, what is expected and what to do next. The terminal prints
it without a traceback. Any other exception is a defect of ours and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Bad input: exit code 2. `where` is a location such as `tickets.jsonl:118`, or a recipe key such as `train.epochs`."""

    exit_code = 2

    def __init__(self, message: str, *, where: str | None = None) -> None:
        self.where = where
        self.message = message
        super().__init__(f"{where}: {message}" if where else message)


class Interrupted(UserError):
    """The run stopped on request and can be continued: exit code 3."""

    exit_code = 3


class NonFiniteLoss(UserError):
    """Training came to a loss or gradient that is no number: exit code 2, and the run has failed."""


class StoppedAtOnce(UserError):
    """Asked twice to stop, so no step was finished; what was saved before is whole: exit code 130."""

    exit_code = 130


class MachineError(UserError):
    """The machine refuses (disk, memory, lock, network): exit code 4."""

    exit_code = 4


class FolderGone(MachineError):
    """The folder that is worked in was taken away, or another stands in its place: nothing more is written there."""


class CorruptedState(UserError):
    """Something that Luthier wrote is no longer what it wrote: exit code 5."""

    exit_code = 5


def together(errors: Iterable[UserError]) -> UserError:
    """All errors as one, a line each, so that a user can correct them in one go."""
    found = list(errors)
    return found[0] if len(found) == 1 else UserError("\n".join(str(user_error) for user_error in found))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be, or None."""
    names = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else None


def unknown(what: str, word: str, known: Iterable[str], *, where: str | None = None) -> UserError:
    """The message for a word that is not in the list: `unknown metric "acuracy", did you mean "accuracy"? Known: …`."""
    names = list(dict.fromkeys(known))
    guess = nearest(word, names)
    hint = f', did you mean "{guess}"?' if guess else "."
    return UserError(f'unknown {what} "{word}"{hint} Known: {", ".join(names)}.', where=where)
