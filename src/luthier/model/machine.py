"""What was measured of this machine, written down once: else the same command would train otherwise a minute later.

A timing of some milliseconds says something else whenever it is made, and settings follow from it. Here it is made once for
a machine, a version of torch and a number of threads, and kept in the cache folder's `machine.json`; remove it to measure anew.
"""

import contextlib
import json
import os
import platform
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from luthier.errors import MachineError
from luthier.model import device as devices
from luthier.model.device import Precision
from luthier.model.reference import cache_folder
from luthier.runs.durable import make_folders, write_atomic

FILE = "machine.json"
_known: dict[str, Any] = {}


def precision(device: torch.device) -> tuple[Precision, str]:
    """The number format for training, with the reason, as it was first measured."""
    choice, reason = _once(device, "precision", partial(devices.pick_precision, device))
    return choice, reason


def products_per_second(number: Precision, device: torch.device) -> float:
    """Floating-point operations per second of large matrix products, as first measured."""
    return float(_once(device, f"{number} per second", partial(devices.products_per_second, number, device)))


def _once(device: torch.device, what: str, measure: Callable[[], Any]) -> Any:
    """What is written down, or else measured now and written down; where nothing can be written, this process remembers."""
    path, key = cache_folder() / FILE, f"{_name(device)}: {what}"
    found = {**_known, **_read(path)}
    if key not in found:
        found[key] = _known[key] = measure()
        with contextlib.suppress(MachineError, OSError):
            make_folders(path.parent)
            write_atomic(path, json.dumps({**_read(path), key: found[key]}, indent=2) + "\n")
    return found[key]


def _read(path: Path) -> dict[str, Any]:
    """What is written down; nothing where the file is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _name(device: torch.device) -> str:
    """The device and all that its speed depends on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    model = None
    with contextlib.suppress(OSError):
        model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = model[1] if model else platform.processor() or platform.machine()
    limits = [torch.backends.cpu.get_cpu_capability(), *filter(None, [os.environ.get("ONEDNN_MAX_CPU_ISA")])]
    return f"{processor} ({', '.join(limits)}), {torch.get_num_threads()} threads, torch {torch.__version__}"
