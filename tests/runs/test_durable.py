"""Whole files, whole folders, files that grow, and what a crash leaves of them."""

import contextlib
import errno
import hashlib
import re
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faulty import BROKEN, FULL, FaultyDisk, disk
from luthier.errors import FolderGone, MachineError
from luthier.runs import durable


@pytest.mark.parametrize(
    ("content", "left"),
    [
        ('{"a": 1}\n{"a": 2}\n', 2),
        ('{"a": 1}\n{"a": 2', 1),
        ('{"a": 1}\n{"a": 2}', 1),
        ('{"a": 1}\n\0\0\0\n\0\0', 1),  # what a power cut may leave: room, but nothing in it
        ('{"a"', 0),
        ("", 0),
    ],
)
def test_repairing_keeps_the_whole_lines(tmp_path: Path, content: str, left: int) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(content)
    kept = "".join(content.splitlines(keepends=True)[:left])
    assert durable.repair(file) == len(content) - len(kept)
    assert file.read_text() == kept
    assert durable.repair(file) == 0


def test_a_line_in_the_middle_that_is_no_json_is_not_repaired_away(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\nrubbish\n{"a": 3}\n')
    assert durable.repair(file) == 0


@given(st.lists(st.binary(max_size=5000), max_size=8))
def test_a_file_knows_its_own_hash(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("file") / "x"
    with durable.whole_file(path) as file:
        for piece in pieces:
            file.write(piece)
    assert path.read_bytes() == b"".join(pieces)
    assert file.sha256 == hashlib.sha256(b"".join(pieces)).hexdigest() == durable.digest(path)


def test_a_large_file_is_hashed_while_it_is_written(tmp_path: Path) -> None:
    content = bytes(range(256)) * 80_000
    durable.write_atomic(tmp_path / "x", content)
    with durable.whole_file(tmp_path / "y") as file:
        file.write(content)
    assert file.sha256 == hashlib.sha256(content).hexdigest()


def test_a_folder_takes_the_place_of_an_older_one_whole_or_not_at_all(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with durable.whole_folder(tmp_path / "f") as folder:
            (folder / content).write_text(content)
    with pytest.raises(ValueError, match="half-way"), durable.whole_folder(tmp_path / "f") as folder:
        (folder / "half").write_text("half")
        raise ValueError("half-way")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["f", "f/new"]


def test_what_is_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "inner" / ".model.7.new.tmp").mkdir(parents=True)
    (tmp_path / "inner" / ".model.7.new.tmp" / "x").write_text("x")
    (tmp_path / ".run.json.7.new.tmp").write_text("{")
    (tmp_path / "keep.tmp").write_text("mine")
    told = "left by an interrupted write, is removed."
    assert durable.remove_leftovers(tmp_path) == [f".run.json.7.new.tmp, {told}", f"inner/.model.7.new.tmp, {told}"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inner", "keep.tmp"]


def test_a_line_that_a_full_disk_cut_short_is_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    durable.append_json_lines(file, [{"a": 1}])
    with disk(FaultyDisk(0, FULL, ("write",))), pytest.raises(MachineError, match="the disk is full"):
        durable.append_json_lines(file, [{"a": 2}])
    assert file.read_text() == '{"a": 1}\n'


def test_a_failed_flush_counts_as_not_written(tmp_path: Path) -> None:
    durable.write_atomic(tmp_path / "x", "old")
    with disk(FaultyDisk(0, BROKEN, ("flush",))), pytest.raises(MachineError, match="input/output error"):
        durable.write_atomic(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old"


def test_a_symbolic_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "x.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(MachineError, match="a symbolic link stands in its place"):
        durable.append_json_lines(tmp_path / "x.jsonl", [{"a": 1}])
    durable.write_atomic(tmp_path / "x.jsonl", "new")
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: durable.append_json_lines(folder / "x.jsonl", [{"a": 1}]),
        lambda folder: durable.write_atomic(folder / "x", "new"),
        lambda folder: durable.make_folders(folder / "a" / "b"),
        lambda folder: durable.remove(folder / "theirs"),
        lambda folder: durable.remove_leftovers(folder),
        lambda folder: durable.whole_folder(folder / "f").__enter__(),
    ],
    ids=["append", "file", "folders", "remove", "leftovers", "folder"],
)
@pytest.mark.parametrize("replaced", [True, False])
def test_nothing_is_written_once_a_pinned_folder_is_gone_or_another_stands_in_its_place(
    tmp_path: Path, write: Callable[[Path], object], replaced: bool
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with durable.pinned(folder):
        durable.write_atomic(folder / "mine", "mine")
        shutil.rmtree(folder)
        told = "the folder is gone"
        if replaced:
            folder.mkdir()  # perhaps with the number that the other had: it must not be taken for it
            (folder / "theirs").write_text("theirs")
            told = "another folder stands in its place"
        with pytest.raises(FolderGone, match=told):
            write(folder)
        assert [path.name for path in folder.rglob("*")] == (["theirs"] if replaced else [])


def test_a_pinned_folder_may_move_when_a_link_leads_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with durable.pinned(folder):
        folder.rename(tmp_path / "larger-disk")
        folder.symlink_to(tmp_path / "larger-disk")
        durable.write_atomic(folder / "x", "new")
    assert (tmp_path / "larger-disk" / "x").read_text() == "new"


def test_a_folder_that_is_pinned_no_more_may_be_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with durable.pinned(folder):
        pass
    shutil.rmtree(folder)
    folder.mkdir()
    durable.write_atomic(folder / "x", "new")
    assert (folder / "x").read_text() == "new"


def test_folders_may_be_pinned_and_released_by_other_threads_while_one_writes(tmp_path: Path) -> None:
    folders = [tmp_path / f"folder-{number}" for number in range(12)]
    for folder in folders:
        folder.mkdir()
    done = threading.Event()

    def come_and_go(folder: Path) -> None:
        while not done.is_set():
            with durable.pinned(folder):
                pass

    threads = [threading.Thread(target=come_and_go, args=(folder,)) for folder in folders[:2]]
    pause = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with contextlib.ExitStack() as stack:
            for folder in folders[2:]:
                stack.enter_context(durable.pinned(folder))
            for thread in threads:
                thread.start()
            for number in range(1000):
                durable.expect_same_folder(folders[number % 12] / "file")
    finally:
        done.set()
        sys.setswitchinterval(pause)
        for thread in threads:
            thread.join()


def test_two_holders_of_a_folder_may_let_go_in_any_order(tmp_path: Path) -> None:
    """As where a second one holds it just to learn that the run is locked."""
    first, second = durable.pinned(tmp_path), durable.pinned(tmp_path)
    for holder in (first, second):
        holder.__enter__()
    for holder in (first, second):
        holder.__exit__(None, None, None)
    durable.write_atomic(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole"


def test_the_systems_error_is_found_in_what_a_rust_library_says() -> None:
    with pytest.raises(OSError) as caught, durable.system_errors():
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(RuntimeError, match="other"), durable.system_errors():
        raise RuntimeError("other")


def test_room_is_asked_for_before(tmp_path: Path) -> None:
    with pytest.raises(
        MachineError, match=r"the disk is full: a checkpoint needs 1000000000\.0 GB, [\d.]+ GB are free"
    ):
        durable.require_space(tmp_path / "not" / "there", 1e18, "a checkpoint needs")


def test_no_other_room_changes_a_disk() -> None:
    """Save libraries' own writers and copies, into a folder that `whole_folder` gives; what is gone with its process promises
    nothing; and neither /proc, /dev/null nor a file without a name is a disk."""
    room = Path(durable.__file__).parent
    source = room.parent.parent
    changing = re.compile(
        r"\.(?:write_text|write_bytes|mkdir|unlink|rmdir|touch|symlink_to|hardlink_to|makedirs|truncate)\(|"
        r"\b(?:os\.(?:replace|rename|remove|write|open)|shutil\.(?!which|disk_usage)\w+|tempfile\.\w+)\(|"
        r"\bopen\([^)]*[\"'][rb]*[wax+][bt+]*[\"']"
    )
    found = {
        f"{file.relative_to(source)}: {match[0]}"
        for file in source.rglob("*.py")
        if file.parent != room
        for match in changing.finditer(file.read_text(encoding="utf-8"))
    }
    assert found == {
        'model/memory.py: open("/proc/self/clear_refs", "r+b"',
        "cli/streams.py: os.open(",
        "chat/limited_process.py: tempfile.TemporaryFile(",
        "train/child.py: tempfile.TemporaryFile(",
        "data/processes.py: tempfile.TemporaryFile(",
        "engine/llama_cpp.py: tempfile.NamedTemporaryFile(",  # what a child prints
        'jobs/service.py: open(self.store.home / "logs" / "workers.log", "ab"',  # the same of workers
        'data/ledger.py: open("ab"',  # what memory has no room for, until the ledger is written
        "export/gguf/model.py: tempfile.TemporaryDirectory(",  # vocabularies that llama.cpp tries
        "export/gguf/model.py: .write_bytes(",
        "export/exporters.py: shutil.copytree(",  # into a whole folder
        "data/step_by_step.py: tempfile.mkdtemp(",  # an example in a docstring
        "pipeline/row_view.py: tempfile.gettempdir(",  # where the scratch folder of a look goes
        "pipeline/sweep/ray_tasks.py: tempfile.mkdtemp(",  # Ray's sockets, gone with the sweep
    }


@pytest.mark.parametrize(
    ("number", "words"), [(12, "12 bytes"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (1.61e9, "1.6 GB")]
)
def test_sizes_in_words(number: float, words: str) -> None:
    assert durable.format_bytes(number) == words
