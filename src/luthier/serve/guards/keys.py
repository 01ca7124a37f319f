"""A known key for everything but the few open paths; also for paths that do not exist, so that nothing can be learnt."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from luthier.serve.errors import APIError
from luthier.serve.guards.messages import header, refuse

OPEN = {("GET", "/health"), ("HEAD", "/health")}
"""What may be asked without a key: it says nothing but that the server is there."""
LONGEST = 512
"""Characters of a key that are worth looking at."""


@dataclass(frozen=True)
class KeyGuard:
    """Lets through a request whose key `verify` knows, and notes the key's id for the routes.

    The key comes as `Authorization: Bearer KEY`, or as the password of Basic, which browsers ask people for.
    """

    app: ASGIApp
    verify: Callable[[str], str | None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"], scope["path"]) not in OPEN:
            try:
                scope.setdefault("state", {})["key"] = self._key(scope)
            except APIError as error:
                await refuse(error, scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _key(self, scope: Scope) -> str:
        kind, _, credentials = header(scope, "authorization").partition(" ")
        secret = credentials.strip()
        if kind.lower() == "basic":
            secret = _password(secret)
        elif kind.lower() != "bearer":
            secret = ""
        if not secret:
            message = "No API key came with the request. Send it as: Authorization: Bearer KEY."
            challenge = {"www-authenticate": 'Basic realm="Luthier: any name, and the API key as password"'}
            raise APIError(401, message, code="missing_api_key", headers=challenge)
        known = self.verify(secret) if len(secret) <= LONGEST else None
        if known is None:
            raise APIError(401, "Incorrect API key provided.", code="invalid_api_key")
        return known


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
