"""The run folder: what is in it, how it is written so that a crash leaves the old or the new, and whether it is still whole."""

from luthier.runs.folder import Run, State, alone, find, now

__all__ = ["Run", "State", "alone", "find", "now"]
