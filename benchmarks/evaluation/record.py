"""What a figure needs around it: the machine, its load, and a place in RESULTS.md."""

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "RESULTS.md"


def circumstances(packages: Sequence[str]) -> str:
    """When, on what and beside what something was measured; nothing that tells whose machine it is."""
    import torch

    models = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line]
    model = models[0].partition(":")[2].strip() if models else "unknown processor"
    software = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{time.strftime('%Y-%m-%d')}, {model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"load at the end {os.getloadavg()[0]:.1f} (this process is part of it); {platform.system()}, "
        f"Python {platform.python_version()}, {software}."
    )


def write_section(heading: str, text: str, file: Path = RESULTS) -> None:
    """Replace the part of the file under `## heading`, or add it."""
    content = file.read_text(encoding="utf-8") if file.exists() else "# Benchmark results\n"
    before, found, rest = content.partition(f"## {heading}\n")
    _, other, after = rest.partition("\n## ")
    body = f"## {heading}\n\n{text.rstrip()}\n"
    file.write_text(before.rstrip() + "\n\n" + body + (other + after if found else ""), encoding="utf-8")
