"""The statistics against hand-worked values and independent implementations (scipy, or a numerical solution)."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats

from luthier.evaluate import statistics

RNG = np.random.default_rng(20261101)
ALONE = [str(number) for number in range(1000)]


def test_mcnemar_mid_p_by_hand() -> None:
    # 12 changed items, 3 of them broken: P(X < 3) = (1 + 12 + 66)/4096, P(X = 3) = 220/4096; 2·79 + 220 = 378.
    assert statistics.mcnemar_mid_p(9, 3) == pytest.approx(378 / 4096)
    assert statistics.mcnemar_mid_p(3, 9) == pytest.approx(378 / 4096)
    assert statistics.mcnemar_mid_p(5, 0) == pytest.approx(1 / 32)
    assert statistics.mcnemar_mid_p(4, 4) == pytest.approx(1)
    assert statistics.mcnemar_mid_p(0, 0) == 1


def test_sign_flip_by_hand() -> None:
    # Of the 8 sums ±3 ±2 ±1 only +6 and -6 are as far from 0 as 6.
    assert statistics.sign_flip_p([0.3, 0.2, 0.1], seed=0) == pytest.approx(2 / 8)
    assert statistics.sign_flip_p([0.3, 0.2, 0.1], seed=0, mid=True) == pytest.approx(1 / 8)
    assert statistics.sign_flip_p([0.0, 0.0], seed=0) == 1
    # Two groups of two: (0.5, 0.1) flips as one, so 2 of 4 sums reach the observed one.
    assert statistics.sign_flip_p([0.3, 0.2, 0.1, 0.0], ["a", "a", "b", "b"], seed=0) == pytest.approx(2 / 4)


@pytest.mark.parametrize("count", [5, 12])
def test_few_units_are_enumerated_as_scipy_does(count: int) -> None:
    differences = RNG.normal(0.3, 1, count)
    reference = stats.permutation_test((differences, -differences), _mean_of_halves, permutation_type="samples")
    assert statistics.sign_flip_p(differences, seed=0) == pytest.approx(reference.pvalue)


def test_many_units_are_sampled_close_to_scipy() -> None:
    differences = RNG.normal(0.1, 1, 200)
    reference = stats.permutation_test(
        (differences, -differences), _mean_of_halves, permutation_type="samples", n_resamples=40_000, rng=1
    )
    # Standard error of a share near 0.15 from 10,000 draws: 0.0036.
    assert statistics.sign_flip_p(differences, seed=0) == pytest.approx(reference.pvalue, abs=0.015)


def _mean_of_halves(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
    """scipy swaps x and y of each pair; with y = -x that turns the sign of x."""
    return np.mean(first - second, axis=axis) / 2


def test_the_sampled_p_is_never_zero_and_depends_on_the_seed_alone() -> None:
    differences = np.full(50, 0.5)
    assert statistics.sign_flip_p(differences, seed=3) == pytest.approx(1 / 10_001)
    noisy = RNG.normal(0.05, 1, 100)
    assert statistics.sign_flip_p(noisy, seed=3) == statistics.sign_flip_p(noisy, seed=3)
    assert statistics.sign_flip_p(noisy, seed=3) != statistics.sign_flip_p(noisy, seed=4)


def test_sign_flip_mid_p_of_single_items_is_mcnemars() -> None:
    differences = [1.0] * 8 + [-1.0] * 2 + [0.0] * 30
    assert statistics.sign_flip_p(differences, seed=0, mid=True) == pytest.approx(statistics.mcnemar_mid_p(8, 2))


def test_whole_groups_flip_together() -> None:
    # Ten equal groups are ten facts, however many rows each has.
    differences = np.repeat(RNG.normal(0.4, 1, 10), 20)
    groups = [str(number // 20) for number in range(200)]
    assert statistics.sign_flip_p(differences, groups, seed=0) == statistics.sign_flip_p(differences[::20], seed=0)


@pytest.mark.parametrize("count", [30, 300])
def test_bca_agrees_with_scipy(count: int) -> None:
    values = RNG.exponential(1, count)
    # scipy has no correction for few items: ask it for the confidence that the expanded quantiles stand for.
    wide = math.sqrt(count / (count - 1)) * stats.t.ppf(0.975, count - 1)
    reference = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, confidence_level=1 - 2 * stats.norm.sf(wide), method="BCa", rng=1
    ).confidence_interval
    found = statistics.bca_interval(values, confidence=0.95, seed=0, resamples=40_000)
    width = reference.high - reference.low
    assert found.low == pytest.approx(reference.low, abs=0.02 * width)
    assert found.high == pytest.approx(reference.high, abs=0.02 * width)


def test_bca_of_groups_is_bca_of_their_means_when_they_are_alike() -> None:
    means = RNG.normal(0, 1, 40)
    groups = [str(number // 5) for number in range(200)]
    grouped = statistics.bca_interval(np.repeat(means, 5), groups, confidence=0.95, seed=0)
    assert grouped == pytest.approx(statistics.bca_interval(means, confidence=0.95, seed=0))


def test_bca_without_variation_is_a_point_and_few_skewed_units_do_not_break_it() -> None:
    assert statistics.bca_interval([0.3] * 10, confidence=0.95, seed=0) == pytest.approx((0.3, 0.3))
    low, high = statistics.bca_interval([0.0, 0.0, 1.0], confidence=0.95, seed=0)
    assert 0 <= low <= 1 / 3 <= high <= 1


def test_unequal_groups_weigh_by_their_items() -> None:
    grouped = statistics.units([1.0, 0.0, 0.5, 0.5], ["a", "b", "b", "b"])
    assert grouped.sums.tolist() == [1.0, 1.0] and grouped.sizes.tolist() == [1.0, 3.0]
    assert grouped.mean == 0.5
    # Residuals 1 - 1·0.5 and 1 - 3·0.5: sqrt(2/1 · (0.25 + 0.25)) / 4.
    assert grouped.standard_error == pytest.approx(1 / 4)


@pytest.mark.parametrize(("successes", "count"), [(0, 20), (7, 20), (150, 300), (20, 20)])
def test_wilson_agrees_with_scipy(successes: int, count: int) -> None:
    reference = stats.binomtest(successes, count).proportion_ci(method="wilson")
    found = statistics.wilson_interval(successes / count, count, confidence=0.95)
    assert found == pytest.approx((reference.low, reference.high))


@pytest.mark.parametrize(("fixed", "broken", "count"), [(7, 12, 21), (31, 8, 140), (5, 0, 40), (0, 3, 60)])
def test_tango_ends_where_the_score_statistic_reaches_z(fixed: int, broken: int, count: int) -> None:
    for delta in statistics.tango_interval(fixed, broken, count, confidence=0.95):
        assert abs(_score_statistic(fixed, broken, count, delta)) == pytest.approx(1.959964, abs=1e-3)


def _score_statistic(fixed: int, broken: int, count: int, delta: float) -> float:
    """(d - δ) over its standard error under δ, with the likeliest share of broken items found by a search."""

    def surprise(share: float) -> float:
        cells = ((fixed, share + delta), (broken, share), (count - fixed - broken, 1 - 2 * share - delta))
        return -sum(seen * math.log(max(probability, 1e-300)) for seen, probability in cells)

    lower, upper = max(0.0, -delta), (1 - delta) / 2
    share = optimize.minimize_scalar(surprise, bounds=(lower, upper), method="bounded", options={"xatol": 1e-12}).x
    return ((fixed - broken) / count - delta) / math.sqrt((2 * share + delta - delta**2) / count)


def test_tango_at_its_edges() -> None:
    z = 1.959964
    unchanged = statistics.tango_interval(0, 0, 100, confidence=0.95)
    assert unchanged == pytest.approx((-(z**2) / (100 + z**2), z**2 / (100 + z**2)), abs=1e-6)
    assert statistics.tango_interval(10, 0, 10, confidence=0.95).high == pytest.approx(1)


def test_tango_excludes_zero_exactly_when_mcnemars_score_does() -> None:
    for fixed, broken in itertools.product(range(12), repeat=2):
        low, high = statistics.tango_interval(fixed, broken, 40, confidence=0.95)
        significant = fixed != broken and abs(fixed - broken) / math.sqrt(fixed + broken) > 1.959964
        assert (low > 0 or high < 0) == significant


def test_the_method_follows_the_scores_and_the_groups() -> None:
    tuned, prompt = [1.0] * 9 + [0.0] * 3 + [1.0] * 8, [0.0] * 9 + [1.0] * 3 + [1.0] * 8
    alone, shared = ALONE[:20], ["0", "0", *ALONE[2:20]]
    assert statistics.paired_test(tuned, prompt, alone, seed=0) == ("McNemar mid-p", pytest.approx(378 / 4096))
    assert statistics.paired_test(tuned, prompt, shared, seed=0).name == "paired permutation"
    assert statistics.paired_test([0.5, *tuned[1:]], prompt, alone, seed=0).name == "paired permutation"
    expected = statistics.tango_interval(9, 3, 20, confidence=0.95)
    assert statistics.paired_interval(tuned, prompt, alone, confidence=0.95, seed=0) == expected
    assert statistics.mean_interval(tuned, alone, confidence=0.95, seed=0) == statistics.wilson_interval(
        17 / 20, 20, confidence=0.95
    )


def test_equal_answers_leave_room_for_what_was_not_sampled() -> None:
    scores, z = [0.5] * 50, 1.959964
    interval = statistics.paired_interval(scores, scores, ALONE[:50], confidence=0.95, seed=0)
    assert interval == pytest.approx((-(z**2) / (50 + z**2), z**2 / (50 + z**2)), abs=1e-6)
    effect = statistics.smallest_visible_effect(scores, scores, ALONE[:50], alpha=0.05)
    # The sign-flip test needs 6 changed items: with that true share it meets them four times in five.
    assert stats.binom.sf(5, 50, effect) == pytest.approx(0.8)


def test_all_right_in_grouped_items_is_not_certainty() -> None:
    interval = statistics.mean_interval([1.0] * 30, [str(number // 3) for number in range(30)], confidence=0.95, seed=0)
    assert interval == statistics.wilson_interval(1.0, 10, confidence=0.95)


def test_smallest_visible_effect_is_2_8_standard_errors_at_that_effect() -> None:
    # 10 fixed and 10 broken of 100: variance 0.2 - δ², and z quantiles 1.959964 + 0.841621.
    tuned, prompt = [1.0] * 10 + [0.0] * 10 + [1.0] * 80, [0.0] * 10 + [1.0] * 90
    effect = statistics.smallest_visible_effect(tuned, prompt, ALONE[:100], alpha=0.05)
    assert effect == pytest.approx(2.801585 * math.sqrt((0.2 - effect**2) / 100), rel=1e-5)
    assert effect == pytest.approx(2.801585 * math.sqrt(0.2 / (100 + 2.801585**2)), rel=1e-5)


@pytest.mark.parametrize(("count", "changed"), [(60, 0.9), (100, 0.2), (300, 0.2)])
def test_the_smallest_visible_effect_is_found_four_times_in_five(count: int, changed: float) -> None:
    # What is observed is one-sided and large; what is asked is what this test would find of a smaller effect.
    tuned = [1.0] * round(count * changed) + [0.0] * round(count * (1 - changed))
    effect = statistics.smallest_visible_effect(tuned, [0.0] * count, ALONE[:count], alpha=0.05)
    shares = [(changed + effect) / 2, (changed - effect) / 2, 1 - changed]
    drawn = np.random.default_rng(0).multinomial(count, shares, 1_000)
    found = [fixed > broken and statistics.mcnemar_mid_p(fixed, broken) < 0.05 for fixed, broken, _ in drawn]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("size", [1.0, 0.5, 0.01])
def test_differences_that_are_all_equal_leave_a_doubt(size: float) -> None:
    tuned, prompt = [size] * 12, [0.0] * 12
    effect = statistics.smallest_visible_effect(tuned, prompt, ALONE[:12], alpha=0.05)
    assert effect == pytest.approx(2.801585 * size / math.sqrt(12 + 2.801585**2), rel=1e-5)
    low, high = statistics.paired_interval(tuned, prompt, ALONE[:12], confidence=0.95, seed=0)
    assert (
        high - low > 0.2
    )  # 12 questions without the other case do not tell that it never comes: 3.84 / (12 + 3.84) = 0.24
    if size < 1:  # 0/1 scores have Tango's interval
        assert (low, high) == pytest.approx((size - 3.8415 / 15.8415, size + 3.8415 / 15.8415), abs=1e-4)


@pytest.mark.parametrize("difference", [0.01, 0.0])
def test_few_questions_that_all_differ_alike_are_not_equivalent(difference: float) -> None:
    few, many = (
        statistics.Paired.of([0.5 + difference] * count, [0.5] * count, ALONE[:count], seed=0) for count in (5, 300)
    )
    # 90 %: 2.7055 / (n + 2.7055) is 0.35 of 5 and 0.009 of 300.
    assert not statistics.equivalent(few.interval(0.9), 0.02) and statistics.equivalence_p(few, 0.02) > 0.3
    assert statistics.equivalent(many.interval(0.9), 0.02) and statistics.equivalence_p(many, 0.02) < 0.05


def test_equal_scores_of_an_arm_are_not_certainty() -> None:
    blind = 3.8415 / (12 + 3.8415)
    interval = statistics.mean_interval([0.7] * 12, ALONE[:12], confidence=0.95, seed=0)
    assert interval == pytest.approx((0.7 * (1 - blind), 0.7 + 0.3 * blind), abs=1e-5)
    ones = statistics.mean_interval([1.0 - 1e-12] * 12, ALONE[:12], confidence=0.95, seed=0)
    assert ones == pytest.approx(statistics.wilson_interval(1.0, 12, confidence=0.95), abs=1e-6)


def test_too_few_questions_can_show_nothing() -> None:
    assert statistics.smallest_visible_effect([1.0] * 4, [0.0] * 4, ALONE[:4], alpha=0.05) == 1
    assert statistics.smallest_visible_effect([0.2, 0.4], [0.1, 0.1], ["a", "a"], alpha=0.05) == 1


def test_equivalence_needs_the_whole_interval_inside() -> None:
    assert statistics.equivalent(statistics.Interval(-0.019, 0.01), 0.02)
    assert not statistics.equivalent(statistics.Interval(-0.021, 0.01), 0.02)
    assert not statistics.equivalent(statistics.Interval(0.0, 0.02), 0.02)


def test_holm_by_hand() -> None:
    # Sorted: 0.01·4, 0.02·3, 0.03·2 raised to the one before, 0.9·1.
    assert statistics.holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert statistics.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert statistics.holm([]) == []


def test_cluster_t_of_single_items_is_the_paired_t_test() -> None:
    tuned, prompt = RNG.normal(0.1, 1, 40), RNG.normal(0, 1, 40)
    expected = stats.ttest_rel(tuned, prompt).pvalue
    assert statistics.cluster_t_p(tuned - prompt) == pytest.approx(expected)
    assert statistics.cluster_t_p([0.0, 0.0, 0.0]) == 1
    assert statistics.cluster_t_p([0.5, 0.5, 0.5]) == 0


def test_cluster_t_and_sign_flip_of_groups_agree_on_many_groups() -> None:
    groups = [str(number // 4) for number in range(400)]
    differences = np.repeat(RNG.normal(0.12, 0.5, 100), 4) + RNG.normal(0, 0.5, 400)
    flipped = statistics.sign_flip_p(differences, groups, seed=0)
    assert statistics.cluster_t_p(differences, groups) == pytest.approx(flipped, abs=0.015)


def test_design_effect_of_equal_answers_in_a_group_is_the_groups_size() -> None:
    # Intraclass correlation 1: 1 + (5 - 1)·1 = 5, but for 200 against 40 in the two C/(C - 1).
    values = np.repeat(RNG.normal(0, 1, 40), 5)
    effect = statistics.design_effect(values, [str(number // 5) for number in range(200)])
    assert effect == pytest.approx(5 * (40 / 39) / (200 / 199) * 199 / 200 * 200 / 199)
    assert statistics.design_effect(values, ALONE[:200]) == pytest.approx(1)
    assert statistics.design_effect([0.3] * 4, ["a", "a", "b", "b"]) == 1


def test_equivalence_p_of_counts_is_tangos_score_at_the_margin() -> None:
    # Nothing changed in n: z at a margin m is sqrt(n·m/(1 - m)), so at m = 0.02 and n = 133 z = 1.6475.
    nothing = statistics.Paired.of([1.0] * 133, [1.0] * 133, ALONE[:133], seed=0)
    assert statistics.equivalence_p(nothing, 0.02) == pytest.approx(stats.norm.sf(math.sqrt(133 * 0.02 / 0.98)))
    tuned, prompt = [1.0] * 12 + [0.0] * 8 + [1.0] * 280, [0.0] * 12 + [1.0] * 288
    some = statistics.Paired.of(tuned, prompt, ALONE[:300], seed=0)
    above, below = (_score_statistic(12, 8, 300, delta) for delta in (0.05, -0.05))
    assert statistics.equivalence_p(some, 0.05) == pytest.approx(
        max(stats.norm.cdf(above), stats.norm.sf(below)), abs=1e-4
    )


def test_equivalence_p_of_many_scores_is_the_t_tests() -> None:
    differences = RNG.normal(0.005, 0.1, 400)
    paired = statistics.Paired.of((0.5 + differences).tolist(), [0.5] * 400, ALONE[:400], seed=0)
    error = differences.std(ddof=1) / 20
    expected = max(
        stats.t.sf((0.02 - differences.mean()) / error, 399), stats.t.sf((0.02 + differences.mean()) / error, 399)
    )
    assert statistics.equivalence_p(paired, 0.02) == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize("kind", ["binary", "other", "grouped", "few changed", "nothing changed"])
def test_equivalence_p_and_interval_say_the_same(kind: str) -> None:
    generator = np.random.default_rng(8)
    told = set()
    for seed in range(60):
        count = int(generator.integers(20, 200))
        prompt = generator.random(count) if kind in ("other", "grouped") else np.round(generator.random(count))
        change = {"binary": 0.2, "few changed": 0.02, "nothing changed": 0.0}.get(kind, 1.0)
        noise = generator.normal(0, 0.1, count) if kind in ("other", "grouped") else 1 - 2 * prompt
        tuned = prompt + noise * (generator.random(count) < change)
        groups = [str(number // (1 if kind in ("binary", "other") else 3)) for number in range(count)]
        paired = statistics.Paired.of(tuned.tolist(), prompt.tolist(), groups, seed=seed)
        for alpha, margin in itertools.product((0.01, 0.05, 0.2), (0.01, 0.03, 0.1)):
            p_value = statistics.equivalence_p(paired, margin)
            inside = statistics.equivalent(paired.interval(1 - 2 * alpha), margin)
            if abs(p_value - alpha) > 0.002:  # at the edge the two read the resamples' steps differently
                told.add(inside)
                assert inside == (p_value < alpha) or (inside and _beyond(paired, margin))
    assert told == {True, False}


def _beyond(paired: statistics.Paired, margin: float) -> bool:
    means = paired.resampled.means
    return means[0] > -margin or means[-1] < margin


def test_items_needed_read_the_visible_effect_backwards_and_agree_with_the_plan() -> None:
    tuned, prompt = [1.0] * 15 + [0.0] * 10 + [1.0] * 75, [0.0] * 15 + [1.0] * 85
    effect = statistics.smallest_visible_effect(tuned, prompt, ALONE[:100], alpha=0.05)
    found = [
        statistics.items_needed(tuned, prompt, ALONE[:100], effect=effect / factor, alpha=0.05) for factor in (1, 2)
    ]
    assert found == [
        pytest.approx(100, abs=1),
        pytest.approx(statistics.items_for_effect(effect / 2, changed=0.25), abs=1),
    ]


def test_items_needed_count_the_design_effect() -> None:
    differences = np.repeat(RNG.normal(0, 0.2, 20), 5)
    tuned, prompt = (0.5 + differences).tolist(), [0.5] * 100
    grouped = statistics.items_needed(tuned, prompt, [str(n // 5) for n in range(100)], effect=0.05, alpha=0.05)
    alone = statistics.items_needed(tuned, prompt, ALONE[:100], effect=0.05, alpha=0.05)
    assert grouped / alone == pytest.approx(5, rel=0.01)  # five equal ones say as much as one


def test_items_needed_where_nothing_changed_meet_enough_changes() -> None:
    # The sign-flip test needs 6 changed items of a share 0.1; scipy's binomial agrees on the first count that meets them.
    needed = statistics.items_needed([0.5] * 50, [0.5] * 50, ALONE[:50], effect=0.1, alpha=0.05)
    assert stats.binom.sf(5, needed, 0.1) >= 0.8 > stats.binom.sf(5, needed - 1, 0.1)


@pytest.mark.parametrize(
    ("effect", "changed", "items"),
    [(0.05, 0.1, 307), (0.05, 0.2, 621), (0.05, 0.3, 935), (0.1, 0.1, 71), (0.1, 0.2, 150), (0.1, 0.3, 228)],
)
def test_items_for_effect(effect: float, changed: float, items: int) -> None:
    # (1.959964 + 0.841621)² (changed - effect²) / effect², rounded up: 7.84888 · 39 = 306.1, and so on.
    assert statistics.items_for_effect(effect, changed=changed) == items
    assert statistics.items_for_effect(effect, changed=changed, design_effect=2) == pytest.approx(2 * items, abs=1)


def test_samples_split_the_variance_by_hand() -> None:
    # Means 0.5, 1, 0, 0.5: variance 1/6 over 4 questions is 1/24 in all. Two questions vary by 1/2, two by 0: on average
    # 1/4, over 2 samples and 4 questions 1/32; what is left is 1/24 - 1/32 = 1/96.
    found = statistics.sampled([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]], ["a", "b", "c", "d"])
    assert found.means == [0.5, 1.0, 0.0, 0.5] and found.samples == 2
    assert (found.within, found.between) == (pytest.approx(1 / 32), pytest.approx(1 / 96))
    assert found.standard_error == pytest.approx(math.sqrt(1 / 24))
    assert found.sentence() == (
        "75% of the variance comes from sampling 2 answers to a question, the rest from the questions. Twice the samples "
        "would narrow the interval by 21%, twice the questions by 29%; add samples, which need no new reference answers."
    )


def test_samples_that_agree_ask_for_questions() -> None:
    found = statistics.sampled([[0.2, 0.2, 0.2], [0.9, 0.9, 0.9]], ["a", "b"])
    assert found.within == 0 and found.between == pytest.approx(0.35**2)
    assert found.sentence().endswith("add questions, for more samples would bring little.")
    assert "was not measured" in statistics.sampled([[0.2], [0.9]], ["a", "b"]).sentence()
    assert statistics.sampled([[1.0, 1.0], [1.0, 1.0]], ["a", "b"]).sentence().startswith("All answers scored the same")


def test_samples_estimate_the_true_split() -> None:
    generator = np.random.default_rng(4)
    between, within = 0.04, 0.02
    scores = generator.normal(0, math.sqrt(between), 4000)[:, None] + generator.normal(0, math.sqrt(within), (4000, 5))
    found = statistics.sampled(scores.tolist(), [str(number) for number in range(4000)])
    assert found.between * 4000 == pytest.approx(between, rel=0.06)
    assert (found.within or 0) * 4000 * 5 == pytest.approx(within, rel=0.06)
