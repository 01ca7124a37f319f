"""The run folder: what is in it, how it is written so that a crash leaves the old or the new, and whether it is still whole.

folder      a run: run.json, events, checksums, its lock
events      the log that every screen and page is drawn from
locking     one process at a time
durable     every call that changes a disk
manifest    the checksums of a checkpoint
verify      whether a run is still what was written
signals     when to stop
"""

from luthier.runs.events import now
from luthier.runs.folder import Run, State, find
from luthier.runs.locking import lock

__all__ = ["Run", "State", "find", "lock", "now"]
