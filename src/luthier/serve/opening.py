"""From the words of `luthier serve` to a server: home, key, models, guards; and everything closed again at the end."""

import contextlib
import gc
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from luthier.errors import UserError
from luthier.jobs.limits import Limits
from luthier.jobs.service import Jobs
from luthier.jobs.store import Store
from luthier.serve import server
from luthier.serve.app import Door, make_app
from luthier.serve.backends.backend import Backend
from luthier.serve.catalogue import Catalogue
from luthier.serve.engines import Engines
from luthier.serve.metrics import Metrics
from luthier.serve.server import Address
from luthier.serve.service import Service

SHORTEST_KEY = 8
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Opening:
    """How a server is opened. `key` is one that the user chose; `models` are names, and what they stand for."""

    home: Path
    host: str
    port: int
    models: dict[str, str]
    key: str | None = None
    names: Sequence[str] = ()
    """Names of this machine under which it may be asked, besides its addresses."""
    backends: Sequence[Backend] = ()
    """Models that answer at other servers."""
    limits: Limits = field(default_factory=Limits)
    keep_days: float | None = None
    """Runs without a model are removed so long after their end; None: never."""


def serve(opening: Opening, say: Callable[[str], object]) -> None:
    """Serve until a signal ends it; `say` hears the address, and a new key this one time."""
    _check_key(opening)
    address = Address.free(opening.host, opening.port)
    with (
        Jobs(opening.home, limits=opening.limits, keep_days=opening.keep_days) as jobs,
        contextlib.closing(Engines()) as engines,
    ):
        fresh = _prepare_key(jobs.store, opening.key)
        backends = {backend.address.name: backend for backend in opening.backends}
        catalogue = Catalogue(jobs.store.home, opening.models, jobs.store, elsewhere=backends)
        bases = list(catalogue.bases())  # what is not there is said now
        for known in bases[:1]:
            engines.prepare(known)

        def figures() -> dict[str, float]:
            turns = [backend.turns for backend in opening.backends]
            asked = {"backends": len(turns), "backend_requests": sum(each.in_use for each in turns)}
            return {**engines.figures(), **asked, "backend_requests_waiting": sum(each.queued for each in turns)}

        service = Service(jobs, catalogue, engines, Metrics(figures), backends)

        names = [*(known.name for known in bases), *backends]

        def ready() -> None:
            if fresh is not None:
                say(f"Key     {fresh}   (shown this once; OPENAI_API_KEY takes it)")
            say(f"Serving {address.url}/v1   (models: {', '.join(names)})")

        def stop() -> None:
            engines.close()
            for backend in opening.backends:
                backend.close()

        server.run(make_app(service, _door(address, opening.names)), address, on_ready=ready, on_stop=stop)
    gc.freeze()  # the process ends: a last search for garbage through all of torch would take seconds


def _check_key(opening: Opening) -> None:
    """Refuses a key that is none, and an address that others can reach where nobody knows a key yet."""
    chosen = opening.key
    if chosen is not None and (
        len(chosen) < SHORTEST_KEY or not chosen.isascii() or not chosen.isprintable() or " " in chosen
    ):
        message = f"expected at least {SHORTEST_KEY} visible ASCII characters and no blanks; or leave it out."
        raise UserError(message, where="LUTHIER_API_KEY")
    if chosen is None and not Address(opening.host, 0).is_loopback and not opening.home.is_dir():
        raise UserError(
            f"others can reach {opening.host}, so the server needs a key that you know: set LUTHIER_API_KEY, or start it "
            "once on 127.0.0.1, which makes one.",
            where="--host",
        )


def _prepare_key(store: Store, chosen: str | None) -> str | None:
    """See that a key is known; gives the one that was made just now."""
    if chosen is not None:
        store.keys.add("LUTHIER_API_KEY", chosen)
        return None
    return None if store.keys.count() else store.keys.create("first start")[1]


def _door(address: Address, names: Sequence[str]) -> Door:
    """What a server on this address may be called; addresses in numbers cannot be pointed at it by a foreign name."""
    if address.is_loopback:
        return Door(names=[*LOOPBACK, *names])
    own = (socket.gethostname(), socket.getfqdn())
    return Door(names=[name.lower() for name in (*LOOPBACK, *own, *names)], any_address=True)
