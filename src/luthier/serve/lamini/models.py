"""Models as clients since 3.0 list them, and embeddings, which no model here makes."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field

from luthier.serve.catalogue import KnownModel
from luthier.serve.errors import bad_request
from luthier.serve.lamini.shapes import ModelName, Text
from luthier.serve.openai.shapes import Asked, key_of
from luthier.serve.service import service_of

router = APIRouter(tags=["lamini"])


class DownloadRequest(Asked):
    hf_model_name: ModelName
    model_type: Annotated[str, Field(max_length=32)] = "transformer"


class EmbeddingRequest(Asked):
    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=512)]
    model_name: ModelName | None = None


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
    return _shown(1, service_of(request).catalogue.find(asked.hf_model_name, key_of(request)))


@router.post("/v1/embedding", status_code=400)
@router.post("/v1/batch_embeddings", status_code=400, include_in_schema=False)
def embedding(request: Request, asked: EmbeddingRequest) -> None:
    """Every model of this server writes text."""
    raise bad_request("The models of this server write text and make no embeddings.", "model_name", "unsupported")


def _shown(number: int, known: KnownModel) -> dict[str, Any]:
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
