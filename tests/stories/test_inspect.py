"""`luthier inspect`: the data before anything is trained, for people and for programs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from luthier import pipeline, recipe
from luthier.cli.screens.inspection import Watch

from .conftest import Command


def rows(path: Path, *pairs: tuple[str, str]) -> Path:
    lines = [json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in pairs]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_json_has_what_programs_rely_on(luthier: Command, tmp_path: Path) -> None:
    path = rows(
        tmp_path / "x.jsonl", ("Is it red?", "Yes."), ("", "No."), ("Is it blue?", "No."), ("Is it old?", "No.")
    )
    screen = luthier("inspect", path, "--json")
    found = json.loads(screen.out)
    assert screen.code == 0 and screen.err == ""
    assert (found["format"], found["columns"]) == ("question-answer", {"question": "question", "answer": "answer"})
    assert (found["read"], found["kept"], found["dropped"]) == (4, 3, {"empty question": [f"{path}:2"]})
    assert found["first"][1] == {
        "messages": [{"role": "user", "content": "Is it blue?"}, {"role": "assistant", "content": "No."}]
    }
    assert [each["kind"] for each in found["findings"]] == ["few-rows", "blank"]
    assert found["findings"][1]["severity"] == "note" and found["findings"][1]["places"] == [f"{path}:2"]


def test_a_pair_of_answers_shows_the_rejected_one_too(luthier: Command, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines = [json.dumps({"prompt": f"q {n}", "chosen": "a", "rejected": "b"}) + "\n" for n in range(3)]
    path.write_text("".join(lines), encoding="utf-8")
    first = json.loads(luthier("inspect", path, "--json").out)["first"][0]
    assert first["messages"][-1]["content"] == "a" and first["rejected"] == "b"


def test_a_file_that_cannot_be_read_is_refused_with_the_message_of_a_run(luthier: Command, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1, "b": 2}\n', encoding="utf-8")
    screen = luthier("inspect", tmp_path / "x.jsonl", "--json")
    assert screen.code == 2 and screen.out == ""
    assert "found the columns a (numbers), b (numbers)" in screen.err


def test_rows_too_few_to_split_are_an_error_that_a_run_would_stop_at(luthier: Command, tmp_path: Path) -> None:
    screen = luthier("inspect", rows(tmp_path / "x.jsonl", ("Why?", "Because.")))
    assert screen.code == 1
    assert "error     no-splits: found 1 usable row in 1 group, expected at least 3 groups" in screen.out
    assert screen.err == "luthier: found no-splits. Put the rows right.\n"


def test_strict_stops_at_warnings_too(luthier: Command, tmp_path: Path) -> None:
    pairs = [(f"What is {n} and {n}?", str(2 * n)) for n in range(120)]
    path = rows(tmp_path / "x.jsonl", *pairs, ("What is 3 and 3?", "seven"))
    assert luthier("inspect", path).code == 0
    screen = luthier("inspect", path, "--strict")
    assert screen.code == 1
    assert "warning   conflict: 1 question asked again with another answer, in 2 rows" in screen.out
    assert f"          {path}:121  asks the same as {path}:4\n" in screen.out


def test_a_row_of_the_users_own_test_file_that_is_trained_on_is_named(luthier: Command, tmp_path: Path) -> None:
    pairs = [(f"How many legs have {n} dogs and {n} birds?", str(6 * n)) for n in range(40)]
    train = rows(tmp_path / "train.jsonl", *pairs)
    test = rows(tmp_path / "test.jsonl", ("What is a dog?", "An animal."), pairs[7])
    found = json.loads(luthier("inspect", train, f"data.test_path={test}", "--json").out)["findings"]
    (leak,) = [each for each in found if each["kind"] == "leak" and "your test file" in each["sentence"]]
    assert leak["severity"] == "warning" and leak["places"] == [f"{test}:2"]
    assert leak["details"] == [f"the same question with the same answer as {train}:8"]


def test_with_a_model_lengths_are_tokens_and_rows_that_do_not_fit_are_named(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    with data.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"question": "Which?", "answer": "The red one. " * 400}) + "\n")
    found = json.loads(luthier("inspect", data, quick[0], "--json").out)
    assert found["lengths"]["unit"] == "tokens" and found["lengths"]["row"]["max"] <= 512
    (long,) = [each for each in found["findings"] if each["kind"] == "too-long"]
    assert long["places"] == [f"{data}:61"] and "tokens, 512 fit" in long["details"][0]


def test_conversations_that_a_run_would_shorten_are_named(luthier: Command, data: Path, quick: list[str]) -> None:
    turns = [{"role": role, "content": "red " * 60} for role in ("user", "assistant")] * 6
    chats = [{"messages": turns[: 2 + 10 * (number == 3)]} for number in range(9)]
    data.write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": f"{n}"}, *chat["messages"][1:]]}) + "\n"
            for n, chat in enumerate(chats)
        )
    )
    found = json.loads(luthier("inspect", data, quick[0], "--json").out)["findings"]
    (shorter,) = [each for each in found if each["kind"] == "shortened"]
    assert shorter["places"] == [f"{data}:4"] and "of 12 messages" in shorter["details"][0]


def test_without_a_model_s_name_nothing_of_torch_is_loaded(data: Path) -> None:
    code = (
        "import sys; from luthier.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print([name for name in ('torch', 'transformers', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, "inspect", data], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("objective", ["kto", "sft"])
def test_splits_are_those_of_a_run(luthier: Command, quick: list[str], tmp_path: Path, objective: str) -> None:
    lines = [
        {"prompt": f"Is {number} red?", "completion": f"{answer} {number}.", "label": answer != "No"}
        for number in range(40)
        for answer in (["Yes", "No"] if number % 3 else ["Yes"])
    ]
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [tmp_path / "v.jsonl", *quick[:1], f"train.objective={objective}"]
    asked = recipe.load(None, [str(word) for word in words[1:]], data=words[0])
    made = pipeline.prepare(asked).splits
    sizes = json.loads(luthier("inspect", *words, "--json").out)["splits"]
    assert sizes == {name: len(getattr(made, name)) for name in ("train", "dev", "test")}


def test_the_first_rows_hide_personal_data_too(luthier: Command, data: Path) -> None:
    rest = data.read_text(encoding="utf-8")
    data.write_text(
        json.dumps({"question": "Who?", "answer": "anna.berg@nord-mail.de"}) + "\n" + rest, encoding="utf-8"
    )
    screen = luthier("inspect", data, "--json")
    assert (
        "anna.berg" not in screen.out and json.loads(screen.out)["first"][0]["messages"][1]["content"] == "a•••@n•••.de"
    )


def test_a_page_is_written_where_it_is_asked_for(luthier: Command, data: Path, tmp_path: Path) -> None:
    screen = luthier("inspect", data, "--html", tmp_path / "inspect.html")
    assert screen.out.endswith(f"Page      {tmp_path / 'inspect.html'}\n")
    assert "60 rows read, 60 kept" in (tmp_path / "inspect.html").read_text(encoding="utf-8")


def test_a_strict_run_stops_at_warnings_before_anything_is_made(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    screen = luthier("run", data, *quick, "--strict", "--run", tmp_path / "r")
    assert screen.code == 1 and not (tmp_path / "r").exists()
    assert "warning   few-rows: 60 usable rows; about 1,000 are a good first amount" in screen.err
    assert "luthier: found few-rows" in screen.err and "data.findings.few-rows=accept." in screen.err


def test_a_run_stops_at_a_private_key_or_leaves_its_row_out_as_the_recipe_says(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    with data.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"question": "The key?", "answer": "-----BEGIN " + "RSA PRIVATE KEY-----"}) + "\n")
    screen = luthier("recipe", data, *quick)
    assert screen.code == 2 and f"1 row (1.6 %) with a private key ({data}:61). Take them out, or set" in screen.err
    screen = luthier("recipe", data, *quick, "data.findings.private-key=drop")
    assert screen.code == 0 and "private-key, as data.findings says" in screen.err
    assert any(line.startswith("findings = {") and "private-key" in line for line in screen.out.splitlines())


def test_work_of_more_than_a_second_is_shown_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("luthier.cli.screens.inspection.time.monotonic", lambda: now[0])
    with Watch() as watch:
        watch("checking", 100, 2000)
        now[0] = 1.5
        watch("checking", 700, 2000)
        watch("checking", 800, 2000)
    assert capsys.readouterr().err == "Inspect   checking, 700 of 2,000 rows\n"
