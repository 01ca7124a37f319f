"""What the routes share: the jobs, the models by name, the engines, the figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi import Request

from luthier.jobs.service import Jobs
from luthier.serve.backends.backend import Backend
from luthier.serve.catalogue import Catalogue
from luthier.serve.engines import Engines
from luthier.serve.metrics import Metrics


@dataclass(frozen=True)
class Service:
    """One server's parts."""

    jobs: Jobs
    catalogue: Catalogue
    engines: Engines
    metrics: Metrics
    backends: Mapping[str, Backend] = field(default_factory=dict)
    """Models that answer at other servers, by name."""


def service_of(request: Request) -> Service:
    """The service that the request came to."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
