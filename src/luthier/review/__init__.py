"""People judge answers without knowing whose they are: a blind sheet goes out, marks come back, and a result is drawn.

review/key.json      which answer is whose; stays with the run
review/marks.jsonl   every reviewer's marks, told apart again
review/result.json   who is preferred, how sure that is, how far reviewers agree
"""

from collections.abc import Sequence
from pathlib import Path

from luthier.review import marks, result, sheet
from luthier.review.result import Result
from luthier.review.sheet import Sheet, write
from luthier.runs import Run

__all__ = ["Result", "Sheet", "make", "take_in", "write"]


def make(run: Run, items: int) -> Sheet:
    """The run's blind sheet with at most so many questions; the key is made, or extended, in the run's folder."""
    with run.lock():
        return sheet.make(run, items)


def take_in(run: Run, files: Sequence[Path]) -> Result:
    """Enter files of marks, and draw the result of all marks that the run has; both stay in the run's folder."""
    with run.lock():
        return result.draw(run, *marks.take_in(run, files))
