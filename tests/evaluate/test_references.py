"""An answer is held against every right answer that the data has, and the best counts."""

from pathlib import Path

import pytest

from luthier.chat import Conversation
from luthier.data.dataset import Item
from luthier.evaluate import metrics
from luthier.evaluate.answers import all_references, matched_reference
from luthier.evaluate.answers.file import AnswersFile
from luthier.evaluate.guards import inputs as guard_inputs
from luthier.evaluate.guards.pairs import answer_pairs
from luthier.evaluate.judge import pairwise
from luthier.evaluate.prompts.optimization import _feedback
from luthier.evaluate.verdict.assembly import assemble
from luthier.model.replies import Answer
from luthier.recipe import Evaluate

ASKED = Item(
    "1", "a.jsonl:1", "1", Conversation(Conversation.pair("When?", "At seven").messages, references=("7", "7 am"))
)
PLAIN = Item("2", "a.jsonl:2", "2", Conversation.pair("Where?", "Here"))


def record(item: Item, text: str, arm: str = "zero-shot", metric: str = "token_f1") -> dict[str, object]:
    answer = Answer(text, None, "stop", 2, 0, 0.1)
    scored = AnswersFile(Path("x.jsonl"), metrics.scorers(metric))
    return {**scored._record(item, arm, answer, prompt_tokens=3), "shots": 0}


@pytest.mark.parametrize(
    ("text", "score", "matched"), [("7 am", 1.0, "7 am"), ("seven", 2 / 3, "At seven"), ("x", 0.0, "At seven")]
)
def test_the_best_reference_counts(text: str, score: float, matched: str) -> None:
    found = record(ASKED, text)
    assert found["score"] == pytest.approx(score) and matched_reference(found) == matched
    assert (found["reference"], found["references"]) == ("At seven", ["At seven", "7", "7 am"])
    assert all_references(found) == "At seven\n\nor\n\n7\n\nor\n\n7 am"


def test_each_metric_takes_its_own_best() -> None:
    scores = record(ASKED, "7 am sharp", metric="exact_match")["scores"]
    assert scores == {"exact_match": 0.0, "accuracy": 0.0, "normalised_match": 0.0}
    assert record(ASKED, "7 AM.", metric="exact_match")["scores"] == {
        "exact_match": 0.0,
        "accuracy": 1.0,
        "normalised_match": 1.0,
    }


def test_one_reference_is_written_as_ever() -> None:
    assert "references" not in record(PLAIN, "Here") and matched_reference(record(PLAIN, "Here")) == "Here"


def test_scores_given_anew_take_all_references() -> None:
    (again,) = AnswersFile(Path("x.jsonl"), metrics.scorers("exact_match")).rescored([record(ASKED, "7")])
    assert again["score"] == 1.0 and matched_reference(again) == "7"


def test_aggregates_take_the_reference_that_was_matched() -> None:
    answers = [
        record(item, "7 am" if item is ASKED else "Here", arm, "accuracy")
        for item in (ASKED, PLAIN)
        for arm in ("zero-shot", "fine-tuned")
    ]
    found = assemble(answers, metric="accuracy", metric_reason="", seed=0)["arms"]["fine-tuned"]["aggregates"]["labels"]
    assert found["accuracy"] == 1.0 and {row["label"] for row in found["classes"]} == {"7 am", "Here"}


def test_judge_guards_and_optimization_see_all_of_them() -> None:
    answers = [record(ASKED, "7", arm) for arm in ("zero-shot", "fine-tuned")]
    (pair,) = pairwise.pairs(answers, tuned="fine-tuned", prompt="zero-shot")
    assert pair.reference == all_references(answers[0])
    inputs = guard_inputs.GuardInputs([ASKED], [PLAIN], Evaluate(), None, 0)
    assert answer_pairs(inputs, answers)[0].reference == pair.reference
    assert _feedback(answers[0]) == "Right. The answer in the data is: At seven or: 7 or: 7 am"
