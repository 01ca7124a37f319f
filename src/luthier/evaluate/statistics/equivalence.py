"""Whether a difference, if there is one, is too small to matter: two one-sided tests, as an interval and as a p-value."""

import math
from statistics import NormalDist

from luthier.evaluate.statistics.intervals import Interval, Paired, tango_z
from luthier.evaluate.statistics.significance import smallest_p

_NORMAL = NormalDist()


def equivalent(interval: Interval, margin: float) -> bool:
    """Two one-sided tests (Schuirmann 1987): the 1 - 2 alpha interval lies inside ± margin."""
    return -margin < interval.low and interval.high < margin


def equivalence_p(paired: Paired, margin: float) -> float:
    """The larger p of the two one-sided tests that the true difference is at least margin, and at most -margin.

    It is the smallest alpha whose 1 - 2 alpha interval (`Paired.interval`) lies inside ± margin, so that p < alpha and
    `equivalent` say the same. Where the margin is beyond all resampled means, p stays at what the outermost one gives:
    few groups cannot show more, however far away the margin is.
    """
    if paired.counts is not None:
        above = _NORMAL.cdf(tango_z(*paired.counts, margin))
        below = _NORMAL.cdf(-tango_z(*paired.counts, -margin))
        return max(above, below)
    assert paired.resampled
    plain = max(paired.resampled.p_at_least(margin), paired.resampled.p_at_most(-margin))
    # Below this alpha the interval counts as blind and is widened; see `Paired.interval`.
    blind_until = smallest_p(paired.grouped.changed, paired.binary) / 2 if paired.grouped.varied else 0.5
    widened = max(plain, _blind_p(margin - abs(paired.grouped.mean), len(paired.grouped.sums)))
    return widened if widened <= blind_until else max(plain, blind_until)


def _blind_p(room: float, count: int) -> float:
    """The alpha at which ± z²/(count + z²) has shrunk to `room`."""
    if room <= 0:
        return 1.0
    return 1 - _NORMAL.cdf(math.sqrt(count * room / (1 - room))) if room < 1 else 0.0
