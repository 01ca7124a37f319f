"""Figures for Prometheus: requests, tokens, what the engines and the jobs are doing. No label holds what a user wrote."""

from collections.abc import Callable, Iterable, Mapping

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Gauges = Callable[[], Mapping[str, float]]
"""Figures of this moment, by names that end in what they count."""

router = APIRouter(tags=["service"])


class Metrics:
    """The figures of one server. `gauges` are asked when somebody reads."""

    def __init__(self, gauges: Gauges) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("luthier_requests", "Requests answered", labels, registry=self.registry)
        self._seconds = Histogram(
            "luthier_request_seconds",
            "Time until a request was answered, streams to their end",
            ("route",),
            buckets=(0.005, 0.02, 0.1, 0.5, 1, 2, 5, 15, 60, 300),
            registry=self.registry,
        )
        self._tokens = Counter("luthier_tokens", "Tokens of prompts and of answers", ("kind",), registry=self.registry)
        self.registry.register(_Moment(gauges))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer; status 0 is one that was cut off before it began."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def generated(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count the tokens of an answer."""
        self._tokens.labels("prompt").inc(prompt_tokens)
        self._tokens.labels("completion").inc(completion_tokens)


class _Moment(Collector):
    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"luthier_{name}", name.replace("_", " "), value=value)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Figures in Prometheus' form; needs a key, like all but /health."""
    return Response(generate_latest(request.app.state.service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
