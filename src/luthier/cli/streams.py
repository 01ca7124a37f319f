"""The three streams of a command, held steady: neither an encoding nor a reader that has gone can end what it is doing.

A character that a stream cannot show is spelt in ASCII, or stands as a question mark. A stream that cannot be written to any
more swallows the rest. A closed one is empty, and does not lend its number to a file that is opened later.
"""

import codecs
import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from io import TextIOWrapper, UnsupportedOperation
from typing import Any, TextIO
from unicodedata import normalize

from luthier.errors import MachineError
from luthier.runs.durable import REASONS

SPELT = {
    "–": "-", "—": "-", "−": "-", "\u2011": "-", "…": "...", "·": "*", "•": "*", "×": "x", "÷": "/", "±": "+/-", "→": "->",
    "←": "<-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "“": '"', "”": '"', "„": '"', "\u2018": "'", "\u2019": "'",
    "\u00a0": " ", "\u202f": " ", "β": "beta", "√": "sqrt", "Δ": "delta",
} | dict.fromkeys("─━╌╍┄┅═╴╶╸╺", "-") | dict.fromkeys("│┃║╎╏", "|")  # fmt: skip
"""Characters of ours, and of frames and bars, in ASCII."""
GONE = (errno.EPIPE, errno.EIO)  # who read the output has left: a closed pipe, a terminal that hung up


class Steady:
    """A text stream that takes every text; `lost` is the error after which nothing is written any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        with self._kept():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(spelt(text, self._stream.encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._kept():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """What is written from an error on goes nowhere, also what Python still holds and writes when it ends."""
        if self.lost:
            return (yield)
        try:
            yield
        except RuntimeError as error:  # a signal came while something was written, and what tells of it is not
            if "reentrant call" not in str(error):
                raise
        except OSError as error:
            self.lost = error
            with contextlib.suppress(OSError):  # not every stream has a descriptor
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Inside, the standard streams are steady."""
    _open_closed()
    streams = sys.stdin, sys.stdout, sys.stderr
    if isinstance(sys.stdin, TextIOWrapper):
        with contextlib.suppress(UnsupportedOperation):  # it was read already, by a program that calls this one
            sys.stdin.reconfigure(errors="replace")
    sys.stdout, sys.stderr = Steady(sys.stdout), Steady(sys.stderr)
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams


def expect_written() -> None:
    """Raises MachineError where stdout did not take everything, unless its reader has left."""
    sys.stdout.flush()
    lost = getattr(sys.stdout, "lost", None)
    if lost and lost.errno not in GONE:
        reason = REASONS.get(lost.errno, lost.strerror)
        raise MachineError(f"cannot write: {reason}. The output is incomplete.", where="stdout")


def is_read() -> bool:
    """Whether there may still be someone who reads stdout."""
    return getattr(sys.stdout, "lost", None) is None


def spelt(text: str, encoding: str) -> str:
    """The text with what the encoding lacks spelt in ASCII."""
    return text.encode(encoding, errors="luthier.spelt").decode(encoding)


def _spell(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_in_ascii, error.object[error.start : error.end])), error.end


def _in_ascii(one: str) -> str:
    """A character as we spell it, or without its accents, or a question mark."""
    return SPELT.get(one) or "".join(part for part in normalize("NFD", one) if part.isascii()) or "?"


codecs.register_error("luthier.spelt", _spell)


def _open_closed() -> None:
    """Put an empty stream where there is none, so that the next file that is opened does not become one."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
