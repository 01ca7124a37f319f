"""Whatever becomes of the terminal, the work is done or can go on: encodings, closed streams, full devices, hang-ups."""

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from luthier.runs import Run
from luthier.runs.signals import stopping

from .conftest import Command
from .test_story import command


def shell(line: str, *words: object, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """A line for bash in which "$@" is luthier with these words."""
    return subprocess.run(
        ["bash", "-c", line, "bash", *command(*words)], capture_output=True, timeout=240, check=False,
        env={**os.environ, **variables},
    )  # fmt: skip


@pytest.fixture(scope="module")
def few(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The words of a run of seconds, whose data and verdict hold characters that latin-1 lacks."""
    data = tmp_path_factory.mktemp("data") / "ünï–code.jsonl"
    rows = [{"question": f"Which – {number}?", "answer": f"№ {number % 7} …"} for number in range(24)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "run", data, f"model={tiny_model}", "train.max_steps=2", "train.check_every=1", "evaluate.max_new_tokens=2",
        "evaluate.guards=[]", "evaluate.arms=zero-shot,fine-tuned", "data.test_items=4", "data.dev_items=2",
    ]  # fmt: skip


def test_a_verdict_is_shown_in_any_encoding(few: list[object], tmp_path: Path) -> None:
    done = shell('"$@"', *few, "--run", tmp_path / "r", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    verdict = json.loads((tmp_path / "r" / "evaluation" / "verdict.json").read_text())
    assert verdict["verdict"].encode() in done.stdout and b"95 % interval" in done.stdout
    assert b"Report  " in done.stdout and b"\xe2" not in done.stdout + done.stderr
    assert Run(tmp_path / "r").state == "complete"


@pytest.mark.parametrize("line", ['"$@" 2>&1 | head -1', '"$@" >&- 2>/dev/full'])
def test_a_run_goes_on_when_nobody_reads_what_it_prints(few: list[object], tmp_path: Path, line: str) -> None:
    done = shell(f"set -o pipefail; {line}", *few, "--run", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    assert Run(tmp_path / "r").state == "complete"
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr


def test_a_terminal_that_hangs_up_leaves_a_run_that_goes_on(few: list[object], tmp_path: Path) -> None:
    """The shell and the system both tell it; the step is finished and saved all the same."""
    long = ["train.epochs=2000", "train.max_steps=9000", "train.check_every=9000", "train.tokens_per_step=64"]
    words = [*few, *long, "--run", tmp_path / "r"]
    owner, terminal = pty.openpty()
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        process = subprocess.Popen(command(*words), stdin=terminal, stdout=terminal, stderr=terminal)
    finally:
        signal.signal(signal.SIGHUP, before)
    os.close(terminal)
    shown = b""
    while not re.search(rb"step \d+/", shown):
        shown += os.read(owner, 4096)
    os.close(owner)
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 3
    assert Run(tmp_path / "r").state == "interrupted"
    assert list((tmp_path / "r" / "checkpoints").glob("step-*"))


def test_a_hang_up_that_is_ignored_when_a_command_starts_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with stopping(lambda: None) as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
            signal.raise_signal(signal.SIGTERM)
            assert stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_is_heard_where_a_script_started_the_command_in_the_background() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as with `&` in a script
    try:
        with stopping(lambda: None) as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_loss_that_is_no_number_leaves_a_failed_run(luthier: Command, few: list[object], tmp_path: Path) -> None:
    screen = luthier(*few, "train.learning_rate=1e39", "train.warmup_steps=0", "--run", tmp_path / "r")
    assert screen.code == 2
    assert "the dev loss is nan after step 1: the updates went too far" in screen.err
    assert Run(tmp_path / "r").state == "failed"


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ('"$@" <&-', 0, ""),
        ('yes | "$@" | head -1', 141, ""),  # of `yes`
        (
            "printf 'b\\xff\\n' | \"$@\" >/dev/full",
            4,
            "stdout: cannot write: the disk is full. The output is incomplete.",
        ),
    ],
)
def test_a_talk_ends_when_its_streams_do(tiny_model: Path, line: str, code: int, told: str) -> None:
    done = shell(f"set -o pipefail; {line}", "chat", tiny_model, "--max-new-tokens", 2)
    assert done.returncode == code, done.stderr
    assert done.stderr.decode() == (f"luthier: {told}\n" if told else "")


@pytest.mark.parametrize(
    ("line", "code", "out"),
    [
        ('"$@" >/dev/full', 4, b""),
        ('"$@" >&-', 0, b""),
        ('"$@" | head -1', 0, b"{\n"),
        ('"$@" 2>&- | tail -1', 0, b"}\n"),
        ('"$@" <&- >&- 2>&-', 0, b""),
    ],
)
def test_a_command_says_whether_its_output_arrived(line: str, code: int, out: bytes) -> None:
    done = shell(f"set -o pipefail; {line}", "recipe", "--schema")
    assert (done.returncode, done.stdout) == (code, out)
    assert b"Exception ignored" not in done.stderr


def on_a_terminal(columns: int, words: Sequence[object], **variables: str) -> tuple[int, str]:
    """What a command prints on a terminal of so many columns."""
    owner, terminal = pty.openpty()
    variables = {"COLUMNS": str(columns), "TERM": "xterm", **variables}
    process = subprocess.Popen(
        command(*words), stdin=terminal, stdout=terminal, stderr=terminal, env={**os.environ, **variables}
    )
    os.close(terminal)
    found = b""
    while True:
        try:
            piece = os.read(owner, 4096)
        except OSError:  # Linux's way to say that nobody writes there any more
            break
        found += piece
    os.close(owner)
    return process.wait(timeout=120), found.decode()


def test_a_narrow_a_dumb_and_a_colourless_terminal_show_the_whole_verdict(few: list[object], tmp_path: Path) -> None:
    code, dumb = on_a_terminal(80, [*few, "--run", tmp_path / "r"], TERM="dumb")
    assert code == 0 and "\x1b" not in dumb
    assert "Training  step 2/2" in dumb and "Tuned     fine-tuned on test 4/4" in dumb
    verdict = json.loads((tmp_path / "r" / "evaluation" / "verdict.json").read_text())
    for columns, variables in ((20, {}), (80, {"NO_COLOR": "1"})):
        code, shown = on_a_terminal(columns, ["report", tmp_path / "r"], **variables)
        assert code == 0
        assert verdict["verdict"] in shown and "zero-shot" in shown and "fine-tuned" in shown
        assert f"{100 * verdict['arms']['fine-tuned']['mean']:.1f}" in shown
        assert "\x1b[3" not in shown or not variables.get("NO_COLOR")
