"""The power of a test: the smallest effect that it can show, and how many questions a smaller one takes."""

import math
from collections.abc import Sequence
from statistics import NormalDist

from scipy import special

from luthier.evaluate.statistics.intervals import normal_quantile
from luthier.evaluate.statistics.significance import fewest_changed
from luthier.evaluate.statistics.units import floats, two_valued, units

_NORMAL = NormalDist()
_MOST = 10**9  # questions; beyond this the answer is "not by asking more"


def smallest_visible_effect(
    tuned: Sequence[float], prompt: Sequence[float], groups: Sequence[str], *, alpha: float, power: float = 0.8
) -> float:
    """The true mean difference δ that this test finds with probability `power`: δ = (z₁ + z₂)·standard error at δ,

    z₁ the normal quantile at 1 - alpha/2 and z₂ at `power`. The standard error is the one that differences of this size
    would have around δ, not around what happened to be observed: √(Σd² - nδ²)/n, and with groups their sums for d. So
    differences that are all equal have an error too, as in `items_for_effect`. Where too few units
    differ to estimate anything: the share of units that must change, all to one side and by a whole 1 each, for the test to
    meet enough of them with that probability; 1 when there are too few units for any.
    """
    grouped, z = units(floats(tuned) - floats(prompt), groups), _quantiles(alpha, power)
    spread, sizes = float(grouped.sums @ grouped.sums), float(grouped.sizes @ grouped.sizes)
    effect = z * math.sqrt(spread / (float(grouped.sizes.sum()) ** 2 + z**2 * sizes))
    needed, count = fewest_changed(alpha, two_valued(tuned, prompt)), len(grouped.sums)
    if grouped.changed < needed:
        # P(Binomial(count, share) >= needed) = power, as an incomplete beta function.
        share = float(special.betaincinv(needed, count - needed + 1, power)) if count >= needed else 1.0
        effect = max(effect, share)
    bounded = min(*tuned, *prompt) >= 0 and max(*tuned, *prompt) <= 1
    return min(effect, 1.0) if bounded else effect


def items_needed(
    tuned: Sequence[float],
    prompt: Sequence[float],
    groups: Sequence[str],
    *,
    effect: float,
    alpha: float,
    power: float = 0.8,
) -> int:
    """How many items like these a test needs to find a true mean difference `effect` with probability `power`.

    `smallest_visible_effect` read backwards: the standard error falls with the root of the items. It is the groups' one,
    so their design effect is in it, and new items are taken to come in groups as large as these.
    """
    grouped = units(floats(tuned) - floats(prompt), groups)
    items, count = float(grouped.sizes.sum()), len(grouped.sums)
    spread, sizes = float(grouped.sums @ grouped.sums), float(grouped.sizes @ grouped.sizes)
    wanted = (_quantiles(alpha, power) / effect) ** 2 * max(0.0, spread - effect**2 * sizes) / items
    needed = fewest_changed(alpha, two_valued(tuned, prompt))
    if grouped.changed < needed:
        wanted = max(wanted, _units_to_meet(needed, min(effect, 1.0), power) * items / count)
    return min(_MOST, math.ceil(wanted))


def items_for_effect(
    effect: float, *, changed: float, alpha: float = 0.05, power: float = 0.8, design_effect: float = 1.0
) -> int:
    """How many 0/1 scored items find a difference `effect` where a share `changed` of them changes, before any answer.

    (z₁ + z₂)²·(changed - effect²)/effect², times the design effect of groups. +5 points with 20 % changed: 621 items.
    """
    return math.ceil(design_effect * _quantiles(alpha, power) ** 2 * max(0.0, changed - effect**2) / effect**2)


def _quantiles(alpha: float, power: float) -> float:
    return normal_quantile(1 - alpha) + _NORMAL.inv_cdf(power)


def _units_to_meet(needed: int, share: float, power: float) -> int:
    """The fewest units of which `needed` change with probability `power`, each with probability `share`."""
    enough = needed
    while special.bdtr(needed - 1, enough, share) > 1 - power and enough < _MOST:
        enough *= 2
    low, high = enough // 2, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if special.bdtr(needed - 1, middle, share) <= 1 - power else (middle, high)
    return max(high, needed)
