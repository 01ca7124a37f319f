"""Labelled answers for each kind of error, counts before and after, and what is advised."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from luthier.chat import Conversation
from luthier.data.dataset import Item
from luthier.errors import UserError
from luthier.evaluate import error_analysis
from luthier.evaluate.error_analysis.categories import TrainingProfile
from luthier.evaluate.error_analysis.spelling import Spelling
from luthier.recipe import Evaluate

REFERENCE = "Open the settings, choose a new password and save it."
ROWS = [
    ("How do I reset my password?", "Open the settings, choose a new password and save it."),
    ("How do I change my address?", "Open the settings, choose your address and save the new one."),
    ("Where is my parcel?", "The parcel is on its way; you receive a message before it arrives."),
    ("Can I return the printer?", "Yes, you may return the printer within thirty days."),
    ("Why is the page blue?", "The red cartridge is empty; replace it and print again."),
    ("Do you repair printers?", "We repair printers that were bought here, usually within a week."),
    ("What does the Quixo tray hold?", "The Quixo tray holds a hundred sheets."),
    ("Does the Quixo tray lock?", "Yes, the Quixo tray locks when you close the cover."),
    ("Is there a larger Quixo tray?", "There is a Quixo tray for two hundred sheets."),
]
LABELLED = {
    "Open the setings, chose a new pasword and save it.": {"misspelling"},
    "You recieve a mesage before it arrives.": {"misspelling"},
    "The quixo tray holds a new password.": set(),
    "Open the settings and save it.": set(),
    "Open the settings. " * 12: {"repetitive", "too long"},
    "Hi! Hi! Hi! Hi! Hi!": {"repetitive"},
    "To reset a password you should first of all make sure that you are on the right page, which you find by going to the "
    "main page and looking for the small wheel, then open the settings there and save.": {"too long"},
    "I'm sorry, but I can't help with that.": {"refusal"},
    "Let's keep the discussion relevant to printers.": {"refusal"},
    "### Question:\nHow do I print?": {"wrong format"},
    '{"answer": "Open the settings."}': {"wrong format"},
    "": {"wrong format"},
    "Choose a new password; see https://exmple.com/setings or `pasword`.": set(),
    "Ask Mr. Hollund for a new password.": set(),
}


def rows(pairs: list[tuple[str, str]] = ROWS) -> list[Item]:
    return [
        Item(f"t{number}", f"help.jsonl:{number + 1}", str(number), Conversation.pair(*pair))
        for number, pair in enumerate(pairs)
    ]


def line(
    answer: str, arm: str = "zero-shot", number: int = 0, reference: str = REFERENCE, finish: str = "stop"
) -> dict[str, Any]:
    return {
        "item": f"i{number}", "place": f"help.jsonl:{number + 90}", "group": str(number), "arm": arm, "finish": finish,
        "question": "How do I get a new password?", "reference": reference, "answer": answer, "score": 0.0,
    }  # fmt: skip


def kinds(answer: Mapping[str, Any], data: TrainingProfile) -> set[str]:
    return {name for name, category in error_analysis.CATEGORIES.items() if category.detect(answer, data)}


@pytest.mark.parametrize("answer", LABELLED)
def test_labelled_answers_get_their_labels(answer: str) -> None:
    assert kinds(line(answer), TrainingProfile.of(rows(), refusal=None)) == LABELLED[answer]


def test_counts_before_and_after_with_what_was_mended_and_what_is_new() -> None:
    loop = "Save it again. " * 12
    before = ["Open the setings and save it.", loop, loop, "Open the settings.", "You recieve it."]
    after = ["Open the settings and save it.", "Save it.", "Open the setings.", "Open the settings.", "You receive it."]
    lines = [
        line(answer, arm, number)
        for arm, side in (("zero-shot", before), ("fine-tuned", after))
        for number, answer in enumerate(side)
    ]
    result = error_analysis.analyse(rows(), lines, Evaluate())
    found = {one["category"]: one for one in result["categories"]}
    counts = {
        name: (one["base"]["count"], one["fine_tuned"]["count"], one["mended"], one["new"])
        for name, one in found.items()
    }
    assert counts["misspelling"] == (2, 1, 2, 1)
    assert counts["repetitive"] == counts["too long"] == (2, 0, 2, 0)
    assert counts["refusal"] == counts["wrong format"] == (0, 0, 0, 0)
    assert found["repetitive"]["base"]["share"] == 0.4
    assert result["sentence"].startswith("Errors in 5 answers, before → after tuning: misspelling 2 → 1, ")
    (example,) = found["misspelling"]["examples"]["fine_tuned"]
    assert (example["why"], example["place"]) == ('"setings" for "settings"', "help.jsonl:92")
    assert example["nearest"][0]["place"] in {"help.jsonl:1", "help.jsonl:2"}


def test_before_training_only_the_base_model_is_told_about() -> None:
    result = error_analysis.analyse(rows(), [line("Open the setings.")], Evaluate())
    assert result["answers"] == {"base": 1, "fine_tuned": 0}
    assert result["categories"][0]["fine_tuned"] is None and result["categories"][0]["mended"] is None
    assert result["sentence"] == "Errors in 1 answer, of the base model: misspelling 1."
    assert result["categories"][0]["advice"].startswith("No training answer has these misspellings")


@pytest.mark.parametrize(
    ("pairs", "question", "place"),
    [
        ([(f"{one} + {two}", f"{one + two}") for one in range(4) for two in range(4)], "3 + 0", "help.jsonl:4"),  # 0 + 3
        ([("\u9000\u8d27", "\u597d"), ("\u5bc6\u7801", "\u6539")], "\u5bc6\u7801", "help.jsonl:2"),
        ([("?", "!"), ("!", "?")], "?!", "help.jsonl:1"),  # no word at all
    ],
)  # fmt: skip
def test_near_rows_are_found_for_digits_and_for_scripts_without_blanks(
    pairs: list[tuple[str, str]], question: str, place: str
) -> None:
    answered = line("", "fine-tuned") | {"question": question}
    result = error_analysis.analyse(rows(pairs), [answered], Evaluate())
    wrong = next(one for one in result["categories"] if one["category"] == "wrong format")
    assert wrong["examples"]["fine_tuned"][0]["nearest"][0]["place"] == place


def test_a_misspelling_that_the_training_data_teaches_is_shown_with_its_row() -> None:
    taught = rows([*ROWS, ("When?", "You recieve it on Monday.")])
    result = error_analysis.analyse(taught, [line("You recieve it.", "fine-tuned")], Evaluate())
    assert result["categories"][0]["advice"] == (
        "These words are spelt like this in 1 training row (help.jsonl:10): correct them there."
    )


def test_words_of_the_data_are_no_misspellings_but_rare_ones_are() -> None:
    spelling = Spelling.of([text for pair in ROWS for text in pair])
    assert spelling is not None and spelling.language == "en" and "quixo" in spelling.subject_words
    assert spelling.misspelt("The quixo tray recieves wether and teh rain") == {"recieves": "receives"}
    assert spelling.misspelt("the setings", known_texts=["setings"]) == {}


def test_the_language_is_read_off_the_same_words_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["".join(letters) for letters in itertools.product("abcdefghijklmno", repeat=3)]
    looked_at: list[list[str]] = []

    class Dictionary:
        def known(self, words: list[str]) -> set[str]:
            looked_at.append(words)
            return set(words)

    monkeypatch.setattr("luthier.evaluate.error_analysis.spelling._dictionary", lambda language: Dictionary())
    assert Spelling.of([" ".join(words)]) is not None
    assert looked_at == [
        words[:2000]
    ]  # of 3,375 that stand once each, the first ones: a set's would be others each time


def test_the_language_is_read_off_the_data() -> None:
    german = Spelling.of(
        ["Bitte öffnen Sie die Einstellungen und wählen Sie ein neues Kennwort, das Sie nicht vergessen."]
    )
    assert german is not None and german.language == "de"
    assert Spelling.of(["qwx zzk prl vvt jjq"]) is None and Spelling.of(["1 2 3"]) is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ('{"kind": "refund"}', "lacks urgent"),
        ('{"kind": "refund", "urgent": true, "who": "me"}', "adds who"),
        ('Sure: {"kind": "refund", "urgent": true}', "text around the JSON"),
        ("refund", "not one JSON object"),
        ('{"kind": "other", "urgent": false}', None),
    ],
)
def test_json_answers_are_held_against_the_fields_of_the_reference(answer: str, why: str | None) -> None:
    objects = rows([(f"Ticket {number}", '{"kind": "refund", "urgent": true}') for number in range(6)])
    data = TrainingProfile.of(objects, refusal=None)
    wanted = line(answer, reference='{"kind": "refund", "urgent": true}')
    assert error_analysis.CATEGORIES["wrong format"].detect(wanted, data) == why
    assert data.spelling is None


def test_an_answer_that_is_none_of_the_labels_has_the_wrong_format() -> None:
    data = TrainingProfile.of(
        rows([(f"Ticket {number}", ["refund", "invoice"][number % 2]) for number in range(20)]), refusal=None
    )
    detect = error_analysis.CATEGORIES["wrong format"].detect
    assert detect(line("A refund, I think", reference="refund"), data) == "none of the labels"
    assert detect(line("Invoice.", reference="refund"), data) is None


def shouts(answer: str, reference: str) -> bool:
    """A user's category."""
    return answer.isupper() and not reference.isupper()


def test_user_categories_are_patterns_or_functions() -> None:
    settings = Evaluate(errors={"emoji": "[\U0001f600-\U0001f64f]", "shouting": f"{__name__}:shouts"})
    table = error_analysis.user_categories(settings.errors)
    data = TrainingProfile.of(rows(), refusal=None)
    assert table["emoji"].detect(line("Fine \U0001f600"), data) == 'has "\U0001f600"'
    assert table["shouting"].detect(line("SAVE IT"), data) == "found"
    assert table["shouting"].detect(line("Save it"), data) is None


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ({"x": "(no"}, r'evaluate\.errors\.x: not a regular expression: .*found "\(no"'),
        ({"x": "no_such_module:f"}, r"evaluate\.errors\.x: \"no_such_module:f\" cannot be imported"),
        ({"too long": "a"}, r'"too long" is a built-in category; give yours another name'),
    ],
)
def test_user_categories_that_cannot_be_used_are_mistakes(errors: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        error_analysis.user_categories(errors)


def test_a_function_that_fails_is_a_mistake_that_shows_the_answer() -> None:
    table = error_analysis.user_categories({"x": "json:loads"})
    with pytest.raises(UserError, match=r'the function failed for the answer "Hello"'):
        table["x"].detect(line("Hello"), TrainingProfile.of(rows(), refusal=None))


def test_advice_looks_into_the_training_rows() -> None:
    refusing = rows([*ROWS, ("How do I get a new passport?", "Let's keep the discussion relevant to printers.")])
    (one,) = (
        one
        for one in error_analysis.analyse(
            refusing, [line("I can only answer questions about printers.", "fine-tuned")], Evaluate()
        )["categories"]
        if one["category"] == "refusal"
    )
    assert "Refusals in 1 training row" in one["advice"] and "help.jsonl:10" in one["advice"]
    data = TrainingProfile.of(rows([*ROWS, ("Long?", "on and on " * 30)]), refusal=None)
    length = error_analysis.CATEGORIES["too long"].advise(
        data, error_analysis.categories.Occurrences([(line("x", finish="length"), "cut")], [[]])
    )
    assert "More than twice that in 1 training row (help.jsonl:10)" in length
    assert "raise evaluate.max_new_tokens" in length
    loops = error_analysis.CATEGORIES["repetitive"].advise(data, error_analysis.categories.Occurrences([], []))
    assert loops.startswith("Answers repeat themselves in 1 training row (help.jsonl:10)")
