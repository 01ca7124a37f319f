"""What a request to the service can get wrong, each with what an API's error says: a message, a code, the parameter."""

from luthier.errors import UserError


class RequestError(UserError):
    """A request that cannot be met. `code` is a stable word for programs, `param` names the part of the request."""

    code = "invalid_request"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.param = param


class InvalidRequest(RequestError):
    """A value that is not allowed; said when it is sent, not when the job runs."""

    code = "invalid_value"


class NotFound(RequestError):
    """There is no such file, job or model, or it belongs to another key."""

    code = "not_found"


class Conflict(RequestError):
    """The job's state does not allow it."""

    code = "invalid_state"


class InUse(RequestError):
    """Something that is to be deleted is still needed."""

    code = "in_use"


class QuotaExceeded(RequestError):
    """There is no room left for this key, or for all of them."""

    code = "quota_exceeded"


class LostJob(Exception):
    """Another worker has the job now, or it was cancelled: whoever hears this writes nothing more."""
