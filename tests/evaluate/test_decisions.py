"""Probabilities of labels: they are the model's own likelihoods, and one temperature makes them mean what they say."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from luthier.chat import Message
from luthier.evaluate import decisions
from luthier.evaluate.decisions import calibration, candidates
from luthier.model import likelihood, loading


def test_allowed_answers_are_a_closed_set_in_their_usual_spelling() -> None:
    assert decisions.allowed_answers(["Yes", "no", "yes", "Yes.", "no", "Yes"]) == ("Yes", "no")
    assert decisions.allowed_answers(["one", "two", "three", "four"]) == ()  # most occur once
    assert decisions.allowed_answers(["yes"] * 10) == ()  # nothing to decide
    assert (
        decisions.allowed_answers(["A. Paris.", "B. Rome.", "A. Bonn.", "B. Oslo."] * 5) == ()
    )  # letters of a question
    many = [f"label {number}" for number in range(candidates.MOST_ANSWERS + 1)]
    assert decisions.allowed_answers(many * 3) == ()


def test_an_answer_counts_with_its_end_token(tiny_model: Path) -> None:
    lm = loading.load(str(tiny_model))
    question = (Message("user", "Refund or invoice?"),)
    [(prompt, refund), (same, refunds)] = decisions.pairs(lm.template, [question], ["refund", "refunds"])
    assert prompt == same == lm.template.prompt(question)
    assert (lm.tokenizer.decode(refund), lm.tokenizer.decode(refunds)) == ("refund<|im_end|>", "refunds<|im_end|>")


def test_likelihoods_are_those_of_each_answer_alone(tiny_model: Path) -> None:
    lm = loading.load(str(tiny_model))
    questions = [(Message("user", "Where is it?"),), (Message("system", "Be short."), Message("user", "Pay me back."))]
    answers = ["refund", "delivery", "a longer label"]
    seen: list[int] = []
    found = decisions.log_likelihoods(lm, questions, answers, progress=lambda done, of: seen.append(done))
    alone = [
        likelihood.continuations(lm, [pair])[0].logprob for pair in decisions.pairs(lm.template, questions, answers)
    ]
    assert found.shape == (2, 3)
    assert found.ravel() == pytest.approx(alone, abs=1e-3)
    assert seen[-1] == 2


def test_probabilities_are_relative_to_the_allowed_answers() -> None:
    logs = np.log([[0.02, 0.01, 0.01]])
    assert decisions.probabilities(logs) == pytest.approx(np.array([[0.5, 0.25, 0.25]]))
    assert decisions.probabilities(logs, 2.0)[0, 0] == pytest.approx(math.sqrt(2) / (math.sqrt(2) + 2))


def test_scores_are_those_worked_out_by_hand() -> None:
    predicted = np.array([[0.8, 0.2], [0.4, 0.6], [0.5, 0.5]])
    found = decisions.Outcomes.of(predicted, [0, 0, -1])
    # (0.2² + 0.2²), (0.6² + 0.6²), (0.5² + 0.5² + 1): the last one's answer is not allowed
    assert found.brier == pytest.approx((0.08 + 0.72 + 1.5) / 3)
    assert found.accuracy == pytest.approx(1 / 3)
    assert found.log_loss == pytest.approx(-(math.log(0.8) + math.log(0.4) + math.log(1e-12)) / 3)
    assert found.calibration_error == pytest.approx((0.8 + 0.6 + 0.5) / 3 - 1 / 3)  # one bin


def test_bins_are_of_equal_size_from_the_least_sure() -> None:
    sure = np.linspace(0.5, 1.0, 60)
    found = decisions.Outcomes.of(np.column_stack([sure, 1 - sure]), [0] * 60)
    assert [each.n for each in found.bins] == [15] * 4
    assert [each.confidence for each in found.bins] == sorted(each.confidence for each in found.bins)


@pytest.mark.parametrize("planted", [0.5, 3.0])
def test_a_planted_temperature_is_found_and_mends_the_probabilities(planted: float) -> None:
    chance = np.random.default_rng(5)
    true = chance.normal(0, 1.5, size=(6000, 4))
    right = [int(chance.choice(4, p=row)) for row in decisions.probabilities(true)]
    logs = true * planted
    found = decisions.calibrate(
        logs[:3000], right[:3000], logs[3000:], right[3000:], [str(number) for number in range(3000)], seed=0
    )
    assert found.temperature == pytest.approx(planted, rel=0.07)
    assert found.after.calibration_error < 0.035 < found.before.calibration_error
    assert found.after.accuracy == found.before.accuracy
    assert found.change.high < 0
    assert found.change.low < found.after.brier - found.before.brier < found.change.high


def test_dev_answers_without_a_mistake_do_not_ask_for_certainty() -> None:
    logs = np.array([[0.0, -1.0]] * 30)
    found = calibration.temperature(logs, [0] * 30)
    assert decisions.probabilities(logs[:1], found)[0, 0] == pytest.approx(31 / 32, abs=1e-3)


def test_few_dev_questions_leave_the_probabilities_alone() -> None:
    logs = np.log([[0.7, 0.3]] * 5)
    found = decisions.calibrate(logs, [0, 1, 0, 1, 0], logs, [0, 1, 0, 1, 0], list("abcde"), seed=0)
    assert (found.temperature, found.dev) == (1.0, 0)
    assert found.before == found.after
    assert found.allowed_mass == pytest.approx(1.0)
    json.dumps(found.to_json(), allow_nan=False)
