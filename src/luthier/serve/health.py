"""Whether the server is there; the only thing that is said without a key."""

from fastapi import APIRouter
from pydantic import BaseModel

router = APIRouter(tags=["service"])


class Health(BaseModel):
    status: str = "ok"


@router.get("/health")
async def health() -> Health:
    """Answers as soon as requests are taken."""
    return Health()
