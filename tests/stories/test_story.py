"""The main job, end to end, on a tiny model: from a data file to a verdict and a model that answers."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import luthier as package
from luthier.errors import UserError
from luthier.model.identity import fingerprint
from luthier.runs import Run
from luthier.runs.durable import read_json_lines

from .conftest import Command, quick_settings, run_luthier, write_colours


def test_a_run_ends_with_verdict_table_and_report(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    screen = luthier("run", data, *quick, "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    assert "60 rows read = 60 kept + 0 dropped" in screen.err
    assert "read as question-answer" in screen.err
    assert "in the first 8 rows, the loss counts the " in screen.err
    assert "marked and no others; each row ends with an end token; packed rows do not mix" in screen.err
    for arm in ("zero-shot", "few-shot", "retrieved", "fine-tuned"):
        assert arm in screen.out
    assert f"Report  {tmp_path / 'r' / 'report.html'}" in screen.out
    verdict = json.loads((tmp_path / "r" / "evaluation" / "verdict.json").read_text())
    assert verdict["sentence"] in screen.out
    assert verdict["n"] == 8
    assert (tmp_path / "r" / "report.html").stat().st_size > 5_000
    assert Run(tmp_path / "r").state == "complete"


def test_every_arm_answers_the_same_items_and_all_say_what_they_cost(finished: Path) -> None:
    lines = read_json_lines(finished / "evaluation" / "answers.jsonl")
    items = {
        arm: sorted(line["item"] for line in lines if line["arm"] == arm) for arm in {line["arm"] for line in lines}
    }
    assert len(items) == 4 and len({tuple(asked) for asked in items.values()}) == 1
    assert all({"item", "arm", "prompt_tokens", "answer", "reference", "score"} <= line.keys() for line in lines)
    cost = {arm: sum(line["prompt_tokens"] for line in lines if line["arm"] == arm) for arm in items}
    assert cost["few-shot"] > cost["zero-shot"] >= cost["fine-tuned"]


def test_the_model_answers_alike_from_every_side(
    luthier: Command, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = done
    question = "What colour is the hat number 2?"
    tuned = package.load(folder)
    answer = tuned.ask(question, max_new_tokens=12)
    assert tuned.ask([question, "Why?"], max_new_tokens=12)[0] == answer
    assert answer in luthier("compare", question, folder, "--max-new-tokens", 12).out
    monkeypatch.setattr("sys.stdin", io.StringIO(question + "\n"))
    assert luthier("chat", folder, "--max-new-tokens", 12).out.strip() == answer
    (tmp_path / "q.jsonl").write_text(
        json.dumps({"question": "Why?"}) + "\n" + json.dumps({"question": question}) + "\n"
    )
    screen = luthier("ask", folder, tmp_path / "q.jsonl", "-o", tmp_path / "a.jsonl", "--max-new-tokens", 12)
    assert screen.out == f"2 answers in {tmp_path / 'a.jsonl'}\n"
    assert read_json_lines(tmp_path / "a.jsonl")[1] == {"question": question, "answer": answer}
    hub, plain = AutoTokenizer.from_pretrained(folder / "model"), AutoModelForCausalLM.from_pretrained(folder / "model")
    ids = hub.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt"
    ).input_ids
    new = plain.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert hub.decode(new, skip_special_tokens=True).strip() == answer
    line = next(
        line for line in read_json_lines(folder / "evaluation" / "answers.jsonl") if line["arm"] == "fine-tuned"
    )
    assert tuned.ask(line["question"], max_new_tokens=12) == line["answer"]


def test_three_lines_of_python(
    data: Path, quick: list[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = package.finetune(
        "colours.jsonl", model=str(tiny_model), settings={"train.max_steps": 2, "evaluate.max_new_tokens": 8}
    )
    assert str(run.verdict) == run.verdict.sentence
    assert isinstance(run.ask("What colour is the cup?", max_new_tokens=4), str)
    assert run.report.exists() and run.folder.parent == Path("runs")


def test_python_gets_its_mistakes_as_exceptions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no verdict yet|not a run folder"):
        package.load(tmp_path).verdict  # noqa: B018


def test_the_same_rows_in_four_kinds_of_file_give_the_same_run(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    with (tmp_path / "d.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    hashes = []
    for name in ("colours.jsonl", "d.json", "d.csv", "d.parquet"):
        folder = tmp_path / f"run-{name}"
        luthier(
            "run", tmp_path / name, *quick, "train.max_steps=1", "evaluate.arms=zero-shot,fine-tuned", "--run", folder
        )
        answers = read_json_lines(folder / "evaluation" / "answers.jsonl")
        hashes.append((Run(folder).metadata["hashes"]["data"], [(line["item"], line["answer"]) for line in answers]))
    assert hashes[0] == hashes[1] == hashes[2] == hashes[3]


def test_documents_are_judged_in_bits_per_byte(luthier: Command, tmp_path: Path, quick: list[str]) -> None:
    texts = [
        f"Entry {number}. The printer in the kitchen prints only blue pages. " * (1 + number % 3)
        for number in range(30)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    screen = luthier(
        "run",
        tmp_path / "t.jsonl",
        *quick,
        "train.max_steps=30",
        "train.learning_rate=5e-3",
        "train.max_tokens=64",
        "--run",
        tmp_path / "r",
    )
    assert screen.code == 0, screen.err
    verdict = json.loads((tmp_path / "r" / "evaluation" / "verdict.json").read_text())
    assert (verdict["verdict"], verdict["metric"], verdict["higher_is_better"]) == ("BETTER", "bits_per_byte", False)
    assert verdict["arms"]["fine-tuned"]["mean"] < verdict["arms"]["zero-shot"]["mean"]


@pytest.mark.parametrize(
    ("pairs", "metric"),
    [
        ([(f"{one} + {two}", str(one + two)) for one in range(6) for two in range(6)], "number"),
        ([(f"\u0926\u093f\u0928 {n}?", f"\u0926\u093e\u0928 {n} \u6211") for n in range(30)], "token_f1"),
        ([(f"{n} {n % 7}", "<>="[n % 3]) for n in range(30)], "accuracy"),
    ],
    ids=["sums of one digit", "words with marks", "signs alone"],
)
def test_answers_of_few_characters_go_all_the_way(
    luthier: Command, tmp_path: Path, quick: list[str], pairs: list[tuple[str, str]], metric: str
) -> None:
    rows = [json.dumps({"question": question, "answer": answer}) for question, answer in pairs]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    arms = "evaluate.arms=zero-shot,retrieved,fine-tuned"
    screen = luthier("run", tmp_path / "t.jsonl", *quick, "train.max_steps=2", arms, "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    verdict, errors = (
        json.loads((tmp_path / "r" / "evaluation" / f"{name}.json").read_text()) for name in ("verdict", "errors")
    )
    assert verdict["metric"] == metric and errors["answers"]["fine_tuned"] == verdict["n"]
    decisions = tmp_path / "r" / "evaluation" / "decisions.json"
    assert decisions.exists() == (metric == "accuracy")
    if metric == "accuracy":
        found = json.loads(decisions.read_text())
        assert found["answers"] == ["<", "=", ">"] and found["after"]["n"] == verdict["n"]
        assert "A probability for each of 3 allowed answers" in (tmp_path / "r" / "report.md").read_text()


def test_adapters_go_the_same_way(luthier: Command, data: Path, quick: list[str], tmp_path: Path) -> None:
    assert luthier("run", data, *quick, "train.method=lora", "--run", tmp_path / "r").code == 0
    assert (tmp_path / "r" / "model" / "adapter_config.json").exists()
    assert isinstance(package.load(tmp_path / "r").ask("Why?", max_new_tokens=4), str)


def test_a_complete_run_is_shown_again_and_nothing_is_done_twice(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    first = luthier("run", data, *quick, "--run", tmp_path / "r")
    before = (tmp_path / "r" / "evaluation" / "answers.jsonl").stat().st_mtime_ns
    again = luthier("run", "--run", tmp_path / "r")
    assert again.out == first.out and "(complete)" in again.err
    assert (tmp_path / "r" / "evaluation" / "answers.jsonl").stat().st_mtime_ns == before


def test_a_run_is_not_continued_with_other_settings(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    luthier("run", data, *quick, "--run", tmp_path / "r")
    screen = luthier("run", data, *quick, "train.seed=5", "--run", tmp_path / "r")
    assert screen.code == 2
    assert "started with other settings (train.seed was 0, now 5)" in screen.err


def test_runs_are_listed_and_reported(luthier: Command, done: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    done.rename(tmp_path / "runs" / "r")
    listed = luthier("runs", tmp_path / "runs").out
    assert "complete" in listed and str(tmp_path / "runs" / "r") in listed
    (tmp_path / "runs" / "r" / "report.html").unlink()
    assert "fine-tuned" in luthier("report", tmp_path / "runs" / "r").out
    assert (tmp_path / "runs" / "r" / "report.html").exists()
    assert (
        luthier("runs", tmp_path / "none").out == f"No runs in {tmp_path / 'none'}. Start one with: luthier run DATA\n"
    )


def test_a_moved_run_still_talks(done: Path, tmp_path: Path) -> None:
    answer = package.load(done).ask("Why?", max_new_tokens=6)
    done.rename(tmp_path / "moved")
    assert package.load(tmp_path / "moved").ask("Why?", max_new_tokens=6) == answer


def test_a_tuned_model_can_be_tuned_further(
    luthier: Command, data: Path, quick: list[str], finished: Path, tmp_path: Path
) -> None:
    words = [*quick, f"model={finished}", "evaluate.arms=zero-shot,fine-tuned"]
    screen = luthier("run", data, *words, "--run", tmp_path / "second")
    assert screen.code == 0, screen.err


def test_a_recipe_is_printed_with_reasons_and_can_be_run(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    screen = luthier("recipe", data, *quick)
    assert screen.code == 0
    assert "# read as question-answer" in screen.err and " rows read = " in screen.err
    assert "# 48 training rows" not in screen.err and "training rows" in screen.out
    (tmp_path / "recipe.toml").write_text(screen.out)
    assert luthier("run", "--recipe", tmp_path / "recipe.toml", "--run", tmp_path / "r").code == 0


def test_how_data_is_read_is_shown_before_what_is_wrong_with_it(
    luthier: Command, quick: list[str], tmp_path: Path
) -> None:
    (tmp_path / "few.csv").write_text("Frage,Antwort\nWann?,Um sieben.\nWo?,In Bari.\nWer?,Anna.\n")
    for command in ("recipe", "plan"):
        screen = luthier(command, tmp_path / "few.csv", *quick)
        assert screen.code == 2 and "leave none of the 3 usable rows to train on" in screen.err
        assert "# read as question-answer (columns Frage as question, Antwort as answer)" in screen.err


def test_a_changed_template_is_refused(luthier: Command, done: Path) -> None:
    template = done / "model" / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    screen = luthier("compare", "Why?", done)
    assert screen.code == 5
    assert "the chat template is not the one that the model was trained with" in screen.err


def command(*words: object) -> list[str]:
    return [sys.executable, "-c", "from luthier.cli.main import main; main()", *map(str, words)]


def wait_for_step(folder: Path, step: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        events = folder / "events.jsonl"
        if events.exists() and f'"kind": "step", "step": {step},' in events.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} never came")


LONGER = ["train.max_steps=24", "train.tokens_per_step=256", "evaluate.arms=zero-shot,fine-tuned"]


@pytest.fixture(scope="module")
def calm(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("calm")
    words = [write_colours(folder), *quick_settings(tiny_model), *LONGER]
    assert run_luthier("run", *words, "--run", folder / "r").code == 0
    return fingerprint(folder / "r" / "model")


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_by_force_goes_on_to_the_same_weights(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path, calm: str, blow: signal.Signals
) -> None:
    words = [*quick, *LONGER]
    folder = tmp_path / "rough"
    process = subprocess.Popen(command("run", data, *words, "--run", folder), stderr=subprocess.PIPE)
    wait_for_step(folder, 10, process)
    os.kill(process.pid, blow)
    _, said = process.communicate(timeout=60)
    assert Run(folder).state == "interrupted"
    if blow == signal.SIGINT:
        assert process.returncode == 3
        assert b"its checkpoint is saved. Continue with: luthier resume" in said
    screen = luthier("run", "--run", folder)
    assert screen.code == 0, screen.err
    assert "continues from the intact checkpoint of step" in screen.err
    assert fingerprint(folder / "model") == calm
    assert not torch.cuda.is_initialized()


def test_a_judge_and_a_schema_are_reported_beside_the_verdict(
    luthier: Command, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_judge_of_a_story.py").write_text("def first(prompt): return 'VERDICT: A'\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "schema.json").write_text('{"required": ["colour"]}')
    rows = [
        {"question": f"Describe thing {number}.", "answer": json.dumps({"colour": "red", "size": number})}
        for number in range(60)
    ]
    (tmp_path / "things.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    screen = luthier(
        "run", tmp_path / "things.jsonl", *quick, "evaluate.judge=own_judge_of_a_story:first",
        f"evaluate.json_schema={tmp_path / 'schema.json'}", "evaluate.arms=zero-shot,few-shot,fine-tuned",
        "--run", tmp_path / "r",
    )  # fmt: skip
    assert screen.code == 0, screen.err
    evaluation = tmp_path / "r" / "evaluation"
    opinion = json.loads((evaluation / "judge.json").read_text())
    assert (opinion["n"], opinion["position_consistency"], opinion["calibrated"], opinion["is_an_arm"]) == (
        8,
        0,
        False,
        False,
    )
    assert opinion["sentence"] in " ".join(screen.err.split())
    assert len(read_json_lines(evaluation / "judgements.jsonl")) == 8
    found = json.loads((evaluation / "verdict.json").read_text())
    tuned = found["arms"]["fine-tuned"]
    assert list(tuned["scores"]) == ["field_accuracy", "schema_valid", "json_valid", "exact_match"]
    assert tuned["aggregates"]["fields"]["n"] == 8 and len(found["secondary"]) == 1
