"""Prompts that do not fit into the context: unanswered in their arm alone, warned of, and no ground for a claim."""

from pathlib import Path
from typing import Any

import pytest

from luthier.chat import Conversation, Message
from luthier.data.dataset import Item
from luthier.errors import UserError
from luthier.evaluate import metrics, verdict
from luthier.evaluate.answers.file import AnswersFile
from luthier.evaluate.verdict import unanswered
from luthier.inference import Chat, ChatModel
from luthier.model import loading
from luthier.model.loading import LanguageModel
from luthier.model.replies import TokenBudget

HEAD = "Answer in one word, please. "


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> LanguageModel:
    return loading.load(str(tiny_model))


def item(number: int, question: str) -> Item:
    return Item(str(number), f"a.jsonl:{number}", str(number), Conversation.pair(question, "refund"))


def lines(arm: str, scores: list[float], *, unread: int = 0, finish: str = "no room") -> list[dict[str, Any]]:
    """Answers of an arm; the first so many did not fit, or whatever their finish says."""
    return [
        {
            "item": str(at), "place": f"a.jsonl:{at}", "group": str(at), "arm": arm, "answer": "", "reference": "x",
            "score": score, "scores": {"accuracy": score}, "seconds": 0.0, "answer_tokens": 3, "prompt_tokens": 9,
            "finish": finish if at < unread else "stop", "shots": 0,
        }
        for at, score in enumerate(scores)
    ]  # fmt: skip


def judged(tuned: list[dict[str, Any]], prompt: list[dict[str, Any]]) -> dict[str, Any]:
    answers = [*tuned, *prompt]
    result = verdict.assemble(answers, prompt, metric="accuracy", metric_reason="", seed=0)
    return unanswered.adjust_verdict(result, answers, seed=0)


def test_a_prompt_that_does_not_fit_is_unanswered_in_its_arm_alone(lm: LanguageModel, tmp_path: Path) -> None:
    items = [item(1, "Where is it?"), item(2, "x" * (lm.context - 30)), item(3, "And now?")]
    answers_file = AnswersFile(tmp_path / "answers.jsonl", metrics.scorers("exact_match", metrics.DEFAULT_SETTINGS))

    def long_prompt(one: Item) -> tuple[Message, ...]:
        return (Message("system", HEAD), *one.conversation.prompt)

    for arm, prompt in {"zero-shot": long_prompt, "fine-tuned": lambda one: one.conversation.prompt}.items():
        answers_file.ask(lm, items, arm=arm, prompt=prompt, budget=TokenBudget(8), progress=lambda done, of: None)
    finishes = {
        arm: [line["finish"] for line in answers_file.records_of(arm, items)] for arm in ("zero-shot", "fine-tuned")
    }
    assert [finish == "no room" for finish in finishes["zero-shot"]] == [False, True, False]
    assert "no room" not in finishes["fine-tuned"]
    (warning,) = unanswered.warnings(
        answers_file.records_of("zero-shot", items), "zero-shot", "test", context_tokens=lm.context
    )
    assert warning.startswith(
        "zero-shot: 1 of 3 test prompts do not fit into the model's context of 512 tokens and count"
    )
    assert "(the first: a.jsonl:2;" in warning
    assert not list(
        unanswered.warnings(
            answers_file.records_of("fine-tuned", items), "fine-tuned", "test", context_tokens=lm.context
        )
    )


def test_demonstrations_that_did_not_fit_are_warned_of() -> None:
    shown = [{**line, "shots": shots} for line, shots in zip(lines("few-shot", [1.0] * 3), (4, 2, 4), strict=True)]
    (message,) = unanswered.warnings(shown, "few-shot", "dev", context_tokens=512)
    assert message == "few-shot: 1 of 3 dev prompts have room for fewer than 4 examples, the longest for 2."


def test_unread_prompts_alone_show_nothing() -> None:
    # 30 of 60 prompts of zero-shot did not fit; on the other 30 both are always right.
    result = judged(lines("fine-tuned", [1.0] * 60), lines("zero-shot", [0.0] * 30 + [1.0] * 30, unread=30))
    assert result["verdict"] == "NOT SHOWN" and result["difference"] == 0.5
    claim = "It is NOT SHOWN that fine-tuning is better than the best prompt (zero-shot): of 60 questions, prompts"
    assert result["sentence"].startswith(claim)
    assert "30 of zero-shot" in result["sentence"] and "accuracy 100.0 vs 100.0" in result["sentence"]
    assert result["arms"]["zero-shot"]["no_room"] == 30 and result["arms"]["fine-tuned"]["no_room"] == 0


def test_a_claim_that_holds_without_them_stands_and_they_are_named() -> None:
    result = judged(lines("fine-tuned", [1.0] * 60), lines("zero-shot", [0.0] * 40 + [1.0] * 20, unread=3))
    assert result["verdict"] == "BETTER"
    assert "3 of zero-shot. On the questions that both could answer: Fine-tuning is BETTER" in result["sentence"]


def test_nothing_is_said_where_all_prompts_fit() -> None:
    result = judged(lines("fine-tuned", [1.0] * 60), lines("zero-shot", [0.0] * 60))
    assert result["verdict"] == "BETTER" and "context" not in result["sentence"]


def test_where_hardly_any_question_was_read_nothing_is_shown() -> None:
    result = judged(lines("fine-tuned", [1.0] * 20), lines("zero-shot", [0.0] * 20, unread=19))
    assert (
        result["verdict"] == "NOT SHOWN" and "Too few questions are left that both could answer." in result["sentence"]
    )


def test_a_message_too_long_for_the_context_is_refused_and_forgotten(lm: LanguageModel) -> None:
    chat = Chat(ChatModel(lm), max_new_tokens=4)
    list(chat.say("Hi"))
    before = list(chat.history)
    with pytest.raises(UserError, match=r"the question has .* tokens; the model's context holds 512\. Shorten it"):
        list(chat.say("x" * 900))
    assert chat.history == before
    list(chat.say("Hi again"))
    assert len(chat.history) == len(before) + 2


def test_a_claim_that_rests_on_thoughts_that_never_ended_is_not_made() -> None:
    """Equal wherever both answered: that 15 of 60 base answers are all thoughts makes no tuned model better."""
    result = judged(
        lines("fine-tuned", [1.0] * 60), lines("few-shot", [0.0] * 15 + [1.0] * 45, unread=15, finish="thinking")
    )
    assert result["verdict"] == "NOT SHOWN"
    assert "15 of few-shot (raise evaluate.thinking_tokens in a new run)" in result["sentence"]
    assert result["arms"]["few-shot"]["still_thinking"] == 15


def test_thoughts_without_an_end_are_warned_of() -> None:
    (message,) = unanswered.warnings(
        lines("zero-shot", [0.0] * 60, unread=12, finish="thinking"), "zero-shot", "test", context_tokens=512
    )
    assert message.startswith("zero-shot: 12 of 60 test answers ended while thinking and count as not answered")
    assert message.endswith("Raise evaluate.thinking_tokens in a new run.")


def test_no_answer_scores_nothing_whatever_the_metric_says_of_nothing(tmp_path: Path) -> None:
    answers_file = AnswersFile(
        tmp_path / "answers.jsonl", {"brevity": lambda answer, reference: 1.0 / (1 + len(answer))}
    )
    line = {"answer": "", "reference": "x", "place": "a.jsonl:1"}
    both = answers_file.rescored([line | {"finish": finish} for finish in ("thinking", "stop")])
    assert [one["score"] for one in both] == [0.0, 1.0]
