"""From scores to one word that holds: BETTER, WORSE, EQUIVALENT or NOT SHOWN.

One comparison is planned and made: the fine-tuned model against the prompt that was best on the dev split, on the same
questions. Two ways of looking must agree before anything is claimed: the p-value of the paired test and the interval of
the difference. What is not shown is never called equal; the sentence says how large an effect could have hidden.

    analysis_plan              what is fixed beforehand, and what was done otherwise
    decision, secondary        two arms compared; all the others, corrected for many tests
    assembly, wording          verdict.json; its sentence. A new number of every arm goes into `assembly`
    contamination, unanswered  what may take a word back: test rows seen in training, questions without an answer
"""

from luthier.evaluate.verdict.assembly import assemble, best_prompt_arm, by_arm
from luthier.evaluate.verdict.decision import DEFAULT_MARGIN, Decision, Word, decide
from luthier.evaluate.verdict.wording import sentence

__all__ = [
    "DEFAULT_MARGIN",
    "Decision",
    "Word",
    "assemble",
    "best_prompt_arm",
    "by_arm",
    "decide",
    "sentence",
]
