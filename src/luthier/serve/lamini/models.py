"""Models as clients since 3.0 list them."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field

from luthier.serve.catalogue import ListedModel
from luthier.serve.lamini.shapes import ModelName
from luthier.serve.openai.shapes import Asked, key_of
from luthier.serve.service import service_of

router = APIRouter(tags=["lamini"])


class DownloadRequest(Asked):
    hf_model_name: ModelName
    model_type: Annotated[str, Field(max_length=32)] = "transformer"


@router.get("/v1alpha/downloaded_models")
@router.get("/v1alpha/downloaded_models/", include_in_schema=False)
def downloaded(request: Request) -> list[dict[str, Any]]:
    """Every model that this key may ask."""
    service = service_of(request)
    return [_shown(number, known) for number, known in enumerate(service.catalogue.all(key_of(request)), start=1)]


@router.post("/v1alpha/downloaded_models")
@router.post("/v1alpha/downloaded_models/", include_in_schema=False)
def download(request: Request, asked: DownloadRequest) -> dict[str, Any]:
    """A model that is here; nothing is fetched at a client's word."""
    return _shown(1, service_of(request).catalogue.listed(asked.hf_model_name, key_of(request)))


def _shown(number: int, known: ListedModel) -> dict[str, Any]:
    return {
        "model_id": number,
        "model_name": known.name,
        "model_type": "transformer",
        "user_id": None,
        "is_public": False,
        "creation_ts": datetime.fromtimestamp(known.created, UTC).replace(tzinfo=None).isoformat(),
        "prev_download_ts": None,
        "prev_download_error": None,
        "download_attempts": 0,
        "status": "available",
    }
