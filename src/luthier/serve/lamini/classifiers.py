"""What Lamini's clients ask of other kinds of models, which are not here, and what there is instead."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field

from luthier.serve.errors import bad_request
from luthier.serve.lamini.shapes import ModelName, Text
from luthier.serve.openai.shapes import Asked

router = APIRouter(tags=["lamini"])


class EmbeddingRequest(Asked):
    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=512)]
    model_name: ModelName | None = None


@router.post("/v1/embedding", status_code=400)
@router.post("/v1/inference/embedding", status_code=400, include_in_schema=False)
@router.post("/v1/batch_embeddings", status_code=400, include_in_schema=False)
def embedding(request: Request, asked: EmbeddingRequest) -> None:
    """Every model of this server writes text."""
    raise bad_request("The models of this server write text and make no embeddings.", "model_name", "unsupported")


@router.post("/v1/classifier/{path:path}", status_code=400)
@router.post("/v2/classifier/{path:path}", status_code=400, include_in_schema=False)
@router.post("/v1/eval/{path:path}", status_code=400, include_in_schema=False)
def classifier(request: Request, path: str, asked: dict[str, Any]) -> None:
    """Labels are learnt as any other answers."""
    message = (
        "This server has no classifiers of its own. Train a model on prompts with their labels as answers; then "
        "POST /v1/decisions gives the probability of each label."
    )
    raise bad_request(message, "path", "unsupported")
