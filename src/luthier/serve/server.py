"""One server on one address: a home that nobody else serves, a key, a port, and an end that is asked for by a signal."""

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from starlette.types import ASGIApp

from luthier.errors import MachineError, UserError

HEADER_SECONDS = 10
"""Until a request's headers must be there, and until another request must come on a connection that stays open."""
HEADER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @classmethod
    def free(cls, host: str, port: int) -> "Address":
        """The address, with a port of the system's choice for port 0; raises where nothing can listen there."""
        try:
            (family, kind, _, _, bound_to), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            raise UserError(f'"{host}" is no address of this machine; use 127.0.0.1.', where="--host") from None
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(bound_to)
                probe.listen(1)
            except PermissionError:
                message = f"this user may not listen on port {port}; take one from 1024 on."
                raise MachineError(message, where="--port") from None
            except OSError as error:
                message = f"cannot listen on {host} ({error.strerror or error}); another program may have the port."
                raise MachineError(f"{message} Take another one, or 0 for any.", where=f"--port {port}") from None
            return cls(str(bound_to[0]), probe.getsockname()[1])


def run(app: ASGIApp, address: Address, *, on_ready: Callable[[], object], on_stop: Callable[[], object]) -> None:
    """Serve until SIGINT or SIGTERM. `on_ready` is called when requests are taken, `on_stop` before the last ones are cut."""
    asyncio.run(_run(app, address, on_ready, on_stop))


async def _run(app: ASGIApp, address: Address, on_ready: Callable[[], object], on_stop: Callable[[], object]) -> None:
    server = Server(
        app, address=address.host, port=address.port, interface=Interfaces.ASGINL, http=HTTPModes.http1,
        websockets=False, log_enabled=False, backlog=1024,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1000, max_buffer_size=HEADER_BYTES),
    )  # fmt: skip
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    serving = loop.create_task(server.serve())
    ended = loop.create_task(asked.wait())
    await _listening(address, serving)
    on_ready()
    await asyncio.wait([serving, ended], return_when=asyncio.FIRST_COMPLETED)
    if not asked.is_set():
        ended.cancel()
        serving.result()
        raise MachineError("the server ended by itself.", where=address.url)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _at_once)
    await asyncio.to_thread(on_stop)
    server.stop()  # type: ignore[no-untyped-call]
    await serving


async def _listening(address: Address, serving: "asyncio.Task[None]") -> None:
    """Returns when a connection is taken."""
    while not serving.done():
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(address.host, address.port)
            writer.close()
            return
        await asyncio.sleep(0.01)


def _at_once() -> None:
    raise KeyboardInterrupt
