"""What the tests of the data floor share: files written into an own folder."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

Write = Callable[[str, "str | bytes"], Path]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": lambda raw: pa.compress(raw, codec="zstd", asbytes=True),
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file (packed where its name says so) into a folder that is the working directory; returns its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(name: str, content: str | bytes) -> Path:
        raw = content.encode("utf-8") if isinstance(content, str) else content
        if pack := PACKERS.get(Path(name).suffix):
            raw = pack(raw)
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return path

    return write_file
