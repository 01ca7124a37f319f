"""A whole run survives kills, signals, rivals and want, and ends with what an undisturbed one ends with."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from faulty import Nursery
from luthier.errors import CorruptedState
from luthier.model.identity import fingerprint
from luthier.runs import Run, verify
from luthier.runs.durable import read_json_lines

from .conftest import Tally


def outcome(folder: Path) -> tuple[Any, ...]:
    """What a run came to, without the times that it took: weights, answers, verdict."""
    answers = read_json_lines(folder / "evaluation" / "answers.jsonl")
    verdict = json.loads((folder / "evaluation" / "verdict.json").read_text())
    return (
        fingerprint(folder / "model"),
        sorted((line["arm"], line["item"], line["answer"], line["score"]) for line in answers),
        [verdict[key] for key in ("verdict", "n", "difference", "interval", "p_value")],
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its path in the folder, but for the lock."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in files.items() if name != ".lock"}


def problems(folder: Path) -> list[str]:
    return [finding.name for finding in verify.verify(Run(folder)) if finding.problem]


@pytest.fixture(scope="module")
def calm(
    nursery: Nursery, data: Path, words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, float]:
    """A run that nothing disturbed, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    ended = nursery.do("command", words=["run", str(data), *words, "--run", str(folder)])
    assert ended.code == 0, ended.said
    assert problems(folder) == []
    return folder, ended.seconds


@pytest.fixture
def begun(nursery: Nursery, data: Path, words: list[str], tmp_path: Path) -> Path:
    """A run that was killed at its eighth step."""
    blow = {"at": "step", "number": 8, "do": "kill"}
    assert nursery.do("command", words=["run", str(data), *words, "--run", str(tmp_path / "run")], blow=blow).code == -9
    return tmp_path / "run"


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.faults)])
def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_happened(
    nursery: Nursery, calm: tuple[Path, float], data: Path, words: list[str], tmp_path: Path, tally: Tally, kills: int
) -> None:
    whole, seconds = calm
    chance = random.Random(kills)
    done = number = 0
    while done < kills:
        folder = tmp_path / f"rough{number}"
        number += 1
        ended = None
        for _ in range(5):
            begin = ["resume"] if (folder / "run.json").exists() else ["run", str(data), *words, "--run"]
            ended = nursery.do("command", words=[*begin, str(folder)], kill_after=chance.uniform(0.02, 0.8) * seconds)
            if ended.code == 0:
                break
            assert ended.code == -signal.SIGKILL, ended.said
            done += 1
            if (folder / "run.json").exists():
                assert problems(folder) == []
        if ended and ended.code:
            begin = ["resume"] if (folder / "run.json").exists() else ["run", str(data), *words, "--run"]
            ended = nursery.do("command", words=[*begin, str(folder)])
        assert ended and ended.code == 0, ended
        assert outcome(folder) == outcome(whole)
        assert problems(folder) == []
        shutil.rmtree(folder)
    tally.add("kill -9 of a run at a random moment", done)


@pytest.mark.parametrize("do", ["interrupt", pytest.param("terminate", marks=pytest.mark.faults)])
@pytest.mark.parametrize(
    ("at", "number"), [("data", 0), ("arm", 3), ("model", 0), ("step", 4), ("save", 0), ("trained", 0), ("verdict", 0)]
)
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(
    nursery: Nursery,
    calm: tuple[Path, float],
    data: Path,
    words: list[str],
    tmp_path: Path,
    tally: Tally,
    at: str,
    number: int,
    do: str,
) -> None:
    folder = tmp_path / "run"
    start = ["run", str(data), *words, "--run", str(folder)]
    ended = nursery.do("command", words=start, blow={"at": at, "number": number, "do": do})
    if at == "verdict":  # nothing was left to do
        assert ended.code == 0
        return
    assert ended.code == 3, ended.said
    assert f"Continue with: luthier resume {folder}" in ended.said and "Traceback" not in ended.said
    if at in ("step", "save"):
        step = re.search(r"stopped after step (\d+) of 20; its checkpoint is saved", ended.said)
        assert step and (folder / "checkpoints" / f"step-{int(step[1]):08d}").is_dir()
    assert Run(folder).state == "interrupted" and problems(folder) == []
    ended = nursery.do("command", words=["resume", str(folder)])
    assert ended.code == 0, ended.said
    assert outcome(folder) == outcome(calm[0])
    tally.add("polite signals, in every stage")


def test_a_run_that_is_stopped_while_it_reads_the_data_leaves_nothing(
    nursery: Nursery, data: Path, words: list[str], tmp_path: Path
) -> None:
    start = ["run", str(data), *words, "--run", str(tmp_path / "run")]
    ended = nursery.do("command", words=start, blow={"at": "load", "do": "terminate"})
    assert ended.code == 3 and "stopped while the data was read; nothing was written yet" in ended.said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("at", "number"), [("arm", 3), ("step", 4), ("save", 0)])
def test_a_second_signal_stops_at_once(
    nursery: Nursery,
    calm: tuple[Path, float],
    data: Path,
    words: list[str],
    tmp_path: Path,
    tally: Tally,
    at: str,
    number: int,
) -> None:
    folder = tmp_path / "run"
    start = ["run", str(data), *words, "--run", str(folder)]
    ended = nursery.do("command", words=start, blow={"at": at, "number": number, "do": "interrupt twice"})
    assert ended.code == 130, ended.said
    assert (
        f"stopped at once; whatever was complete before is kept. Continue with: luthier resume {folder}" in ended.said
    )
    assert Run(folder).state == "interrupted" and problems(folder) == []
    assert nursery.do("command", words=["resume", str(folder)]).code == 0
    assert outcome(folder) == outcome(calm[0])
    tally.add("double signals")


def test_a_second_process_is_refused_and_changes_nothing(
    nursery: Nursery, begun: Path, data: Path, words: list[str], tally: Tally
) -> None:
    run = Run(begun)
    with run.working():
        before = {file: file.read_bytes() for file in begun.rglob("*") if file.is_file()}
        smaller = ["resume", str(begun), "train.tokens_per_batch=64"]
        for start in (
            ["resume", str(begun)],
            smaller,
            ["report", str(begun)],
            ["run", str(data), *words, "--run", str(begun)],
        ):
            ended = nursery.do("command", words=start)
            assert ended.code == 4
            assert re.search(
                rf"the run is in use by process {os.getpid()} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d UTC", ended.said
            )
        assert nursery.do("command", words=["verify", str(begun)]).code == 4
        assert {file: file.read_bytes() for file in begun.rglob("*") if file.is_file()} == before
        tally.add("second processes refused", 5)


def test_memory_that_runs_out_is_told_with_numbers_and_a_way_out(
    nursery: Nursery, tiny_model: Path, tmp_path: Path, tally: Tally
) -> None:
    rows = [
        {"question": f"What is in the list number {number}?", "answer": "a blue hat and a red car, " * 20}
        for number in range(300)
    ]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder, settings = (
        tmp_path / "run",
        ["train.max_steps=2", "evaluate.max_new_tokens=4", "data.test_items=4", "data.dev_items=4"],
    )
    start = [
        "run",
        str(tmp_path / "long.jsonl"),
        f"model={tiny_model}",
        *settings,
        "evaluate.arms=zero-shot,fine-tuned",
    ]
    large = ["train.tokens_per_step=100000", "train.tokens_per_batch=100000", "train.precision=fp32"]
    ended = nursery.do("command", words=[*start, *large, "--run", str(folder)], memory=700_000_000)
    assert ended.code == 4 and "Traceback" not in ended.said, ended.said
    told = r"not enough memory to train: [\d.]+ [GM]B more were asked for, this process holds [\d.]+ [GM]B"
    assert re.search(told, ended.said), ended.said
    assert "train.tokens_per_batch=50000" in ended.said and "train.method=lora" in ended.said
    assert nursery.do("command", words=["resume", str(folder), "train.epochs=2"]).code == 2
    ended = nursery.do("command", words=["resume", str(folder), "train.tokens_per_batch=2000"], memory=700_000_000)
    assert ended.code == 0, ended.said
    tally.add("runs out of memory")


def test_a_folder_that_is_taken_away_is_told_and_the_run_goes_on_where_it_comes_back(
    nursery: Nursery, calm: tuple[Path, float], data: Path, words: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    blow = {"at": "step", "number": 5, "do": "take the folder away", "folder": str(folder)}
    ended = nursery.do("command", words=["run", str(data), *words, "--run", str(folder)], blow=blow)
    assert ended.code == 4 and "the folder is gone" in ended.said and "Traceback" not in ended.said, ended.said
    (tmp_path / "run.away").rename(tmp_path / "elsewhere")
    assert nursery.do("command", words=["resume", str(tmp_path / "elsewhere")]).code == 0
    assert outcome(tmp_path / "elsewhere") == outcome(calm[0])


@pytest.mark.parametrize(
    ("at", "number"),
    [("data", 0), ("arm", 3), ("step", 4), ("checkpoint", 6), ("trained", 0), ("guards", 0), ("verdict", 0)],
)
@pytest.mark.parametrize("do", ["put another in its place", "stop, and put another in its place"])
def test_a_run_whose_folder_was_replaced_stops_and_writes_nothing_into_the_new_one(
    nursery: Nursery, data: Path, words: list[str], tmp_path: Path, tally: Tally, at: str, number: int, do: str
) -> None:
    folder = tmp_path / "run"
    Run.create(tmp_path / "run.other", command="another run")
    before = contents(tmp_path / "run.other")
    blow = {"at": at, "number": number, "do": do, "folder": str(folder)}
    ended = nursery.do("command", words=["run", str(data), *words, "--run", str(folder)], blow=blow)
    assert ended.code == 4 and "Traceback" not in ended.said, ended.said
    assert ended.said.count(f"{folder}: another folder stands in its place") == 1
    assert "luthier resume" not in ended.said  # it would be the other run that goes on
    assert contents(folder) == before and Run(folder).state == "new"
    tally.add("folders replaced under a run")


def test_a_run_that_wakes_up_in_the_folder_of_a_later_one_leaves_that_alone(
    nursery: Nursery, calm: tuple[Path, float], data: Path, words: list[str], tmp_path: Path, tally: Tally
) -> None:
    folder = tmp_path / "run"
    start = ["run", str(data), *words, "--run", str(folder)]
    sleeper = nursery.start("command", words=start, blow={"at": "step", "number": 5, "do": "pause"})
    nursery.when_stopped(sleeper)
    shutil.rmtree(folder)
    assert nursery.do("command", words=start).code == 0
    before = contents(folder)
    os.kill(sleeper, signal.SIGTERM)
    os.kill(sleeper, signal.SIGCONT)
    ended = nursery.wait(sleeper)
    assert ended.code == 4 and "another folder stands in its place" in ended.said and "Traceback" not in ended.said
    assert contents(folder) == before
    assert outcome(folder) == outcome(calm[0]) and problems(folder) == []
    tally.add("folders replaced under a run")


@pytest.mark.parametrize(("at", "number"), [("test-opened", 0), ("guards", 0), ("verdict", 0)])
@pytest.mark.parametrize("do", ["kill", "interrupt"])
def test_a_second_verdict_that_is_disturbed_leaves_a_run_that_can_give_it_again(
    nursery: Nursery, calm: tuple[Path, float], tmp_path: Path, tally: Tally, at: str, number: int, do: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(calm[0], folder)
    again = ["evaluate", str(folder), "evaluate.alpha=0.1"]
    assert nursery.do("command", words=again, blow={"at": at, "number": number, "do": do}).code in (-9, 0, 3)
    assert problems(folder) == []
    assert nursery.do("command", words=again).code == 0
    assert Run(folder).state == "complete" and problems(folder) == []
    assert outcome(folder)[:2] == outcome(calm[0])[:2]
    tally.add("second verdicts disturbed")


def test_answers_with_a_turned_bit_give_no_second_verdict(
    nursery: Nursery, calm: tuple[Path, float], tmp_path: Path
) -> None:
    shutil.copytree(calm[0], tmp_path / "run")
    file = tmp_path / "run" / "evaluation" / "answers.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"score": 0.0', b'"score": 1.0', 1))
    ended = nursery.do("command", words=["evaluate", str(tmp_path / "run")])
    assert ended.code == 5 and "evaluation/answers.jsonl: its SHA-256 is" in ended.said, ended.said


def test_a_read_only_disk_is_told_and_what_is_on_it_can_be_verified(
    nursery: Nursery, calm: tuple[Path, float], begun: Path, small_disk: Path
) -> None:
    shutil.copytree(begun, small_disk / "begun")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for start in (["resume", "begun"], ["run", "x.jsonl", "--run", "new"]):
        ended = nursery.do("command", words=[start[0], *start[1:-1], str(small_disk / start[-1])])
        assert ended.code in (2, 4) and "Traceback" not in ended.said
    assert "the disk is read-only" in nursery.do("command", words=["resume", str(small_disk / "begun")]).said
    assert nursery.do("command", words=["verify", str(small_disk / "begun")]).code == 0


def test_verify_names_every_damaged_file(
    nursery: Nursery, calm: tuple[Path, float], tmp_path: Path, tally: Tally
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(calm[0], folder)
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith((".", "report"))]
    assert len(files) > 15
    for file in files:
        content = file.read_bytes()
        middle = len(content) // 2
        turned = bytes([content[middle] ^ 1]) if content else b"x"  # a ledger may be empty
        file.write_bytes(content[:middle] + turned + content[middle + 1 :])
        name = file.relative_to(folder).as_posix()
        part = "/".join(name.split("/")[:2]) if name.startswith("checkpoints/") else name
        try:
            found = problems(folder)
        except CorruptedState as error:  # run.json itself
            found = ["run.json"] if "run.json" in str(error) else []
        assert found == [part] or (name == "events.jsonl" and found in ([], [name])), name
        file.write_bytes(content)
        tally.add("files of a run with a bit turned")
    assert problems(folder) == []


def test_verify_prints_a_line_for_each_part_and_exits_with_5(
    nursery: Nursery, calm: tuple[Path, float], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(calm[0], folder)
    well = nursery.do("command", words=["verify", str(folder)])
    assert well.code == 0 and re.search(r"All \d+ parts are intact, [\d.]+ MB; the run is complete\.", well.said)
    weights = folder / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    ill = nursery.do("command", words=["verify", str(folder)])
    assert ill.code == 5
    assert re.search(
        r"damaged  model/model\.safetensors .* its SHA-256 is \w{12}…, when it was written it was \w{12}…", ill.said
    )
    assert "1 of " in ill.said and "Remove model/; it is made again" in ill.said
    shutil.rmtree(folder / "model")
    assert nursery.do("command", words=["resume", str(folder)]).code == 0
    assert outcome(folder) == outcome(calm[0]) and problems(folder) == []


def test_resume_says_what_is_kept_and_from_which_step_it_goes_on(nursery: Nursery, begun: Path) -> None:
    said = nursery.do("command", words=["resume", str(begun)]).said
    assert re.search(
        r"Kept      46 training rows, \d+ answers, the checkpoint of step 6 of the 8 made \(not repeated\)", said
    )
    assert "continues from the intact checkpoint of step 6" in said


def test_a_line_cut_short_and_a_file_half_written_are_repaired_and_recorded(
    nursery: Nursery, begun: Path, calm: tuple[Path, float]
) -> None:
    with (begun / "evaluation" / "answers.jsonl").open("a") as file:
        file.write('{"item": "1')
    (begun / "checkpoints" / ".step-00000009.1.new.tmp").mkdir()
    said = nursery.do("command", words=["resume", str(begun)]).said
    assert "evaluation/answers.jsonl ended in a line that a crash cut short; its 11 bytes are removed" in said
    assert ".step-00000009.1.new.tmp, left by an interrupted write, is removed" in said
    assert outcome(begun) == outcome(calm[0])


def test_changed_data_is_refused_with_the_rows_that_changed(
    nursery: Nursery, begun: Path, data: Path, words: list[str], tmp_path: Path
) -> None:
    before = data.read_text()
    try:
        lines = before.splitlines(keepends=True)
        data.write_text(
            "".join(
                [lines[0], lines[1].replace("red", "pink"), *lines[2:59], '{"question": "New?", "answer": "Yes."}\n']
            )
        )
        ended = nursery.do("command", words=["run", str(data), *words, "--run", str(begun)])
        assert ended.code == 2
        assert "the data has changed since this run began" in ended.said and f"luthier resume {begun}" in ended.said
        assert f"2 rows changed ({data}:2, {data}:60)" in ended.said
        ended = nursery.do("command", words=["resume", str(begun)])
        assert ended.code == 0 and "The run continues with its own copy of the rows" in ended.said
    finally:
        data.write_text(before)


def test_a_changed_recipe_is_refused_with_what_changed(nursery: Nursery, begun: Path) -> None:
    file = begun / "recipe.toml"
    file.write_text(file.read_text().replace("max_steps = 20", "max_steps = 30"))
    ended = nursery.do("command", words=["resume", str(begun)])
    assert ended.code == 2 and "changed since this run began (train.max_steps was 20, now 30)" in ended.said


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"])
def test_a_changed_base_model_is_refused_with_the_files_that_changed(
    nursery: Nursery, data: Path, words: list[str], tiny_model: Path, tmp_path: Path, file: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    start = ["run", str(data), *words, f"model={base}", "--run", str(tmp_path / "run")]
    nursery.do("command", words=start, blow={"at": "step", "number": 4, "do": "kill"})
    content = (base / file).read_bytes()
    (base / file).write_bytes(content[:-1] + (b"\x07" if file == "model.safetensors" else content[-1:] + b"\n"))
    ended = nursery.do("command", words=["resume", str(tmp_path / "run")])
    assert ended.code == 2, ended.said
    assert re.search(
        rf"the base model is not the one that this run began with \({re.escape(file)} was \w{{8}}, now \w{{8}}\)",
        ended.said,
    )
    assert nursery.do("command", words=["verify", str(tmp_path / "run")]).code == 5


def test_prepared_rows_with_a_turned_bit_are_never_trained_on(nursery: Nursery, begun: Path) -> None:
    file = begun / "data" / "train.arrow"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    ended = nursery.do("command", words=["resume", str(begun)])
    assert ended.code == 5 and "data/train.arrow: its SHA-256 is" in ended.said


def test_a_run_of_a_newer_version_is_refused(begun: Path, nursery: Nursery) -> None:
    Run(begun).update(format=2, luthier="9.1")
    ended = nursery.do("command", words=["resume", str(begun)])
    assert ended.code == 2 and "made by Luthier 9.1, which is newer than this one; update Luthier" in ended.said


def test_other_libraries_are_told(begun: Path, nursery: Nursery) -> None:
    Run(begun).update(versions={"torch": "1.0"})
    ended = nursery.do("command", words=["resume", str(begun)])
    assert ended.code == 0 and "torch was 1.0, now" in ended.said and "its result may differ slightly" in ended.said
