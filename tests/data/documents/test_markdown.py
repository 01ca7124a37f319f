"""Markdown and plain text become blocks with their lines; marks go, words and code stay."""

import pytest

from luthier.data.documents import markdown


def found(text: str, *, plain: bool = False) -> list[tuple[str, str, str]]:
    return [(block.kind, block.text, block.position) for block in markdown.blocks(text, plain=plain)]


def test_headings_of_both_kinds_know_their_level_and_line() -> None:
    blocks = markdown.blocks("Kiln\n====\n\nIntro.\n\n## Firing ##\n\nGlazes\n---\n")
    assert [(block.kind, block.text, block.level, block.position) for block in blocks] == [
        ("heading", "Kiln", 1, "1"),
        ("paragraph", "Intro.", 0, "4"),
        ("heading", "Firing", 2, "6"),
        ("heading", "Glazes", 2, "8"),
    ]


def test_lines_of_a_paragraph_are_joined_and_items_stay_apart() -> None:
    text = "The kiln is\nhot.\n\n- wear gloves\n  made of leather\n- open the door\n1. Wait.\n"
    assert found(text) == [
        ("paragraph", "The kiln is hot.", "1"),
        ("item", "wear gloves made of leather", "4"),
        ("item", "open the door", "6"),
        ("item", "Wait.", "7"),
    ]


def test_code_is_no_heading_and_keeps_its_lines() -> None:
    assert found("```bash\n# fire\nkiln --on\n```\nDone.\n~~~\nopen") == [
        ("code", "# fire\nkiln --on", "1"),
        ("paragraph", "Done.", "5"),
        ("code", "open", "6"),
    ]


def test_a_table_has_rows_and_cells() -> None:
    (table,) = markdown.blocks("| Glaze | Cone |\n|---|:-:|\n| Celadon | `9` |\n| Matte \\| dry | 6 |\n| short |")
    assert table.cells == (("Glaze", "Cone"), ("Celadon", "`9`"), ("Matte | dry", "6"), ("short", ""))
    assert table.text.splitlines()[1] == "Celadon | `9`" and table.position == "1"


def test_definitions_and_turns_of_question_and_answer_are_blocks_of_their_own() -> None:
    assert found("Bisque\n: Fired once,\nwithout glaze.\n\nQ: Hot?\nA: Yes.\n") == [
        ("definition", "Bisque: Fired once, without glaze.", "1"),
        ("paragraph", "Q: Hot?", "5"),
        ("paragraph", "A: Yes.", "6"),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("**Wear** *dry* _gloves_, __always__.", "Wear dry gloves, always."),
        ('See [the guide](docs/a_b.md "t") and ![oven](o.png).', "See the guide and oven."),
        ("Set `kiln.max_*` to <b>9</b><br>now", "Set `kiln.max_*` to 9 now"),
        ("2 * 3 * 4 and snake_case_name", "2 * 3 * 4 and snake_case_name"),
        (r"a \*star\* and <https://kiln.example>", "a *star* and https://kiln.example"),
    ],
)
def test_marks_inside_a_line_go_and_words_stay(line: str, words: str) -> None:
    assert markdown.inline(line) == words


def test_a_bold_paragraph_is_known_as_such() -> None:
    bold = [block.bold for block in markdown.blocks("**Is it hot?**\n\nYes, **very**.\n\n**a** and **b**\n")]
    assert bold == [True, False, False]


def test_front_matter_comments_and_rules_are_no_text() -> None:
    assert found("---\ntitle: Kiln\n---\n<!-- generated:\nx -->\nHot.\n\n***\n") == [("paragraph", "Hot.", "6")]
    assert found("---\nNo end, so a rule.\n") == [("paragraph", "No end, so a rule.", "2")]


def test_plain_text_keeps_its_signs() -> None:
    assert found("The __sum__ is **8** <b>\n", plain=True) == [("paragraph", "The __sum__ is **8** <b>", "1")]


def test_hostile_lines_take_no_longer_than_others() -> None:
    for piece in ("*", "_a", "[", "`", "<a", "|-", "**a*", "](", "\\"):
        markdown.blocks(piece * 100_000)
