"""Text of any kind goes through a stream of any kind."""

import errno
import io
import os
import signal
from pathlib import Path

import pytest

from luthier.cli.streams import Steady, spelt


def test_what_an_encoding_lacks_is_spelt_in_ascii() -> None:
    told = "95 % – 1.0 × 10 ≤ x … ┃ ━ é № \udcff"
    assert spelt(told, "ascii") == "95 % - 1.0 x 10 <= x ... | - e ? ?"
    assert spelt(told, "latin-1") == "95 % - 1.0 × 10 <= x ... | - é ? ?"
    assert spelt(told, "utf-8") == told.replace("\udcff", "?")


def test_after_an_error_a_stream_swallows_the_rest_and_remembers_why() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        stream = Steady(full)
        stream.write("a")
        stream.flush()
        assert stream.lost is not None and stream.lost.errno == errno.ENOSPC
        stream.writelines(["b", "c"])
        assert os.path.samefile(f"/proc/self/fd/{full.fileno()}", os.devnull)  # so that closing it cannot fail


def test_a_signal_may_write_while_a_write_waits(tmp_path: Path) -> None:
    """The pipe is full when the signal comes, and its reader reads only then."""
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as out, open(writer, "wb") as raw:
        stream = Steady(io.TextIOWrapper(raw, write_through=True))

        def tell(*_: object) -> None:
            stream.write("stopping")
            out.read(1 << 16)

        before = signal.signal(signal.SIGALRM, tell)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            stream.write("x" * (100_000))
        finally:
            signal.signal(signal.SIGALRM, before)
        assert stream.lost is None


def test_other_errors_are_not_hidden() -> None:
    closed = io.StringIO()
    closed.close()
    with pytest.raises(ValueError, match="closed file"):
        Steady(closed).write("a")
