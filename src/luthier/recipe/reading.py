"""A recipe from TOML, `key=value` words or Python, checked all at once; its settings by dotted names; and as TOML again."""

import copy
import datetime
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from luthier.errors import UserError, together, unknown
from luthier.recipe import toml
from luthier.recipe.sections import PretrainRecipe, Recipe, Section

RENAMED: dict[str, str] = {"evaluate.refusal": "evaluate.errors.refusal"}
"""Settings that have another name now, old → new: a recipe with the old one is refused with the new one."""

TEMPLATE_FILE = ".txt"
"""How the name of a file ends that `data.format` takes for a template."""


def load(file: Path | None = None, overrides: Iterable[str] = (), *, data: Path | None = None) -> Recipe:
    """The recipe from a TOML file, then `key=value` words, then the data's path; raises one UserError naming every error."""
    values: dict[str, Any] = {}
    locations: dict[str, str] = {}
    errors: list[UserError] = []
    if file is not None:
        values, locations = toml.read(file)
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals:
            errors.append(
                UserError(f'expected key=value, such as train.epochs=3, found "{word}".', where="command line")
            )
            continue
        locations[key.strip()] = "command line"
        try:
            _put(values, key.strip(), read_value(key.strip(), text.strip()))
        except UserError as user_error:
            errors.append(user_error)
    if data is not None:
        values.setdefault("data", {})
        if isinstance(values["data"], dict):
            values["data"]["path"] = str(data)
    try:
        _read_template(values)
    except UserError as user_error:
        errors.append(UserError(user_error.message, where=locations.get("data.format", "data.format")))
    return _checked(values, locations, errors)


def _read_template(values: dict[str, Any]) -> None:
    """Put a template's text in place of the name of its file, so that the recipe is complete without it."""
    data = values.get("data")
    if not isinstance(data, dict) or not isinstance(name := data.get("format"), str):
        return
    if not name.endswith(TEMPLATE_FILE) or "{" in name:
        return
    try:
        text = Path(name).expanduser().read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(f'data.format names a file of a template, "{name}", which is not there.') from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'the template "{name}" cannot be read ({error}); it should be a text in UTF-8.') from None
    if "{" not in text:
        raise UserError(f'the template "{name}" has no place for a column; write them in braces, such as {{question}}.')
    data["format"] = text.removesuffix("\n").removesuffix("\r")


def keys(recipe: Section | type[Section] = Recipe, prefix: str = "") -> Iterator[str]:
    """Every setting's dotted name, in the order of the file."""
    for name, field in (recipe if isinstance(recipe, type) else type(recipe)).model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def get(recipe: Section | dict[str, Any], key: str) -> Any:
    """The value under a dotted name."""
    value: Any = recipe
    for name in key.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


def replace(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    """The same recipe with the values under these dotted names, checked again; what nobody set stays unset."""
    content = recipe.model_dump(exclude_unset=True)
    if isinstance(recipe, PretrainRecipe):
        content.setdefault("pretrain", {})
    for key, value in values.items():
        _put(content, key, value)
    return _checked(content, dict.fromkeys(values, "settings"))


def recorded(settings: Mapping[str, Any]) -> Recipe:
    """The recipe that a run or sweep noted, perhaps an older version's: settings with another name now have moved there."""
    values = copy.deepcopy(dict(settings))
    for old, new in RENAMED.items():
        *sections, name = old.split(".")
        holder: Any = values
        for section in sections:
            holder = holder.get(section, {})
        value = holder.pop(name, None)
        if value is not None:
            _put(values, new, value)
    return kind_of(values).model_validate(values)


def differences(before: Recipe, after: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted name → (before, after), for the settings that differ."""
    if type(before) is not type(after):
        return {"pretrain": (type(before).__name__, type(after).__name__)}
    pairs = {key: (get(before, key), get(after, key)) for key in keys(before)}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def render(recipe: Recipe, reasons: Mapping[str, str] | None = None) -> str:
    """The recipe as TOML, each value with its reason as a comment; values still to be computed are commented out."""
    lines: list[str] = []
    section = ""
    for key in recipe.keys_read() if isinstance(recipe, PretrainRecipe) else keys():
        head, _, name = key.rpartition(".")
        if head != section:
            section = head
            lines += ["", f"[{head}]"]
        value = get(recipe, key)
        if isinstance(value, dict):
            value = {
                word: item.model_dump(exclude_none=True) if isinstance(item, Section) else item
                for word, item in value.items()
            }
        line = f"# {name} = …" if value is None else f"{name} = {toml.rendered(value)}"
        reason = (reasons or {}).get(key)
        lines.append(f"{line}  # {' '.join(reason.split())}" if reason else line)
    return "\n".join(lines).lstrip("\n") + "\n"


def schema() -> str:
    """The recipe's JSON Schema, for editors and for the reference page."""
    return json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False)


def kind_of(values: Mapping[str, Any]) -> type[Recipe]:
    """Which kind of recipe values belong to: with settings of `pretrain` that of pretraining."""
    return PretrainRecipe if "pretrain" in values else Recipe


def _checked(values: Mapping[str, Any], locations: Mapping[str, str], errors: Sequence[UserError] = ()) -> Recipe:
    """The recipe of these values; or one UserError of everything that is wrong with them and was found before."""
    try:
        recipe = kind_of(values).model_validate(values)
    except ValidationError as error:
        raise together([*errors, *(_wording(detail, locations) for detail in error.errors())]) from None
    if errors:
        raise together(errors)
    return recipe


def _put(values: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key in nested tables."""
    *path, last = key.split(".")
    table = values
    for name in path:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise unknown("recipe key", key, keys(), where="command line")
        table = inner
    table[last] = value


def read_value(key: str, text: str) -> object:
    """A command-line word as the value that its key wants: text stays text, the rest is read as TOML."""
    kinds = _kinds(key)
    is_list = key in {"evaluate.arms", "evaluate.guards", "pretrain.prompts"}
    if is_list and not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    if not is_list and (str in kinds or Path in kinds) and not text.startswith(('"', "'")):
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return text if isinstance(value, datetime.date | datetime.time) else value


def _kinds(key: str) -> tuple[Any, ...]:
    """The types that a dotted key accepts; empty for a key that does not exist, or that takes any."""
    if key.startswith(("data.columns.", "data.findings.", "evaluate.endpoints.", "evaluate.errors.")):
        return (str,)
    section: type[Section] = PretrainRecipe
    *path, last = key.split(".")
    for name in path:
        field = section.model_fields.get(name)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            return ()
        section = field.annotation
    annotation = section.model_fields[last].annotation if last in section.model_fields else None
    return (annotation, *get_args(annotation))


def _wording(detail: ErrorDetails, locations: Mapping[str, str]) -> UserError:
    """One of pydantic's errors in our words: where, the key, what was found, what is expected."""
    key = ".".join(str(part) for part in detail["loc"] if not str(part).startswith(("function-", "constrained-")))
    known = list(keys(PretrainRecipe if key.startswith("pretrain.") else Recipe))
    if key not in locations:  # what was written says best where; else the setting that it belongs to
        key = next((name for name in known if key == name or key.startswith(name + ".")), key)
    inside = (location for name, location in locations.items() if name.startswith(key + "."))
    where = locations.get(key) or next(inside, None)
    if detail["type"] == "extra_forbidden":
        if key in RENAMED:
            return UserError(f"{key} is called {RENAMED[key]} now; write it so.", where=where)
        return unknown("recipe key", key, known, where=where)
    if detail["type"] == "unknown_word":
        return unknown(key, str(detail["input"]), detail["ctx"]["known"], where=where)
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    expected = expected.replace("a valid integer", "a whole number").replace("a valid number", "a number")
    found = json.dumps(detail["input"], ensure_ascii=False, default=str)
    return UserError(f"{key} should be {expected}, found {found}.", where=where)
