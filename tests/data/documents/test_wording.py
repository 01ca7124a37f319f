"""Questions that people would ask, by rules of grammar; and none where no rule fits."""

import pytest

from luthier.data.documents import paraphrases, wording


@pytest.mark.parametrize(
    ("kind", "name", "column", "question"),
    [
        ("setting", "`train.seed`", "default", "What is the default of the setting `train.seed`?"),
        ("setting", "`train.seed`", "meaning", "What does the setting `train.seed` mean?"),
        ("exit code", "3", "what to do", "What should I do about the exit code 3?"),
        ("verdict", "BETTER, WORSE", "means", "What do the verdicts BETTER and WORSE mean?"),
        ("kind", "`.md`, `.txt`", "needs", "What do the kinds `.md` and `.txt` need?"),
        ("kind", "`.pdf`", "where a passage stands", "Where does a passage stand for the kind `.pdf`?"),
        ("metric", "`field_accuracy`", "for", "What is the metric `field_accuracy` for?"),
        ("word", "`full`", "good for", "What is `full` good for?"),
        ("split", "dev", "size", 'What is the size of the split "dev"?'),
        ("format", "`chats`", "loss tokens", "What are the loss tokens of the format `chats`?"),
        ("Glaze", "Celadon", "Price", "What is the price of the glaze Celadon?"),
        ("Command", "`fire`", "Description", "What does the command `fire` do?"),
        ("", "Celadon", "", "What is Celadon?"),
        ("what", "JSON Lines (`.jsonl`)", "read as", "What is JSON Lines (`.jsonl`) read as?"),
        ("the lesson", "rows cut on the left", "because", None),
        ("verdict", "BETTER", "passes", None),
        ("arm", "rag", "what it is sent", None),
        ("size", "small", "slowly", None),
    ],
)
def test_a_cell_is_asked_for_as_people_would(kind: str, name: str, column: str, question: str | None) -> None:
    about = wording.subject(kind, name)
    assert wording.of_cell(column, about, is_code=name.startswith("`")) == question


@pytest.mark.parametrize(
    ("column", "question"),
    [("available", "Is Celadon available?"), ("on request", "Is Celadon on request?"), ("price", None)],
)
def test_yes_and_no_answer_what_can_be_so(column: str, question: str | None) -> None:
    assert wording.of_cell(column, wording.subject("", "Celadon"), is_yes_or_no=True) == question


@pytest.mark.parametrize(
    ("name", "alone"),
    [("`full`", False), ("`train.seed`", True), ("dev", False), ("McNemar", True), ("HTTP 404", True)],
)
def test_a_word_that_means_something_else_elsewhere_wants_its_title(name: str, alone: bool) -> None:
    assert wording.subject("", name).stands_alone is alone


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("What is the price of the glaze Celadon?", "Can you tell me what the price of the glaze Celadon is?"),
        ('In "Formats", what are the places of `x`?', 'Can you tell me what the places of `x` are, in "Formats"?'),
        ("What does `--slow` do?", "What is the effect of `--slow`?"),
        ("What should I do about the exit code 3?", "What is to be done about the exit code 3?"),
    ],
)
def test_these_questions_have_other_words(question: str, other: str) -> None:
    assert paraphrases.by_rule(question) == other
