"""Fixed cases against the implementations in statsmodels."""

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

from luthier.evaluate import statistics
from luthier.evaluate.judge.agreement import cohen

RNG = np.random.default_rng(7)


@pytest.mark.parametrize(("fixed", "broken"), [(9, 3), (0, 6), (31, 8), (20, 20)])
def test_mcnemar_mid_p_is_the_exact_p_less_the_observed_outcome(fixed: int, broken: int) -> None:
    exact = mcnemar([[50, broken], [fixed, 40]], exact=True).pvalue
    observed = np.exp(_log_binomial(min(fixed, broken), fixed + broken))
    # Where both counts are equal the exact test is cut at 1, and so is ours.
    assert statistics.mcnemar_mid_p(fixed, broken) == pytest.approx(1 if fixed == broken else exact - observed)


def _log_binomial(hits: int, count: int) -> float:
    return float(np.sum(np.log(np.arange(count - hits + 1, count + 1))) - np.sum(np.log(np.arange(1, hits + 1)))) + (
        count * float(np.log(0.5))
    )


def test_holm_agrees() -> None:
    p_values = RNG.random(12) ** 3
    assert statistics.holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_cluster_robust_t_agrees_with_regression_on_a_constant() -> None:
    sizes = RNG.integers(1, 8, 25)
    member = np.repeat(np.arange(25), sizes)
    values = RNG.normal(0, 1, 25)[member] + RNG.normal(0.3, 1, len(member))
    fitted = OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": member}, use_t=True)
    groups = [str(number) for number in member]
    assert statistics.units(values, groups).standard_error == pytest.approx(fitted.bse[0])
    assert statistics.cluster_t_p(values, groups) == pytest.approx(fitted.pvalues[0])


def test_wilson_agrees() -> None:
    expected = proportion_confint(37, 120, method="wilson")
    assert statistics.wilson_interval(37 / 120, 120, confidence=0.95) == pytest.approx(expected)


def test_two_one_sided_tests_agree_on_many_items() -> None:
    prompt = RNG.random(500) * 0.5 + 0.25
    tuned = prompt + RNG.normal(0.004, 0.12, 500)
    paired = statistics.Paired.of(tuned.tolist(), prompt.tolist(), [str(n) for n in range(500)], seed=0)
    expected = ttost_paired(tuned, prompt, -0.015, 0.015)[0]
    assert statistics.equivalence_p(paired, 0.015) == pytest.approx(expected, abs=0.005)


def test_cohens_kappa_agrees() -> None:
    from statsmodels.stats.inter_rater import cohens_kappa

    table = np.array([[20, 5, 2], [3, 15, 4], [1, 2, 8]])
    words = ("tuned", "prompt", "tie")
    first = [words[row] for row in range(3) for column in range(3) for _ in range(table[row, column])]
    second = [words[column] for row in range(3) for column in range(3) for _ in range(table[row, column])]
    assert cohen(list(zip(first, second, strict=True))) == pytest.approx(cohens_kappa(table).kappa)
