"""On how many threads to compute: as many as cores are free, since threads wait for the one whose core is busy."""

import os

import psutil
import torch

MEASURED_SECONDS = 0.25
FREE = 0.7  # share of a core that must be idle for a thread of its own


def free_cores(seconds: float = MEASURED_SECONDS) -> int:
    """Cores that had next to nothing to do for a moment, of those that this process may use; at least 1.

    Two threads beside one busy core are 4 to 20 times as slow as one.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    busy = psutil.cpu_percent(interval=seconds, percpu=True)
    idle = sum(1 - busy[core] / 100 for core in allowed if core < len(busy))
    return max(1, int(idle + 1 - FREE))


def usual_threads() -> int:
    """As many as torch would use, and as are free now."""
    return min(torch.get_num_threads(), free_cores())
