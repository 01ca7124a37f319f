"""Models: what can answer, by name; a tuned one can be deleted."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel

from luthier.serve.catalogue import NAME, ListedModel
from luthier.serve.errors import APIError
from luthier.serve.openai.shapes import key_of, known_id
from luthier.serve.service import service_of

router = APIRouter(prefix="/v1/models", tags=["models"])

ModelName = Annotated[str, Path(max_length=300)]


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    parent: str | None = None

    @classmethod
    def of(cls, known: ListedModel) -> "Model":
        return cls(id=known.name, created=known.created, owned_by=known.owned_by, parent=known.parent)


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class ModelDeleted(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: bool = True


@router.get("")
def list_models(request: Request) -> ModelList:
    """Every model that the key may ask."""
    return ModelList(data=[Model.of(known) for known in service_of(request).catalogue.all(key_of(request))])


@router.get("/{model:path}")
def retrieve(request: Request, model: ModelName) -> Model:
    """What is known of a model."""
    name = known_id(NAME, model, "model", "model")
    return Model.of(service_of(request).catalogue.listed(name, key_of(request)))


@router.delete("/{model:path}")
def delete(request: Request, model: ModelName) -> ModelDeleted:
    """Delete a tuned model; the base models belong to whoever started the server."""
    name, service, key = known_id(NAME, model, "model", "model"), service_of(request), key_of(request)
    if service.catalogue.listed(name, key).parent is None:
        message = f"The model '{name}' was not tuned here, so it cannot be deleted."
        raise APIError(403, message, param="model", code="model_not_deletable")
    service.engines.forget(service.catalogue.find(name, key).folder)
    service.jobs.delete_model(key, name)
    return ModelDeleted(id=name)
