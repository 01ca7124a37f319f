"""Typed decisions: where answers are labels, a probability for each allowed answer, without generating any text.

The likelihood of an allowed answer behind the question, its end token included, is divided by that of all of them. Such
probabilities are sharper or flatter than how often they are right; one temperature, fitted on dev, mends that.

    candidates      the allowed answers, and how likely a model finds each of them
    calibration     the temperature; Brier score, log loss and calibration error before and after
"""

from luthier.evaluate.decisions.calibration import Calibrated, Outcomes, calibrate, probabilities
from luthier.evaluate.decisions.candidates import MOST_ANSWERS, allowed_answers, log_likelihoods, pairs

__all__ = [
    "MOST_ANSWERS",
    "Calibrated",
    "Outcomes",
    "allowed_answers",
    "calibrate",
    "log_likelihoods",
    "pairs",
    "probabilities",
]
