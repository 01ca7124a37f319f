"""How a server starts and ends: keys, addresses, homes; and connections on which nothing happens."""

import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from luthier.errors import MachineError, UserError
from luthier.serve import opening
from luthier.serve.catalogue import parse_named
from luthier.serve.opening import Opening
from luthier.serve.server import HEADER_SECONDS, Address
from serving import Running, start, stop


def test_a_second_server_in_the_same_home_is_refused(server: Running) -> None:
    with pytest.raises(MachineError, match=r"home is in use by process \d+"):
        opening.serve(Opening(server.home, "127.0.0.1", 0, {}, key="sk-something"), print)


def test_a_port_that_is_taken_is_named(server: Running) -> None:
    with pytest.raises(MachineError, match=r"--port \d+: cannot listen on 127\.0\.0\.1 \(Address already in use\)"):
        Address.free("127.0.0.1", server.port)
    with pytest.raises(UserError, match="is no address of this machine"):
        Address.free("no.such.host.invalid", 0)


def test_an_address_that_others_can_reach_needs_a_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the server needs a key that you know: set LUTHIER_API_KEY"):
        opening.serve(Opening(tmp_path / "home", "0.0.0.0", 0, {}), print)


@pytest.mark.parametrize("key", ["", "short", "with blank in it", "ключ-из-букв"])
def test_a_key_that_is_none_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match="LUTHIER_API_KEY: expected at least 8 visible ASCII characters"):
        opening.serve(Opening(tmp_path / "home", "127.0.0.1", 0, {}, key=key), print)


def test_models_get_names_that_can_stand_in_a_request(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    words = ["smollm2-135m", str(tmp_path / "my-model"), "gpt-4.1-mini=smollm2-135m"]
    assert parse_named(words) == {
        "smollm2-135m": "smollm2-135m",
        "my-model": str(tmp_path / "my-model"),
        "gpt-4.1-mini": "smollm2-135m",
    }
    with pytest.raises(UserError, match="two models are called a"):
        parse_named(["a=x", "a=y"])
    with pytest.raises(UserError, match="is no name for a model"):
        parse_named(["a b=x"])


@pytest.mark.slow
def test_a_key_is_made_once_and_a_signal_ends_the_server(tiny_model: Path, tmp_path: Path) -> None:
    first = start(tmp_path / "home", tmp_path, tiny_model, key=None)
    key = first.out.read_text().split()[1]
    headers = {"authorization": f"Bearer {key}"}
    assert httpx.get(f"{first.url}/v1/models", headers=headers).status_code == 200
    assert key not in (tmp_path / "log").read_text()
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert stop(first) == 0
    second = start(tmp_path / "home", tmp_path, tiny_model, key=None)
    assert "Key" not in second.out.read_text()
    assert httpx.get(f"{second.url}/v1/models", headers=headers).status_code == 200
    assert stop(second) == 0


@pytest.mark.slow
def test_connections_on_which_nothing_happens_are_closed(server: Running) -> None:
    """Headers that drip or never come, and a connection that was used once; others are answered meanwhile."""
    begun = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    seconds: list[float] = []

    def wait(sent: bytes, drip: bytes) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=3 * HEADER_SECONDS) as connection:
            connection.sendall(sent)
            start = time.monotonic()
            connection.settimeout(1)
            while time.monotonic() - start < 3 * HEADER_SECONDS:
                try:
                    if not connection.recv(4096):
                        break
                except TimeoutError:
                    if drip:
                        connection.sendall(drip)
                except ConnectionError:
                    break
            seconds.append(time.monotonic() - start)

    kinds = [(b"", b""), (begun, b""), (begun, b"X: 1\r\n"), (begun + b"\r\n", b"")] * 25
    threads = [threading.Thread(target=wait, args=each) for each in kinds]
    for thread in threads:
        thread.start()
    assert httpx.get(f"{server.url}/health", timeout=5).status_code == 200
    for thread in threads:
        thread.join()
    assert len(seconds) == len(kinds) and max(seconds) < 2 * HEADER_SECONDS
