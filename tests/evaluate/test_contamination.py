"""A verdict on rows that training has seen: counted, shown without them, and withheld where that is the rule."""

from typing import Any

import pytest

from luthier.data.leakage import KINDS
from luthier.evaluate import verdict
from luthier.evaluate.verdict.contamination import adjust_verdict

Result = dict[str, Any]


def lines(tuned: list[float], prompt: list[float]) -> list[Result]:
    shared = {"prompt_tokens": 9, "answer_tokens": 3, "seconds": 0.1, "finish": "stop", "answer": "", "reference": ""}
    return [
        {
            **shared,
            "item": f"i{n}",
            "place": f"t:{n}",
            "group": f"g{n}",
            "arm": arm,
            "score": score,
            "scores": {"m": score},
        }
        for arm, scores in (("few-shot", prompt), ("fine-tuned", tuned))
        for n, score in enumerate(scores)
    ]


def leakage(*places: int, kind: str = "exact", items: int, own: bool, pair: str = "test in train") -> Result:
    nothing = {"items": items, "findings": [], **dict.fromkeys(KINDS, 0)}
    findings = [{"kind": kind, "item": f"i{n}", "place": f"t:{n}", "other_place": f"d:{n}"} for n in places]
    return {
        "own_test_file": own,
        "test in train": nothing,
        "test in dev": nothing,
        pair: nothing | {"findings": findings},
    }


def judged(tuned: list[float], prompt: list[float], found: Result | None) -> Result:
    answers = lines(tuned, prompt)
    dev = [line for line in answers if line["arm"] == "few-shot"]
    result = verdict.assemble(answers, dev, metric="accuracy", metric_reason="", seed=0)
    return adjust_verdict(result, answers, found, seed=0)


SEEN = [1.0] * 40 + [0.0, 1.0] * 20, [0.0] * 40 + [0.0, 1.0] * 20
"""80 questions: on the first 40 only the tuned model is right, on the others both arms are the same."""


def test_one_copied_row_in_a_test_file_withholds_the_verdict_and_is_named() -> None:
    result = judged(*SEEN, leakage(3, items=80, own=True))
    assert result["verdict"] == "WITHHELD"
    assert (
        "of 80 test rows, these resemble rows used for training or choosing: 1 exact (t:3 as d:3)" in result["sentence"]
    )
    assert result["leakage"]["withheld"] and not result["leakage"]["held_out"]
    assert (result["n"], result["leakage"]["clean_n"]) == (80, 79)


def test_the_clean_score_is_that_of_the_other_rows() -> None:
    block = judged(*SEEN, leakage(*range(40), items=80, own=True))["leakage"]
    assert (block["clean_n"], block["clean_difference"], block["clean_tuned"], block["clean_prompt"]) == (
        40,
        0,
        0.5,
        0.5,
    )
    low, high = block["clean_interval"]
    assert low < 0 < high


@pytest.mark.parametrize(("near", "word"), [(1, "BETTER"), (2, "WITHHELD")])
def test_a_test_file_may_have_near_copies_up_to_one_per_cent(near: int, word: str) -> None:
    tuned, prompt = [1.0] * 100, [0.0, 1.0] * 50
    result = judged(tuned, prompt, leakage(*range(near), kind="near", items=100, own=True))
    assert (result["verdict"], result["leakage"]["near"]) == (word, near)


def test_a_question_that_chose_the_prompt_was_seen_too() -> None:
    result = judged(*SEEN, leakage(0, items=80, own=True, pair="test in dev"))
    assert (result["verdict"], result["leakage"]["exact"]) == ("WITHHELD", 1)


def test_our_own_split_withholds_only_what_falls_without_the_near_copies() -> None:
    falls = judged(*SEEN, leakage(*range(40), kind="near", items=80, own=False))
    assert falls["verdict"] == "WITHHELD" and "Without them BETTER does not hold" in falls["sentence"]
    holds = judged(*SEEN, leakage(*range(20), kind="near", items=80, own=False))
    assert holds["verdict"] == "BETTER"
    assert holds["sentence"].endswith(
        " 20 of 80 test rows resemble rows used for training or choosing (20 nearly the same). "
        "On the 60 clean rows: 66.7 vs 33.3, +33.3 points [95 % CI +22.7, +45.9]."
    )


def test_what_claims_nothing_is_not_withheld_for_near_copies() -> None:
    result = judged([0.0, 1.0] * 20, [0.0, 1.0] * 20, leakage(*range(20), kind="near", items=40, own=False))
    assert result["verdict"] == "NOT SHOWN" and result["leakage"]["held_out"]


def test_too_few_clean_rows_are_said_to_be_so() -> None:
    result = judged([1.0] * 10, [0.0] * 10, leakage(*range(9), kind="near", items=10, own=False))
    assert result["verdict"] == "WITHHELD"
    assert result["sentence"].endswith("Too few clean rows are left for a comparison.")
    assert result["leakage"]["clean_interval"] is None


def test_without_leaks_the_sentence_stays_and_the_clean_numbers_are_the_verdicts() -> None:
    plain = judged(*SEEN, None)
    result = judged(*SEEN, leakage(items=80, own=True))
    assert "leakage" not in plain and result["sentence"] == plain["sentence"]
    block = result["leakage"]
    assert (block["clean_n"], block["clean_difference"]) == (result["n"], result["difference"])
    assert block["clean_interval"] == result["interval"] and block["held_out"]
