"""What a user can put right: one exception family, one wording, one exit code each.

A `UserError` says where (file:line or recipe key), what was found, what is expected and what to do next. The terminal prints
it without a traceback. Any other exception is a defect of ours and keeps its traceback.
"""

import importlib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
    """Bad input: exit code 2. `where` is a place such as `tickets.jsonl:118` or a recipe key such as `train.epochs`."""

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
    """All errors as one, a line each, so that a user mends them in one go."""
    found = list(errors)
    return found[0] if len(found) == 1 else UserError("\n".join(str(user_error) for user_error in found))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be, or None."""
    close = get_close_matches(word.lower(), {name.lower(): name for name in known}, n=1, cutoff=0.6)
    return next((name for name in known if close and name.lower() == close[0]), None)


def unknown(what: str, word: str, known: Iterable[str], *, where: str | None = None) -> UserError:
    """The message for a word that is not in the list: `unknown metric "acuracy", did you mean "accuracy"? Known: …`."""
    names = list(known)
    guess = nearest(word, names)
    hint = f', did you mean "{guess}"?' if guess else "."
    return UserError(f'unknown {what} "{word}"{hint} Known: {", ".join(names)}.', where=where)


def choose(what: str, word: str, table: Mapping[str, T], *, where: str | None = None) -> T:
    """The entry of an extension table, or the UserError that names the nearest known word."""
    if word not in table:
        raise unknown(what, word, table, where=where)
    return table[word]


def entry(what: str, word: str, table: Mapping[str, T], *, where: str) -> T:
    """The entry of an extension table, or what a dotted name "package.module:function" finds outside our tree."""
    if ":" not in word:
        return choose(what, word, table, where=where)
    module, _, name = word.partition(":")
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise UserError(
            f'"{word}" cannot be imported: {error}. Expected package.module:function, with the folder that holds the '
            "package on PYTHONPATH.",
            where=where,
        ) from error


def optional(module: str, extra: str, *, where: str) -> ModuleType:
    """A package that only some settings need, or the UserError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"this needs the package {module}, which is not installed: pip install 'luthier[{extra}]'.", where=where
        ) from None
