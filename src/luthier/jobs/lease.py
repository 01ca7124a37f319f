"""The clock that leases are kept by: seconds since the machine started, and which start that was.

Nobody can set that clock, neither by hand nor over the network, and all processes of a machine read the same one. After another
start of the machine every earlier lease has run out.
"""

import subprocess
import sys
import time
from functools import cache
from pathlib import Path

SECONDS = 30.0
"""That a worker may be silent before its job is given to another one."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot() -> str:
    """A word for the time since this machine started."""
    if _BOOT_ID.is_file():
        return _BOOT_ID.read_text(encoding="ascii").strip()
    if sys.platform == "darwin":
        asked = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return ""


def clock() -> float:
    """Seconds on the clock that nobody can set."""
    return time.monotonic()
