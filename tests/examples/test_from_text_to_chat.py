"""The example that goes from raw text to a chat: its texts, and, slowly, what its models do."""

import importlib.util
import json
import random
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from luthier.cli import main as cli

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "from-text-to-chat"
TINY = {
    "generate.py": ["400"],
    "tokenizer": ["vocab=400"],
    "pretrain": ["pretrain.parameters=50_000", "pretrain.tokens=12_000", "train.check_every=2"],
    "run": [
        "train.max_steps=2", "train.check_every=1", "train.tokens_per_step=256", "data.dev_items=10",
        "evaluate.max_new_tokens=8", "evaluate.arms=zero-shot,fine-tuned",
    ],
}  # fmt: skip
"""Words behind the commands of the page, for seconds instead of minutes."""


def script(name: str) -> ModuleType:
    """A script of the example as a module."""
    specification = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def commands() -> list[list[str]]:
    """What the page tells to type."""
    block = re.search(r"```bash\n(.*?)```", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block
    return [shlex.split(line, comments=True) for line in block[1].replace("\\\n", " ").splitlines()]


def follow(folder: Path, *, tiny: bool) -> None:
    """Do what the page says, in this process, with the example's files as they lie in the repository."""
    for program, *words in commands():
        words = [word.replace("examples/from-text-to-chat", str(EXAMPLE)) for word in words]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            if program == "python":
                more = TINY.get(Path(words[0]).name, []) if tiny else []
                patch.setattr(sys, "argv", [*words, *more])
                source = Path(words[0]).read_text(encoding="utf-8")
                exec(compile(source, words[0], "exec"), {"__name__": "__main__", "__file__": words[0]})
                continue
            assert program == "luthier"
            more = TINY.get(words[0], []) if tiny else []
            replaced = {word.partition("=")[0] for word in more}
            kept = [word for word in words if word.partition("=")[0] not in replaced]
            patch.setattr(sys, "argv", ["luthier", *kept, *more])
            with pytest.raises(SystemExit) as end:
                cli.main()
                raise SystemExit(0)
            assert end.value.code in (None, 0), words


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    follow(folder, tiny=True)
    return folder / "story"


def test_the_page_can_be_followed_to_its_end(story: Path) -> None:
    assert (story / "base" / "model").is_dir() and (story / "chat" / "report.html").is_file()
    of = len(rows(story / "held-out.jsonl"))
    said = script("measure").page(story, story)
    assert said.count("xychart-beta") == 2
    assert said.count(f" of {of}: ") == 6 and said.count(f"answers right to the letter | 0 of {of}: 0.0% [0.0%") == 1


def test_every_capital_stands_in_the_text_and_held_out_ones_in_no_pair(story: Path) -> None:
    facts = " ".join(script("generate").paragraphs(random.Random(0), 3000))
    tuning = " ".join(row["question"] + row["answer"] for row in rows(story / "tuning.jsonl"))
    tuned, held_out = script("generate").parted()
    assert len(held_out) == len(rows(story / "held-out.jsonl")) >= 35
    assert all(facts.count(fact["capital"]) >= 20 for fact in [*tuned, *held_out])
    assert [fact["capital"] for fact in held_out if re.search(rf"\b{re.escape(fact['capital'])}\b", tuning)] == []
    assert [fact["country"] for fact in held_out if f" {fact['country']}?" in tuning] == []


def test_no_question_is_answered_in_the_text(story: Path) -> None:
    """Lists have questions only, so that what tuning changes is not learnt before."""
    for row in rows(story / "corpus" / "questions.jsonl"):
        assert all(line.endswith("?") for line in row["text"].split("\n\n")[-1].split("\n"))
    assert "?" not in " ".join(row["text"] for row in rows(story / "corpus" / "facts.jsonl"))


def test_the_same_texts_come_each_time(story: Path, tmp_path: Path) -> None:
    script("generate").write(tmp_path / "again", 400)
    for name in ("corpus/facts.jsonl", "corpus/questions.jsonl", "tuning.jsonl", "held-out.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (story / name).read_bytes()


def test_the_page_counts_what_it_was_measured_with(story: Path) -> None:
    page = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    tuned, held_out = script("generate").parted()
    assert f"{len(tuned)} countries" in page and f"{len(held_out)} countries" in page
    assert f"{len(rows(story / 'tuning.jsonl'))} pairs" in page
    assert f"{len(script('generate').CAPITAL)} wordings" in page


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_tuning_turns_more_questions_into_answers_also_for_capitals_kept_from_it(tmp_path: Path) -> None:
    follow(tmp_path, tiny=False)
    found = script("measure").measure(tmp_path / "story")
    assert found["base continues with a question"]["interval"][0] > 0.8
    assert found["tuned continues with a question"]["interval"][1] < 0.2
    assert found["tuned answers right"]["interval"][0] > 0.5 > found["one capital for all"]["interval"][1]
    verdict = json.loads((tmp_path / "story" / "chat" / "evaluation" / "verdict.json").read_text())
    assert verdict["verdict"] == "BETTER" and verdict["arms"]["zero-shot"]["mean"] < 0.1
