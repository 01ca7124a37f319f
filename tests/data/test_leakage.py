"""Every held-out row with a relative among the learnt ones is found, with both places, and nothing else is."""

import random
import weakref
from collections.abc import Iterator

import pytest

from luthier.chat import Conversation, Message
from luthier.data import Item
from luthier.data.leakage import Overlap, compare

WORDS = [f"word{number}" for number in range(3_000)]


def row(file: str, number: int, question: str, answer: str = "no", group: str | None = None) -> Item:
    return Item(f"{file}{number}", f"{file}:{number}", group or question, Conversation.pair(question, answer))


def rows(file: str, *pairs: tuple[str, str]) -> list[Item]:
    return [row(file, number, *pair) for number, pair in enumerate(pairs, start=1)]


def found(overlap: Overlap) -> list[tuple[str, str, str]]:
    return [(finding.kind, finding.location, finding.other_location) for finding in overlap.findings]


def sentence(seed: int, words: int) -> str:
    return " ".join(random.Random(seed).sample(WORDS, words))


def test_a_copy_is_exact_whatever_its_case_and_blanks_and_the_same_question_counts_alone() -> None:
    train = rows("train", ("How do I pay?", "By card."), ("Who are you?", "Luthier."))
    test = rows("test", ("how do  I PAY?", "by card."), ("Who are you?", "Nobody."), ("Where is it?", "Luthier."))
    assert found(compare(test, train)) == [("exact", "test:1", "train:1"), ("question", "test:2", "train:2")]


def test_a_row_is_counted_once_under_its_worst_kind() -> None:
    train = rows("train", ("How do I pay?", "In cash."), ("How do I pay?", "By card."))
    overlap = compare(rows("test", ("How do I pay?", "By card.")), train)
    assert overlap.counts() == {"exact": 1, "question": 0, "near": 0, "group": 0}
    assert overlap.findings[0].other_location == "train:2"


@pytest.mark.parametrize(
    ("words", "similarity"),
    [(12, 8 / 9), (30, 23 / 24), (80, 68 / 69)],  # a word more at the end: one more 5-, 8- or 13-gram
    ids=["short", "middling", "long"],
)
def test_a_row_that_is_nearly_copied_is_near(words: int, similarity: float) -> None:
    text = sentence(1, words)
    overlap = compare(rows("test", (f"{text} indeed", "a")), rows("train", ("x", "y"), (text, "b")))
    assert found(overlap) == [("near", "test:1", "train:2")]
    assert overlap.findings[0].similarity == pytest.approx(similarity, abs=1e-4)


def test_half_of_a_long_row_in_a_learnt_one_is_near_and_a_third_is_not() -> None:
    text = sentence(1, 90).split()
    learnt = rows("train", (" ".join(text), "a"))
    half = [*text[:55], *sentence(2, 35).split()]
    third = [*text[:30], *sentence(3, 60).split()]
    overlap = compare(rows("test", (" ".join(half), "a"), (" ".join(third), "a")), learnt)
    assert [finding.location for finding in overlap.findings] == ["test:1"]


def test_another_word_makes_another_question_unless_the_telling_answer_is_the_same() -> None:
    learnt = rows("train", ("How can I cancel the order that I placed", "Open your orders and press the red button."))
    question = "Where can I cancel the order that I placed"  # 4 of 6 different 5-grams
    same = compare(rows("test", (question, "Open your orders and press the red button.")), learnt)
    other = compare(rows("test", (question, "Call us before noon on the next day.")), learnt)
    assert (same.counts()["near"], other.counts()["near"]) == (1, 0)


def test_a_label_that_is_the_same_proves_nothing() -> None:
    learnt = rows("train", ("How can I cancel the order that I placed", "refund"))
    assert compare(rows("test", ("Where can I cancel the order that I placed", "refund")), learnt).findings == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3 + 4?", "What is 3 - 4?"),
        ("Who made C#?", "Who made C++?"),
        ("\u0926\u093f\u0928", "\u0926\u093e\u0928"),
    ],
)
def test_signs_that_mean_something_tell_questions_apart(one: str, other: str) -> None:
    assert compare(rows("test", (one, "a")), rows("train", (other, "a"))).findings == []


def test_punctuation_does_not() -> None:
    assert compare(rows("test", ("Who made it?", "a")), rows("train", ("Who made it", "a"))).counts()["near"] == 1


def test_what_all_questions_have_in_common_is_no_leak() -> None:
    form = sentence(1, 60)
    test = rows("test", *((f"{form} {sentence(100 + n, 20)}", "a") for n in range(30)))
    train = rows("train", *((f"{form} {sentence(500 + n, 20)}", "a") for n in range(200)))
    assert compare(test, train).findings == []


def test_a_common_system_message_is_not_compared() -> None:
    def with_system(file: str, question: str) -> Item:
        messages = (Message("system", sentence(1, 60)), Message("user", question), Message("assistant", "a"))
        return Item(file, f"{file}:1", question, Conversation(messages))

    assert compare([with_system("test", "Why?")], [with_system("train", "Who?")]).findings == []


def test_another_member_of_the_group_is_told() -> None:
    test, train = row("test", 1, "Why?", group="Anna"), row("train", 1, "Who then?", group="Anna")
    assert found(compare([test], [train])) == [("group", "test:1", "train:1")]


def test_documents_are_compared_as_texts_and_their_pieces_count_once() -> None:
    def document(file: str, piece: int, text: str) -> Item:
        return Item(f"{file}.{piece}", f"{file}:1", text, Conversation.document(text))

    text = sentence(1, 200)
    test = [document("test", piece, f"{sentence(2, 40)} {text}") for piece in range(3)]
    overlap = compare(test, [document("train", piece, text) for piece in range(2)])
    assert found(overlap) == [("near", "test:1", "train:1")]
    assert overlap.items == 1


def test_scripts_without_blanks_are_compared_by_character() -> None:
    text = "如何重置我的密码并且更改我的电子邮件地址"
    assert compare(rows("test", (text + "呢", "a")), rows("train", (text, "b"))).counts()["near"] == 1


def test_all_planted_copies_among_many_rows_are_found_and_no_others() -> None:
    train = rows("train", *((sentence(n, 10 + n % 70), f"answer {n}") for n in range(1_000)))
    planted = rows("test", *((item.conversation.question + " please", "x") for item in train[::10]))
    fresh = rows("fresh", *((sentence(5_000 + n, 10 + n % 70), "x") for n in range(100)))
    findings = compare([*planted, *fresh], train).findings
    assert [finding.other_location for finding in findings] == [item.location for item in train[::10]]


def test_the_file_has_every_place_and_a_few_texts() -> None:
    test = rows("test", *((f"question {n}", "a") for n in range(9)))
    told = compare(test, rows("train", *((f"question {n}", "a") for n in range(9)))).to_json()
    assert (told["items"], told["exact"], len(told["findings"]), len(told["examples"])) == (9, 9, 9, 5)
    assert "question" not in told["findings"][0] and told["examples"][0]["other_question"] == "question 0"


def test_learnt_rows_are_looked_at_one_by_one_and_forgotten() -> None:
    alive: list[weakref.ref[Item]] = []
    most = 0

    def learnt() -> Iterator[Item]:
        nonlocal most
        for number in range(200):
            item = row("train", number, sentence(number, 9))
            alive.append(weakref.ref(item))
            yield item
            del item
            most = max(most, sum(one() is not None for one in alive))

    overlap = compare([row("test", 1, sentence(7, 9))], learnt())
    assert found(overlap) == [("exact", "test:1", "train:7")]
    assert most <= 3
