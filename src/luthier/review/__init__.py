"""People judge answers without knowing whose they are: export a blind sheet, import the marks, compute the result.

review/key.json      which answer is whose; stays with the run
review/marks.jsonl   every reviewer's marks, with the arm that each chose
review/result.json   which arm is preferred, with an interval, and how far reviewers agree
"""

from collections.abc import Sequence
from pathlib import Path

from luthier.review import marks, result, sheet
from luthier.review.result import Result
from luthier.review.sheet import Sheet, write_csv
from luthier.runs import Run

__all__ = ["Result", "Sheet", "import_marks", "make_sheet", "write_csv"]


def make_sheet(run: Run, items: int) -> Sheet:
    """The run's blind sheet with at most so many questions; the key is made, or extended, in the run's folder."""
    with run.lock():
        return sheet.make_sheet(run, items)


def import_marks(run: Run, files: Sequence[Path]) -> Result:
    """Add files of marks to the run, and compute the result of all its marks; both are written to the run's folder."""
    with run.lock():
        return result.compute(run, *marks.import_files(run, files))
