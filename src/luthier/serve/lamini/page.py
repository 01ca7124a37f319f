"""The page of a job, to which Lamini's clients print a link: how far it is, what happened, and what came of it.

A browser asks for the key: any name, and the key as password. The page loads nothing and runs nothing.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from luthier.serve.openai.shapes import key_of
from luthier.serve.service import service_of

router = APIRouter(tags=["lamini"], default_response_class=HTMLResponse)

CSP = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
EVENTS = 50
REFRESH = 5  # seconds
_PAGE = Environment(
    loader=PackageLoader("luthier.serve.lamini"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
).get_template("job.html.jinja")  # fmt: skip


@router.get("/tune/{number}")
@router.get("/train/{number}", include_in_schema=False)
def job(request: Request, number: Annotated[int, Path(ge=1, le=1 << 53)]) -> HTMLResponse:
    """The job as a page for people; made anew every few seconds as long as it runs."""
    store = service_of(request).jobs.store
    row = store.jobs.get_by_number(key_of(request), number)
    events = store.events.newest(row.id, after=None, limit=EVENTS).rows
    text = _PAGE.render(job=row, events=events, refresh=None if row.is_finished else REFRESH)
    return HTMLResponse(text, headers={"content-security-policy": CSP})
