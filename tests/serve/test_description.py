"""What the API says of itself, and that nothing that can be made of that description breaks the server."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luthier.serve.app import make_api
from serving import KEY, Running

ROUTES = {
    "/health": {"get"},
    "/metrics": {"get"},
    "/v1/files": {"get", "post"},
    "/v1/files/{file_id}": {"get", "delete"},
    "/v1/files/{file_id}/content": {"get"},
    "/v1/fine_tuning/jobs": {"get", "post"},
    "/v1/fine_tuning/jobs/{job_id}": {"get"},
    "/v1/fine_tuning/jobs/{job_id}/cancel": {"post"},
    "/v1/fine_tuning/jobs/{job_id}/pause": {"post"},
    "/v1/fine_tuning/jobs/{job_id}/resume": {"post"},
    "/v1/fine_tuning/jobs/{job_id}/events": {"get"},
    "/v1/fine_tuning/jobs/{job_id}/checkpoints": {"get"},
    "/v1/models": {"get"},
    "/v1/models/{model}": {"get", "delete"},
    "/v1/chat/completions": {"post"},
    "/v1/completions": {"post"},
    "/v1/embeddings": {"post"},
    "/tokenize": {"post"},
    "/detokenize": {"post"},
    "/tokenizer_info": {"get"},
}


def test_the_description_has_the_routes_that_clients_know() -> None:
    paths: dict[str, Any] = make_api(None).openapi()["paths"]
    assert {path: set(methods) for path, methods in paths.items() if path in ROUTES} == ROUTES


@pytest.mark.slow
def test_nothing_that_the_description_allows_breaks_the_server(server: Running, tmp_path: Path) -> None:
    """schemathesis makes requests of the description, right ones and wrong ones."""
    words = [
        "run", f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {KEY}", "--checks",
        "not_a_server_error", "--max-examples", "12", "--seed", "1", "--phases", "examples,coverage,fuzzing",
        "--suppress-health-check", "all", "--workers", "1",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", *words],
        capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert server.ask("GET", "/v1/models").status_code == 200
