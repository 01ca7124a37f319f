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
from functools import cache
from pathlib import Path
from typing import Any

import torch

from luthier.errors import MachineError
from luthier.model import device as devices
from luthier.model.device import Precision
from luthier.model.reference import cache_folder
from luthier.runs.durable import make_folders, write_atomic

FILE = "machine.json"


def precision(device: torch.device) -> tuple[Precision, str]:
    """The precision of training, with the reason, as first measured."""
    machine = _name(device)
    choice, reason = _once(f"{machine}: precision", lambda: _precision_here(machine, device))
    return choice, reason


def matmul_flops_per_second(precision: Precision, device: torch.device) -> float:
    """Floating-point operations per second of large matmuls, as first measured."""
    machine = _name(device)
    return float(_once(f"{machine}: {precision} per second", lambda: _flops_here(machine, precision, device)))


@cache
def onednn_is_faster() -> bool:
    """Whether linear layers in fp32 are to be computed by oneDNN on this processor, as first measured."""
    return bool(_once(f"{_name(torch.device('cpu'))}: oneDNN in fp32", devices.onednn_is_faster))


@cache
def _precision_here(machine: str, device: torch.device) -> tuple[Precision, str]:
    """Measured once in this process for a machine of this name."""
    return devices.pick_precision(device)


@cache
def _flops_here(machine: str, precision: Precision, device: torch.device) -> float:
    """Measured once in this process for a machine of this name."""
    return devices.matmul_flops_per_second(precision, device)


def _once(key: str, measure: Callable[[], Any]) -> Any:
    """What is written down under this key, or else measured now and, where that is possible, written down."""
    path = cache_folder() / FILE
    known = _read(path)
    if key in known:
        return known[key]
    found = measure()
    with contextlib.suppress(MachineError, OSError):
        make_folders(path.parent)
        write_atomic(path, json.dumps({**_read(path), key: found}, indent=2) + "\n")
    return found


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
