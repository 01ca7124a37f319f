"""The examples are sound: made by the scripts beside them, varied, answerable, without a leak between groups."""

import importlib.util
import json
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from luthier import recipe as recipes
from luthier.data.reading import load
from luthier.data.splits import split

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
REFUSAL = "I can only answer questions about Luthier."
PRODUCTS = {
    *("kettle", "headset", "router", "desk lamp", "backpack", "coffee grinder"),
    *("vacuum cleaner", "keyboard", "office chair", "toaster", "bike light"),
}
ALLOWED: dict[str, set[object]] = {
    "product": {None, *PRODUCTS},
    "category": {"delivery", "defect", "return", "billing", "account", "question"},
    "urgency": {"low", "normal", "high"},
    "wants_refund": {True, False},
}

each_example = pytest.mark.parametrize("name", ["tickets", "docs-qa"])


def script(path: Path) -> ModuleType:
    """A script of an example as a module."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of an example's data."""
    return [json.loads(line) for line in (EXAMPLES / name / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def readme_of(name: str) -> str:
    """The text of an example's README."""
    return (EXAMPLES / name / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def mails() -> list[dict[str, Any]]:
    return rows_of("tickets")


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, Any]]:
    return rows_of("docs-qa")


def words(text: str) -> list[str]:
    """Words and numbers in small letters."""
    return re.findall(r"\w+", text.lower())


def overlaps(texts: dict[str, list[str]]) -> Iterator[tuple[float, str, str]]:
    """Jaccard index of five-word runs, for each two texts of different groups that share a run."""
    runs = [
        (group, text, {tuple(words(text)[start : start + 5]) for start in range(len(words(text)) - 4)})
        for group, several in texts.items()
        for text in several
    ]
    with_run: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, (_, _, own) in enumerate(runs):
        for run in own:
            with_run[run].append(number)
    shared = Counter((a, b) for numbers in with_run.values() for b in numbers for a in numbers if a < b)
    for (a, b), count in shared.items():
        if runs[a][0] != runs[b][0]:
            yield count / (len(runs[a][2]) + len(runs[b][2]) - count), runs[a][1], runs[b][1]


# Both examples


@each_example
def test_every_row_is_used_and_no_group_is_in_two_splits(name: str) -> None:
    recipe = recipes.load(EXAMPLES / name / "recipe.toml", data=EXAMPLES / name / f"{name}.jsonl")
    data = load(recipe.data)
    parts = split(data.items, test_items=recipe.data.test_items, dev_items=recipe.data.dev_items)
    groups = [{item.group for item in part} for part in (parts.train, parts.dev, parts.test)]
    assert data.ledger.kept == data.ledger.read == len(rows_of(name))
    assert not data.ledger.notes
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert len(parts.train) > 350 and len(parts.dev) > 20 and len(parts.test) > 50


@each_example
def test_the_recipe_has_known_keys_only_and_a_reason_for_each(name: str) -> None:
    text = (EXAMPLES / name / "recipe.toml").read_text(encoding="utf-8")
    named = {f"{section}.{key}" for section, table in tomllib.loads(text).items() for key in table}
    settings = [line for line in text.splitlines() if re.match(r"\w+ =", line)]
    assert named <= set(recipes.keys())
    assert len(settings) == len(named)
    assert all("# " in line for line in settings)


@each_example
def test_the_readme_tells_the_whole_example(name: str) -> None:
    text = readme_of(name)
    wanted = ["The data", "The recipe", "The command", "The result we got", "What to change first"]
    assert "**The question.**" in text
    assert [heading for heading in re.findall(r"^## (.+)$", text, re.MULTILINE) if heading in wanted] == wanted
    assert f"luthier run examples/{name}/{name}.jsonl --recipe examples/{name}/recipe.toml" in text


# Tickets


def test_the_generator_writes_tickets_byte_for_byte(mails: list[dict[str, Any]]) -> None:
    made = script(EXAMPLES / "tickets" / "generate.py").tickets()
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
    assert text.encode() == (EXAMPLES / "tickets" / "tickets.jsonl").read_bytes()
    assert len(text.encode()) < 400_000


def test_another_seed_gives_other_mails(mails: list[dict[str, Any]]) -> None:
    made = script(EXAMPLES / "tickets" / "generate.py").tickets(seed=1, number=40)
    assert {row["input"] for row in made}.isdisjoint(row["input"] for row in mails)


def test_the_readme_counts_mails_and_customers(mails: list[dict[str, Any]]) -> None:
    customers = {row["customer"] for row in mails}
    assert f"{len(mails)} mails of {len(customers)} customers" in readme_of("tickets")


def test_mails_have_exactly_the_fields_with_allowed_values(mails: list[dict[str, Any]]) -> None:
    assert len(mails) >= 500
    for row in mails:
        assert list(row) == ["customer", "input", "output"]
        assert list(row["output"]) == ["product", "category", "urgency", "order_number", "wants_refund"]
        assert all(row["output"][name] in values for name, values in ALLOWED.items())


def test_every_order_number_stands_in_its_mail_once(mails: list[dict[str, Any]]) -> None:
    numbers = [(row["output"]["order_number"], row["input"]) for row in mails if row["output"]["order_number"]]
    assert all(re.fullmatch(r"\d{5}(-[ABC])?", number) for number, _ in numbers)
    assert all(len(re.findall(rf"\b{number}\b(?!-[ABC])", mail)) == 1 for number, mail in numbers)


def test_every_value_is_frequent_enough_to_be_learnt(mails: list[dict[str, Any]]) -> None:
    counts = {name: Counter(row["output"][name] for row in mails) for name in ALLOWED}
    assert {name: set(count) for name, count in counts.items()} == ALLOWED
    assert all(min(count.values()) >= 25 and max(count.values()) <= 0.75 * len(mails) for count in counts.values())
    without_number = sum(row["output"]["order_number"] is None for row in mails)
    assert 0.3 < without_number / len(mails) < 0.7


def test_the_mails_are_short_and_varied(mails: list[dict[str, Any]]) -> None:
    texts = [row["input"] for row in mails]
    assert len(set(texts)) == len(texts)
    assert all(25 <= len(text.split()) <= 110 for text in texts)
    assert len({word for text in texts for word in words(text) if word.isalpha()}) > 900
    assert not any(re.search(r"[\[\]{}|]|\bNone\b", text) for text in texts), "a phrase was not filled in"


def test_mails_of_different_customers_are_no_twins(mails: list[dict[str, Any]]) -> None:
    by_customer: dict[str, list[str]] = defaultdict(list)
    for row in mails:
        by_customer[row["customer"]].append(row["input"])
    overlap, one, other = max(overlaps(by_customer))
    assert overlap <= 0.3, f"{one}\n\n{other}"


# Docs-QA


def test_docs_qa_is_what_its_script_builds(pairs: list[dict[str, Any]]) -> None:
    assert script(EXAMPLES / "docs-qa" / "build.py").rows() == pairs


def test_the_readme_counts_pairs_and_facts(pairs: list[dict[str, Any]]) -> None:
    assert f"{len(pairs)} pairs on {len({row['fact'] for row in pairs})} facts" in readme_of("docs-qa")


def test_every_fact_is_asked_for_in_three_to_five_wordings(pairs: list[dict[str, Any]]) -> None:
    wordings = Counter(row["fact"] for row in pairs)
    assert len(pairs) >= 420
    assert {fact: count for fact, count in wordings.items() if not 3 <= count <= 5} == {}


def test_every_answer_is_given_to_some_question() -> None:
    facts = tomllib.loads((EXAMPLES / "docs-qa" / "facts.toml").read_text(encoding="utf-8"))["fact"]
    assert [fact["name"] for fact in facts if len(fact["answers"]) > len(fact["questions"])] == []


def test_no_question_is_asked_twice(pairs: list[dict[str, Any]]) -> None:
    questions = Counter(" ".join(words(row["question"])) for row in pairs)
    assert [question for question, count in questions.items() if count > 1] == []


def test_answers_are_sentences_of_readable_length(pairs: list[dict[str, Any]]) -> None:
    answers = {row["answer"] for row in pairs} - {REFUSAL}
    assert [answer for answer in answers if not 8 <= len(answer.split()) <= 40 or answer[-1] != "."] == []


def test_only_off_topic_questions_are_refused(pairs: list[dict[str, Any]]) -> None:
    off_topic = [row for row in pairs if row["fact"].startswith("off-topic-")]
    assert 0.06 < len(off_topic) / len(pairs) < 0.1
    assert all((row["answer"] == REFUSAL) == row["fact"].startswith("off-topic-") for row in pairs)


def test_answers_name_only_settings_that_exist(pairs: list[dict[str, Any]]) -> None:
    named = {key for row in pairs for key in re.findall(r"\b(?:data|train|evaluate)\.[a-z_]+", row["answer"])}
    assert named - set(recipes.keys()) == set()
