"""Shape checks while the tests run: `Float[Tensor, "batch time"]` in a signature is checked at every call.

pyproject.toml asks jaxtyping to put `check` on the functions of luthier.model and luthier.train. Only array annotations
are checked: mypy looks after the others, and beartype cannot check a Protocol that is not made for it.
"""

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a check of its array arguments and result where it has any."""
    function.__annotations__ = {name: kind for name, kind in function.__annotations__.items() if _has_array(kind)}
    return beartype(function) if function.__annotations__ else function


def _has_array(kind: object) -> bool:
    is_array = isinstance(kind, type) and issubclass(kind, AbstractArray)
    return is_array or any(_has_array(inner) for inner in get_args(kind))
