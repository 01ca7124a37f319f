"""The app: routes from a table, and around all of them the guards."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import ASGIApp

from luthier.jobs.errors import Conflict, InUse, InvalidRequest, NotFound, QuotaExceeded, RequestError
from luthier.serve import decisions, errors, health, metrics, pages, tokens
from luthier.serve.errors import APIError
from luthier.serve.guards.bodies import BodyGuard, BodyLimits
from luthier.serve.guards.hosts import HostGuard
from luthier.serve.guards.keys import KeyGuard
from luthier.serve.guards.observation import Observation
from luthier.serve.lamini import classifiers, data, dialect, inference, training
from luthier.serve.lamini import models as lamini_models
from luthier.serve.openai import chat, completions, embeddings, files, fine_tuning, models
from luthier.serve.service import Service

ROUTERS: list[APIRouter] = [
    health.router,
    metrics.router,
    files.router,
    fine_tuning.router,
    models.router,
    chat.router,
    completions.router,
    embeddings.router,
    tokens.router,
    decisions.router,
    pages.router,
    inference.router,
    data.router,
    training.router,
    lamini_models.router,
    classifiers.router,
]
"""All routes, by what they are about."""
UPLOADS = frozenset({"/v1/files"})
"""Paths whose bodies are forms with a file."""
STATUSES: dict[type[RequestError], int] = {
    InvalidRequest: 400,
    NotFound: 404,
    Conflict: 400,
    InUse: 409,
    QuotaExceeded: 429,
}
"""How HTTP calls what jobs refuse; the state of a job is a 400 in OpenAI's API, and clients send a 409 again."""


@dataclass(frozen=True)
class Door:
    """Who is let in: names of this server in `Host`, and how much a body may hold."""

    names: Collection[str] = ("localhost", "127.0.0.1", "::1")
    any_address: bool = False
    limits: BodyLimits = field(default_factory=lambda: BodyLimits(uploads=UPLOADS))


def make_app(service: Service, door: Door) -> ASGIApp:
    """The whole server as one ASGI app; guards stand before every route."""
    app: ASGIApp = dialect.Dispatch(make_api(service))
    app = BodyGuard(app, door.limits)
    app = KeyGuard(app, service.jobs.store.keys.verify)
    app = dialect.Errors(HostGuard(app, door.names, door.any_address))
    return Observation(app, service.metrics.answered)


def make_api(service: Service | None, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """The routes alone, with their description; without a service they can be described but not asked."""
    api = FastAPI(
        title="Luthier", version=version("luthier"), docs_url=None, redoc_url=None, openapi_url="/openapi.json",
        redirect_slashes=False,
        form_limits={"max_files": 1, "max_fields": 16},
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )  # fmt: skip
    api.state.service = service
    errors.install(api)

    @api.exception_handler(RequestError)
    async def _of_jobs(request: Request, error: RequestError) -> Response:
        status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 400)
        return APIError(status, error.message, error.param, error.code, errors.NEVER_AGAIN).response

    @api.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        return errors.unexpected(error, request.state.request_id).response

    for router in routers or ROUTERS:
        api.include_router(router)
    return api
