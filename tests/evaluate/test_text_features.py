"""The rules that read an answer, each on sentences that people and models write."""

import re

import pytest

from luthier.data import refusals, words
from luthier.errors import UserError
from luthier.evaluate import text_features

REFUSING = [
    "Let\u2019s keep the discussion relevant to Lamini.",
    "I wish! This documentation only talks about Lamini\u2019s LLM Engine.",
    "I don't know.",
    "I'm sorry, but I can't help with that.",
    "I can only answer questions about invoices.",
    "Sorry I can't reveal that information to you.",
    "That is outside of my area. Ask the bank.",
    "As an AI, I don't have personal opinions about planets.",
    "I do not have enough information to answer this.",
    "I am not sure.",
    "Please stick to the topic of printers.",
]
ANSWERING = [
    "Mars is the fourth planet from the Sun.",
    "Yes, Lamini can generate technical documentation.",
    "You only pay for what you use. Open the settings to see the price.",
    "If you don't know your password, choose a new one.",
    "Keep the receipt; it helps you with a return.",
    "The parcel cannot be delivered on Sunday.",
    "This guide covers the installation and the first steps.",
    "Let us begin with the engine.",
    '{"category": "refund"}',
    "",
]


@pytest.mark.parametrize("answer", REFUSING)
def test_a_refusal_is_recognised(answer: str) -> None:
    assert refusals.is_refusal(answer)


@pytest.mark.parametrize("answer", ANSWERING)
def test_an_answer_is_no_refusal(answer: str) -> None:
    assert not refusals.is_refusal(answer)


def test_an_apology_before_a_long_answer_is_no_refusal() -> None:
    assert not refusals.is_refusal("I'm sorry to hear that. " + "First open the lid and take out the paper. " * 10)


def test_a_users_own_words_count_as_refusal() -> None:
    own = refusals.refusal_pattern("dazu kann ich nichts sagen")
    assert refusals.is_refusal("Dazu kann ich nichts sagen.", own) and not refusals.is_refusal("Das ist blau.", own)
    with pytest.raises(UserError, match=r'evaluate\.errors\.refusal: not a regular expression: .*found "\(no"'):
        refusals.refusal_pattern("(no")


def test_words_leave_case_and_punctuation_out() -> None:
    assert text_features.words("It\u2019s the 2nd, NOT the 3rd!") == ["it's", "the", "2nd", "not", "the", "3rd"]
    assert text_features.normalised(' "Yes", it IS. ') == text_features.normalised("yes it is") == "yes it is"


@pytest.mark.parametrize(
    "pair", ["-5 5", "1.5 15", "C++ C#", "< >", "? !", "\U0001f600 \U0001f622", "\u0926\u093f\u0928 \u0926\u093e\u0928"]
)
def test_answers_that_say_the_opposite_do_not_agree(pair: str) -> None:
    one, other = pair.split()
    assert (
        text_features.normalised(one) != text_features.normalised(other) and text_features.word_overlap(one, other) < 1
    )
    assert text_features.contains_words(f"It is {one} now", one) and not text_features.contains_words(
        f"It is {one} now", other
    )
    assert text_features.word_overlap(one, one) == 1


def test_a_loop_is_a_passage_said_over_and_over() -> None:
    assert text_features.longest_loop("Hi! " * 20) == 20
    assert text_features.longest_loop("I like the sea. I like the sea. I like the sea. And you?") == 3
    assert text_features.longest_loop("No word comes twice here") == 1
    assert text_features.longest_loop("ha" * 12) == 12
    assert text_features.is_looping("You can use it for texts, " * 6)
    assert not text_features.is_looping("The cat sat on the mat, and the dog lay on the rug beside the stove all day.")


def test_repeated_share_counts_word_runs_that_were_there_before() -> None:
    # 12 words, 9 runs of four: "a b c d" comes three times, and each of the runs across the border twice more.
    assert text_features.repeated_share("a b c d a b c d a b c d") == pytest.approx(5 / 9)
    assert text_features.repeated_share("too short to tell") == 0


def test_what_the_reference_repeats_is_no_loop() -> None:
    table = "row: red, green. " * 8
    assert text_features.is_looping(table) and not text_features.is_looping(table, table)


def test_facts_are_numbers_and_names_but_not_the_first_word_of_a_sentence() -> None:
    text = "The engine was built in 1998 by Anna Berg.\n1. Open it.\n2. Ask NASA about GPT-4, I think."
    assert text_features.stated_facts(text) == ["1998", "Anna", "Berg", "NASA", "GPT-4"]


def test_unsupported_facts_are_those_that_no_given_text_contains() -> None:
    answer = "It costs 1,000 euros, says Anna\u2019s brother Karl, and 12.50 for shipping to Oslo."
    support = ("Anna pays 1000 euros.", "How much is shipping to oslo? It was 12.5 last year.")
    assert text_features.unsupported_facts(answer, support) == ["Karl"]


def test_says_looks_for_the_words_in_a_row() -> None:
    assert text_features.contains_words("The answer is New York, of course.", "new york")
    assert not text_features.contains_words("York is new.", "New York") and not text_features.contains_words(
        "Norway", "way"
    )
    assert not text_features.contains_words("anything", "")


def test_overlap_is_token_f1() -> None:
    assert text_features.word_overlap("a red car", "a red boat") == pytest.approx(2 / 3)
    assert text_features.word_overlap("", "") == 1 and text_features.word_overlap("x", "") == 0


def test_quantiles_are_values_that_occur() -> None:
    assert list(text_features.quantiles([5, 1, 4, 2, 3, 6, 7, 8, 9, 10])) == [1, 5, 9]


def test_every_rule_is_needed_by_some_sentence() -> None:
    used = {
        name
        for name, pattern in refusals.REFUSALS.items()
        for text in REFUSING
        if pattern.search(words.one_spelling(text))
    }
    assert used == set(refusals.REFUSALS)
    assert all(isinstance(pattern, re.Pattern) for pattern in refusals.REFUSALS.values())
