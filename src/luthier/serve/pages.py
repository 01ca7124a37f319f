"""Pages for people: what runs and what there is, and a job's report. A browser sends the key as the password it asks for."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from luthier.jobs.rows import JobRow
from luthier.serve.errors import not_found
from luthier.serve.openai.shapes import JOB_ID, JobId, key_of, known_id
from luthier.serve.service import service_of

router = APIRouter(include_in_schema=False)

SHOWN_JOBS = 50
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
    environment, style = _environment()
    page = environment.get_template("start.html.jinja").render(
        url=str(request.base_url).rstrip("/"),
        style=Markup(style),  # ours
        jobs=[ListedJob(row, service.jobs.report(key, row.id) is not None) for row in rows],
        active=any(not row.is_finished for row in rows),
        models=service.catalogue.all(key),
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    csp = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(page, headers={"content-security-policy": csp})


@router.get("/jobs/{job_id}/report", response_class=HTMLResponse)
def report(request: Request, job_id: JobId) -> HTMLResponse:
    """The page of the job's run, as `luthier report` writes it."""
    job = known_id(JOB_ID, job_id, "fine-tuning job", "fine_tuning_job_id")
    page = service_of(request).jobs.report(key_of(request), job)
    if page is None:
        raise not_found("report of", job)
    return HTMLResponse(page.read_text(encoding="utf-8"), headers={"content-security-policy": REPORT_CSP})


@cache
def _environment() -> tuple[Environment, str]:
    loader = PackageLoader("luthier.serve")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment, loader.get_source(environment, "start.css")[0]
