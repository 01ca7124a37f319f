"""What is written down of a model: the same numbers as plain transformers give."""

import json
import math
from pathlib import Path

import pytest
import torch

from luthier.chat import Conversation, Message
from luthier.data.dataset import Item
from luthier.evaluate.guards import left_out_sentence
from luthier.evaluate.guards.answers_file import GuardAnswersFile, answered, messages_for
from luthier.evaluate.guards.inputs import BASE, TUNED, Choice, GuardInputs, Passage, Question
from luthier.model import loading
from luthier.model.loading import LanguageModel
from luthier.recipe import Evaluate

ITEM = Item("1", "a.jsonl:1", "1", Conversation.pair("Why?", "Because."))


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> LanguageModel:
    return loading.load(str(tiny_model))


def inputs(**settings: object) -> GuardInputs:
    return GuardInputs([ITEM], [ITEM], Evaluate.model_validate(settings), None, 0)


@torch.inference_mode()
def test_a_passage_is_scored_from_its_second_token_on(lm: LanguageModel, tmp_path: Path) -> None:
    text = "The printer in the kitchen prints blue pages."
    GuardAnswersFile(tmp_path / "n.jsonl").ask(
        lm, BASE, {"g": [Passage("p", "news", text)]}, inputs(), lambda done, of: None
    )
    (line,) = GuardAnswersFile(tmp_path / "n.jsonl").records()
    ids = torch.tensor([lm.tokenizer(text).input_ids])
    loss = lm.model(input_ids=ids, labels=ids).loss.item()
    assert line["nats"] == pytest.approx(loss * (ids.shape[1] - 1), rel=1e-4)
    assert (line["kind"], line["tokens"]) == ("news", ids.shape[1] - 1)
    assert 0.8 * len(text) < line["bytes"] < len(text)
    assert 1 < line["nats"] / math.log(2) / line["bytes"] < 20


def test_a_passage_longer_than_the_context_is_cut_to_it(lm: LanguageModel, tmp_path: Path) -> None:
    long = Passage("p", "news", "word after word " * 400)
    GuardAnswersFile(tmp_path / "n.jsonl").ask(lm, BASE, {"g": [long]}, inputs(), lambda done, of: None)
    (line,) = GuardAnswersFile(tmp_path / "n.jsonl").records()
    assert line["tokens"] == lm.context - 1 and line["bytes"] < len(long.text)


@torch.inference_mode()
def test_the_chosen_answer_is_the_likeliest_per_byte(lm: LanguageModel, tmp_path: Path) -> None:
    task = Choice("c", "What is the capital of France?", ("Paris", "The blue printer", "x", "No"), 0)
    GuardAnswersFile(tmp_path / "n.jsonl").ask(lm, BASE, {"g": [task]}, inputs(), lambda done, of: None)
    (line,) = GuardAnswersFile(tmp_path / "n.jsonl").records()
    before = lm.tokenizer(f"Question: {task.question}\nAnswer:").input_ids
    nats = []
    for choice in task.choices:
        ids = torch.tensor([before + lm.tokenizer(f" {choice}").input_ids])
        logs = lm.model(input_ids=ids).logits[0].log_softmax(dim=-1)
        nats.append(-sum(logs[at - 1, ids[0, at]].item() for at in range(len(before), ids.shape[1])))
    assert line["nats"] == pytest.approx(nats, rel=1e-4)
    assert line["bytes"] == [len(choice) + 1 for choice in task.choices]
    per_byte = [one / size for one, size in zip(nats, line["bytes"], strict=True)]
    assert line["answer"] == task.choices[per_byte.index(min(per_byte))] and line["reference"] == "Paris"


def test_what_is_written_is_not_asked_again(lm: LanguageModel, tmp_path: Path) -> None:
    guard_answers, calls = GuardAnswersFile(tmp_path / "n.jsonl"), list[tuple[int, int]]()
    questions = [Question(f"q{number}", [Message("user", "Why?" * number)]) for number in range(1, 4)]
    guard_answers.ask(lm, BASE, {"g": questions[:2]}, inputs(), lambda done, of: None)
    guard_answers.ask(lm, BASE, {"g": questions}, inputs(), lambda done, of: calls.append((done, of)))
    assert [line["item"] for line in guard_answers.records()] == ["q1", "q2", "q3"]
    assert calls == [(3, 3)]
    guard_answers.ask(lm, "fine-tuned", {"g": questions}, inputs(), lambda done, of: None)
    assert len(guard_answers.records()) == 6


def test_drawn_answers_are_the_same_in_every_run_and_differ_by_sample(lm: LanguageModel, tmp_path: Path) -> None:
    drawn = [Question(f"q {number}", [Message("user", "Why?")], 1.0, number) for number in range(3)]
    sides = []
    for name in ("a", "b"):
        GuardAnswersFile(tmp_path / name).ask(lm, BASE, {"g": drawn}, inputs(max_new_tokens=12), lambda done, of: None)
        sides.append([line["answer"] for line in GuardAnswersFile(tmp_path / name).records()])
    assert sides[0] == sides[1] and len(set(sides[0])) == 3


def test_the_instruction_stands_at_the_head_of_the_system_message() -> None:
    asked = (Message("system", "You are kind."), Message("user", "Why?"))
    instructed = inputs(instruction="Answer with a label.")

    def heard(messages: tuple[Message, ...], arm: str = BASE, *, with_instruction: bool = True) -> tuple[Message, ...]:
        return messages_for(Question("q", messages, with_instruction=with_instruction), instructed, arm)

    assert heard(asked)[0].content == "Answer with a label.\n\nYou are kind."
    assert heard(asked[1:])[0] == Message("system", "Answer with a label.")
    assert heard(asked, TUNED) == heard(asked, with_instruction=False) == asked


def test_a_question_that_fills_the_context_is_not_answered_and_left_out_for_both(
    lm: LanguageModel, tmp_path: Path
) -> None:
    path = tmp_path / "n.jsonl"
    long = Question("q1", (Message("user", "x" * 490),), with_instruction=True, extra={"asked": "q"})
    short = Question("q2", (Message("user", "Why?"),), with_instruction=True, extra={"asked": "r"})
    for arm in (BASE, "fine-tuned"):
        GuardAnswersFile(path).ask(
            lm, arm, {"g": [long, short]}, inputs(instruction="Say it in a word."), lambda done, of: None
        )
    lines = GuardAnswersFile(path).records()
    assert [line["finish"] == "no room" for line in lines if line["item"] == "q1"] == [True, False]
    assert {line["item"] for line in answered(lines)} == {"q2"}
    assert (
        left_out_sentence(path) == "Guard questions left out because they do not fit into the model's context: 1 of g."
    )


def test_a_question_over_which_a_model_is_still_thinking_is_left_out_for_both(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    lines = [
        {"guard": "g", "arm": arm, "item": item, "finish": "thinking" if (arm, item) == (BASE, "q1") else "stop"}
        for arm in (BASE, TUNED)
        for item in ("q1", "q2")
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert {line["item"] for line in answered(lines)} == {"q2"}
    wanted = "Guard questions left out because the model was still thinking when its tokens ran out: 1 of g."
    assert left_out_sentence(path) == wanted
