"""What the objects of OpenAI's API have in common: strict requests, lists by pages, ids by a pattern."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Path, Query, Request
from pydantic import BaseModel, ConfigDict

from luthier.serve.errors import not_found

Shape = TypeVar("Shape", bound=BaseModel)

FILE_ID = re.compile(r"file-[a-z0-9]{24}")
JOB_ID = re.compile(r"ftjob-[a-z0-9]{24}")

FileId = Annotated[str, Path(max_length=200)]
JobId = Annotated[str, Path(max_length=200)]
After = Annotated[str | None, Query(max_length=200, description="The id of the last one that was seen.")]


class Asked(BaseModel):
    """The body of a request: no word that means nothing, no number in a text."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Listed(BaseModel, Generic[Shape]):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: list[Shape]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


def page(shapes: Sequence[Any], has_more: bool) -> dict[str, Any]:
    """A page of shapes that have ids."""
    ids = [shape.id for shape in shapes]
    return {
        "data": list(shapes),
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": has_more,
    }


def known_id(pattern: re.Pattern[str], value: str, what: str, param: str) -> str:
    """The id, if it can be one at all; nothing else is looked up."""
    if not pattern.fullmatch(value):
        raise not_found(what, value[:80] if value.isprintable() else "…", param=param)
    return value


def key_of(request: Request) -> str:
    """The id of the key that the request came with."""
    return str(request.state.key)
