"""Templates fill byte by byte, and what a row becomes in one of the course's, or of a user's."""

from pathlib import Path

import pytest

from luthier import recipe as recipes
from luthier.chat import Conversation
from luthier.data import Record, Unfit, Value, questions
from luthier.data.formats import Table, reader, recognise
from luthier.data.prompt_templates import PROMPT_TEMPLATES, PromptTemplate
from luthier.errors import UserError
from luthier.recipe import Data


def build(values: dict[str, Value], format: str, **columns: str) -> Conversation:
    data = Data(path=Path("x.jsonl"), format=format, columns=columns)
    record = Record("x.jsonl:1", values)
    return reader(recognise(Table.of([record]), data))(record)


# Texts


def test_the_courses_templates_have_their_bytes() -> None:
    sizes = {name: len(text.encode()) for name, text in PROMPT_TEMPLATES.items()}
    assert sizes == {"question": 37, "question-answer": 46, "alpaca": 152, "alpaca-with-input": 224}
    assert PROMPT_TEMPLATES["question"].split("{question}") == ["### Question:\n", "\n\n### Answer:"]
    assert PROMPT_TEMPLATES["question-answer"] == PROMPT_TEMPLATES["question"] + "\n{answer}"
    assert PROMPT_TEMPLATES["alpaca-with-input"].splitlines()[2:] == [
        "### Instruction:", "{instruction}", "", "### Input:", "{input}", "", "### Response:",
    ]  # fmt: skip
    assert PROMPT_TEMPLATES["alpaca"].splitlines()[2:] == ["### Instruction:", "{instruction}", "", "### Response:"]


def test_only_words_in_braces_are_gaps_and_values_are_not_read_again() -> None:
    template = PromptTemplate('{"a": {}} {1} {q} { q } {{q}}')
    assert template.gaps == ("q",)
    assert template.fill({"q": "{q} \n"}) == '{"a": {}} {1} {q} \n { q } {{q} \n}'


# Formats


def test_a_question_and_its_answer_become_one_text() -> None:
    said = build({"question": "Where?", "answer": "Here."}, "question-answer-text")
    assert said == Conversation.document("### Question:\nWhere?\n\n### Answer:\nHere.")


def test_a_prompt_is_asked_as_it_is_filled() -> None:
    said = build({"question": "Where?", "answer": "Here."}, "question-answer-prompt")
    assert said == Conversation.pair("### Question:\nWhere?\n\n### Answer:", "Here.")


@pytest.mark.parametrize(("given", "name"), [("1 2", "alpaca-with-input"), ("", "alpaca"), (" ", "alpaca")])
def test_alpaca_has_a_template_with_and_one_without_input(given: str, name: str) -> None:
    said = build({"instruction": "Add.", "input": given, "output": "3"}, "alpaca-prompt")
    filled = PROMPT_TEMPLATES[name].replace("{instruction}", "Add.").replace("{input}", given)
    assert said == Conversation.pair(filled, "3")


def test_alpaca_needs_no_input_column() -> None:
    said = build({"instruction": "Sing.", "response": "La."}, "alpaca-prompt")
    assert said.answer == "La." and said.question.endswith("### Instruction:\nSing.\n\n### Response:")


def test_a_template_of_ones_own_makes_a_document_and_with_an_answer_column_a_question() -> None:
    row: dict[str, Value] = {"en": "cat: {en}", "fr": "chat"}
    assert build(row, "{en} → {fr}") == Conversation.document("cat: {en} → chat")
    assert build(row, "French: {en}", answer="fr") == Conversation.pair("French: cat: {en}", "chat")
    assert build(row, "{question} = {answer}", question="en", answer="fr").answer == "cat: {en} = chat"


@pytest.mark.parametrize(
    ("format", "values", "reason"),
    [
        ("question-answer-text", {"question": " ", "answer": "a"}, "empty question"),
        ("question-answer-text", {"question": "", "answer": None}, "empty question and answer"),
        ("question-answer-prompt", {"question": "", "answer": "a"}, "empty question"),
        ("question-answer-prompt", {"question": "", "answer": ""}, "empty question and answer"),
        ("{a} {b}", {"a": "", "b": " "}, "empty a and b"),
    ],
)
def test_a_row_that_fills_nothing_is_left_out(format: str, values: dict[str, Value], reason: str) -> None:
    with pytest.raises(Unfit, match=f"^{reason}$"):
        build(values, format)


def test_these_formats_are_never_guessed() -> None:
    choice = recognise(Table.named(["question", "answer"]), Data(path=Path("x.jsonl")))
    assert (choice.format, choice.alternatives) == ("question-answer", ())


def test_the_choice_of_a_template_is_a_sentence() -> None:
    choice = recognise(
        Table.named(["Frage", "id"]), Data(path=Path("x"), format="Q:\n{question}", columns={"question": "Frage"})
    )
    assert choice.sentence() == 'read with the template "Q:\\n{question}" (columns Frage as question; not used: id)'


def test_a_template_whose_columns_are_not_there_says_how_to_name_them() -> None:
    with pytest.raises(UserError) as caught:
        recognise(Table.named(["Frage"], path="x.jsonl"), Data(path=Path("x.jsonl"), format="Q: {question}"))
    assert str(caught.value) == (
        'x.jsonl: found the columns Frage; the template "Q: {question}" needs question. '
        "Name yours: data.columns.question=COLUMN"
    )


def test_questions_are_asked_in_the_template_that_was_trained(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "Where?"}\n', encoding="utf-8")
    [asked] = questions.read(file, Data(format="question-answer-prompt"))
    assert asked.question == "### Question:\nWhere?\n\n### Answer:"
    own = Data(format="Q: {q}", columns={"q": "question", "answer": "reply"})
    [asked] = questions.read(file, own)
    assert asked.question == "Q: Where?"


# Files


def test_a_template_comes_from_a_file_and_the_recipe_keeps_its_text(tmp_path: Path) -> None:
    file = tmp_path / "template.txt"
    file.write_bytes(b"Q: {question}\r\nA: {answer}\r\n")
    recipe = recipes.load(overrides=[f"data.format={file}"])
    assert recipe.data.format == "Q: {question}\r\nA: {answer}"
    quoted = recipes.load(overrides=['data.format="Q: {question}\\nA:"'])
    assert quoted.data.format == "Q: {question}\nA:"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r'data.format names a file of a template, ".*t\.txt", which is not there'),
        (b"\xff{q}", r"cannot be read \(.*\); it should be a text in UTF-8"),
        (b"Say something.", r"has no place for a column; write them in braces, such as \{question\}"),
    ],
)
def test_a_file_that_is_no_template_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "t.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        recipes.load(overrides=[f"data.format={file}"])
