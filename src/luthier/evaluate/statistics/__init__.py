"""Paired statistics for arms that answered the same questions; pure functions of their arguments and a seed.

Groups (documents, customers) are resampled and sign-flipped as a whole wherever one occurs more than once, because the
items of a group are not independent of each other. Scores of 0 and 1 get the exact or score methods made for them.

    significance   McNemar mid-p · sign-flip permutation · cluster-robust t · Holm's correction
    intervals      Tango and Wilson score intervals · BCa bootstrap
    equivalence    two one-sided tests
    power          the smallest visible effect, and how many more questions a smaller one takes
    samples        several answers to one question
    units          items or groups, and their standard error
    words          numbers in sentences
"""

from luthier.evaluate.statistics.equivalence import equivalence_p, equivalent
from luthier.evaluate.statistics.intervals import (
    Interval,
    Paired,
    bca_interval,
    mean_interval,
    paired_interval,
    tango_interval,
    unseen,
    wilson_interval,
)
from luthier.evaluate.statistics.power import items_for_effect, items_needed, smallest_visible_effect
from luthier.evaluate.statistics.samples import Sampling, sampled
from luthier.evaluate.statistics.significance import (
    PairedTest,
    TestName,
    cluster_t_p,
    fewest_changed,
    holm,
    mcnemar_mid_p,
    paired_test,
    sign_flip_p,
)
from luthier.evaluate.statistics.units import RESAMPLES, SAME, Floats, Units, design_effect, repeated, units
from luthier.evaluate.statistics.words import p_in_words, signed

__all__ = [
    "RESAMPLES",
    "SAME",
    "Floats",
    "Interval",
    "Paired",
    "PairedTest",
    "Sampling",
    "TestName",
    "Units",
    "bca_interval",
    "cluster_t_p",
    "design_effect",
    "equivalence_p",
    "equivalent",
    "fewest_changed",
    "holm",
    "items_for_effect",
    "items_needed",
    "mcnemar_mid_p",
    "mean_interval",
    "p_in_words",
    "paired_interval",
    "paired_test",
    "repeated",
    "sampled",
    "sign_flip_p",
    "signed",
    "smallest_visible_effect",
    "tango_interval",
    "units",
    "unseen",
    "wilson_interval",
]
