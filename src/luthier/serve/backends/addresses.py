"""What `--model NAME=URL` says: an address, the model's name there, and a key that comes from the environment only."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from luthier.errors import UserError

KEY_VARIABLE = "LUTHIER_BACKEND_KEY_"
"""The beginning of the variable with a backend's key; the model's name follows, in capitals and with _ for all signs."""
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Address:
    """Where a model answers. The key stands in no message, log or command."""

    name: str
    """What clients call the model."""
    url: str
    """Of the API, such as `http://127.0.0.1:8080/v1`."""
    model: str | None = None
    """What the model is called there; None: as that server says."""
    key: str | None = field(default=None, repr=False)

    @property
    def is_loopback(self) -> bool:
        return urlsplit(self.url).hostname in LOOPBACK


def is_address(reference: str) -> bool:
    """Whether this names a server instead of files; one that cannot be asked too."""
    return "://" in reference


def parse(named: Mapping[str, str], environment: Mapping[str, str]) -> list[Address]:
    """The addresses among models by their names, each with its key; what cannot be asked raises a UserError."""
    found = [_address(name, reference, environment) for name, reference in named.items() if is_address(reference)]
    variables: dict[str, str] = {}
    for address in found:
        variable = key_variable(address.name)
        if address.key and variable in variables:
            raise UserError(
                f"{address.name} and {variables[variable]} would be asked with the same key, that of {variable}; give one "
                "another name.",
                where="--model",
            )
        variables[variable] = address.name
    return found


def key_variable(name: str) -> str:
    """The environment variable with the key for a model."""
    return KEY_VARIABLE + re.sub(r"[^A-Z0-9]", "_", name.upper())


def _address(name: str, reference: str, environment: Mapping[str, str]) -> Address:
    where = f"--model {name}"
    try:
        parts = urlsplit(reference)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise UserError("expected an address such as http://127.0.0.1:8080/v1.", where=where)
    if parts.username is not None or parts.query:
        raise UserError(
            f"an address holds no secrets here, because commands can be read by others; put the key into {key_variable(name)}.",
            where=where,
        )
    key = environment.get(key_variable(name)) or None
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError("expected visible ASCII characters and no blanks.", where=key_variable(name))
    url = parts._replace(fragment="").geturl().rstrip("/")
    return Address(name, url, parts.fragment or None, key)
