"""The proof as a person meets it: all arms, the frozen plan, and the verdict given again."""

import json
from pathlib import Path
from typing import Any

import pytest

import luthier as package
from luthier.errors import Interrupted
from luthier.evaluate.answers.file import AnswersFile
from luthier.runs import Run
from luthier.runs.durable import read_json_lines
from openai_server import Reply, completion, serving

from .conftest import Command

OFFLINE = ["zero-shot", "few-shot", "retrieved", "rag", "fine-tuned", "fine-tuned+few-shot"]


def verdict_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation" / "verdict.json").read_text())
    return found


def plan_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation" / "plan.json").read_text())["plan"]
    return found


def departures(folder: Path) -> list[str]:
    return [departure["what"] for departure in verdict_of(folder)["plan"]["deviations"]]


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "colours.md").write_text("# Colours\n\nThe car is red.\n\nThe door is green.")
    return folder


def test_every_offline_arm_answers_and_the_plan_was_kept(
    luthier: Command, data: Path, quick: list[str], documents: Path, tmp_path: Path
) -> None:
    settings = [f"evaluate.arms={','.join([*OFFLINE, 'optimised'])}", f"evaluate.documents={documents}"]
    screen = luthier("run", data, *quick, *settings, "evaluate.optimise_budget=20", "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    verdict, plan = verdict_of(tmp_path / "r"), plan_of(tmp_path / "r")
    assert set(verdict["arms"]) == {*OFFLINE, "optimised"} == set(plan["arms"])
    assert (verdict["plan"]["deviations"], verdict["plan"]["test_opened"]) == ([], 1)
    assert plan["n"] == 8 == verdict["n"] and plan["primary"]["against"] == verdict["best_prompt_arm"]
    assert set(plan["secondary"]) == {*OFFLINE, "optimised"} - {"fine-tuned", verdict["best_prompt_arm"]}
    assert plan["arms"]["few-shot"]["shots"] == len(plan["chosen"]["few_shot"]["examples"])
    assert "Few-shot" in screen.err and "done as planned" in screen.out and "test opened 1 time;" in screen.out
    assert {"rag", "optimised"} <= set(verdict["dev_means"]) and "fine-tuned+few-shot" not in verdict["dev_means"]


def test_the_plan_is_older_than_the_first_test_answer(done: Path) -> None:
    kinds = [(event["kind"], event.get("split")) for event in Run(done).events()]
    assert kinds.index(("plan", None)) < kinds.index(("test-opened", None)) < kinds.index(("arm", "test"))
    assert ("arm", "dev") not in kinds[kinds.index(("plan", None)) :]


def test_the_few_shot_answers_on_dev_are_those_of_the_chosen_candidate(done: Path) -> None:
    chosen = plan_of(done)["chosen"]["few_shot"]
    best = chosen["candidates"][0]
    assert (best["shots"], best["set"], best["questions"]) == (chosen["shots"], chosen["set"], 6)
    lines = [line for line in read_json_lines(done / "evaluation" / "dev-answers.jsonl") if line["arm"] == "few-shot"]
    assert sum(line["score"] for line in lines) / len(lines) == pytest.approx(best["mean"]) and len(lines) == 6


def test_an_interrupted_run_is_opened_once_and_ends_like_one_that_was_not(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = tmp_path / "r"
    assert luthier("run", data, *quick, "--run", done).code == 0
    answer, begun = AnswersFile.ask, set()

    def stumble(self: AnswersFile, lm: Any, items: Any, **named: Any) -> Any:
        stage = (self.path.name, named["arm"], len(items))
        if stage in begun:
            return answer(self, lm, items, **named)
        begun.add(stage)
        raise Interrupted("stopped for a test.")

    monkeypatch.setattr(AnswersFile, "ask", stumble)
    codes = [luthier("run", data, *quick, "--run", tmp_path / "again").code]
    while codes[-1] == 3:
        codes.append(luthier("run", "--run", tmp_path / "again").code)
    assert codes == [3] * len(begun) + [0] and len(begun) > 7
    assert verdict_of(tmp_path / "again")["plan"]["test_opened"] == 1
    assert verdict_of(tmp_path / "again")["plan"]["sha256"] == verdict_of(done)["plan"]["sha256"]
    assert verdict_of(tmp_path / "again")["difference"] == verdict_of(done)["difference"]


def test_judging_again_is_counted_and_changes_nothing(luthier: Command, done: Path) -> None:
    before = verdict_of(done)
    answers = (done / "evaluation" / "answers.jsonl").read_bytes()
    screen = luthier("evaluate", done)
    assert screen.code == 0 and "test opened 2 times; done as planned" in screen.out
    after = verdict_of(done)
    assert after["plan"].pop("test_opened") == 2 and before["plan"].pop("test_opened") == 1
    assert after == before and (done / "evaluation" / "answers.jsonl").read_bytes() == answers


def test_an_arm_added_later_is_answered_and_is_a_departure(luthier: Command, done: Path, documents: Path) -> None:
    arms = "evaluate.arms=" + ",".join(OFFLINE)
    screen = luthier("evaluate", done, arms, f"evaluate.documents={documents}")
    assert screen.code == 0, screen.err
    assert set(verdict_of(done)["arms"]) == set(OFFLINE)
    assert departures(done)[:2] == ["data.passages.jsonl", "arms.rag"] and "secondary" in departures(done)
    assert "rag" not in verdict_of(done)["dev_means"] and "arms.rag: planned nothing" in screen.out
    assert luthier("evaluate", done).code == 0
    assert departures(done) == ["data.passages.jsonl"] and "rag" not in verdict_of(done)["arms"]


def test_an_arm_taken_away_and_another_level_are_departures(luthier: Command, done: Path) -> None:
    best = verdict_of(done)["best_prompt_arm"]
    kept = [name for name in ("zero-shot", "few-shot", "retrieved") if name != best]
    screen = luthier("evaluate", done, f"evaluate.arms={','.join([*kept, 'fine-tuned'])}", "evaluate.alpha=0.1")
    assert screen.code == 0, screen.err
    assert {f"arms.{best}", "primary.against", "alpha"} <= set(departures(done))
    assert "alpha: planned 0.05, done 0.1" in screen.out


def test_another_metric_scores_the_same_answers_anew(luthier: Command, done: Path) -> None:
    assert luthier("evaluate", done, "evaluate.metric=chrf").code == 0
    assert verdict_of(done)["metric"] == "chrf" and "metric.name" in departures(done)
    lines = read_json_lines(done / "evaluation" / "answers.jsonl")
    tuned = [line["scores"]["chrf"] for line in lines if line["arm"] == "fine-tuned"]
    assert verdict_of(done)["arms"]["fine-tuned"]["mean"] == pytest.approx(sum(tuned) / len(tuned))


def test_what_the_answers_depend_on_cannot_be_changed_afterwards(luthier: Command, done: Path) -> None:
    before = verdict_of(done)
    for word in ("evaluate.max_new_tokens=4", "evaluate.shots=1", "train.epochs=9", "data.test_items=3"):
        screen = luthier("evaluate", done, word)
        assert screen.code == 2 and f"{word.split('=')[0]}: cannot change once the questions are answered" in screen.err
    assert luthier("evaluate", done, "evaluate.arms=rag,fine-tuned").code == 2
    assert verdict_of(done) == before and Run(done).state == "complete"


def test_require_better_is_an_exit_code(luthier: Command, done: Path) -> None:
    verdict = done / "evaluation" / "verdict.json"
    word = verdict_of(done)["verdict"]
    screen = luthier("evaluate", done, "--require", "better", "--quiet")
    assert word != "BETTER" and screen.code == 1 and f"required BETTER, found {word}" in screen.err
    answers = done / "evaluation" / "answers.jsonl"
    lines = [{**line, "score": float(line["arm"] == "fine-tuned")} for line in read_json_lines(answers)]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    Run(done).record_checksums([answers])
    screen = luthier("evaluate", done, "--require", "better", "--quiet")
    assert (screen.code, json.loads(verdict.read_text())["verdict"]) == (0, "BETTER")


def test_a_changed_plan_or_test_file_is_seen(luthier: Command, done: Path) -> None:
    plan = done / "evaluation" / "plan.json"
    text = plan.read_text()
    plan.write_text(text.replace('"alpha": 0.05', '"alpha": 0.5'))
    assert luthier("evaluate", done).code == 5
    plan.unlink()
    screen = luthier("evaluate", done)
    assert screen.code == 5 and "the plan is not the one that was frozen" in screen.err
    plan.write_text(text)
    (done / "data" / "train.arrow").write_bytes((done / "data" / "dev.arrow").read_bytes())
    assert luthier("evaluate", done).code == 0 and departures(done) == ["data.train.arrow"]


def test_a_run_without_a_model_cannot_be_judged(luthier: Command, done: Path, tmp_path: Path) -> None:
    (done / "model").rename(tmp_path / "elsewhere")
    screen = luthier("evaluate", done)
    assert screen.code == 2 and "this run has no model yet" in screen.err


def test_an_endpoint_is_a_reference_beside_the_comparison(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    with serving(lambda body, number: completion("The car is red.")) as server:
        settings = ["evaluate.arms=zero-shot,fine-tuned,endpoint:big", f"evaluate.endpoints.big.url={server.url}"]
        settings += ["evaluate.endpoints.big.model=large", "evaluate.endpoints.big.prompt=few-shot"]
        screen = luthier("run", data, *quick, *settings, "--run", tmp_path / "r")
        assert screen.code == 0, screen.err
    verdict = verdict_of(tmp_path / "r")
    assert verdict["best_prompt_arm"] == "zero-shot" and set(verdict["dev_means"]) == {"zero-shot"}
    assert verdict["arms"]["endpoint:big"]["prompt_tokens"] == 11 and verdict["excluded"] == []
    assert len(server.asked) == 8 and len(server.asked[0]["messages"]) > 1
    assert plan_of(tmp_path / "r")["secondary"] == ["endpoint:big"]


def test_an_endpoint_that_gives_out_is_left_out_and_can_be_asked_later(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    up = False

    def reply(body: dict[str, Any], number: int) -> Reply:
        return completion("The car is red.") if up or number < 3 else (403, {"error": {"message": "no credit left"}})

    folder = tmp_path / "r"
    with serving(reply) as server:
        settings = ["evaluate.arms=zero-shot,fine-tuned,endpoint:big", f"evaluate.endpoints.big.url={server.url}"]
        screen = luthier("run", data, *quick, *settings, "evaluate.endpoints.big.model=large", "--run", folder)
        assert screen.code == 0, screen.err
        reason = "it answered 403 (no credit left)"
        assert verdict_of(folder)["excluded"] == [{"arm": "endpoint:big", "why": reason}]
        assert (
            "endpoint:big" not in verdict_of(folder)["arms"] and f"Left out: endpoint:big, since {reason}" in screen.out
        )
        assert departures(folder) == ["arms.endpoint:big", "secondary"]
        up = True
        assert luthier("evaluate", folder).code == 0
    assert luthier("evaluate", folder).code == 0  # all is answered, so nobody need be there
    assert verdict_of(folder)["excluded"] == [] and departures(folder) == []
    assert verdict_of(folder)["arms"]["endpoint:big"]["n"] == 8


def test_documents_have_a_plan_too(luthier: Command, quick: list[str], tmp_path: Path) -> None:
    texts = [f"Entry {number}. The printer prints only blue pages. " * 2 for number in range(30)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert luthier("run", tmp_path / "t.jsonl", *quick, "train.max_tokens=64", "--run", tmp_path / "r").code == 0
    assert Run(tmp_path / "r").events("selftest")[0]["ends"] is False
    assert plan_of(tmp_path / "r")["arms"].keys() == {"zero-shot", "fine-tuned"} and departures(tmp_path / "r") == []
    assert luthier("evaluate", tmp_path / "r").code == 0 and departures(tmp_path / "r") == []


def test_one_class_only_is_said(luthier: Command, quick: list[str], tmp_path: Path) -> None:
    asked = [f"Is the number {number} even or odd?" for number in range(60)]
    for name, part in (("learn", range(40)), ("exam", range(40, 60, 2))):
        lines = [{"question": asked[number], "answer": "odd" if number % 2 else "even"} for number in part]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [word for word in quick if "test_items" not in word]
    exam = f"data.test_path={tmp_path / 'exam.jsonl'}"
    screen = luthier("run", tmp_path / "learn.jsonl", *words, exam, "--run", tmp_path / "r")
    assert screen.code == 0 and 'Every test question has the same answer ("even")' in screen.out, screen.err


def test_python_judges_again_too(done: Path) -> None:
    run = package.load(done)
    assert run.evaluate({"evaluate.arms": ["zero-shot", "fine-tuned"]}).numbers["arms"].keys() == {
        "zero-shot",
        "fine-tuned",
    }


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["evaluate.arms=rag,fine-tuned"],
            2,
            'evaluate.documents: the arm "rag" looks answers up; name a file or folder',
        ),
        (
            ["evaluate.arms=rag,fine-tuned", "evaluate.documents=none"],
            2,
            'evaluate.documents: no such file or folder: "none"',
        ),
        (["evaluate.arms=zero-shot,fine-tuned,endpoint:big"], 2, 'evaluate.arms: unknown endpoint "big"'),
        (["evaluate.endpoints.big.url=http://localhost/v1"], 2, "evaluate.endpoints should be"),
        (
            ["evaluate.arms=optimised,fine-tuned", "evaluate.reflection=gpt"],
            2,
            'found "gpt", expected "base" or "endpoint:NAME"',
        ),
        (["data.test_items=1"], 2, "found 1 test question, expected at least 2"),
        (["evaluate.shots_tried=[0]"], 2, "evaluate.shots_tried should be greater than or equal to 1, found 0"),
    ],
)
def test_what_the_arms_lack_is_reported_before_anything_is_written(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    screen = luthier("run", data, *quick, *words, "--run", tmp_path / "r")
    assert (screen.code, screen.out) == (code, "") and message in screen.err and not (tmp_path / "r").exists()


def test_few_questions_are_said_to_see_little_before_training(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    screen = luthier("run", data, *quick, "--run", tmp_path / "r")
    assert "with 8 test questions, differences above about 31 points can be seen" in screen.err
    assert screen.err.index("Plan") < screen.err.index("Training")
