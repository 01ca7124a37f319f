"""The four words: when each is said, how it reads, and how often it would be wrong."""

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from luthier.errors import UserError
from luthier.evaluate import verdict
from luthier.evaluate.verdict import secondary

Scores = list[float]


def outcome(fixed: int, broken: int, same: int) -> tuple[Scores, Scores, list[str]]:
    """0/1 scores of the tuned model and of the prompt, and a group of its own for each item."""
    tuned = [1.0] * fixed + [0.0] * broken + [1.0] * same
    prompt = [0.0] * fixed + [1.0] * (broken + same)
    return tuned, prompt, [str(number) for number in range(len(tuned))]


def said(decision: verdict.Decision, metric: str = "accuracy", tuned: float = 0.413, prompt: float = 0.332) -> str:
    return verdict.sentence(decision, metric=metric, best_prompt_arm="few-shot", tuned_mean=tuned, prompt_mean=prompt)


def example(word: verdict.Word, **changes: Any) -> verdict.Decision:
    numbers: dict[str, Any] = {
        "difference": 0.081, "interval": (0.05, 0.112), "confidence": 0.95, "p_value": 0.0002,
        "test": "paired permutation", "alpha": 0.05, "margin": 0.02, "smallest_visible_effect": 0.049,
        "equivalence_p_value": 0.9, "more_items": 0, "design_effect": 1.0,
        "fixed": 31, "broken": 8, "same": 101, "n": 140, "groups": 140,
    }  # fmt: skip
    return verdict.Decision(verdict=word, **(numbers | changes))


def test_better_and_worse_mirror_each_other() -> None:
    tuned, prompt, groups = outcome(fixed=31, broken=8, same=101)
    better, worse = (verdict.decide(*pair, groups, seed=1) for pair in ((tuned, prompt), (prompt, tuned)))
    assert (better.verdict, worse.verdict) == ("BETTER", "WORSE")
    assert better.difference == pytest.approx(23 / 140) == -worse.difference
    assert better.interval == pytest.approx((-worse.interval.high, -worse.interval.low))
    assert (better.fixed, better.broken, better.same) == (31, 8, 101) == (worse.broken, worse.fixed, worse.same)
    assert better.test == "McNemar mid-p" and better.p_value == worse.p_value


def test_a_close_result_is_not_shown() -> None:
    decision = verdict.decide(*outcome(fixed=12, broken=8, same=80), seed=1)
    assert decision.verdict == "NOT SHOWN"
    assert decision.interval.low < 0 < decision.interval.high


def test_equal_answers_are_equivalent_only_when_enough_were_asked() -> None:
    # Nothing changed in n items: the 90 % interval is ±2.7055/(n + 2.7055), inside 0.02 from n = 133 on.
    assert verdict.decide(*outcome(0, 0, 132), seed=1).verdict == "NOT SHOWN"
    assert verdict.decide(*outcome(0, 0, 133), seed=1).verdict == "EQUIVALENT"
    assert verdict.decide(*outcome(0, 0, 133), margin=0.01, seed=1).verdict == "NOT SHOWN"


def test_a_tiny_but_certain_gain_is_better_and_says_so() -> None:
    prompt = [0.5 + 0.001 * (number % 7) for number in range(200)]
    tuned = [score + 0.005 + 0.001 * (number % 3) for number, score in enumerate(prompt)]
    decision = verdict.decide(tuned, prompt, [str(number) for number in range(200)], seed=1)
    assert decision.verdict == "BETTER"
    assert "The gain is smaller than the margin of 2.0 points." in said(decision, "token_f1")


def test_when_p_and_interval_disagree_nothing_is_claimed() -> None:
    # Rare large losses among many small gains: the two looks differ for one of these draws.
    decision = next(found for found in _skewed_decisions() if found.p_value < 0.05 and found.verdict == "NOT SHOWN")
    assert decision.interval.low <= 0 <= decision.interval.high
    assert "The test and the interval disagree at the edge, so nothing is claimed." in said(decision, "token_f1")


def _skewed_decisions() -> Iterator[verdict.Decision]:
    generator = np.random.default_rng(5)
    for seed in range(200):
        differences = np.where(generator.random(50) < 0.3, generator.exponential(0.3, 50), 0) - 0.09
        yield verdict.decide((0.3 + differences).tolist(), [0.3] * 50, [str(number) for number in range(50)], seed=seed)


def test_repeated_groups_count_as_one_fact_each() -> None:
    tuned, prompt, _ = outcome(fixed=12, broken=0, same=48)
    alone = verdict.decide(tuned, prompt, [str(number) for number in range(60)], seed=1)
    shared = verdict.decide(tuned, prompt, [str(number // 12) for number in range(60)], seed=1)
    assert alone.verdict == "BETTER" and shared.verdict == "NOT SHOWN"
    assert (shared.n, shared.groups) == (60, 5)
    assert "+20.0 points [" in said(shared) and "60 questions in 5 groups, the smallest effect" in said(shared)
    assert said(shared).endswith("5 groups are few: take the interval as rough.")


def test_the_same_seed_gives_the_same_decision() -> None:
    generator = np.random.default_rng(0)
    tuned, prompt = generator.random(50).tolist(), generator.random(50).tolist()
    groups = [str(number) for number in range(50)]
    first, again, other = (verdict.decide(tuned, prompt, groups, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("tuned", "prompt", "groups", "message"),
    [
        ([1.0], [0.0], ["a"], r"data\.test_items: found 1 answered test question; a comparison needs at least 2\. "),
        ([], [], [], "found 0 answered test questions"),
        ([1.0, 0.0], [1.0], ["a", "b"], "found 2 fine-tuned scores, 1 prompt scores, 2 groups; a paired comparison"),
        ([1.0, float("nan")], [1.0, 0.0], ["a", "b"], r"evaluate\.metric: score 2 of the fine-tuned arm is nan"),
        ([1.0, 0.0], [float("inf"), 0.0], ["a", "b"], "score 1 of the prompt arm is inf"),
    ],
)
def test_scores_that_cannot_be_compared_are_a_mistake(
    tuned: Scores, prompt: Scores, groups: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        verdict.decide(tuned, prompt, groups, seed=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"alpha": 0.7}, r"evaluate\.alpha: found 0\.7"), ({"margin": 0}, r"evaluate\.margin: found 0")],
)
def test_impossible_settings_are_a_mistake(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        verdict.decide(*outcome(3, 3, 3), seed=1, **settings)


def test_json_has_the_fields_of_the_verdict_file() -> None:
    numbers = verdict.decide(*outcome(31, 8, 101), seed=1).to_json()
    assert list(numbers) == [
        "verdict", "difference", "interval", "confidence", "p_value", "equivalence_p_value", "test", "alpha", "margin",
        "smallest_visible_effect", "more_items", "design_effect", "fixed", "broken", "same", "n", "groups",
    ]  # fmt: skip
    assert json.loads(json.dumps(numbers)) == numbers


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        (
            example("BETTER"),
            "Fine-tuning is BETTER than the best prompt (few-shot): token F1 41.3 vs 33.2, +8.1 points "
            "[95 % CI +5.0, +11.2], p = 0.0002, 140 questions.",
        ),
        (
            example("WORSE", difference=-0.015, interval=(-0.029, -0.0004), p_value=0.04, n=1400, groups=1380),
            "Fine-tuning is WORSE than the best prompt (few-shot): token F1 41.3 vs 33.2, -1.5 points "
            "[95 % CI -2.9, -0.04], p = 0.0400, 1,400 questions in 1,380 groups. "
            "The loss is smaller than the margin of 2.0 points.",
        ),
        (
            example("EQUIVALENT", difference=0.0, interval=(-0.021, 0.018), p_value=0.96),
            "Fine-tuning is EQUIVALENT to the best prompt (few-shot) within ±2.0 points: token F1 41.3 vs 33.2, "
            "0.0 points [95 % CI -2.1, +1.8], p = 0.96, 140 questions. The 90 % interval lies within that margin.",
        ),
        (
            example("NOT SHOWN", difference=0.011, interval=(-0.02, 0.042), p_value=0.412),
            "It is NOT SHOWN that fine-tuning is better or worse than the best prompt (few-shot): token F1 41.3 vs 33.2, "
            "+1.1 points [95 % CI -2.0, +4.2], p = 0.41, 140 questions. "
            "The smallest effect that this test could have seen is 4.9 points.",
        ),
    ],
)
def test_each_verdict_reads_as_plain_english(decision: verdict.Decision, text: str) -> None:
    assert said(decision, "token_f1") == text


BORDERS: dict[str, tuple[Scores, Scores]] = {
    "all alike": ([0.7] * 12, [0.7] * 12),
    "all zero": ([0.0] * 12, [0.0] * 12),
    "all gain the same": ([0.9] * 12, [0.4] * 12),
    "all gain next to nothing": ([0.50000001] * 12, [0.5] * 12),
    "all fixed": ([1.0] * 12, [0.0] * 12),
    "all broken": ([0.0] * 12, [1.0] * 12),
    "one differs": ([0.6] + [0.5] * 11, [0.5] * 12),
    "a hair's breadth each": ([0.5 + 1e-6 * (1 + number) for number in range(12)], [0.5] * 12),
    "two questions": ([1.0, 1.0], [0.0, 0.0]),
    "bits alike": ([-0.8] * 12, [-0.8] * 12),
    "bits all gain": ([-0.7] * 12, [-1.9] * 12),
    "many alike": ([0.5] * 900, [0.5] * 900),
    "many gain the same": ([0.51] * 900, [0.5] * 900),
}


NONSENSE = re.compile(
    r"[-+±]0\.0+(?!\d)|nan|inf\b|(?:above about|seen is|see) 0\.0+ |\b1 (?:groups|questions|documents)\b"
)


@pytest.mark.parametrize("case", BORDERS)
@pytest.mark.parametrize("in_a_group", [1, 2, 1000])
def test_no_sentence_says_nonsense_at_the_borders(case: str, in_a_group: int) -> None:
    tuned, prompt = BORDERS[case]
    metric = "bits_per_byte" if "bits" in case else "token_f1"
    for margin in (0.02, 1e-5):
        decision = verdict.decide(
            tuned, prompt, [str(n // in_a_group) for n in range(len(tuned))], margin=margin, seed=1
        )
        text = said(decision, metric)
        assert not NONSENSE.search(text), text
        assert decision.smallest_visible_effect > 0 and math.isfinite(decision.p_value)
        assert decision.interval.low <= decision.difference <= decision.interval.high > decision.interval.low
        if decision.groups == 1:
            assert "one group, so chance cannot be estimated" in text and decision.verdict == "NOT SHOWN"


def test_twelve_questions_that_all_gain_the_same_say_what_they_can_see() -> None:
    tuned, prompt = BORDERS["all gain the same"]
    # 2.8016 · 0.5 / √(12 + 2.8016²) = 0.3144
    assert said(verdict.decide(tuned, prompt, [str(n) for n in range(12)], seed=1), "token_f1").endswith(
        "With only 12 questions, only effects above about 31.4 points can be seen."
    )


def test_a_small_test_says_what_it_can_see() -> None:
    small = {"n": 40, "groups": 40, "smallest_visible_effect": 0.121}
    seen = "With only 40 questions, only effects above about 12.1 points can be seen."
    assert said(example("BETTER", **small)).endswith(seen)
    hidden = "With only 40 questions, the smallest effect that this test could have seen is 12.1 points."
    assert said(example("NOT SHOWN", **small)).endswith(hidden)
    blind = said(example("NOT SHOWN", n=4, groups=4, smallest_visible_effect=1.0, p_value=0.5))
    assert blind.endswith("With only 4 questions, this test could not have seen an effect of any size.")


def test_bits_per_byte_read_as_lower_is_better() -> None:
    decision = example("BETTER", difference=0.29, interval=(0.254, 0.331), n=120, groups=120, p_value=0.00001)
    assert said(decision, "bits_per_byte", 0.91, 1.2) == (
        "Fine-tuning is BETTER than the best prompt (few-shot): bits per byte 0.91 vs 1.20, lower is better, "
        "gain +0.29 [95 % CI +0.25, +0.33], p < 0.0001, 120 documents."
    )


def line(arm: str, item: int, score: float, **changes: Any) -> dict[str, Any]:
    return {
        "item": f"id{item}", "place": f"tickets.jsonl:{item}", "group": f"g{item}", "arm": arm, "question": "?",
        "prompt_tokens": 100, "answer_tokens": 10, "answer": "a", "reference": "r", "score": score,
        "scores": {"token_f1": score, "exact_match": 0.0}, "finish": "stop", "seconds": 0.5,
    } | changes  # fmt: skip


def answer_records(**arms: Callable[[int], float]) -> list[dict[str, Any]]:
    return [line(arm.replace("_", "-"), item, score(item)) for arm, score in arms.items() for item in range(120)]


def test_the_best_prompt_arm_has_the_highest_dev_mean() -> None:
    dev = [line("zero-shot", 1, 0.2), line("few-shot", 1, 0.6), line("retrieved", 1, 0.5), line("fine-tuned", 1, 0.9)]
    assert verdict.best_prompt_arm(dev) == ("few-shot", {"zero-shot": 0.2, "few-shot": 0.6, "retrieved": 0.5})


def test_of_equal_arms_the_cheaper_prompt_is_taken() -> None:
    dev = [line("few-shot", 1, 0.5, prompt_tokens=900), line("zero-shot", 1, 0.5, prompt_tokens=90)]
    assert verdict.best_prompt_arm(dev)[0] == "zero-shot"
    with pytest.raises(UserError, match=r"evaluate\.arms: no prompt arm has answered"):
        verdict.best_prompt_arm([])


def test_the_verdict_file_is_whole() -> None:
    answers = answer_records(
        zero_shot=lambda item: 0.1, few_shot=lambda item: 0.3 + 0.001 * item, fine_tuned=lambda item: 0.5
    )
    answers[-1] |= {"finish": "length", "seconds": 60.5}
    dev = [line("zero-shot", 900, 0.2), line("few-shot", 900, 0.4)]
    found = verdict.assemble(answers, dev, metric="token_f1", metric_reason="free text", seed=1)
    assert list(found) == [
        "verdict", "sentence", "metric", "metric_reason", "higher_is_better", "best_prompt_arm", "chosen_on",
        "dev_means", "difference", "interval", "confidence", "p_value", "equivalence_p_value", "test", "alpha", "margin",
        "smallest_visible_effect", "more_items", "design_effect", "fixed", "broken", "same", "n", "groups", "secondary",
        "signatures", "arms",
    ]  # fmt: skip
    assert found["verdict"] == "BETTER" and found["best_prompt_arm"] == "few-shot" and found["chosen_on"] == "dev"
    assert found["dev_means"] == {"zero-shot": 0.2, "few-shot": 0.4}
    assert found["difference"] == pytest.approx(0.5 - 0.3595)  # the mean of 0, 0.001, … 0.119 is 0.0595
    tuned = found["arms"]["fine-tuned"]
    assert tuned["mean"] == pytest.approx(0.5) and tuned["scores"] == {"token_f1": pytest.approx(0.5), "exact_match": 0}
    assert (tuned["prompt_tokens"], tuned["answer_tokens"], tuned["cut"], tuned["n"]) == (100, 10, 1, 120)
    assert tuned["seconds"] == pytest.approx(1.0)
    assert json.loads(json.dumps(found)) == found


def test_arms_are_paired_by_item_and_not_by_order() -> None:
    answers = answer_records(few_shot=lambda item: item / 120, fine_tuned=lambda item: item / 120)
    shuffled = answers[:120][::-1] + answers[120:]
    found = verdict.assemble(shuffled, metric="token_f1", metric_reason="", seed=1)
    assert found["same"] == 120


def test_documents_report_positive_bits_and_the_only_prompt_arm() -> None:
    answers = answer_records(zero_shot=lambda item: -1.2 - 0.001 * item, fine_tuned=lambda item: -0.9 - 0.0011 * item)
    for each in answers:
        each["scores"] = {"bits_per_byte": each["score"]}
    found = verdict.assemble(answers, metric="bits_per_byte", metric_reason="documents", seed=1)
    assert found["verdict"] == "BETTER" and found["difference"] > 0 and found["interval"][0] > 0
    assert found["higher_is_better"] is False and found["chosen_on"] == "test" and found["dev_means"] == {}
    base = found["arms"]["zero-shot"]
    assert base["mean"] == pytest.approx(1.2595) == base["scores"]["bits_per_byte"]
    assert base["interval"][0] < base["mean"] < base["interval"][1]
    assert "bits per byte 0.97 vs 1.26, lower is better, gain +0.29 [" in found["sentence"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([line("few-shot", 1, 0.5)], 'unknown arm "fine-tuned"'),
        (
            [line("few-shot", 1, 0.5), line("few-shot", 2, 0.5), line("fine-tuned", 1, 0.5)],
            r'answers\.jsonl: the arm "fine-tuned" lacks 1 of 2 questions, the first is tickets\.jsonl:2',
        ),
        (
            [line("few-shot", 1, 0.5), line("fine-tuned", 1, 0.5), line("fine-tuned", 1, 0.6)],
            'the arm "fine-tuned" has 2 answers to 1 questions',
        ),
        ([line("few-shot", 7, float("nan")), line("fine-tuned", 7, 0.5)], r"tickets\.jsonl:7: the metric .* gave nan"),
    ],
)
def test_answers_that_do_not_pair_are_a_mistake(answers: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        verdict.assemble(answers, metric="token_f1", metric_reason="", seed=1)


def test_a_prompt_arm_chosen_on_dev_must_have_answered_the_test() -> None:
    with pytest.raises(UserError, match='unknown arm "retrieved"'):
        verdict.assemble(
            [line("few-shot", 1, 0.5), line("fine-tuned", 1, 0.5)],
            [line("retrieved", 9, 0.9)],
            metric="token_f1",
            metric_reason="",
            seed=1,
        )


def test_the_other_arms_are_compared_too_with_holms_correction() -> None:
    generator = np.random.default_rng(3)
    base = generator.random(120)
    answers = answer_records(
        zero_shot=lambda item: 0.2 * base[item],
        few_shot=lambda item: 0.7 * base[item],
        retrieved=lambda item: 0.68 * base[item] + 0.0001 * (item % 3),
        fine_tuned=lambda item: 0.7 * base[item] + 0.02 * (item % 3) - 0.019,
    )
    found = verdict.assemble(answers, dev_like(answers), metric="token_f1", metric_reason="", seed=1)
    assert [look["arm"] for look in found["secondary"]] == ["zero-shot", "retrieved"] and found[
        "best_prompt_arm"
    ] == "few-shot"
    far, near = found["secondary"]
    assert far["word"] == "BETTER" and far["interval"][0] > 0
    assert far["difference"] == pytest.approx(found["arms"]["fine-tuned"]["mean"] - found["arms"]["zero-shot"]["mean"])
    assert far["adjusted_p_value"] == pytest.approx(min(1, 2 * far["p_value"]))
    assert near["adjusted_p_value"] == pytest.approx(max(near["p_value"], far["adjusted_p_value"]))
    assert (near["fixed"] + near["broken"] + near["same"], near["n"]) == (120, 120)
    assert json.loads(json.dumps(found)) == found


def dev_like(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in answers if line["arm"] != "fine-tuned"]


def test_holm_takes_a_claim_back_that_one_look_alone_would_make() -> None:
    # 17 fixed and 6 broken: p = 0.023 on its own, 0.045 as the smaller of two, 0.068 as the smallest of three.
    tuned, prompt, groups = outcome(fixed=17, broken=6, same=77)
    alone, two, three = (
        secondary.comparisons(tuned, {"arm": prompt} | {f"same {n}": tuned for n in range(more)}, groups, seed=1)[0]
        for more in range(3)
    )
    assert [look["word"] for look in (alone, two, three)] == ["BETTER", "BETTER", "NOT SHOWN"]
    assert three["adjusted_p_value"] == pytest.approx(3 * alone["p_value"])


def test_not_shown_says_how_many_more_questions_it_would_take() -> None:
    decision = verdict.decide(*outcome(fixed=12, broken=8, same=80), seed=1)
    # 2.8016² · (20/100 - 0.02²) / 0.02² = 3,916.6: 3,817 more, written as 3,900.
    assert decision.more_items == 3817
    assert said(decision).endswith("About 3,900 more questions would be needed to see 2.0 points.")
    shared = verdict.decide(*outcome(fixed=12, broken=0, same=48)[:2], [str(n // 12) for n in range(60)], seed=1)
    assert "more questions, in groups as large as these, would be needed to see 2.0 points." in said(shared)
    assert said(example("NOT SHOWN", more_items=12_345_678)).endswith("More than 1,000,000 more questions would be "
        "needed to see 2.0 points.")  # fmt: skip
    assert "more" not in said(example("BETTER", more_items=500))


def test_samples_of_a_question_count_once() -> None:
    single = answer_records(few_shot=lambda item: 0.3 + 0.001 * item, fine_tuned=lambda item: 0.5)
    answers = [line for line in single if line["arm"] == "few-shot"]
    for number in range(4):
        answers += [line("fine-tuned", item, (item + number) % 2, sample=number, seconds=number) for item in range(120)]
    found = verdict.assemble(answers, metric="token_f1", metric_reason="", seed=1)
    assert found["n"] == 120 and found["difference"] == pytest.approx(0.5 - 0.3595)
    tuned = found["arms"]["fine-tuned"]
    assert tuned["n"] == 120 and tuned["seconds"] == pytest.approx(1.5)
    assert tuned["sampling"]["samples"] == 4 and "sampling" not in found["arms"]["few-shot"]
    answers.append(line("fine-tuned", 5, 1.0, sample=0))
    with pytest.raises(UserError, match='the arm "fine-tuned" has 124 answers to 120 questions'):
        verdict.assemble(answers, metric="token_f1", metric_reason="", seed=1)


def test_labels_and_fields_are_counted_for_each_arm() -> None:
    answers = answer_records(few_shot=lambda item: float(item % 2), fine_tuned=lambda item: 1.0)
    for number, each in enumerate(answers):
        each["reference"] = "refund" if number % 3 else "invoice"
        each["answer"] = each["reference"] if each["score"] else "no idea"
    found = verdict.assemble(answers, metric="accuracy", metric_reason="", seed=1)
    tuned, prompt = (found["arms"][arm]["aggregates"]["labels"] for arm in ("fine-tuned", "few-shot"))
    assert (tuned["macro_f1"], tuned["other"]) == (1, 0) and (prompt["accuracy"], prompt["other"]) == (0.5, 60)
    for each in answers:
        each["answer"], each["reference"] = '{"a": 1}', '{"a": 1}'
    fields = verdict.assemble(answers, metric="field_accuracy", metric_reason="", seed=1)["arms"]["few-shot"][
        "aggregates"
    ]
    assert fields["fields"]["fields"][0]["field"] == "a"
    assert (
        verdict.assemble(answers, metric="token_f1", metric_reason="", seed=1)["arms"]["few-shot"]["aggregates"] == {}
    )


def binary_draw(generator: np.random.Generator) -> tuple[Scores, Scores, list[str]]:
    """100 questions, 20 % of them answered differently, without a true difference."""
    changed = generator.random(100)
    base = (generator.random(100) < 0.6).astype(float)
    tuned, prompt = np.where(changed < 0.1, 1.0, base), np.where(changed < 0.1, 0.0, base)
    lost = (changed >= 0.1) & (changed < 0.2)
    return np.where(lost, 0.0, tuned).tolist(), np.where(lost, 1.0, prompt).tolist(), [str(n) for n in range(100)]


def continuous_draw(generator: np.random.Generator) -> tuple[Scores, Scores, list[str]]:
    """100 questions of different difficulty, both arms with the same noise."""
    ease = generator.beta(2, 2, 100)
    tuned, prompt = (np.clip(ease + generator.normal(0, 0.15, 100), 0, 1).tolist() for _ in range(2))
    return tuned, prompt, [str(number) for number in range(100)]


def clustered_draw(generator: np.random.Generator) -> tuple[Scores, Scores, list[str]]:
    """40 groups of 5 questions; half of a difference's variance belongs to its group."""
    shared = np.repeat(generator.normal(0, 0.1, 40), 5)
    tuned = np.clip(0.5 + shared + generator.normal(0, 0.1, 200), 0, 1).tolist()
    prompt = np.clip(0.5 + generator.normal(0, 0.1, 200), 0, 1).tolist()
    return tuned, prompt, [str(number // 5) for number in range(200)]


# 4,000 draws know a share near 5 % to ±0.7 points and one near 95 % as well. McNemar's mid-p cannot reach 5 % exactly,
# because counts are whole: with 20 changed items of 100 its true level is 4.2 %, hence the lower floor.
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("draw", "least"),
    [
        pytest.param(binary_draw, 0.035, id="binary"),
        pytest.param(continuous_draw, 0.04, id="continuous"),
        pytest.param(clustered_draw, 0.04, id="clustered"),
    ],
)
def test_a_false_claim_comes_once_in_twenty_and_the_interval_holds(
    draw: Callable[[np.random.Generator], tuple[Scores, Scores, list[str]]], least: float
) -> None:
    generator, draws = np.random.default_rng(11), 4000
    decisions = [verdict.decide(*draw(generator), seed=seed) for seed in range(draws)]
    claimed = sum(decision.verdict in ("BETTER", "WORSE") for decision in decisions) / draws
    covered = sum(decision.interval.low <= 0 <= decision.interval.high for decision in decisions) / draws
    print(f"claims {claimed:.4f}, coverage {covered:.4f}")
    assert least <= claimed <= 0.06
    assert 0.93 <= covered <= 0.97
