"""Faults that were planted at known rows are found there, and clean data raises no alarm."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from luthier import recipe as recipes
from luthier.data.checks.findings import Finding
from luthier.data.checks.personal import SHAPES
from luthier.pipeline.inspection import inspect

from . import planted

Pairs = list[tuple[str, str]]
EACH = 200
"""Rows with each fault."""
TOKENS = ["<|im_end|>", "<|endoftext|>", "[INST]", "<start_of_turn>", "<|eot_id|>", "<eos>", "[PAD]", "<|assistant|>"]
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def findings(path: Path, **settings: object) -> list[Finding]:
    values = {f"data.{name}": value for name, value in settings.items()}
    return inspect(recipes.replace(recipes.load(data=path), values)).findings


def rows_of(found: Sequence[Finding], kind: str) -> set[int]:
    """The rows that findings of a kind name, counted from 0."""
    return {int(spot.location.rpartition(":")[2]) - 1 for each in found if each.kind == kind for spot in each.spots}


def expect(found: set[int], planted_at: set[int], *, least: float = 0.98) -> None:
    right = len(found & planted_at)
    assert right / len(planted_at) >= least, f"recall {right} of {len(planted_at)}"
    assert right / len(found) >= least, f"precision {right} of {len(found)}"


class Faulty(NamedTuple):
    """What an inspection found in data with planted faults, the rows of each, and what was written into the texts."""

    findings: list[Finding]
    rows: dict[str, set[int]]
    written: list[str]


def _cut(draw: random.Random, asked: str, said: str) -> tuple[str, str]:
    words = said.split()
    return asked, " ".join(words[: draw.randint(9, len(words) - 1)]).rstrip(".")


def _spelled(draw: random.Random, asked: str, said: str) -> tuple[str, str]:
    token = draw.choice(TOKENS)
    return (f"{asked} {token}", said) if draw.random() < 0.5 else (asked, f"{token} {said}")


def _nearly(draw: random.Random, asked: str) -> tuple[str, str]:
    """Of a question with n words, its n − 4 5-grams and two more: a similarity from 0.78 to 0.86."""
    return f"So {asked[0].lower()}{asked[1:-1]} exactly?", planted.answer(draw)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Faulty:
    folder, draw, rows = tmp_path_factory.mktemp("planted"), random.Random(9), planted.pairs(4600)
    taken = iter(draw.sample(range(4000), 4000))
    at = {
        kind: {next(taken) for _ in range(EACH)}
        for kind in ("cut-answer", "control-token", "conflict", "exact", "near", *SHAPES)
    }
    written = []
    for number in sorted(at["cut-answer"]):
        rows[number] = _cut(draw, *rows[number])
    for number in sorted(at["control-token"]):
        rows[number] = _spelled(draw, *rows[number])
    for kind in SHAPES:
        for number in sorted(at[kind]):
            written.append(planted.personal(kind, draw))
            rows[number] = (rows[number][0], f"{rows[number][1]} Write down {written[-1]} for the log.")
    again = [(rows[number][0].upper(), planted.answer(draw)) for number in sorted(at["conflict"])]
    copies = [_nearly(draw, rows[number][0]) for number in sorted(at["near"])]
    held_out = [rows[number] for number in sorted(at["exact"])] + copies + rows[4000:4200]
    doubles = [_nearly(draw, asked) for asked, _ in rows[4200:4400]]
    train = [*rows[:4000], *again, *rows[4200:4400], *doubles]
    found = findings(planted.write(folder / "x.jsonl", train), test_path=planted.write(folder / "test.jsonl", held_out))
    at["conflict"] |= set(range(4000, 4000 + EACH))
    at["leak"], at["near-duplicate"] = set(range(2 * EACH)), set(range(4600 - EACH, 4600))
    return Faulty(found, at, written)


@pytest.mark.parametrize("kind", ["cut-answer", "control-token", "conflict"])
def test_planted_faults_are_found_and_nothing_else(faulty: Faulty, kind: str) -> None:
    expect(rows_of(faulty.findings, kind), faulty.rows[kind])


def test_rows_of_the_users_own_test_file_that_stand_in_the_data_are_found_word_for_word_and_nearly(
    faulty: Faulty,
) -> None:
    own = [each for each in faulty.findings if each.kind == "leak" and "test file" in each.sentence]
    expect(rows_of(own, "leak"), faulty.rows["leak"])
    details = [spot.detail for spot in own[0].spots]
    assert sum(detail.startswith("the same question with the same answer") for detail in details) == EACH


def test_near_duplicates_are_found(faulty: Faulty) -> None:
    found = rows_of(faulty.findings, "near-duplicate") - faulty.rows["conflict"]  # those ask the very same
    expect(found, faulty.rows["near-duplicate"])
    assert any(each.kind == "random-split" for each in faulty.findings)


@pytest.mark.parametrize("kind", SHAPES)
def test_personal_data_and_secrets_are_found(faulty: Faulty, kind: str) -> None:
    expect(rows_of(faulty.findings, kind), faulty.rows[kind], least=0.9)


def test_personal_data_and_secrets_are_masked_wherever_they_are_shown(faulty: Faulty) -> None:
    shown = "\n".join(str(each.to_json()) for each in faulty.findings)
    assert [each for each in faulty.written if each in shown] == []


@pytest.mark.parametrize("clean", [planted.pairs, planted.labelled, planted.extracted])
def test_clean_data_raises_no_alarm(clean: Callable[[int], Pairs], tmp_path: Path) -> None:
    assert findings(planted.write(tmp_path / "x.jsonl", clean(1000))) == []


@pytest.mark.parametrize("example", ["docs-qa", "tickets"])
def test_the_examples_have_nothing_but_what_they_are_meant_to_have(example: str) -> None:
    recipe = recipes.load(EXAMPLES / example / "recipe.toml", data=EXAMPLES / example / f"{example}.jsonl")
    alarms = {each.kind for each in inspect(recipe).findings if each.severity != "note"}
    assert alarms <= {"phone"}  # the mails of the tickets give numbers to call, which nobody has
