"""Luthier fine-tunes a language model on your data and shows with evidence whether it beats the best prompt.

import luthier
run = luthier.finetune("docs.jsonl", model="smollm2-135m")
print(run.verdict)
print(run.ask("How do I continue an interrupted run?"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier.api import Adapters, Tuned, finetune, load
    from luthier.errors import UserError

__version__ = "0.1.0"
__all__ = ["Adapters", "Tuned", "UserError", "__version__", "finetune", "load"]

_MODULES = {
    "finetune": "luthier.api",
    "load": "luthier.api",
    "Tuned": "luthier.api",
    "Adapters": "luthier.api",
    "UserError": "luthier.errors",
}
_RENAMED = {"Mistake": "UserError"}


def __getattr__(name: str) -> Any:
    """Names are loaded on first use, so that `import luthier` is quick and loads no torch."""
    if name in _RENAMED:  # an AttributeError would lose its words in `from luthier import Mistake`
        raise ImportError(f"luthier.{name} is called luthier.{_RENAMED[name]} now")
    if name not in _MODULES:
        raise AttributeError(f"module 'luthier' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
