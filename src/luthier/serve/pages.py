"""Pages for people: what runs and what there is, a job, its report. A browser sends the key as the password it asks for."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from luthier.jobs.rows import JobRow
from luthier.serve.errors import not_found
from luthier.serve.openai.shapes import JOB_ID, JobId, key_of, known_id
from luthier.serve.service import service_of

router = APIRouter(include_in_schema=False)

SHOWN_JOBS = SHOWN_EVENTS = 50
REPORT_CSP = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
"""A report holds what users and models wrote: it may look like something, and do nothing."""


@dataclass(frozen=True)
class ListedJob:
    row: JobRow
    has_report: bool


@router.get("/", response_class=HTMLResponse)
def start(request: Request) -> HTMLResponse:
    """The key's jobs, the newest first, and what it may ask."""
    service, key = service_of(request), key_of(request)
    rows = service.jobs.store.jobs.list(key, limit=SHOWN_JOBS).rows
    return _page(
        "start.html.jinja",
        url=str(request.base_url).rstrip("/"),
        jobs=[ListedJob(row, service.jobs.report(key, row.id) is not None) for row in rows],
        active=any(not row.is_finished for row in rows),
        models=service.catalogue.all(key),
    )


@router.get("/tune/{number}", response_class=HTMLResponse)
@router.get("/train/{number}", response_class=HTMLResponse)
def job(request: Request, number: Annotated[int, Path(ge=1, le=1 << 53)]) -> HTMLResponse:
    """How far a job is, what happened, and what came of it; Lamini's clients print links to it."""
    jobs, key = service_of(request).jobs, key_of(request)
    row = jobs.store.jobs.get_by_number(key, number)
    return _page(
        "job.html.jinja",
        job=row,
        has_report=jobs.report(key, row.id) is not None,
        active=not row.is_finished,
        events=jobs.store.events.newest(row.id, after=None, limit=SHOWN_EVENTS).rows,
    )


@router.get("/jobs/{job_id}/report", response_class=HTMLResponse)
def report(request: Request, job_id: JobId) -> HTMLResponse:
    """The page of the job's run, as `luthier report` writes it."""
    job = known_id(JOB_ID, job_id, "fine-tuning job", "fine_tuning_job_id")
    page = service_of(request).jobs.report(key_of(request), job)
    if page is None:
        raise not_found("report of", job)
    return HTMLResponse(page.read_text(encoding="utf-8"), headers={"content-security-policy": REPORT_CSP})


def _page(template: str, **values: object) -> HTMLResponse:
    """A page with our style and nothing else that could act."""
    environment, style = _environment()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    csp = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    text = environment.get_template(template).render(style=Markup(style), **values)  # the style is ours
    return HTMLResponse(text, headers={"content-security-policy": csp})


@cache
def _environment() -> tuple[Environment, str]:
    loader = PackageLoader("luthier.serve")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment, loader.get_source(environment, "pages.css")[0]
