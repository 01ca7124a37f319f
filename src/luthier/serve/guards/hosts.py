"""The address that was asked must be this server's, and what a browser sends for a foreign page is refused.

A page that a user has open can let the browser ask this machine: by a name of its own that it points here (DNS rebinding), or
from its own origin. A name in `Host` that is not ours gives away the first, `Origin` and `Sec-Fetch-Site` the second.
"""

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from luthier.serve.errors import APIError
from luthier.serve.guards.messages import header, refuse

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.\-]+)(?::(\d{1,5}))?")


@dataclass(frozen=True)
class HostGuard:
    """Lets through what asks for one of these names (small letters) or, with `any_address`, for an address in numbers.

    An address in numbers is nothing that a foreign name can be pointed at.
    """

    app: ASGIApp
    names: Collection[str]
    any_address: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope)
            except APIError as error:
                await refuse(error, scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        host = header(scope, "host")
        match = _HOST.fullmatch(host)
        if match is None or not self._is_ours(match[1]):
            message = "The Host header names another server than this one. Ask by the address that it was started with."
            raise APIError(421, message, code="unknown_host")
        origin, site = header(scope, "origin"), header(scope, "sec-fetch-site")
        ours = ("", f"http://{host}".lower(), f"https://{host}".lower())  # a proxy in front may be the one that has TLS
        if origin.lower() not in ours or site.lower() in ("cross-site", "same-site"):
            raise APIError(403, "A page of another origin may not ask this server.", code="foreign_origin")

    def _is_ours(self, host: str) -> bool:
        name = host.strip("[]").lower()
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address
