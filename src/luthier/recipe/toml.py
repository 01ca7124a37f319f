"""TOML as recipes use it: values with the line where each stands, and values in its notation."""

import datetime
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier.errors import UserError


def read(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A file's values, and for each dotted key the `file:line` where it stands."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            "no such recipe file; `luthier recipe DATA` prints one to start from.", where=str(file)
        ) from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise UserError("a recipe is a TOML file in UTF-8; this is not one.", where=str(file)) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        where = f"{file}:{line.group(1)}" if line else str(file)
        raise UserError(
            f'not valid TOML: {error}. Texts stand in quotes: model = "smollm2-135m".', where=where
        ) from None
    locations: dict[str, str] = {}
    section = ""
    for number, line_text in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([\w.\-\s]+)\]", line_text):
            section = header.group(1).strip() + "."
            locations[section[:-1]] = f"{file}:{number}"
        elif key := re.match(r"\s*([\w.\-]+)\s*=", line_text):
            locations[section + key.group(1)] = f"{file}:{number}"
    return values, locations


def rendered(value: object) -> str:
    """A value in TOML's notation."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int | datetime.date):
        return str(value)
    if isinstance(value, Mapping):
        items = (f"{json.dumps(name, ensure_ascii=False)} = {rendered(item)}" for name, item in value.items())
        return "{ " + ", ".join(items) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(rendered(item) for item in value) + "]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
