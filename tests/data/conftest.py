"""What the tests of the data floor share: files written into an own folder."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

Write = Callable[[str, "str | bytes"], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file (packed where its name says so) into a folder that is the working directory; returns its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(name: str, content: str | bytes) -> Path:
        raw = content.encode("utf-8") if isinstance(content, str) else content
        if name.endswith(".gz"):
            raw = gzip.compress(raw)
        elif name.endswith(".zst"):
            raw = pa.compress(raw, codec="zstd", asbytes=True)
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return path

    return write_file
