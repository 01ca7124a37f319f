"""Files: uploaded under an id of ours, listed, read back, deleted. The client's name for one is kept and never opened."""

import os
import uuid
from collections.abc import Iterator
from typing import Annotated, BinaryIO, Literal

from fastapi import APIRouter, Form, Query, Request, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from luthier.jobs.rows import FileRow
from luthier.runs import durable
from luthier.serve.errors import bad_request
from luthier.serve.openai.shapes import FILE_ID, After, FileId, Listed, key_of, known_id, page
from luthier.serve.service import service_of

router = APIRouter(prefix="/v1/files", tags=["files"])

PURPOSES = ("fine-tune", "assistants", "batch", "vision", "user_data", "evals")
LONGEST_NAME = 255  # characters
CHUNK = 1 << 20


class FileObject(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None

    @classmethod
    def of(cls, row: FileRow) -> "FileObject":
        return cls(
            id=row.id, bytes=row.bytes, created_at=row.created_at, expires_at=row.expires_at, filename=row.filename,
            purpose=row.purpose,
        )  # fmt: skip


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


@router.post("")
def upload(
    request: Request,
    file: UploadFile,
    purpose: Annotated[str, Form(max_length=64)],
    expires_anchor: Annotated[str | None, Form(alias="expires_after[anchor]", max_length=64)] = None,
    expires_seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=3600, le=30 * 24 * 3600)] = None,
) -> FileObject:
    """Keep a file; a training file is checked when a job is made of it."""
    if purpose not in PURPOSES:
        raise bad_request(f"Invalid 'purpose': expected one of {', '.join(PURPOSES)}.", "purpose", "invalid_value")
    if (expires_anchor is None) != (expires_seconds is None) or expires_anchor not in (None, "created_at"):
        message = "Invalid 'expires_after': expected the anchor created_at, and seconds."
        raise bad_request(message, "expires_after", "invalid_value")
    service = service_of(request)
    content = service.jobs.store.uploads / f"{uuid.uuid4().hex}.part"
    try:
        with durable.disk_errors(content), durable.flushed_file(content) as kept:
            size = sum(kept.write(piece) for piece in iter(lambda: file.file.read(CHUNK), b""))
        if not size:
            raise bad_request("Invalid 'file': it is empty.", "file", "invalid_value")
        row = service.jobs.store.files.add(
            key_of(request), filename=_display_name(file.filename), purpose=purpose, content=content, bytes=size,
            sha256=kept.sha256, expires_after=expires_seconds,
        )  # fmt: skip
    finally:
        if content.exists():
            durable.remove(content)
    return FileObject.of(row)


def _display_name(name: str | None) -> str:
    """The client's name for a file as people may be shown it: its last part, and nothing invisible."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in last)
    return shown[:LONGEST_NAME] or "upload"


@router.get("")
def list_files(
    request: Request,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=10000)] = 10000,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=64)] = None,
) -> Listed[FileObject]:
    """The key's files, by their age."""
    found = service_of(request).jobs.store.files.list(
        key_of(request), after=after, limit=limit, order=order, purpose=purpose
    )
    return Listed[FileObject](**page([FileObject.of(row) for row in found.rows], found.has_more))


@router.get("/{file_id}")
def retrieve(request: Request, file_id: FileId) -> FileObject:
    """What is known of a file."""
    known = known_id(FILE_ID, file_id, "file", "file_id")
    return FileObject.of(service_of(request).jobs.store.files.get(key_of(request), known))


@router.delete("/{file_id}")
def delete(request: Request, file_id: FileId) -> FileDeleted:
    """Delete a file that no unfinished job needs."""
    known = known_id(FILE_ID, file_id, "file", "file_id")
    service_of(request).jobs.store.files.delete(key_of(request), known)
    return FileDeleted(id=known)


@router.get("/{file_id}/content", response_class=StreamingResponse)
def content(request: Request, file_id: FileId) -> StreamingResponse:
    """The file as it was uploaded, byte by byte."""
    known = known_id(FILE_ID, file_id, "file", "file_id")
    path = service_of(request).jobs.store.files.path(key_of(request), known)
    kept = open(path, "rb")  # noqa: SIM115  # the answer closes it
    headers = {"content-length": str(os.fstat(kept.fileno()).st_size), "content-disposition": "attachment"}
    return StreamingResponse(_pieces(kept), media_type="application/octet-stream", headers=headers)


def _pieces(kept: BinaryIO) -> Iterator[bytes]:
    with kept:
        yield from iter(lambda: kept.read(CHUNK), b"")
