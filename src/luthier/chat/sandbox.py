"""A template of unknown origin is tried in a process of its own, with little time and memory, before it runs in ours.

Most templates only walk over what they are given, and are not tried. What could run long or grow large (arithmetic on texts,
ranges, recursion) is tried once on conversations of a few words.
"""

import json
import resource
import subprocess
import sys
from contextlib import suppress
from datetime import date
from functools import lru_cache
from typing import Any

from jinja2 import TemplateSyntaxError, nodes

from luthier.chat.rendering import Renderer, TemplateRefusal, environment

SECONDS, BYTES = 2, 1 << 30
PATIENCE = 60  # seconds by the clock, for a machine that has much else to do
GROWING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "indent", "wordwrap"})
TOO_LONG, TOO_LARGE = 3, 4
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
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"]
    try:
        ended = subprocess.run(command, input=request, text=True, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"needs more than {PATIENCE} seconds for two short messages"
    if ended.returncode == TOO_LARGE:
        return f"needs more than {BYTES >> 30} GiB of memory for two short messages"
    if ended.returncode == TOO_LONG or ended.returncode < 0:  # killed at the limit
        return f"needs more than {SECONDS} seconds of processor time for two short messages"
    if ended.returncode:
        return f"could not be tried: {(ended.stderr.strip().splitlines() or ['no reason given'])[-1]}"
    return None


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


def main() -> None:
    """Render the trial conversations; the exit code says which limit was met."""
    request: dict[str, Any] = json.load(sys.stdin)
    _limit()
    try:
        renderer = Renderer(
            request["source"], request["named"], request["variables"], date.fromisoformat(request["today"])
        )
        for messages in CONVERSATIONS:
            for add_generation_prompt in (False, True):
                with suppress(TemplateRefusal):
                    renderer.render(messages, add_generation_prompt=add_generation_prompt)
    except MemoryError:
        sys.exit(TOO_LARGE)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
