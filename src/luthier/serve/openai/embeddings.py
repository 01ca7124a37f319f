"""Embeddings: asked for by OpenAI's clients, and refused in their words by models that write text and make none."""

from fastapi import APIRouter, Request

from luthier.serve.errors import APIError, bad_request
from luthier.serve.openai.requests import EmbeddingRequest
from luthier.serve.openai.shapes import key_of
from luthier.serve.service import service_of

router = APIRouter(prefix="/v1/embeddings", tags=["embeddings"])


@router.post("", status_code=400, response_model=None)
def create(request: Request, asked: EmbeddingRequest) -> APIError:
    """Every model of this server writes text; none was trained to make embeddings."""
    service_of(request).catalogue.listed(asked.model, key_of(request))
    message = f"The model '{asked.model}' writes text and has no embeddings."
    raise bad_request(message, "model", "model_not_supported")
