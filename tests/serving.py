"""A server in a process of its own, for tests of whoever asks it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

KEY = "sk-test-of-the-service"


@dataclass(frozen=True)
class Running:
    """A server that answers: where, and what it has said."""

    url: str
    home: Path
    out: Path
    log: Path
    process: "subprocess.Popen[bytes]"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, *, strict: bool = True) -> OpenAI:
        """OpenAI's client as its users have it; `strict`: it refuses answers that are not of its types."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, _strict_response_validation=strict)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A request by hand."""
        headers = {"authorization": f"Bearer {KEY}", **more.pop("headers", {})}
        return httpx.request(method, f"{self.url}{path}", headers=headers, timeout=60, **more)


def start(home: Path, folder: Path, model: Path, *, key: str | None = KEY, names: Sequence[str] = ("tiny",)) -> Running:
    """Start `luthier serve` on a free port, with the model under these names, and wait until it takes requests."""
    words = ["serve", "--home", home, "--port", 0, *(word for name in names for word in ("--model", f"{name}={model}"))]
    out, log = folder / "out", folder / "log"
    environment = {**os.environ, **({"LUTHIER_API_KEY": key} if key else {})}
    with open(out, "wb") as to_out, open(log, "wb") as to_log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from luthier.cli.main import main; main()", *map(str, words)],
            stdin=subprocess.DEVNULL, stdout=to_out, stderr=to_log, env=environment,
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if "Serving http" in (said := out.read_text()):
            return Running(said.split("Serving ")[1].split("/v1")[0], home, out, log, process)
        time.sleep(0.05)
    process.kill()
    raise AssertionError(log.read_text())


def stop(server: Running) -> int:
    """End it as a user does; its exit code."""
    server.process.send_signal(signal.SIGTERM)
    return server.process.wait(60)
