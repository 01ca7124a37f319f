"""Pairs by rules, and by a model behind an address; killed, it goes on; new tasks are unlike those that are there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from luthier.data import held_out_files
from luthier.errors import MachineError, UserError
from luthier.pipeline import pairs, self_instruct
from luthier.recipe import Data
from luthier.runs.durable import read_json_lines
from openai_server import Reply, completion, serving

THINGS = ["kiln", "oven", "shop", "office", "garden", "library"]
TEXT = "# {0}\n\n## Hours\n\nThe {0} opens at {1} and closes at 18.\n\n## What is the rule of the {0}?\n\nGloves.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    for number, thing in enumerate(THINGS):
        (tmp_path / "docs" / f"{thing}.md").write_text(TEXT.format(thing, number + 5))
    return tmp_path / "docs"


def writer(body: dict[str, Any], number: int) -> Reply:
    """Asks one good question of a passage and two that the passage does not hold; answers by looking it up."""
    prompt = body["messages"][0]["content"]
    found = re.search(r"The (\w+) opens at (\d+)", prompt)
    if prompt.startswith("Write the question below in other words"):
        return completion(prompt.rpartition("Question: ")[2].strip().replace("When does", "At what time does"))
    assert found
    thing, hour = found.groups()
    if prompt.startswith("Does the passage answer"):
        return completion(
            "NO" if "close" in prompt.rpartition("Question: ")[2].partition("\n")[0] else f"YES: at {hour}"
        )
    lines = [
        {"question": f"When does the {thing} open?", "answer": f"At {hour}.", "quote": f"opens at {hour}"},
        {"question": f"When does the {thing} close?", "answer": "At 18.", "quote": "closes at 18"},
        {"question": f"Who owns the {thing}?", "answer": "Zora.", "quote": "owned by Zora"},
    ]
    return completion("\n".join(map(json.dumps, lines)))


def test_rules_write_rows_facts_and_an_account(folder: Path, tmp_path: Path) -> None:
    account = pairs.make(folder, tmp_path / "p.jsonl")
    rows = read_json_lines(tmp_path / "p.jsonl")
    assert account.kept["rule: faq"] == 6 and account.documents == account.passages == 6
    assert {row["split"] for row in rows if row["by"].endswith("other words by rule")} == {"test"}
    facts = read_json_lines(tmp_path / "p.facts.jsonl")
    assert facts[0]["question"].startswith("Can you tell me what the rule of the ") and facts[0]["answer"] == "Gloves."
    assert json.loads((tmp_path / "p.account.json").read_text())["files"][str(tmp_path / "p.jsonl")] == len(rows)
    data, held_out = held_out_files.load(Data(path=tmp_path / "p.jsonl"))
    assert data.ledger.synthetic == len(rows) and held_out.test is not None
    assert not {item.group for item in data.items} & {item.group for item in held_out.test}


def test_a_model_s_pairs_are_kept_where_quote_and_second_look_hold(folder: Path, tmp_path: Path) -> None:
    with serving(writer) as server:
        account = pairs.make(folder, tmp_path / "p.jsonl", model=f"{server.url}#m")
        by = f"model: m at {server.url}"
        assert account.kept[by] == 6
        assert {reason: len(where) for reason, where in account.dropped.items()} == {
            f"{by}: a quote that is not in the passage": 6,
            f"{by}: the model does not find the answer in the passage": 6,
        }
        rows = [row for row in read_json_lines(tmp_path / "p.jsonl") if row["by"] == by]
        assert all(row["passage"][row["start"] : row["end"]] == row["quote"] and row["synthetic"] for row in rows)
        worded = [row for row in read_json_lines(tmp_path / "p.jsonl") if "other words by m at" in row["by"]]
        assert {row["split"] for row in worded} == {"test"} and worded[0]["question"].startswith(
            ("At what time", "What")
        )
        before, content = len(server.asked), (tmp_path / "p.jsonl").read_bytes()
        pairs.make(folder, tmp_path / "p.jsonl", model=f"{server.url}#m")
        assert len(server.asked) == before and (tmp_path / "p.jsonl").read_bytes() == content


def test_what_was_asked_before_a_kill_is_not_asked_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "AT_ONCE", 2)
    down = [True]

    def reply(body: dict[str, Any], number: int) -> Reply:
        return (404, {"error": "gone"}) if down[0] and number >= 4 else writer(body, number)

    with serving(reply) as server:
        with pytest.raises(MachineError, match="the model's endpoint answered 404"):
            pairs.make(folder, tmp_path / "p.jsonl", model=f"{server.url}#m")
        assert not (tmp_path / "p.jsonl").exists() and len(read_json_lines(tmp_path / "p.replies.jsonl")) == 4
        down[0] = False
        asked = [body["messages"][0]["content"] for body in server.asked[:4]]
        pairs.make(folder, tmp_path / "p.jsonl", model=f"{server.url}#m")
        later = [body["messages"][0]["content"] for body in server.asked[4:]]
        assert not set(asked) & set(later[2:]) and (tmp_path / "p.jsonl").exists()


def test_questions_of_other_documents_become_out_of_scope_ones(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "zoo.md").write_text("## Who feeds the owls?\n\nNora feeds them.\n")
    pairs.make(folder, tmp_path / "p.jsonl", others=tmp_path / "zoo.md")
    (row,) = read_json_lines(tmp_path / "p.out-of-scope.jsonl")
    assert row["question"] == "Who feeds the owls?" and row["synthetic"] is True


def test_documents_without_a_pair_say_why(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Is it hot?\n")
    with pytest.raises(UserError, match=r"no pair could be made of 1 documents \(1 × rule: faq: a question without"):
        pairs.make(tmp_path / "a.md", tmp_path / "p.jsonl")
    with pytest.raises(UserError, match="no such file or folder"):
        pairs.make(tmp_path / "none", tmp_path / "p.jsonl")
    (tmp_path / "b.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="no document in it"):
        pairs.make(tmp_path / "b.csv", tmp_path / "p.jsonl")


TASKS = [
    "Name three rivers of Europe",
    "Translate a greeting into French",
    "Sort these numbers by size",
    "Write a haiku on rain",
]


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    (tmp_path / "seeds.jsonl").write_text(
        "".join(json.dumps({"instruction": task, "output": "Done."}) + "\n" for task in TASKS)
    )
    return tmp_path / "seeds.jsonl"


def test_new_tasks_are_unlike_those_that_are_there(seeds: Path, tmp_path: Path) -> None:
    words = ["Summarise", "Explain", "List", "Compare", "Rewrite", "Classify", "Invent", "Count", "Rhyme", "Define"]

    def reply(body: dict[str, Any], number: int) -> Reply:
        verb = words[number % len(words)]
        tasks = [
            {"instruction": f"{verb} the {number} quiet habits of badgers", "input": "", "output": f"Answer {number}."},
            {"instruction": "Name four rivers of Europe", "input": "", "output": "Rhine."},
            {"instruction": "Draw a picture of a badger", "input": "", "output": "Done."},
            {"instruction": f"{verb} it", "input": "", "output": "Done."},
        ]
        return completion("\n".join(map(json.dumps, tasks)))

    with serving(reply) as server:
        account = self_instruct.grow(seeds, tmp_path / "new.jsonl", model=f"{server.url}#m", count=1)
        rows = read_json_lines(tmp_path / "new.jsonl")
        assert len(rows) == 1 and rows[0]["synthetic"] and "badgers" in rows[0]["instruction"]
        account = self_instruct.grow(seeds, tmp_path / "more.jsonl", model=f"{server.url}#m", count=9)
    by = f"model: m at {server.url}"
    assert set(account.dropped) >= {f"{by}: too like a task that is there", f"{by}: a task that text alone cannot do"}
    instructions = [row["instruction"] for row in read_json_lines(tmp_path / "more.jsonl")]
    assert len(instructions) == len(set(instructions)) and not {"Name four rivers of Europe"} & set(instructions)


def test_a_model_that_writes_no_task_is_told(seeds: Path, tmp_path: Path) -> None:
    refused = pytest.raises(UserError, match="the model wrote no new task in 8 replies")
    with serving(lambda body, number: completion("Sorry.")) as server, refused:
        self_instruct.grow(seeds, tmp_path / "new.jsonl", model=f"{server.url}#m", count=3)
    (tmp_path / "text.jsonl").write_text('{"text": "Only words."}\n')
    with pytest.raises(UserError, match="expected tasks with their answers"):
        self_instruct.grow(tmp_path / "text.jsonl", tmp_path / "new.jsonl", model="none.gguf", count=3)
