"""The service as its clients meet it: a real server in a process of its own, and its app alone, without a socket."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from luthier.jobs.service import Jobs
from luthier.serve.app import Door, make_app
from luthier.serve.catalogue import Catalogue
from luthier.serve.engines import Engines
from luthier.serve.metrics import Metrics
from luthier.serve.service import Service
from serving import KEY, Running


@pytest.fixture(scope="session")
def strict(server: Running) -> OpenAI:
    return server.client()


@pytest.fixture(scope="session")
def service(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The parts of a server whose jobs nobody works on."""
    jobs = Jobs(tmp_path_factory.mktemp("home"))
    jobs.store.keys.add("test", KEY)
    catalogue, engines = Catalogue(jobs.store.home, {"tiny": str(tiny_model)}, jobs.store), Engines()
    yield Service(jobs, catalogue, engines, Metrics(engines.figures))
    engines.close()
    jobs.store.close()


@pytest.fixture(scope="session")
def app(service: Service) -> Any:
    """The app with all of its guards."""
    return make_app(service, Door())


def ask_app(app: Any, method: str, path: str, **more: Any) -> httpx.Response:
    """A request to an app, without a socket; with the key and the right host unless others are given."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {KEY}", **more.pop("headers", {})}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers={k: v for k, v in headers.items() if v}, **more)

    return asyncio.run(asked())
