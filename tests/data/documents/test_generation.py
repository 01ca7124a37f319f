"""What a model is asked, and how strictly its replies are read."""

import pytest

from luthier.data.documents import generation, paraphrases
from luthier.data.documents.pairs import Dropped, Pair
from luthier.data.documents.passages import Passage
from luthier.data.documents.reading import Document

PASSAGE = Passage("k.md:3", "The kiln opens\nat 7. Gloves cost {9} euros.", "Kiln > Hours")
DOCUMENT = Document("k.md", ())


def read(reply: str) -> list[Pair | Dropped]:
    return list(generation.read_pairs(reply, PASSAGE, DOCUMENT, by="model: m", split="test"))


def test_every_prompt_has_a_version_and_keeps_braces_of_the_passage() -> None:
    assert [generation.prompt(name).version for name in generation.NAMES] == [1, 1, 1, 1]
    asked = generation.ask_for_pairs(PASSAGE, DOCUMENT)
    assert asked.endswith("Gloves cost {9} euros.\n") and "up to 1 questions" in asked and '{"question": "..."' in asked


def test_quotes_are_found_past_white_space_and_kept_at_their_offsets() -> None:
    (pair,) = read(
        'Sure!\n```json\n[{"question": "When does the kiln open?", "answer": "At 7.", "quote": "kiln opens at 7"}]\n```'
    )
    assert isinstance(pair, Pair) and pair.quote == "kiln opens\nat 7" == PASSAGE.text[4:19] and pair.split == "test"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I cannot.", "a reply that could not be read"),
        ('{"question": "When?"}', "a reply that could not be read"),
        ('{"question": "", "answer": "At 7.", "quote": "at 7"}', "an empty question or answer"),
        ('{"question": "When?", "answer": "At 7.", "quote": "at 8"}', "a quote that is not in the passage"),
        (
            '{"question": "When is the kiln open?", "answer": "At 9.", "quote": "opens at 7"}',
            "an answer that shares no word with its quote",
        ),
    ],
)
def test_replies_without_a_grounded_pair_are_dropped_with_their_reason(reply: str, reason: str) -> None:
    (dropped,) = read(reply)
    assert isinstance(dropped, Dropped) and (dropped.reason, dropped.location) == (reason, "k.md:3")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("YES: at 7", None),
        ("Yes. It opens at 7.", None),
        ("NO", "the model does not find the answer in the passage"),
        ("YES: at 9", "the model answers otherwise from the same passage"),
        ("Perhaps.", "no clear reply to whether the passage answers it"),
    ],
)
def test_a_pair_is_kept_only_if_the_model_gives_the_same_answer_again(reply: str, reason: str | None) -> None:
    pair = Pair("When does the kiln open?", "It opens at 7.", "k.md", PASSAGE, 4, 19, "model: m")
    assert generation.answer_fault(reply, pair) == reason


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ('"At what hour does kiln 7 open?"\n', "At what hour does kiln 7 open?"),
        ("At what hour does kiln 8 open?", None),
        ("when does kiln 7 open?", None),
        ("Here you are:\nWhen?", None),
    ],
)
def test_other_words_keep_the_numbers(reply: str, words: str | None) -> None:
    assert generation.read_paraphrase(reply, "When does kiln 7 open?") == words


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What is the price of Celadon?", "Can you tell me what the price of Celadon is?"),
        ("How do I light the kiln?", "What do I have to do to light the kiln?"),
        ('What does "cone" mean?', 'What is meant by "cone"?'),
        ("What is needed, and why?", None),
        ("Why is it hot?", None),
    ],
)
def test_rules_put_simple_forms_in_other_words(question: str, words: str | None) -> None:
    assert paraphrases.by_rule(question) == words


def test_questions_of_other_documents_are_out_of_scope_unless_answered_here() -> None:
    foreign = [
        Pair(question, answer, "o.md", Passage("o.md:1", answer), 0, len(answer), "rule: faq")
        for question, answer in [
            ("When does the kiln open?", "At 7."),
            ("Who feeds the owls?", "Nora feeds the owls."),
            ("What do gloves cost?", "Nine dollars."),
        ]
    ]
    assert [pair.question for pair in paraphrases.out_of_scope(foreign, [PASSAGE])] == ["Who feeds the owls?"]
