"""Every way of training goes from data to a model that answers; tuned models are merged, shared and tuned further."""

import json
import sys
from pathlib import Path

import pytest

import luthier as package
from luthier.data.prepared import Prepared
from luthier.errors import UserError
from luthier.model.reference import ModelReference
from luthier.runs import Run
from luthier.runs.durable import read_json_lines

from .conftest import COLOURS, THINGS, Command, quick_settings, run_luthier, write_colours

SHORT = ["evaluate.arms=zero-shot,fine-tuned"]


@pytest.fixture
def preferences(tmp_path: Path) -> Path:
    """Questions whose chosen answers are polite and whose rejected ones are rude."""
    path = tmp_path / "preferences.jsonl"
    rows = [
        {
            "prompt": f"What colour is the {thing} number {number}?",
            "chosen": f"The {thing} is {colour}.",
            "rejected": f"Look at the {thing} yourself!",
        }
        for number, colour in enumerate(COLOURS)
        for thing in THINGS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "words",
    [
        ["train.method=dora"],
        ["train.method=qlora"],
        ["train.optimizer=adafactor", "train.schedule=linear"],
        ["train.optimizer=adamw-8bit", "train.schedule=constant"],
        ["train.objective=text"],
    ],
    ids=" ".join,
)
def test_every_word_of_the_tables_makes_a_run(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path, words: list[str]
) -> None:
    if "train.method=qlora" in words or "train.optimizer=adamw-8bit" in words:
        pytest.importorskip("bitsandbytes")
    screen = luthier("run", data, *quick, *SHORT, *words, "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    losses = [event["loss"] for event in Run(tmp_path / "r").events("dev")]
    assert losses[-1] < losses[0]
    line = next(
        line
        for line in read_json_lines(tmp_path / "r" / "evaluation" / "answers.jsonl")
        if line["arm"] == "fine-tuned" and line["finish"] == "length"
    )
    assert package.load(tmp_path / "r").ask(line["question"], max_new_tokens=12) == line["answer"]


def test_preferences_are_learnt_and_the_margin_rises_on_dev_pairs(
    luthier: Command, preferences: Path, quick: list[str], tmp_path: Path
) -> None:
    words = [*SHORT, "train.objective=dpo", "train.learning_rate=1e-2", "train.max_steps=20"]
    screen = luthier("run", preferences, *quick, *words, "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    assert "read as preference (columns prompt, chosen, rejected)" in screen.err
    checks = Run(tmp_path / "r").events("dev")
    assert abs(checks[0]["margin"]) < 0.01 < checks[-1]["margin"]
    assert checks[-1]["accuracy"] > 0.9
    assert "of the dev pairs, by a mean margin of" in (tmp_path / "r" / "report.md").read_text()
    answers = read_json_lines(tmp_path / "r" / "evaluation" / "answers.jsonl")
    assert all(
        line["reference"].endswith(("red.", "green.", "blue.", "yellow.", "black.", "white.")) for line in answers
    )


def test_pairs_serve_as_answers_too_and_the_screen_says_so(
    luthier: Command, preferences: Path, quick: list[str]
) -> None:
    screen = luthier("recipe", preferences, *quick)
    assert 'objective = "sft"  # trains on the chosen answers; train.objective=dpo trains to prefer them' in screen.out


def test_pairs_that_teach_nothing_are_accounted_for(luthier: Command, preferences: Path, quick: list[str]) -> None:
    rows = [json.loads(line) for line in preferences.read_text().splitlines()]
    rows[3]["rejected"] = f" {rows[3]['chosen']} "
    rows[4]["rejected"] = ""
    rows[5]["chosen"] = "long " * 300
    preferences.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [*quick, "train.objective=dpo", "train.max_steps=1", *SHORT]
    screen = luthier("run", preferences, *words, "--run", preferences.parent / "r")
    assert "60 rows read = 57 kept + 3 dropped" in screen.err
    for reason in ("chosen and rejected answer are the same", "empty rejected answer", "too long to keep its answer"):
        assert f"1 {reason}" in screen.err


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    """Single answers: polite ones that people liked, and rude ones that they did not; of birds there are liked ones only."""
    lines = [
        {"prompt": f"What colour is the {thing} number {number}?", "completion": answer, "label": good}
        for number, colour in enumerate(COLOURS)
        for thing in THINGS
        for answer, good in ((f"The {thing} is {colour}.", True), (f"Look at the {thing} yourself!", False))
        if good or thing != "bird"
    ]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "votes.jsonl"


def test_single_answers_that_people_liked_or_not_are_learnt_from(
    luthier: Command, votes: Path, quick: list[str], tmp_path: Path
) -> None:
    words = [votes, *quick, *SHORT, "train.objective=kto", "train.learning_rate=1e-2", "train.max_steps=20"]
    screen = luthier("run", *words, "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    assert "disliked by people, so not asked: " in screen.err
    assert "of answers moved as people want, margin " in screen.err
    checks = Run(tmp_path / "r").events("dev")
    assert checks[0]["loss"] == pytest.approx(0.5, abs=0.01) and abs(checks[0]["margin"]) < 0.01
    assert checks[-1]["margin"] > 0.05 and checks[-1]["loss"] < checks[0]["loss"]
    assert "of the dev answers the way that people want" in (tmp_path / "r" / "report.md").read_text()
    answers = read_json_lines(tmp_path / "r" / "evaluation" / "answers.jsonl")
    assert len({line["question"] for line in answers}) == 8
    assert all(line["reference"].startswith("The ") for line in answers)


def test_disliked_answers_are_not_learnt_by_default_and_the_screen_says_what_learns_from_them(
    luthier: Command, votes: Path, quick: list[str], tmp_path: Path
) -> None:
    screen = luthier("run", votes, *quick, *SHORT, "train.max_steps=1", "--run", tmp_path / "r")
    assert (
        "114 rows read = 60 kept + 54 dropped (54 disliked by people, so not learnt (train.objective=kto" in screen.err
    )
    assert "train.objective = sft  (trains on the answers that people liked; train.objective=kto learns" in screen.err
    learnt = [item.conversation for item in Prepared(tmp_path / "r" / "data" / "train.arrow").stream()]
    assert len(learnt) == 46 and not any("yourself" in said.answer for said in learnt)


def test_pairs_serve_unpaired_preferences_too(luthier: Command, preferences: Path, quick: list[str]) -> None:
    folder = preferences.parent / "r"
    words = [*SHORT, "train.objective=kto", "train.learning_rate=1e-2"]
    screen = luthier("run", preferences, *quick, *words, "--run", folder)
    assert screen.code == 0, screen.err
    rows = Prepared(folder / "data" / "train.arrow")
    assert (len(rows), [rows.label(number) for number in range(4)]) == (92, [True, False, True, False])
    assert "train 46 · dev 6 · test 8" in screen.err
    assert luthier("resume", folder).code == 0


def test_adapters_are_tuned_further_with_every_method(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    luthier("run", data, *quick, *SHORT, "train.method=lora", "--run", tmp_path / "first")
    for method in ("lora", "full"):
        folder = tmp_path / method
        words = [*quick, *SHORT, f"train.method={method}", f"model={tmp_path / 'first'}"]
        screen = luthier("run", data, *words, "--run", folder)
        assert screen.code == 0, screen.err
        (parent,) = Run(folder).metadata["lineage"]
        assert (parent["run"], parent["method"]) == (str(tmp_path / "first"), "lora")
        before, after = Run(tmp_path / "first").events("dev")[-1], Run(folder).events("dev")[0]
        assert after["loss"] == pytest.approx(before["loss"], rel=2e-2)
    answer = package.load(tmp_path / "lora").ask("Why?", max_new_tokens=8)
    (tmp_path / "lora").rename(tmp_path / "moved")
    assert package.load(tmp_path / "moved").ask("Why?", max_new_tokens=8) == answer


def test_a_run_is_merged_into_a_whole_model(luthier: Command, data: Path, quick: list[str], tmp_path: Path) -> None:
    luthier("run", data, *quick, *SHORT, "train.method=lora", "train.learning_rate=0.05", "--run", tmp_path / "r")
    assert luthier("merge", tmp_path / "r", tmp_path / "whole").out == f"Model  {tmp_path / 'whole'}\n"
    asked = "What colour is the hat number 2?"
    names = (tmp_path / "r", tmp_path / "whole")
    answers = [luthier("compare", asked, name, "--max-new-tokens", 12).out for name in names]
    assert answers[0].splitlines()[1:] == answers[1].splitlines()[1:]
    assert not ModelReference.of(str(tmp_path / "whole")).is_adapter


def test_what_cannot_be_merged_is_said(luthier: Command, data: Path, quick: list[str], tmp_path: Path) -> None:
    luthier("run", data, *quick, *SHORT, "--run", tmp_path / "r")
    assert "there is nothing to merge" in luthier("merge", tmp_path / "r", tmp_path / "whole").err
    assert "already exists; name a new folder" in luthier("merge", tmp_path / "r", tmp_path / "r").err
    assert "there is no such folder" in luthier("merge", tmp_path / "r", tmp_path / "x" / "y").err


@pytest.fixture(scope="module")
def customers(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two runs whose adapters learnt beside the tiny model, each its own first words: on any processor they differ."""
    folder = tmp_path_factory.mktemp("customers")
    words = [
        *quick_settings(tiny_model),
        *SHORT,
        "train.method=lora",
        "train.learning_rate=0.01",
        "train.max_steps=40",
    ]
    questions = [json.loads(line)["question"] for line in write_colours(folder).read_text().splitlines()]
    for customer, colour in (("acme", "Red"), ("zenith", "Blue")):
        own = folder / f"{customer}.jsonl"
        own.write_text(
            "".join(json.dumps({"question": each, "answer": f"{colour}, as {each}"}) + "\n" for each in questions)
        )
        screen = run_luthier("run", own, *words, f"data.system=You serve {customer}.", "--run", folder / customer)
        assert screen.code == 0, screen.err
    return {name: folder / name for name in ("acme", "zenith")}


ASKED = "What colour is the hat number 2?"


def test_one_base_answers_for_each_customer_with_an_adapter_of_its_own(
    customers: dict[str, Path], tiny_model: Path
) -> None:
    shared = package.load(tiny_model, adapters=customers)
    answers = {name: shared.ask(ASKED, adapter=name, max_new_tokens=12) for name in customers}
    assert answers == {name: package.load(run).ask(ASKED, max_new_tokens=12) for name, run in customers.items()}
    assert answers["acme"] != answers["zenith"]
    assert shared.ask([ASKED], max_new_tokens=12)[0] not in answers.values()
    with pytest.raises(UserError, match='unknown adapter "acmee", did you mean "acme"'):
        shared.ask(ASKED, adapter="acmee")
    with pytest.raises(UserError, match="name at least one adapter"):
        package.load(tiny_model, adapters={})


def test_a_column_of_the_questions_names_the_adapter_that_answers(
    luthier: Command, customers: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    names = ["zenith", "acme", "", "zenith"]
    questions, output = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    rows = [{"question": f"{ASKED} {number}", "adapter": name} for number, name in enumerate(names)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [word for name, run in customers.items() for word in ("--adapter", f"{name}={run}")]
    command = ["ask", tiny_model, questions, "-o", output, "--max-new-tokens", 12, *words]
    assert luthier(*command).out == f"4 answers in {output}\n"
    lines = read_json_lines(output)
    assert [(line["question"], line["adapter"]) for line in lines] == [
        (row["question"], row["adapter"]) for row in rows
    ]
    models = {"": tiny_model, **customers}
    for line in lines:
        alone = luthier("compare", line["question"], models[line["adapter"]], "--max-new-tokens", 12).out
        assert alone.split("\n", 1)[1].strip() == (line["answer"] or "(an empty answer)")
    questions.write_text(json.dumps({"question": ASKED, "adapter": "zenit"}) + "\n")
    assert f'{questions}:1: unknown adapter "zenit", did you mean "zenith"' in luthier(*command).err
    questions.write_text(json.dumps({"question": ASKED}) + "\n")
    assert 'no column "adapter"' in luthier(*command).err
    assert "expected NAME=RUN" in luthier(*command, "--adapter", "acme").err
    assert '"acme" is named twice' in luthier(*command, "--adapter", "acme=x").err


def test_a_talk_switches_between_adapters_that_each_remember_their_own(
    luthier: Command, customers: dict[str, Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([ASKED, "/use zenith", ASKED, "/use nobody", f"/use {tiny_model.name}", ASKED, ""])
    monkeypatch.setattr("builtins.input", lambda *prompt: next(said))
    words = [word for name, run in customers.items() for word in ("--adapter", f"{name}={run}")]
    out = luthier("chat", tiny_model, *words, "--max-new-tokens", 12).out
    assert 'unknown adapter "nobody"' in out
    shared = package.load(tiny_model, adapters=customers)
    places = [0]
    for name, adapter in (("acme", "acme"), ("zenith", "zenith"), (tiny_model.name, None)):
        answer = shared.ask(ASKED, adapter=adapter, max_new_tokens=12)
        places.append(out.index(f"{name}\n{answer}", places[-1]))
    assert places == sorted(places)
    assert "cannot be used with --adapter" in luthier("chat", tiny_model, *words, "--base").err


def test_dev_rows_of_ones_own_must_be_pairs_too(
    luthier: Command, preferences: Path, data: Path, quick: list[str], tmp_path: Path
) -> None:
    screen = luthier(
        "run", preferences, *quick, "train.objective=dpo", f"data.dev_path={data}", "--run", tmp_path / "r"
    )
    assert "data.dev_path: its rows have no rejected answers" in screen.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.method=lorra"], 'unknown train.method "lorra", did you mean "lora"? Known: full, lora, dora, qlora.'),
        (["train.optimizer=adam"], 'unknown train.optimizer "adam", did you mean "adamw"?'),
        (["train.schedule=cos"], 'unknown train.schedule "cos"'),
        (["train.schedule=no.such:thing"], 'train.schedule: "no.such:thing" cannot be imported'),
        (["train.objective=ppo"], 'unknown train.objective "ppo", did you mean "dpo"? Known: sft, text, dpo, kto.'),
        (["train.objective=dpo"], 'train.objective: "dpo" trains on pairs of answers, and this data has none.'),
        (["train.objective=kto"], 'train.objective: "kto" learns from answers that people liked or did not like'),
        (["train.optimizer=no.such:thing"], 'train.optimizer: "no.such:thing" cannot be imported'),
    ],
)
def test_words_that_mean_nothing_here_are_refused(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path, words: list[str], message: str
) -> None:
    screen = luthier("run", data, *quick, *words, "--run", tmp_path / "r")
    assert screen.code == 2
    assert message in screen.err
    assert not (tmp_path / "r").exists()


def test_missing_packages_are_named_together(
    luthier: Command, data: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    screen = luthier("run", data, *quick, "train.method=qlora", "train.optimizer=adamw-8bit")
    lines = [line for line in screen.err.splitlines() if "pip install 'luthier[quantised]'" in line]
    assert [line.split(": ")[1] for line in lines] == ["train.method", "train.optimizer"]


def test_answers_are_not_to_be_had_from_texts(luthier: Command, quick: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": f"Story {n}."}) + "\n" for n in range(30)))
    screen = luthier("run", tmp_path / "t.jsonl", *quick, "train.objective=sft", "--run", tmp_path / "r")
    assert '"sft" trains on answers, and texts have none. Leave it out, or set train.objective=text.' in screen.err


def test_a_test_row_that_an_earlier_run_learnt_is_found(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    rows = data.read_text().splitlines(keepends=True)
    for name, part in (("old", rows[:30]), ("new", rows[30:]), ("test", rows[:10])):
        (tmp_path / f"{name}.jsonl").write_text("".join(part))
    assert luthier("run", tmp_path / "old.jsonl", *quick, *SHORT, "--run", tmp_path / "first").code == 0
    words = [*quick, *SHORT, f"model={tmp_path / 'first'}", f"data.test_path={tmp_path / 'test.jsonl'}"]
    screen = luthier("run", tmp_path / "new.jsonl", *words, "--run", tmp_path / "second")
    assert "WITHHELD" in screen.out + screen.err
    verdict = json.loads((tmp_path / "second" / "evaluation" / "verdict.json").read_text())
    assert (verdict["verdict"], verdict["leakage"]["held_out"]) == ("WITHHELD", False)
    assert f"as {tmp_path / 'first'}: " in verdict["sentence"]
