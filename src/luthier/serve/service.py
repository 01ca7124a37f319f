"""What the routes share: the jobs, the models by name, the engines, the figures."""

from dataclasses import dataclass

from fastapi import Request

from luthier.jobs.service import Jobs
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


def service_of(request: Request) -> Service:
    """The service that the request came to."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
