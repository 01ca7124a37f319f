"""People judge answers without knowing whose they are: a blind sheet goes out, marks come back, and a result is drawn.

review/key.json      which answer is whose; stays with the run
review/marks.jsonl   every reviewer's marks, told apart again
review/result.json   who is preferred, how sure that is, how far reviewers agree
"""

from luthier.review.marks import take_in
from luthier.review.result import Result, draw
from luthier.review.sheet import Sheet, make, write

__all__ = ["Result", "Sheet", "draw", "make", "take_in", "write"]
