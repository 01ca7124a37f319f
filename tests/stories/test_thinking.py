"""A model that thinks before it answers: its thoughts are no answers, on or off they are the same for all, on every day."""

import io
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import thinking
from luthier import pipeline
from luthier import recipe as recipes
from luthier.chat import Conversation, Message
from luthier.model import tuned
from luthier.model.reference import ModelReference
from luthier.pipeline import preparation
from luthier.runs import Run
from luthier.runs.durable import read_json_lines

from .conftest import Command

THINGS = ["hat", "car", "cup", "door", "lamp", "boat", "book", "shoe", "bird", "chair", "fork", "ring"]
COLOURS = ["red", "green", "blue", "white"]
ANSWERS = {f"The {thing}?": f"{COLOURS[number % 4]} {thing}" for number, thing in enumerate(THINGS)}
THOUGHTS = {question: f"A {answer.split()[1]} is seen." for question, answer in ANSWERS.items()}
DAY, NEXT_DAY = date(2026, 11, 28), date(2026, 11, 29)
OFF = "chat.variables.enable_thinking=false"


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows all the answers, and gives each behind a thought."""
    texts = ["system user assistant Today is 28 November 2026.", *ANSWERS, *ANSWERS.values(), *THOUGHTS.values()]
    folder = thinking.make(tmp_path_factory.mktemp("models") / "thinker", texts, template=thinking.DATED)
    taught = [
        Conversation((Message("user", question), Message("assistant", answer, reasoning=THOUGHTS[question])))
        for question, answer in ANSWERS.items()
    ]
    thinking.teach(folder, taught, today=DAY)
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in ANSWERS.items()))
    return path


@pytest.fixture
def run(luthier: Command, rows: Path, knowing: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """A run of seconds on the given day; gives its verdict."""

    def do(folder: Path, *more: str, day: date = DAY) -> dict[str, Any]:
        monkeypatch.setattr(preparation, "today", lambda: day)
        screen = luthier(
            "run", rows, f"model={knowing}", "train.max_steps=4", "train.check_every=2", "train.learning_rate=1e-6",
            "data.test_items=4", "data.dev_items=2", "evaluate.guards=[]", "evaluate.arms=zero-shot,fine-tuned",
            "evaluate.metric=exact_match", "evaluate.max_new_tokens=12", *more, "--run", folder,
        )  # fmt: skip
        assert screen.code == 0, screen.err
        found: dict[str, Any] = json.loads((folder / "evaluation" / "verdict.json").read_text())
        return found

    return do


def prompt_elsewhere(folder: Path, question: str) -> list[int]:
    """What plain transformers sends, years later, with nothing but the saved folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": question}]
    ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return ids


def test_a_base_model_that_thinks_and_then_answers_right_scores_right(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    verdict = run(tmp_path / "r")
    base, tuned_arm = verdict["arms"]["zero-shot"], verdict["arms"]["fine-tuned"]
    assert base["mean"] == tuned_arm["mean"] == 1.0
    assert verdict["verdict"] != "BETTER"
    lines = read_json_lines(tmp_path / "r" / "evaluation" / "answers.jsonl")
    assert {line["question"]: line["thoughts"] for line in lines}.items() <= THOUGHTS.items()
    assert all(line["answer"] == line["reference"] for line in lines)
    assert all(0 < line["thought_tokens"] < line["answer_tokens"] for line in lines)
    assert base["thought_tokens"] > 0 and base["still_thinking"] == 0
    page = (tmp_path / "r" / "report.html").read_text()
    assert "answer&#39;s tokens are thoughts before it" in page


@pytest.mark.parametrize("off", [False, True])
def test_prompts_are_equal_in_the_run_and_wherever_its_model_goes(
    run: Callable[..., dict[str, Any]], luthier: Command, tmp_path: Path, off: bool
) -> None:
    run(tmp_path / "r", "train.method=lora", *([OFF] if off else []))
    assert luthier("merge", tmp_path / "r", tmp_path / "whole").code == 0
    recipe = recipes.load(tmp_path / "r" / "recipe.toml")
    assert recipe.chat.date == DAY
    assert recipe.evaluate.thinking_tokens == (0 if off else 128)  # a quarter of the model's context
    sent = tuned.starting_model(Run(tmp_path / "r"), recipe).template.prompt([Message("user", "The hat?")])
    for folder in (tmp_path / "r" / "model", tmp_path / "whole"):
        assert prompt_elsewhere(folder, "The hat?") == sent
        assert ModelReference.of(str(folder)).template().prompt([Message("user", "The hat?")]) == sent
    text = AutoTokenizer.from_pretrained(tmp_path / "whole").decode(sent)
    assert "Today is 28 November 2026." in text
    assert text.endswith("<think>\n\n</think>\n\n") is off


def test_a_run_keeps_its_day(
    run: Callable[..., dict[str, Any]], luthier: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "r"
    run(folder)
    for path in (folder / "model", folder / "evaluation" / "verdict.json"):
        path.rename(tmp_path / path.name)
    before = Run(folder).metadata["hashes"]
    Run(folder).update(state="interrupted")
    run(folder, day=NEXT_DAY)
    assert Run(folder).metadata["hashes"]["template"] == before["template"]
    assert "date = 2026-11-28" in (folder / "recipe.toml").read_text()
    assert prompt_elsewhere(folder / "model", "The hat?") == prompt_elsewhere(tmp_path / "model", "The hat?")
    screen = luthier("evaluate", folder, "evaluate.arms=zero-shot,retrieved,fine-tuned")
    assert screen.code == 0, screen.err


def test_a_run_that_was_stopped_before_it_had_a_recipe_keeps_its_day(
    rows: Path, knowing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipes.load(
        None, [f"model={knowing}", "data.test_items=4", "data.dev_items=2", "evaluate.guards=[]"], data=rows
    )
    monkeypatch.setattr(preparation, "today", lambda: DAY)
    current, first = pipeline.open_run(asked, tmp_path / "r", command="")
    monkeypatch.setattr(preparation, "today", lambda: NEXT_DAY)
    again = preparation.prepare_again(current)
    assert first is not None and again.recipe.chat.date == first.recipe.chat.date == DAY


def test_answers_that_end_while_thinking_count_as_none_and_are_named(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    verdict = run(tmp_path / "r", "evaluate.thinking_tokens=1", "evaluate.max_new_tokens=4")
    assert verdict["arms"]["zero-shot"]["still_thinking"] == 4
    assert verdict["arms"]["zero-shot"]["mean"] == 0
    count = "answers that ended while thinking and count as none: 4 of fine-tuned and 4 of zero-shot"
    assert count in verdict["sentence"]
    warnings = [event["message"] for event in Run(tmp_path / "r").events("warning")]
    assert any(message.startswith("zero-shot: 4 of 4 test answers ended while thinking") for message in warnings)
    assert "Still thinking at the token limit" in (tmp_path / "r" / "report.html").read_text()
    errors = json.loads((tmp_path / "r" / "evaluation" / "errors.json").read_text())
    counts = {one["category"]: one["base"]["count"] for one in errors["categories"]}
    assert (counts["no answer"], counts["wrong format"]) == (4, 0)


def test_a_variable_that_the_template_does_not_read_is_refused(
    luthier: Command, rows: Path, knowing: Path, tmp_path: Path
) -> None:
    screen = luthier("run", rows, f"model={knowing}", "chat.variables.enable_thinkin=false", "--run", tmp_path / "r")
    assert screen.code == 2
    assert "enable_thinkin" in screen.err and "it reads" in screen.err and "enable_thinking" in screen.err
    assert not (tmp_path / "r").exists()


def test_thoughts_are_shown_to_people_only(
    run: Callable[..., dict[str, Any]], luthier: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "r")
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": "The cup?"}) + "\n")
    luthier("ask", tmp_path / "r", tmp_path / "q.jsonl", "-o", tmp_path / "a.jsonl")
    assert read_json_lines(tmp_path / "a.jsonl") == [
        {"question": "The cup?", "answer": "blue cup", "thoughts": "A cup is seen."}
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("The cup?\n"))
    assert luthier("chat", tmp_path / "r").out.strip() == "blue cup"
    assert "A cup is seen." in luthier("compare", "The cup?", tmp_path / "r").out


def test_thoughts_in_the_data_are_learnt_where_the_template_shows_them(
    luthier: Command, knowing: Path, tmp_path: Path, tiny_model: Path
) -> None:
    path = tmp_path / "thoughts.jsonl"
    with path.open("w") as file:
        for question, answer in ANSWERS.items():
            reply = {"role": "assistant", "content": answer, "reasoning_content": THOUGHTS[question]}
            file.write(json.dumps({"messages": [{"role": "user", "content": question}, reply]}) + "\n")
    words = ["data.test_items=4", "data.dev_items=2", "evaluate.guards=[]"]
    told = pipeline.prepare(recipes.load(None, [f"model={knowing}", *words], data=path))
    template = ModelReference.of(str(knowing)).template()
    for item, row in told.rows["train"]:
        learnt = [token for token, learn in zip(row.ids, row.loss_mask, strict=True) if learn]
        reply_text = template.parse_reply(learnt)
        assert (reply_text.text, reply_text.thoughts) == (
            item.conversation.answer,
            THOUGHTS[item.conversation.question],
        )
    for words_off in ([f"model={knowing}", OFF], [f"model={tiny_model}"]):
        plain = pipeline.prepare(recipes.load(None, [*words_off, *words], data=path))
        ledger = plain.dataset.ledger
        (note,) = ledger.notes
        assert note.startswith("its thoughts are not trained on") and len(ledger.notes[note]) == ledger.kept == 12


def test_adapters_of_several_days_share_one_base(
    run: Callable[..., dict[str, Any]], knowing: Path, tmp_path: Path
) -> None:
    run(tmp_path / "a", "train.method=lora")
    run(tmp_path / "b", "train.method=lora", OFF, day=NEXT_DAY)
    shared = tuned.load_shared(str(knowing), {"a": tmp_path / "a", "b": tmp_path / "b"})
    for name in ("a", "b"):
        with shared.using(name):
            sent = shared.lm.template.prompt([Message("user", "The hat?")])
        assert sent == prompt_elsewhere(tmp_path / name / "model", "The hat?")


def test_plain_transformers_answers_as_the_run_does(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    run(tmp_path / "r")
    line = next(
        line for line in read_json_lines(tmp_path / "r" / "evaluation" / "answers.jsonl") if line["arm"] == "fine-tuned"
    )
    folder = tmp_path / "r" / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([prompt_elsewhere(folder, line["question"])])
    written = model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :]
    text = tokenizer.decode(written, skip_special_tokens=True)
    assert text == f"<think>\n{line['thoughts']}\n</think>\n\n{line['answer']}"
