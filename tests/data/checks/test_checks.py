"""What each check finds in one row, and what it leaves alone."""

import re

import pytest

from luthier.chat import Conversation, Message, ToolCall
from luthier.data.checks import CHECKS, KINDS, Row, Scope, answers, encodings, examine, lengths, markup, personal
from luthier.data.checks.cut_answers import ending
from luthier.data.checks.findings import Finding, share
from luthier.data.checks.language import language
from luthier.data.checks.near_duplicates import Clusters, Texts
from luthier.data.dataset import Item


def row(asked: str, said: str, number: int = 1) -> Row:
    return Row(Item(f"{number}", f"x.jsonl:{number}", asked.casefold(), Conversation.pair(asked, said)))


def found(kind: str, *pairs: tuple[str, str], scope: Scope = Scope()) -> list[Finding]:  # noqa: B008
    rows = (row(asked, said, number) for number, (asked, said) in enumerate(pairs, start=1))
    return examine(rows, scope, {kind: CHECKS[kind]})


def lines(findings: list[Finding]) -> list[int]:
    return [int(spot.location.rpartition(":")[2]) for finding in findings for spot in finding.spots]


def test_every_check_has_a_meaning() -> None:
    assert CHECKS.keys() <= KINDS.keys()


# Damaged texts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("The cafÃ© is open", "“Ã©”"),
        ("Itâ€™s here", "“â€™”"),
        ("a lost \ufffd and \ufffd", "2 lost (U+FFFD)"),
        ("café, naïve, Größe, “quoted”, 東京, мир", None),
    ],
)
def test_mojibake(text: str, shown: str | None) -> None:
    assert encodings.mojibake(row("Why?", text)) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b\x1b[0m", "U+0000 NUL × 1, U+001B escape × 1"),
        ("zero\u200bwidth\u200b", "U+200B zero width space × 2"),
        ("turned \u202eround", "U+202E right-to-left override × 1"),
        ("a hidden \U000e0041\U000e0042", "U+E0041 tag latin capital letter a × 1"),
        ("tabs\tand\r\nlines, क्\u200dष, 👩\u200d🔬, 🏴\U000e0067\U000e0062\U000e007f", None),
    ],
)
def test_characters_that_nobody_sees(text: str, shown: str | None) -> None:
    assert encodings.control_characters(row("Why?", text)) == shown


def test_entities_of_html_count_outside_code_only() -> None:
    assert encodings.html(row("Fish &amp; chips?", "Yes.")) == "&amp;"
    assert encodings.html(row("How is & written?", "As `&amp;`, or ```\n&lt;\n```")) is None


# Personal data and secrets


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        ("email", "Write to anna.berg@firma-nord.de today", "a•••@f•••.de"),
        ("email", "Write to info@firma.de, x@example.org or git@host.dev:repo", None),
        ("phone", "Call +49 30 901820 now", "+•• •• ••••20"),
        ("phone", "My mobile is 0171 3920 1234.", "•••• •••• ••34"),
        ("phone", "Order 0171 3920 1234, on 2024-03-05, part 415-2210", None),
        ("iban", "to DE89 3704 0044 0532 0130 00 please", "DE•• •••• •••• •••• •••• 00"),
        ("iban", "to DE88 3704 0044 0532 0130 00 please", None),
        ("credit-card", "card 4111 1111 1111 1111", "•••• •••• •••• 1111"),
        ("credit-card", "card 4111 1111 1111 1112, number 1234567890123456", None),
        ("ip-address", "from 93.184.216.34", "93.•.•.•"),
        ("ip-address", "from 192.168.0.1, 127.0.0.1, 203.0.113.9, version 4.12.3.1 and 10:30:45", None),
        ("secret", "key " + "AKIA" + "QWERTZUIOPASDFGH", "AWS access key AKIA•••"),
        ("secret", 'password = "kT9$x2Lq7vB!w4Zn"', "assigned secret pass•••"),
        ("secret", 'api_key = "your_api_key_here", password: "correcthorsebattery"', None),
        ("secret", "postgres://user:s3cr3tpw@db.internal/x", "password in an address post•••"),
        ("private-key", "-----BEGIN " + "OPENSSH PRIVATE KEY-----", "-----BEGIN … PRIVATE KEY-----"),
        ("private-key", "-----BEGIN PUBLIC KEY-----", None),
    ],
)
def test_personal_data_and_secrets_are_known_by_shape_and_check_digits(kind: str, text: str, shown: str | None) -> None:
    assert personal.look(kind)(row("Why?", text)) == shown


def test_a_text_is_shown_with_all_of_it_masked() -> None:
    text = "I am anna@nord.de, call +49 30 901820, pay to DE89370400440532013000."
    assert personal.without(text) == "I am a•••@n•••.de, call +•• •• ••••20, pay to DE••••••••••••••••••00."


# Marks of templates


def test_control_tokens_of_any_model_are_a_note_and_in_many_rows_a_warning() -> None:
    pairs = [(f"Question {number}?", "Answer.") for number in range(30)]
    (one,) = found("control-token", *pairs, ("What is <|im_end|>?", "It ends <|eot_id|> a turn."))
    assert (one.severity, one.spots[0].detail) == ("note", "<|im_end|>, <|eot_id|>")
    (many,) = found("control-token", *[(f"[INST] {asked} [/INST]", said) for asked, said in pairs])
    assert many.severity == "warning"


def test_the_models_own_control_tokens_count_and_thoughts_in_answers_do_not() -> None:
    assert found("control-token", ("Say @@end@@", "No."), scope=Scope(control_tokens=frozenset({"@@end@@"})))
    assert not found(
        "control-token", ("Why?", "<think>Hm.</think>So."), ("What is <b>bold</b> and a < b?", "HTML <s>old</s>.")
    )


@pytest.mark.parametrize(
    ("asked", "said", "shown"),
    [
        ("Why?", "### Response:\nBecause.", "### Response:"),
        ("### Instruction:\nSum up.\n### Input:\nText", "A sum.", "### Instruction:, ### Input:"),
        ("## Question of the day\nWhy?", "Assistants answer.", None),
    ],
)
def test_headings_of_prompts_made_beforehand(asked: str, said: str, shown: str | None) -> None:
    assert markup.headings(row(asked, said)) == shown


# Answers


@pytest.mark.parametrize(
    ("answer", "how"),
    [
        ("This is a whole sentence with a full stop.", "whole"),
        ("This is a sentence that stops in the middle of", "open"),
        ("Here is code:\n```python\nprint(1)", "open"),
        ('{"name": "Anna", "items": [1, 2', "open"),
        ('{"name": "Anna"}', "whole"),
        ("refund", "other"),
        ("Use these:\n- a long item of a list with more than eight words in it", "other"),
        ("You will find all of it at the address https://docs.host.dev/a/b/", "other"),
        ("この文章はここで終わります。", "other"),
    ],
)
def test_how_answers_end(answer: str, how: str) -> None:
    assert ending(answer)[0] == how


def test_where_nobody_writes_full_stops_no_answer_is_cut() -> None:
    pairs = [
        (f"Question {number}?", f"the answer to question number {number} is not far to seek") for number in range(40)
    ]
    assert found("cut-answer", *pairs) == []


def test_answers_that_only_lack_the_full_stop_are_not_cut() -> None:
    whole = [(f"Q {number}?", f"It lies in the drawer number {number} beside the lamp.") for number in range(60)]
    forgot = [("Where?", "You find it in the other drawer beside the lamp")]
    cut = [("When?", "You find it in the drawer and then you take the")]
    assert lines(found("cut-answer", *whole, *forgot)) == []
    assert 62 in lines(found("cut-answer", *whole, *forgot, *cut))


def test_many_answers_of_the_longest_length_make_it_a_limit() -> None:
    short = [(f"Q {number}?", f"Number {number} is done.") for number in range(30)]
    cut = [(f"L {number}?", (f"Word {number} " * 100)[:300]) for number in range(6)]
    (one,) = found("cut-answer", *short, *cut)
    assert len(one.spots) == 6 and "6 have exactly 300 characters" in one.sentence
    words = [
        (f"W {number}?", " ".join(f"{'abcdefgh'[at % 8] * (1 + (number + at) % 7)}" for at in range(50)))
        for number in range(6)
    ]
    (one,) = found("cut-answer", *short, *words)
    assert (
        lines([one]) == [31, 32, 33, 34, 35, 36] and "6 have exactly 50 words, which looks like a limit" in one.sentence
    )


def test_answers_whose_lengths_come_evenly_up_to_the_longest_are_not_cut_there() -> None:
    assert found("cut-answer", *[(f"L {n}?", f"{'long ' * (40 + n % 10)}enough.") for n in range(100)]) == []


def test_placeholders_are_named_but_a_label_called_none_is_not() -> None:
    long = "An answer of some length that says what there is to say."
    pairs = [(f"Q {number}?", long) for number in range(5)]
    assert lines(found("placeholder", *pairs, ("Q?", "N/A"), ("R?", "Dear [insert name], hello."), ("S?", "TODO"))) == [
        6,
        7,
        8,
    ]
    assert found("placeholder", *[(f"Q {number}?", ["none", "red"][number % 2]) for number in range(9)]) == []


def test_answers_in_circles_and_answers_that_are_the_question() -> None:
    assert answers.circles(row("Why?", "I do not know that. " * 5)) == "a sentence stands 5 times"
    assert answers.circles(row("Why?", "One thing is so. Another is not so. A third one is.")) is None
    assert answers.echo(row("Open the door now", "open the door now")) and not answers.echo(row("No", "No"))


def test_refusals_are_counted_and_the_commonest_words_shown() -> None:
    pairs = [(f"Q {n}?", "A good answer.") for n in range(20)] + [
        (f"R {n}?", "Let's keep to the topic, please.") for n in range(3)
    ]
    (one,) = found("refusal", *pairs, ("S?", "I am sorry."))
    assert lines([one]) == [21, 22, 23, 24] and "3 in the words “Let's keep to the topic, please.”" in one.sentence
    assert found(
        "refusal", ("Why?", "Kein Kommentar."), scope=Scope(refusal=re.compile("kein kommentar", re.IGNORECASE))
    )


def test_the_same_question_with_two_answers_is_a_conflict_and_with_one_it_is_not() -> None:
    (one,) = found(
        "conflict", ("Is it red?", "Yes."), ("is it  RED?", "No."), ("Is it old?", "Yes."), ("is it old?", "yes.")
    )
    assert lines([one]) == [1, 2] and one.sentence == "1 question asked again with another answer, in 2 rows"


# Languages


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The order was sent on Monday and will arrive before the end of the week, as we promised.", "en"),
        ("Die Bestellung wurde am Montag verschickt und kommt noch vor dem Ende der Woche an.", "de"),
        ("La commande a été envoyée lundi et arrivera avant la fin de la semaine, comme promis.", "fr"),
        ("注文は月曜日に発送され、週末までに届く予定です。よろしくお願いします。", "ja"),
        ("order 4421", None),
        ("```python\nfor row in rows:\n    print(row.order, row.week, row.monday, row.date)\n```", None),
    ],
)
def test_language(text: str, code: str | None) -> None:
    assert language(text) == code


def test_rows_in_another_language_are_named() -> None:
    english = [
        (f"When does the parcel number {n} arrive, please?", "It will arrive on Monday before noon.") for n in range(40)
    ]
    german = [
        ("Wann kommt mein Paket endlich bei mir an, bitte?", "Es kommt am Montag vor dem Mittag bei Ihnen an.")
    ] * 4
    (one,) = found("language", *english, *german)
    assert lines([one]) == [41, 42, 43, 44] and "en 91 %, de 9.1 %" in one.sentence


# Near duplicates


def test_near_texts_are_found_with_their_exact_similarity() -> None:
    texts = Texts()
    words = [f"w{number}" for number in range(30)]
    for each in (words, [f"v{number}" for number in range(30)], [*words, "more"]):
        texts.add(each, "", telling=False)
    # 26 and 27 5-grams, 26 in both
    assert list(texts.pairs()) == [(2, 0, 26 / 27)]


def test_an_equal_answer_makes_questions_that_are_half_alike_near() -> None:
    words = [f"w{number}" for number in range(24)]  # 20 5-grams; of those of the other, 15 are the same
    other = [*words[:19], *(f"v{number}" for number in range(5))]
    for answer, near in (("the same long answer of words", True), ("", False)):
        texts = Texts()
        texts.add(words, answer, telling=bool(answer))
        texts.add(other, answer, telling=bool(answer))
        assert [pair[2] for pair in texts.pairs()] == ([15 / 25] if near else [])


def test_what_a_tenth_of_the_rows_begin_with_does_not_make_them_near() -> None:
    texts = Texts()
    for number in range(50):
        texts.add([*(f"please{part}" for part in range(60)), f"a{number}", f"b{number}"], "", telling=False)
    assert list(texts.pairs()) == []


def test_rows_whose_answers_are_calls_are_no_writing() -> None:
    shape = lengths.Shape()
    call = Message("assistant", "", tool_calls=(ToolCall("open_kiln", '{"hour": 7, "door": "left", "slowly": true}'),))
    for number in range(3):
        shape.see(Row(Item("i", f"x:{number}", "g", Conversation((Message("user", "Open"), call)))))
    assert shape.task == "calls"


def test_numbers_that_are_joined_make_clusters() -> None:
    clusters = Clusters(6)
    for one, other in ((0, 1), (1, 2), (4, 5)):
        clusters.join(one, other)
    assert sorted(clusters.sizes()) == [2, 3]


@pytest.mark.parametrize(
    ("part", "whole", "words"), [(1, 400, "0.2 %"), (4, 100, "4 %"), (50, 400, "12 %"), (0, 0, "0 %")]
)
def test_shares(part: int, whole: int, words: str) -> None:
    assert share(part, whole) == words
