"""What we use of other libraries beyond what they document is all in one table, and their versions have an upper bound."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_parts import PARTS, Part

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "luthier"

DOCUMENTED = {
    "docx.table", "fastapi.exceptions", "fastapi.responses", "ftfy.badness", "gepa.core.adapter", "granian.constants",
    "granian.http", "granian.server.embed", "huggingface_hub.errors", "jinja2.exceptions", "jinja2.ext",
    "jinja2.parser", "jinja2.sandbox", "lm_eval.api.model", "lm_eval.evaluator", "numpy.typing",
    "prometheus_client.core", "prometheus_client.registry", "py3langid.langid",
    "pyarrow.parquet", "pypdf.errors", "rapidfuzz.distance", "rich.console", "rich.markup", "rich.measure",
    "rich.progress", "rich.table", "rich.text", "sacrebleu.metrics.chrf", "safetensors.torch", "scipy.optimize",
    "scipy.stats", "starlette.concurrency", "starlette.datastructures", "starlette.exceptions", "starlette.responses",
    "starlette.types", "torch.distributed", "torch.distributed.checkpoint",
    "torch.distributed.device_mesh", "torch.distributed.fsdp", "torch.distributed.tensor",
    "torch.nn.attention.bias", "torch.nn.functional", "trafilatura.settings", "transformers.utils",
}  # fmt: skip
"""Modules inside other packages that their documentation sends everybody to."""
OF_TUPLES = {"_asdict", "_fields", "_replace"}
"""Python's own, whatever they look like."""


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.library}: {part.name}")
def test_the_table_names_what_is_used(part: Part) -> None:
    for file in part.files:
        text = (SOURCE / file).read_text(encoding="utf-8")
        assert part.name in text, f"{file} uses {part.name} no more: take it out of the table"


def test_a_library_with_private_parts_has_an_upper_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    unbound = [line for line in lines if "<" not in line]
    assert [line for line in unbound if re.split(r"[<>=]", line)[0] in {part.library for part in PARTS}] == []


def private_parts(code: str) -> Iterator[str]:
    """Names of others' private parts in this code: attributes, `torch.ops`, modules that are not documented.

    An attribute belongs to us where one of the file's classes has it.
    """
    tree = ast.parse(code)
    ours = OF_TUPLES | {name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for name in attributes(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if is_undocumented(alias.name))
            case ast.ImportFrom(module=str(module), names=names):
                if is_undocumented(module):
                    yield module
                yield from (alias.name for alias in names if is_private(alias.name) and not is_own(module))
            case ast.Attribute(value=ast.Attribute(), attr=name) if re.match(
                r"torch\.ops\.\w+$", ast.unparse(node.value)
            ):
                yield f"{ast.unparse(node.value)}.{name}"
            case ast.Attribute(attr=name) if is_private(name) and name not in ours:
                yield name
            case ast.Attribute(attr="__class__", ctx=ast.Store()):
                yield "__class__"
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr" | "setattr"), args=[_, ast.Constant(value=str(name)), *_]
            ):
                if is_private(name) and name not in ours:
                    yield name
            case ast.Subscript(value=ast.Attribute(attr="__dict__"), slice=ast.Constant(value=str(name))):
                yield name


def attributes(kind: ast.ClassDef) -> Iterator[str]:
    """What a class has: its methods, its fields, and what is put on `self`."""
    for node in ast.walk(kind):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield name


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_own(module: str) -> bool:
    top = module.partition(".")[0]
    return top == "luthier" or top in sys.stdlib_module_names


def is_undocumented(module: str) -> bool:
    return "." in module and not is_own(module) and module not in DOCUMENTED


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from transformers.generation._stop import x", ["transformers.generation._stop"]),
        ("def f():\n import torch._dynamo", ["torch._dynamo"]),
        ("from peft import _hidden", ["_hidden"]),
        ("from collections.abc import Iterator; from os import _exit; from luthier.model import _x", []),
        ("model.config._attn_implementation = 'eager'", ["_attn_implementation"]),
        ("torch.ops.aten.silu_backward(grad, gate)", ["torch.ops.aten.silu_backward"]),
        ("layer.__class__ = Other", ["__class__"]),
        ("name = layer.__class__.__name__", []),
        ("getattr(model, '_hidden', None)", ["_hidden"]),
        ("model.__dict__['_hidden'] = None", ["_hidden"]),
        ("class A:\n def f(self):\n  self._x = 1\n  return self._x + self._y", ["_y"]),
        ("class A:\n _x: int\n def _f(self): ...\ndef g(a): return a._x, a._f()", []),
        ("row._replace(id=1)", []),
        ("from scipy.stats import norm", []),
    ],
)
def test_private_parts_are_found_in_code(code: str, found: list[str]) -> None:
    assert list(private_parts(code)) == found


def test_every_private_part_in_the_source_is_in_the_table() -> None:
    known = {(part.name, file) for part in PARTS for file in part.files}
    used = {
        (name, file.relative_to(SOURCE).as_posix())
        for file in SOURCE.rglob("*.py")
        for name in private_parts(file.read_text(encoding="utf-8"))
    }
    assert used - known == set(), "use what the library documents, or add a line with a trial to PARTS"
