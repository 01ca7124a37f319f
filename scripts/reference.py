"""Writes the parts of docs/ that the code itself knows: every setting of the recipe, every command's help.

A document holds a generated part between `<!-- generated: NAME -->` and `<!-- end -->`; what stands around it is
written by hand. tests/project checks that the documents are what this program would write.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer.main
from typer.core import TyperGroup

from luthier.data.documents import generation
from luthier.recipe import PretrainRecipe, Recipe, get, keys

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH = 100
_PART = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def settings() -> str:
    """A table for each section of the recipe: key, values, default, meaning."""
    return _tables(Recipe, list(keys()))


def pretraining() -> str:
    """The same of what only a recipe of pretraining has."""
    return _tables(PretrainRecipe, [key for key in keys(PretrainRecipe) if key.startswith("pretrain.")], level="###")


def _tables(kind: type[Recipe], wanted: list[str], level: str = "##") -> str:
    lines: list[str] = []
    section = None
    for key, field, default in _fields(kind, wanted):
        head = key.rpartition(".")[0]
        if head != section:
            section = head
            title = f"\n{level} `[{head}]`\n" if head else ""
            lines += [title, "| setting | value | default | meaning |", "|---|---|---|---|"]
        cells = (f"`{key}`", _values(field), _default(default), field["description"].replace("\n", " "))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines).strip() + "\n"


def commands() -> str:
    """Each command's own help, as `luthier VERB --help` prints it on a terminal that is 100 columns wide."""
    from luthier.cli.main import app

    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    parts = [_help(group, "luthier")]
    for name, command in group.commands.items():
        parts.append(f"## `luthier {name}`\n\n{_help(command, f'luthier {name}')}")
    return "\n".join(parts)


def prompts() -> str:
    """The prompts that write pairs of documents, each with its version."""
    found = {name: generation.prompt(name) for name in generation.NAMES}
    return "\n".join(
        f"### `{name}`, version {prompt.version}\n\n```text\n{prompt.text}```\n" for name, prompt in found.items()
    )


GENERATED: dict[str, Callable[[], str]] = {
    "settings": settings, "pretraining": pretraining, "commands": commands, "prompts": prompts,
}  # fmt: skip


def refreshed(text: str) -> str:
    """A document with its generated parts written anew."""
    return _PART.sub(lambda part: f"{part[1]}\n{GENERATED[part[2]]()}\n{part[3]}", text)


def documents() -> list[Path]:
    """The documents that have generated parts."""
    return [path for path in sorted(DOCS.glob("*.md")) if _PART.search(path.read_text(encoding="utf-8"))]


def _fields(kind: type[Recipe], wanted: list[str]) -> Iterator[tuple[str, dict[str, Any], object]]:
    """Key, JSON Schema and default of these settings."""
    schema = kind.model_json_schema()
    for key in wanted:
        inner = schema
        for name in key.split("."):
            inner = schema["$defs"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
            inner = inner["properties"][name]
        yield key, inner, get(kind(), key)


def _values(field: dict[str, Any]) -> str:
    """What a setting takes, in words."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    return " or ".join(map(_kind, kinds))


def _kind(kind: dict[str, Any]) -> str:
    if "enum" in kind:
        return " or ".join(f'`"{word}"`' for word in kind["enum"])
    if "examples" in kind:
        return " or ".join(f'`"{word}"`' for word in kind["examples"])
    if kind.get("format") in ("path", "date"):
        return "path" if kind["format"] == "path" else "day"
    name = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    inner = kind.get("items") or kind.get("additionalProperties") or {}
    other = "tables" if "$ref" in inner else "values" if "anyOf" in inner else "texts"
    of = {"integer": "whole numbers", "number": "numbers"}.get(inner.get("type", ""), other)
    name |= {"array": f"list of {of}", "object": f"table of {of}"}
    limits = [
        f"{words} {kind[limit]}"
        for limit, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if limit in kind
    ]
    return name[kind["type"]] + (f", {', '.join(limits)}" if limits else "")


def _default(value: object) -> str:
    return "—" if value in (None, {}) else f"`{json.dumps(value, ensure_ascii=False)}`"


def _help(command: Any, name: str) -> str:
    """A command's help in a box; typer keeps the types of its commands to itself."""
    context = command.context_class(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    return f"```text\n{command.get_help(context).rstrip()}\n```\n"


if __name__ == "__main__":
    for document in documents():
        text = document.read_text(encoding="utf-8")
        document.write_text(refreshed(text), encoding="utf-8")
