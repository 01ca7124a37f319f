"""Rows that a client uploads before it trains on them: kept as a file of the key."""

import hashlib
import json
import uuid
from collections.abc import Sequence

from fastapi import APIRouter, Request

from luthier.jobs.rows import FileRow
from luthier.runs import durable
from luthier.serve.errors import bad_request, not_found
from luthier.serve.lamini.shapes import DataRequest, ExistingDataRequest, Row
from luthier.serve.openai.shapes import FILE_ID, key_of
from luthier.serve.service import service_of

router = APIRouter(tags=["lamini"])

LOCAL = "local"
"""Where data goes: to this server, and to no store of others."""
PREFIX = f"{LOCAL}:"


@router.get("/v1/get-upload-base-path")
def upload_base_path() -> dict[str, str]:
    return {"upload_base_path": LOCAL}


@router.post("/v1/local-data")
def upload(request: Request, asked: DataRequest) -> dict[str, str]:
    """Keep rows; the id of the file stands for them."""
    row = keep(request, asked.data)
    return {"dataset_id": row.id, "dataset_location": PREFIX + row.id}


@router.post("/v1/existing-data")
def existing(request: Request, asked: ExistingDataRequest) -> dict[str, str]:
    """Where rows are that were uploaded before."""
    return {"dataset_location": PREFIX + find(request, asked.dataset_id).id}


def keep(request: Request, rows: Sequence[Row]) -> FileRow:
    """Rows as a file of questions and answers, under an id of ours; the same rows again are the same file."""
    store = service_of(request).jobs.store
    lines = [{"question": row.input, "answer": row.output} for row in rows]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8", "surrogatepass")
    sha256 = hashlib.sha256(content).hexdigest()
    known = store.files.list(key_of(request), after=None, limit=10_000, order="desc", purpose="fine-tune")
    if same := next((row for row in known.rows if row.sha256 == sha256 and row.filename == NAME), None):
        return same
    content_file = store.uploads / f"{uuid.uuid4().hex}.part"
    try:
        durable.write_atomic(content_file, content)
        return store.files.add(
            key_of(request), filename=NAME, purpose="fine-tune", content=content_file, bytes=len(content), sha256=sha256
        )
    finally:
        if content_file.exists():
            durable.remove(content_file)


NAME = "lamini-rows.jsonl"


def find(request: Request, dataset: str) -> FileRow:
    """The file that a dataset's id, or the place told for it, stands for."""
    name = dataset.removeprefix(PREFIX)
    if not FILE_ID.fullmatch(name):
        raise not_found("dataset", dataset[:80] if dataset.isprintable() else "…", param="dataset_id")
    return service_of(request).jobs.store.files.get(key_of(request), name)


@router.post("/v1/data", status_code=400)
def elsewhere(request: Request) -> None:
    """Clients before 2.1 write large data to a disk that they share with the server; this server reads no such place."""
    message = (
        "This client writes more than 3,000 pairs to a disk of its own and sends their place, which this server does not "
        "read. Pass limit=3000 or fewer pairs at a time, or use a client from 2.1 on, which sends them."
    )
    raise bad_request(message, "data", "unsupported")
