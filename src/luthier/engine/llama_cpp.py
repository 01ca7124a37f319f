"""llama.cpp behind one small class: what it makes of a GGUF file's text, template and weights.

It runs in a process of its own (`llama_process`), which ends with its user, whatever becomes of either.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luthier.engine import llama_library, llama_process
from luthier.errors import MachineError, UserError
from luthier.extensions import not_installed

SLOTS = 32  # answers at once: more are hardly faster
LOG_LINES = 400
ENDING = 5.0  # seconds for the process to end by itself


@dataclass(frozen=True)
class Completion:
    """An answer as llama.cpp gives it."""

    ids: list[int]
    finish: str
    """`stop` at an end token, which is the last of the ids; `length` at the limit."""


class Refused(UserError):
    """What llama.cpp does not take of a file, or of what it is asked."""


class Ended(MachineError):
    """llama.cpp's process is gone, as happens where a file surprises it."""


def is_installed() -> bool:
    """Whether the package that brings llama.cpp is there."""
    return importlib.util.find_spec("xllamacpp") is not None


def not_installed_error(where: str) -> UserError:
    """The message where llama.cpp is needed and not there."""
    return not_installed("xllamacpp", "gguf", where=where)


class LlamaCpp:
    """A GGUF file in llama.cpp, as a context manager; nothing starts before the first question.

    With `exact`, answers are computed without flash attention and with a cache in fp32, so that a file in fp32 answers as
    the model in transformers does; without, as llama.cpp does by itself.
    """

    def __init__(
        self,
        file: Path,
        *,
        adapter: Path | None = None,
        context: int = 2048,
        slots: int = SLOTS,
        exact: bool = True,
        vocab_only: bool = False,
        threads: int | None = None,
    ) -> None:
        if not is_installed():
            raise not_installed_error(str(file))
        self.file = file
        self._settings = {
            "file": str(file.absolute()), "adapter": str(adapter.absolute()) if adapter else None, "context": context,
            "slots": slots, "exact": exact, "vocab_only": vocab_only, "threads": threads or torch.get_num_threads(),
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> "LlamaCpp":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; a later question starts another."""
        if self._process is None:
            return
        self._pipe.close()
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._process = None

    def switch(self, file: Path) -> None:
        """Take another file in the same process, which saves its start; not once answers were asked for."""
        self.file = file
        self._settings["file"] = str(file.absolute())
        if self._process is not None:
            self._ask({"do": "switch", "settings": self._settings})

    @property
    def address(self) -> str:
        """Where llama.cpp's own server listens, on this machine only."""
        return str(self._ask({"do": "address"}))

    def tokenize(self, texts: Sequence[str], *, special: bool = False, add: bool = False) -> list[list[int]]:
        """Ids of texts. `special`: spelled control tokens are taken as such; `add`: with BOS where the file says so."""
        ids: list[list[int]] = self._ask({"do": "tokenize", "texts": list(texts), "special": special, "add": add})
        return ids

    def logits(self, ids: Sequence[int], *, begin: int = 0) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Logits after each token from number `begin` on, a row each; always computed exactly.

        What the text before has in common with this one's first `begin` tokens is not computed again.
        """
        data = self._ask({"do": "logits", "ids": [int(each) for each in ids], "begin": begin})
        return np.frombuffer(data, dtype=np.float32).reshape(len(ids) - begin, -1)

    def render(self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The prompt that the file's chat template makes of these messages in llama.cpp's own engine."""
        body = {"messages": list(messages), **({"tools": list(tools)} if tools else {})}
        return str(self._ask({"do": "render", "body": body}))

    def complete(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, drafts: Sequence[Sequence[int]] | None = None
    ) -> list[Completion]:
        """Greedy answers to prompts of ids, many at once, each with its end token.

        A draft is what an answer may be. All of it is read in one go, and counts as far as llama.cpp writes the same; from
        there on the answer is written token by token. So a wrong guess costs time, and changes no answer.
        """
        asked = {"prompts": prompts, "drafts": drafts or [()] * len(prompts)}
        rows = {name: [[int(token) for token in row] for row in ids] for name, ids in asked.items()}
        found = self._ask({"do": "complete", "limit": max_new_tokens, **rows})
        return [Completion(ids, finish) for ids, finish in found]

    def log(self) -> list[str]:
        """The last lines that llama.cpp has printed."""
        self._log.flush()
        with open(self._log.name, "rb") as file:
            return file.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:]

    def _ask(self, request: dict[str, Any]) -> Any:
        with self._lock:
            if self._process is None:
                self._start()
            try:
                self._pipe.send(request)
                kind, answer = self._pipe.recv()
            except (EOFError, OSError):
                code = self._process.wait() if self._process else 0
                raise Ended(
                    f"llama.cpp ended by itself (exit code {code}){self._reason()}.", where=str(self.file)
                ) from None
        if kind == "refused":
            raise Refused(f"llama.cpp refuses: {answer}{self._reason()}.", where=str(self.file))
        return answer

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._log = tempfile.NamedTemporaryFile(prefix="luthier-llama-", suffix=".log")  # noqa: SIM115 - closed by close
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-P", llama_process.__file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            env={**os.environ, "LLAMA_LOG_COLORS": "off", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )  # fmt: skip
        theirs.close()
        self._pipe = Connection(ours.detach())
        self._pipe.send(self._settings)

    def _reason(self) -> str:
        """What the log says of the failure, in brackets; else nothing."""
        words = ("error", "failed", "abort", "GGML_ASSERT", "unknown pre")
        lines = [line.strip() for line in self.log() if any(word in line for word in words)]
        return f" ({lines[0].rstrip('.')})" if lines else ""


def quantise(rows: "np.ndarray[Any, np.dtype[np.float32]]", kind: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Rows of numbers in one of llama.cpp's formats (a `ggml_type`), by its own quantiser."""
    if not is_installed():
        raise not_installed_error("--type")
    library = llama_library.load_library()
    rows = np.ascontiguousarray(rows, dtype=np.float32).reshape(-1, rows.shape[-1])
    row_bytes = int(library.ggml_row_size(kind, rows.shape[1]))
    data = np.empty(row_bytes * len(rows), dtype=np.uint8)
    library.ggml_quantize_chunk(kind, rows.ctypes.data, data.ctypes.data, 0, len(rows), rows.shape[1], None)
    return data
