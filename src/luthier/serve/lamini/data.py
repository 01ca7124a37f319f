"""Rows that a client uploads before it trains on them: kept as a file of the key."""

import hashlib
import json
import re
import uuid
from collections.abc import Sequence

from fastapi import APIRouter, Request

from luthier.jobs.rows import FileRow
from luthier.runs import durable
from luthier.serve.errors import APIError, bad_request
from luthier.serve.lamini.shapes import DataRequest, DataToComeRequest, ExistingDataRequest, Row
from luthier.serve.openai.shapes import FILE_ID, key_of
from luthier.serve.service import service_of

router = APIRouter(tags=["lamini"])

LOCAL = "local"
"""Where data goes: to this server, and to no store of others."""
PREFIX = f"{LOCAL}:"
NAME = "lamini-rows.jsonl"
"""The name of files with rows to which the client gave none."""
DATASET = re.compile(r"[A-Za-z0-9_\-]{1,128}")
"""What clients from 2.0.16 to 2.5 call their rows: a hash of the time."""


@router.get("/v1/get-upload-base-path")
def upload_base_path() -> dict[str, str]:
    return {"upload_base_path": LOCAL}


@router.post("/v1/local-data")
def upload(request: Request, asked: DataRequest) -> dict[str, str]:
    """Keep rows; the id of the file stands for them, or the name that the client has chosen."""
    row = keep(request, asked.data, dataset=asked.dataset_id)
    return {"dataset_id": asked.dataset_id or row.id, "dataset_location": PREFIX + row.id}


@router.post("/v1/existing-data")
def existing(request: Request, asked: ExistingDataRequest) -> dict[str, str]:
    """Where rows are that were uploaded before."""
    return {"upload_base_path": LOCAL, "dataset_location": PREFIX + find(request, asked.dataset_id).id}


@router.post("/v1/data")
def to_come(request: Request, asked: DataToComeRequest) -> dict[str, str]:
    """Where rows will be that come with the training: clients of 2.0.16 ask so before they send them."""
    if asked.blob_dir_name is not None:
        message = (
            "This client writes more than 3,000 pairs to a disk of its own and sends their place, which this server does not "
            "read. Pass limit=3000 or fewer pairs at a time, or use a client from 2.1 on, which sends them."
        )
        raise bad_request(message, "data", "unsupported")
    return {"upload_base_path": LOCAL, "dataset_location": PREFIX + asked.dataset_id}


def keep(request: Request, rows: Sequence[Row], *, dataset: str | None = None) -> FileRow:
    """Rows as a file of questions and answers, under an id of ours; the same rows again are the same file."""
    key, store = key_of(request), service_of(request).jobs.store
    filename = NAME if dataset is None else _filename(dataset)
    lines = [{"question": row.input, "answer": row.output} for row in rows]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8", "surrogatepass")
    sha256 = hashlib.sha256(content).hexdigest()
    if same := store.files.named(key, filename, sha256=sha256):
        return same
    content_file = store.uploads / f"{uuid.uuid4().hex}.part"
    try:
        durable.write_atomic(content_file, content)
        return store.files.add(
            key, filename=filename, purpose="fine-tune", content=content_file, bytes=len(content), sha256=sha256
        )
    finally:
        if content_file.exists():
            durable.remove(content_file)


def find(request: Request, dataset: str) -> FileRow:
    """The file that a dataset's id, the client's own name for it, or the place told for it stands for."""
    key, files, name = key_of(request), service_of(request).jobs.store.files, dataset.removeprefix(PREFIX)
    if FILE_ID.fullmatch(name):
        return files.get(key, name)
    if DATASET.fullmatch(name) and (row := files.named(key, _filename(name))):
        return row
    shown = dataset[:80] if dataset.isprintable() else "…"
    message = (
        f"There is no dataset '{shown}'. Clients before 2.1 send rows with a training only, at most 3,000 of them."
    )
    raise APIError(404, message, "dataset_id", "not_found")


def _filename(dataset: str) -> str:
    if not DATASET.fullmatch(dataset):
        raise bad_request(
            "Invalid 'dataset_id': expected letters, digits, _ and - only.", "dataset_id", "invalid_value"
        )
    return f"lamini-{dataset}.jsonl"
