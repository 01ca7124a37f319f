"""The words of ASGI that guards share."""

from starlette.types import Message, Receive, Scope, Send

from luthier.serve.errors import APIError

CLOSE = {"connection": "close"}
"""Of an answer to a request whose body nobody reads: the connection cannot be used for another one."""


def headers(scope: Scope, name: str) -> list[str]:
    """All values of a header, in their order; `name` is in small letters."""
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key.decode("latin-1").lower() == name]


def header(scope: Scope, name: str) -> str:
    """A header's value, or nothing; one that comes twice is refused, because programs disagree about which counts."""
    found = headers(scope, name)
    if len(found) > 1:
        raise APIError(400, f"The header {name} came {len(found)} times.", code="invalid_header", headers=CLOSE)
    return found[0] if found else ""


async def refuse(error: APIError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error; the connection ends, because the body was not read."""
    await APIError(error.status, error.message, error.param, error.code, {**error.headers, **CLOSE}).response(
        scope, receive, send
    )


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives this body, and then what comes after it."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
