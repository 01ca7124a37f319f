"""Pairs by rules: what a document asks, defines and tabulates itself; the answer is quoted word for word."""

from pathlib import Path

import pytest

from luthier.data.documents import markdown, records, rules
from luthier.data.documents.pairs import Dropped, Pair
from luthier.data.documents.reading import Document


def document(text: str, name: str = "kiln.md", *, plain: bool = False) -> Document:
    return Document(name, tuple(markdown.blocks(text, plain=plain)))


def pairs(text: str, *, plain: bool = False) -> list[Pair]:
    found = [each for each in rules.pairs(document(text, plain=plain)) if isinstance(each, Pair)]
    assert all(pair.quote == pair.answer for pair in found)
    return found


def asked(text: str, *, plain: bool = False) -> list[tuple[str, str]]:
    return [(pair.question, pair.answer) for pair in pairs(text, plain=plain)]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            "# FAQ\n\n## 1. Is it hot?\n\nYes, very.\n\n- up to 1260\n\n## Safety\n\nGloves.",
            "Yes, very.\n\n- up to 1260",
        ),
        ("**Is it hot?**\n\nYes, very.\n\n**And cold?**\n\nNo.", "Yes, very."),
        ("Q: Is it hot?\nA: Yes, very.\n\nMore.\n\nQ2. And cold?\nA2. No.", "Yes, very.\n\nMore."),
        ("Is it hot?\n\nYes.\n\nIs it cold?\n\nNo.\n\nIs it old?\n\nVery.", "Yes."),
        ("Is it hot?\n: Yes, very.\n", "Yes, very."),
        ("| Question | Answer |\n|---|---|\n| Is it hot? | Yes. |\n", "Yes."),
    ],
)
def test_a_question_of_the_document_s_own_is_answered_by_what_follows(text: str, answer: str) -> None:
    assert asked(text)[0] == ("Is it hot?", answer)
    assert pairs(text)[0].by == "rule: faq"


def test_a_question_in_passing_is_no_list_of_questions() -> None:
    assert asked("Is it hot?\n\nNobody knows.\n\nLet us see.") == []
    assert asked("## Is it hot? Read on. It is.\n\nYes.") == []


def test_a_section_that_says_what_its_heading_is_becomes_a_question() -> None:
    text = "## Bisque\n\nBisque is a first firing. It is done cold.\n\n## Cones\n\nCones are fine.\n\n## The `cone`\n\nHot."
    assert asked(text) == [("What is Bisque?", "Bisque is a first firing.")]
    assert asked("## KPI\n\nKPI stands for a number.") == [('What does "KPI" mean?', "KPI stands for a number.")]


def test_how_to_becomes_how_do_i() -> None:
    assert asked("## How to light the kiln\n\n1. Open it.\n2. Light it.") == [
        ("How do I light the kiln?", "- Open it.\n- Light it.")
    ]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("# Kiln\n\n## How clay is fired\n\nSlowly.", "How is clay fired?"),
        ("# Kiln\n\n## What the kiln needs\n\nAir.", "What does the kiln need?"),
        ("# Kiln\n\n## What is fired\n\nClay.", 'In "Kiln", what is fired?'),
        ("# Kiln\n\n## Opening the kiln\n\n- Wait.\n- Open it.", "How do I open the kiln?"),
        ("# Kiln\n\n## Clean a shelf\n\nSo:\n\n```\nscrape\n```", "How do I clean a shelf?"),
        ("# Kiln\n\n## Clean a shelf\n\nShelves get dirty.", None),
        ("# Kiln\n\n## Test rows of your own\n\n- One\n- Two", None),
        ("# Kiln\n\n## How it is fired\n\nSlowly.", None),
        ("# Kiln\n\n## What is fired\n\n| what | when |\n|--|--|\n| - | 7 |", None),
    ],
)
def test_a_heading_that_asks_is_answered_by_its_section(text: str, question: str | None) -> None:
    assert [each for each, _ in asked(text)] == ([question] if question else [])


def test_terms_of_a_glossary_are_asked_for_and_other_lists_are_not() -> None:
    entries = "- **Bisque**: fired once\n- cone – a measure of heat\n"
    assert asked(f"## Glossary\n\n{entries}") == [
        ('What does "Bisque" mean?', "fired once"),
        ('What does "cone" mean?', "a measure of heat"),
    ]
    assert asked(f"## Notes\n\n{entries}") == []
    assert asked("Bisque\n: Fired once.\n") == [('What does "Bisque" mean?', "Fired once.")]
    assert asked("| Term | Meaning |\n|--|--|\n| Bisque | fired once |\n") == [
        ('What does "Bisque" mean?', "fired once")
    ]


def test_a_table_is_asked_by_key_and_column() -> None:
    text = "## Glazes\n\n| Glaze | Price | on request |\n|--|--|--|\n| Celadon | 9 | yes |\n| Matte | - | 9 |\n"
    assert asked(text) == [
        ("What is the price of the glaze Celadon?", "9"),
        ("Is the glaze Celadon on request?", "yes"),
    ]
    first = pairs(text)[0]
    assert first.passage.text == "Glaze | Price | on request\nCeladon | 9 | yes" and first.start == 37
    assert first.passage.heading == "Glazes" and first.location == "kiln.md:3"


def test_a_table_without_names_of_columns_says_what_its_rows_are() -> None:
    text = "## Tools\n\n| | |\n|--|--|\n| loop tool | cuts clay |\n| `wheel` | 40 |\n"
    assert asked(text) == [('In "Tools", what is loop tool?', "cuts clay")]


def test_a_command_s_help_is_asked_for_the_command_and_its_options() -> None:
    text = """```text
Usage: kiln fire [OPTIONS]

  Fire what is inside,
  slowly.

Options:
  --cone <text>  Heat to reach;
                 06 by default.
  --help         Show this message.
```"""
    assert asked(text) == [
        ("What does `kiln fire` do?", "Fire what is inside, slowly."),
        ("What does `--cone` do in `kiln fire`?", "Heat to reach; 06 by default."),
    ]
    assert asked("```\nkiln fire --cone 6\n```") == []


def test_sentences_that_begin_with_what_they_explain_become_questions() -> None:
    text = "First of all. A bisque is a first firing of clay. `--slow` halves the speed of it. `cone` is the heat to reach."
    assert asked(text) == [
        ("What is a bisque?", "A bisque is a first firing of clay."),
        ("What does `--slow` do?", "`--slow` halves the speed of it."),
        ("What is `cone`?", "`cone` is the heat to reach."),
    ]
    assert (
        asked("`cone` names them. `cone` shows it again here. A cone of clay is a measure. The cone is a measure.")
        == []
    )


def test_a_list_that_explains_words_of_code_is_a_glossary() -> None:
    items = "- `bisque`, the first: fired once\n- `glaze`: fired twice\n"
    assert asked(f"## Firing: `how`\n\n{items}") == [
        ('In "Firing", what is `bisque`?', "fired once"),
        ('In "Firing", what is `glaze`?', "fired twice"),
    ]
    assert asked("- `bisque`: fired once\n- others\n") == []


def test_what_makes_no_pair_is_told_with_its_reason() -> None:
    table = "| K | Price |\n|--|--|\n| a | 1 |\n| A | 2 |\n"
    text = f"## Is it hot?\n\n## How to wait\n\n{'long ' * 301}\n\n## T\n\n{table}"
    dropped = [each for each in rules.pairs(document(text)) if isinstance(each, Dropped)]
    assert [(each.reason, each.location) for each in dropped] == [
        ("a question without an answer below it", "kiln.md:1"),
        ("an answer of more than 300 words", "kiln.md:3"),
        ("two rows of a table with the same key", "kiln.md:9"),
        ("two rows of a table with the same key", "kiln.md:9"),
    ]


def test_documents_are_divided_by_their_names_before_anything_is_made_of_them() -> None:
    names = [f"d{number}.md" for number in range(16)]
    splits = records.assign_splits(names)
    assert sorted(splits.values()).count("test") == 6 and list(splits.values()).count("dev") == 2
    assert list(records.assign_splits(names[:11]).values()).count("test") == 3
    assert list(records.assign_splits([f"d{number}.md" for number in range(60)]).values()).count("test") == 15
    assert records.assign_splits(names[::-1]) == splits and records.assign_splits(names[:2]) == {}
    assert set(records.assign_splits(names[:3]).values()) == {"train", "dev", "test"}


def test_a_question_counts_once_in_a_document_and_again_in_another() -> None:
    text = "## Is it hot?\n\nYes.\n\n## Is it hot?\n\nYes.\n"
    kept, dropped = records.by_rules([document(text), document(text, "oven.md")])
    assert [pair.document for pair in kept] == ["kiln.md", "oven.md"]
    assert [each.reason for each in dropped] == ["the same question in the same document"] * 2


def test_a_question_that_documents_answer_differently_names_its_document() -> None:
    guides = [
        document(f"# {name}\n\n## Is it hot?\n\n{answer}.", f"{name}.md")
        for name, answer in (("Kiln", "Yes"), ("Ice", "No"))
    ]
    assert [pair.question for pair in records.by_rules(guides)[0]] == ['In "Kiln", is it hot?', 'In "Ice", is it hot?']


def test_a_question_that_a_training_document_asks_too_is_not_asked_for_the_verdict() -> None:
    tables = [f"# Guide {n}\n\n| Tool | Price |\n|--|--|\n| Rake | 4 |\n| Spade{n} | {n} |\n" for n in range(8)]
    guides = [document(text, f"g{number}.md") for number, text in enumerate(tables)]
    kept, dropped = records.by_rules(guides)
    shared = {pair.split for pair in kept if pair.question == "What is the price of the tool Rake?"}
    assert shared == {"train"} and {pair.split for pair in kept} == {"train", "dev", "test"}
    assert sorted(each.reason for each in dropped) == [
        "a question for dev that is asked of an earlier split too",
        *["a question for test that is asked of an earlier split too"] * 2,
    ]


def test_a_folder_of_rows_is_no_folder_of_documents(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Rows\n\nOf questions.")
    assert records.find(tmp_path) is not None
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    assert records.find(tmp_path) is None
    (tmp_path / "words.txt").write_text("Hund\tdog\nKatze\tcat\n")
    assert records.find(tmp_path / "words.txt") is None and records.find(tmp_path / "none") is None
