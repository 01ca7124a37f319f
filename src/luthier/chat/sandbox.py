"""A template of unknown origin is tried in a process of its own, with little time and memory, before it runs in ours.

Most templates only walk over what they are given, and are not tried. What could run long or grow large (arithmetic on texts,
ranges, recursion) is tried once on conversations of a few words.
"""

import json
from contextlib import suppress
from datetime import date
from functools import lru_cache
from typing import Any

from jinja2 import TemplateSyntaxError, nodes

from luthier.chat import limited_process
from luthier.chat.limited_process import Limits
from luthier.chat.rendering import Renderer, TemplateRefusal, environment

SECONDS, BYTES = 2, 1 << 30
PATIENCE = 60  # seconds by the clock, for a machine that has much else to do
GROWING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "indent", "wordwrap"})
CONVERSATIONS = (
    [{"role": "user", "content": "Hello."}],
    [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day."}],
    [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."}],
)


@lru_cache(maxsize=64)
def find_fault(source: str, named: tuple[tuple[str, str], ...], variables: str, today: date) -> str | None:
    """What is wrong with running a template, in words; None if nothing is. `variables` are JSON."""
    try:
        if not _may_grow(environment(today).parse(source)):
            return None
    except TemplateSyntaxError:
        return None  # it will not run at all
    request = json.dumps(
        {"source": source, "named": dict(named), "variables": json.loads(variables), "today": str(today)}
    )
    limits = Limits(SECONDS, BYTES, output=1 << 20, clock=PATIENCE)
    outcome = limited_process.call(f"{__name__}:try_template", request, limits)
    if outcome.failure is not None:
        return f"could not be tried: {outcome.failure}"
    if outcome.met is None:
        return None
    limits_met = {
        "clock": f"more than {PATIENCE} seconds",
        "processor": f"more than {SECONDS} seconds of processor time",
        "memory": f"more than {BYTES >> 30} GiB of memory",
        "output": "to write files",
    }
    return f"needs {limits_met[outcome.met]} for two short messages"


def _may_grow(tree: nodes.Template) -> bool:
    """Whether a template does anything that could take more time or memory than what it is given."""
    if any(tree.find_all((nodes.Mul, nodes.Pow))) or any(loop.recursive for loop in tree.find_all(nodes.For)):
        return True
    if any(isinstance(loop.iter, nodes.Literal) for loop in tree.find_all(nodes.For)):
        return True
    macros = list(tree.find_all(nodes.Macro))
    called = {
        name.name for macro in macros for call in macro.find_all(nodes.Call) for name in call.find_all(nodes.Name)
    }
    names = {name.name for name in tree.find_all(nodes.Name)}
    words = {node.attr for node in tree.find_all(nodes.Getattr)} | {node.name for node in tree.find_all(nodes.Filter)}
    padded = any("%" in str(text.value) for text in tree.find_all(nodes.Const)) and any(tree.find_all(nodes.Mod))
    return bool(called & {macro.name for macro in macros} or names & {"range", "lipsum"} or words & GROWING or padded)


def try_template(request: str) -> str:
    """Render the trial conversations in the limited process; returns nothing."""
    wanted: dict[str, Any] = json.loads(request)
    renderer = Renderer(wanted["source"], wanted["named"], wanted["variables"], date.fromisoformat(wanted["today"]))
    for messages in CONVERSATIONS:
        for add_generation_prompt in (False, True):
            with suppress(TemplateRefusal):
                renderer.render(messages, add_generation_prompt=add_generation_prompt)
    return ""
