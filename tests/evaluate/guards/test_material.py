"""The shipped texts and questions are what they claim to be."""

from collections import Counter

from luthier.evaluate.guards.forgetting import choices, passages
from luthier.evaluate.guards.hallucination import out_of_scope
from luthier.evaluate.guards.inputs import MATERIAL


def test_the_texts_are_many_of_many_kinds_and_of_a_size() -> None:
    texts = passages()
    kinds = Counter(text.kind for text in texts)
    assert len(texts) == 51 and len(kinds) == 10
    assert 35_000 < sum(len(text.text.encode()) for text in texts) < 60_000
    assert all(500 < len(text.text) < 1_200 for text in texts)
    assert len({text.id for text in texts}) == len({text.text for text in texts}) == len(texts)
    assert (MATERIAL / "general.txt").read_text(encoding="utf-8").startswith("%% ")


def test_every_question_has_four_choices_and_the_right_one_stands_in_each_place_equally_often() -> None:
    questions = choices()
    assert len(questions) == 185
    assert all(len(set(question.choices)) == 4 for question in questions)
    places = Counter(question.right for question in questions)
    assert set(places) == {0, 1, 2, 3} and max(places.values()) - min(places.values()) <= 1
    assert len({question.question for question in questions}) == len(questions)


def test_the_right_choice_is_not_given_away_by_its_length() -> None:
    longest = sum(
        len(question.choices[question.right])
        > max(len(c) for n, c in enumerate(question.choices) if n != question.right)
        for question in choices()
    )
    assert longest / len(choices()) < 0.4


def test_the_out_of_scope_questions_are_fifty_different_ones_with_mars_among_them() -> None:
    questions = out_of_scope()
    assert len(set(questions)) == len(questions) == 50
    assert "What do you think of Mars?" in questions
