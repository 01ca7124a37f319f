"""What goes wrong, in the shape that OpenAI's clients read; what the caller cannot put right keeps its detail in the log."""

import errno
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from luthier.errors import MachineError, UserError

log = logging.getLogger("luthier.serve")

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""Kinds of errors by status, beside `invalid_request_error` below 500 and `server_error` from there on."""
NEVER_AGAIN = {"x-should-retry": "false"}
"""Tells OpenAI's clients that the same request will fail the same way."""


@dataclass
class APIError(Exception):
    """An answer that is no success: its status, a message for people, and for programs the field and a code."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    @property
    def body(self) -> dict[str, object]:
        """The error as OpenAI writes it."""
        kind = TYPES.get(self.status) or ("invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> Response:
        return JSONResponse(self.body, self.status, dict(self.headers))

    @property
    def event(self) -> str:
        """The error inside a stream that has begun."""
        return json.dumps(self.body, ensure_ascii=False)


def bad_request(message: str, param: str | None = None, code: str | None = None) -> APIError:
    """A request that cannot be answered as it is."""
    return APIError(400, message, param, code)


def not_found(what: str, name: str, *, param: str | None = None, code: str = "not_found") -> APIError:
    """Something that is not here, or is somebody else's."""
    return APIError(404, f"There is no {what} '{name}'.", param, code)


def unexpected(error: Exception, request_id: str) -> APIError:
    """What a caller hears of a fault of ours or of this machine: where to look, and nothing of what stands there."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = f"The server's disk is full, so nothing was stored (request {request_id})."
        return APIError(507, message, code="disk_full", headers=NEVER_AGAIN)
    if isinstance(error, UserError):  # its message may name paths of this machine
        status, code = (503, "unavailable") if isinstance(error, MachineError) else (500, "internal_error")
    else:
        status, code = 500, "internal_error"
    message = f"The server could not do this; its log says why under request {request_id}."
    return APIError(status, message, code=code, headers=NEVER_AGAIN)


def install(app: FastAPI) -> None:
    """Let the app answer errors of routes in this shape; what is unexpected is answered around it, by `observation`."""

    @app.exception_handler(APIError)
    async def _known(request: Request, error: APIError) -> Response:
        return error.response

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return invalid(error).response

    @app.exception_handler(HTTPException)
    async def _of_framework(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            message = f"Unknown request URL: {request.method} {request.url.path[:200]}. Check the URL for typos."
            return APIError(404, message, code="unknown_url").response
        if error.status_code == 405:
            message = f"Not allowed to {request.method} on {request.url.path[:200]}."
            return APIError(405, message, code="method_not_supported", headers=error.headers or {}).response
        return APIError(error.status_code, str(error.detail)).response


def invalid(error: RequestValidationError) -> APIError:
    """The first thing that a request's shape forbids, with its field; no value of the request is repeated."""
    found = min(error.errors(), key=lambda one: len(one["loc"]))
    param = _field(found["loc"])
    kind = str(found["type"])
    if kind == "json_invalid":
        return bad_request("The body is not valid JSON.", code="invalid_json")
    if kind == "missing":
        if param is None:
            return bad_request("The request has no body; expected a JSON object.", code="missing_body")
        return bad_request(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    if kind == "extra_forbidden":
        return bad_request(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
    words = str(found["msg"]).removeprefix("Value error, ")
    words = words[:1].lower() + words[1:]
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    return bad_request(f"Invalid '{param}': {words}." if param else f"{words}.".capitalize(), param, code)


def _field(location: Sequence[int | str]) -> str | None:
    """A field's name with the way to it, such as `messages[0].content`, up to where a value may have several forms."""
    name = ""
    for part in location[1:]:
        if isinstance(part, str) and not part.replace("_", "").replace("[", "").replace("]", "").isalnum():
            break
        name += f"[{part}]" if isinstance(part, int) else f".{part}"
    return name.lstrip(".") or None
