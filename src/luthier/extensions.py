"""What a word of the recipe stands for: an entry of a table, or a function of the user's own.

Each table is a module-level dict (ARCHITECTURE.md lists them). A dotted name, `package.module:function`, reaches a function
outside our tree instead.
"""

import importlib
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeVar

from luthier.errors import UserError, nearest, unknown

T = TypeVar("T")

_DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def resolve(what: str, word: str, table: Mapping[str, T], *, where: str) -> T:
    """The entry of an extension table, or the user's own function that a dotted name reaches."""
    if ":" not in word:
        return look_up(what, word, table, where=where)
    function: T = import_function(word, where=where)
    return function


def look_up(what: str, word: str, table: Mapping[str, T], *, where: str | None = None) -> T:
    """The entry of a table that holds ours only, or the UserError that names the nearest known word."""
    if word not in table:
        raise unknown(what, word, table, where=where)
    return table[word]


def is_dotted(word: str) -> bool:
    """Whether a word has the form `package.module:function`."""
    return bool(_DOTTED.fullmatch(word))


def import_function(name: str, *, where: str | None) -> Any:
    """The function behind `package.module:function`, or the UserError that says why there is none."""
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise _not_importable(name, str(error), where) from error
    except Exception as error:  # the module is the user's, and runs while it is imported: anything may be raised
        raise _not_importable(name, f"{type(error).__name__}: {error}", where) from error
    try:
        function = getattr(module, function_name)
    except AttributeError:
        near = nearest(function_name, (member for member, value in vars(module).items() if callable(value)))
        hint = f', did you mean "{near}"?' if near else ""
        raise _not_importable(name, f'{module_name} has no function "{function_name}"{hint}', where) from None
    if not callable(function):
        raise _not_importable(name, f"it is of the type {type(function).__name__}, and no function", where)
    return function


def _not_importable(name: str, why: str, where: str | None) -> UserError:
    end = "" if why.endswith(("?", ".")) else "."
    return UserError(
        f'"{name}" cannot be imported: {why}{end} Expected package.module:function, with the folder that holds the package '
        "on PYTHONPATH.",
        where=where,
    )


def import_optional(module: str, extra: str, *, where: str) -> ModuleType:
    """A package that only some settings need, or the UserError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise not_installed(module, extra, where=where) from None


def not_installed(module: str, extra: str, *, where: str) -> UserError:
    """The message that says how to install a package that only some settings or files need."""
    return UserError(
        f"this needs the package {module}, which is not installed: pip install 'luthier[{extra}]'.", where=where
    )
