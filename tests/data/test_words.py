"""What counts as a word in every script, and which signs tell two texts apart."""

import unicodedata

import pytest

from luthier.data import words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\u0926\u093f\u0928 \u0926\u0940\u0928", ["\u0926\u093f\u0928", "\u0926\u0940\u0928"]),  # vowel signs belong to words
        ("\u05d1\u05b8\u05e8\u05b5\u05d0", ["\u05d1\u05b8\u05e8\u05b5\u05d0"]),  # Hebrew with its points
        ("\u0643\u064e\u062a\u064e\u0628\u064e", ["\u0643\u064e\u062a\u064e\u0628\u064e"]),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"]),  # Persian
        ("re\u0301sume\u0301 R\u00c9SUM\u00c9", ["r\u00e9sum\u00e9", "r\u00e9sum\u00e9"]),
        ("\u6211\u7231ok\u4f60", ["\u6211", "\u7231", "ok", "\u4f60"]),
        ("\u0e01\u0e34\u0e19", ["\u0e01\u0e34", "\u0e19"]),
        ("\U00020bb7\u91ce\u5bb6", ["\U00020bb7", "\u91ce", "\u5bb6"]),  # beyond the first plane too
        ("max_new_tokens _so_ co\u00adop", ["max_new_tokens", "so", "coop"]),
        ("\uff21\uff22\uff11", ["ab1"]),  # Latin letters in the width of Chinese ones
        ("I don't", ["i", "don", "t"]),
    ],
)  # fmt: skip
def test_words_hold_together(text: str, found: list[str]) -> None:
    assert words.words(text) == found == words.words(unicodedata.normalize("NFD", text))


def test_apostrophes_inside_words_can_be_kept() -> None:
    assert words.words("Don\u2019t say 'no'", apostrophes=True) == ["don\u2019t", "say", "no"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("C#, C++ and C.", "c # c + + and c"),
        ("-5 \u22121.50 +3 1,200.50 1.200,50", "-5 -1.5 3 1200.5 1200.5"),
        ("10:30 5\u201310 2026-03-05 1/2 2.5.1 v2.5 007", "10:30 5-10 2026-03-05 1/2 2.5.1 v2.5 007"),
        ("3 - 4 3*4 x/y -x", "3 - 4 3 * 4 x / y - x"),
        ("- a well-known point\n# Title **bold** <b>tag</b>", "a well known point title bold b tag b"),
        ("\u2764\ufe0f \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea", "\u2764 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea"),
        ("5 % of $7 & a != b", "5 % of $ 7 & a ! = b"),
        ("\u0661\u066b\u0665 \uff15", "1.5 5"),
        ('"Yes," (he said)\u2026 ?!', "yes he said"),
    ],
)
def test_tokens_are_words_numbers_and_signs_that_tell(text: str, found: str) -> None:
    assert words.tokens(text) == found.split()


def test_pieces_keep_every_mark_but_those_of_prose() -> None:
    assert words.pieces("a[i] * 3, C++!") == ["a", "[", "i", "]", "*", "3", "c", "+", "+"]
    assert words.pieces("\u0926\u093f\u0928.") == ["\u0926\u093f\u0928"]
