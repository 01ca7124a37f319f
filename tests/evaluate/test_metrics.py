"""Golden cases worked by hand: what counts as right, metric by metric."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import UserError
from luthier.evaluate import metrics
from luthier.report import score_units


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("  Paris\n", "Paris", 1),
        ("paris", "Paris", 0),
        ("Cafe\u0301", "Caf\u00e9", 1),  # the same text in two Unicode forms
        ("Paris.", "Paris", 0),
        ("", "", 1),
    ],
)
def test_exact_match_forgives_blanks_and_unicode_forms_only(answer: str, reference: str, score: float) -> None:
    assert metrics.exact_match(answer, reference) == score


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        (" Refund. ", "refund", 1),
        ("STRASSE", "Straße", 1),  # casefold
        ("It is refund, I think", "refund", 0),
        ("refund, invoice", "refund", 0),
        ("C#", "C", 0),
        ("?", "!", 0),  # nothing but punctuation is a label of its own
        ("", "refund", 0),
    ],
)
def test_accuracy_wants_the_label_and_nothing_else(answer: str, reference: str, score: float) -> None:
    assert metrics.accuracy(answer, reference) == score


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("The cat sat.", "a cat sat down", 4 / 5),  # 2 shared; 2 given, 3 wanted: 2·2 / (2 + 3)
        ("cat cat", "cat", 2 / 3),  # a bag: one of the two counts
        ("don't", "dont", 1),
        ("the", "", 0),  # nothing is emptied
        ("", "cat", 0),
        ("dog", "cat", 0),
        ("我爱你", "我爱他", 2 / 3),  # no blanks: each character is a word
        ("ok我", "ok 我", 1),
    ],
)
def test_token_f1_counts_the_bag_of_words(answer: str, reference: str, score: float) -> None:
    assert metrics.token_f1(answer, reference) == pytest.approx(score)


def test_chrf_averages_the_orders_that_exist() -> None:
    # abc / abd: 2 of 3 characters, 1 of 2 pairs, 0 of 1 triples; precision = recall = (2/3 + 1/2 + 0) / 3 = 7/18.
    assert metrics.chrf("abc", "abd") == pytest.approx(7 / 18)
    # ab / abcd, orders 1 and 2: precision 1, recall (2/4 + 1/3) / 2 = 5/12, F2 = 5PR / (4P + R).
    assert metrics.chrf("ab", "abcd") == pytest.approx(5 * (5 / 12) / (4 + 5 / 12))


def test_chrf_tells_what_exactly_it_is() -> None:
    signatures = metrics.signatures(["token_f1", "chrf"])
    assert re.fullmatch(
        r"chrF2\|nrefs:1\|case:mixed\|eff:yes\|nc:6\|nw:0\|space:no\|version:[\d.]+", signatures["chrf"]
    )
    assert metrics.signatures(["token_f1"]) == {}


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("The cat sat on the mat.", "the cat is on the mat", 2 * 5 / 12),  # the cat · on the mat: 5 of 6 and 5 of 6
        ("mat the on", "on the mat", 2 / 6),  # in order only one word is left
        ("police killed the gunman", "the gunman killed police", 2 * 2 / 8),  # Lin's own case: "the gunman"
        ("a the", "a the", 1),  # articles are words here
        ("我爱你", "我你", 2 * 2 / 5),
        ("", "", 1),
        ("...", "x", 0),
    ],
)
def test_rouge_l_counts_the_longest_common_subsequence(answer: str, reference: str, score: float) -> None:
    assert metrics.rouge_l(answer, reference) == pytest.approx(score)


@pytest.mark.parametrize(("answer", "score"), [("", 1), (" ", 1), ("x", 0)])
def test_chrf_of_an_empty_reference(answer: str, score: float) -> None:
    assert metrics.chrf(answer, "") == score


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"a": 1}', 1),
        ('```json\n{"a": 1}\n```', 1),
        ("[1, 2]", 1),
        ('Here it is: {"a": 1}', 0),
        ('{"a": 1', 0),
        ('{"a": NaN}', 0),
        ("{'a': 1}", 0),
        ("12", 0),
        ("", 0),
        ('{"a":' * 100_000, 0),
        ('{"a": ' + "9" * 5000 + "}", 0),  # Python refuses integers of that length
    ],
)
def test_json_valid_wants_one_whole_object_or_array(answer: str, score: float) -> None:
    assert metrics.json_valid(answer, "{}") == score


INVOICE = (
    '{"name": "Anna", "total": 12.5, "paid": true, "tags": ["a", "b", "b"], "address": {"city": "Bonn", "zip": "53"}}'
)


@pytest.mark.parametrize(
    ("change", "score"),
    [
        ({}, 1),
        ({"name": " ANNA "}, 1),
        ({"total": 12.50}, 1),
        ({"tags": ["b", "a", "b"]}, 1),
        ({"tags": ["a", "b"]}, 5 / 6),  # a multiset: the second "b" is missing
        ({"paid": 1}, 5 / 6),  # 1 is not true
        ({"total": "12.5"}, 5 / 6),  # a text is no number
        ({"address": {"city": "Bonn", "zip": "54"}}, 5 / 6),
        ({"address": "Bonn"}, 4 / 7),  # two fields missing, one surplus
        ({"extra": None}, 6 / 7),
    ],
)
def test_field_accuracy_counts_each_leaf_and_each_surplus(change: dict[str, object], score: float) -> None:
    answer = json.dumps(json.loads(INVOICE) | change)
    assert metrics.field_accuracy(answer, INVOICE) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('Sure:\n```json\n{"a": 1.0}\n```\nAnything else?', 1),
        ('use {braces}: {"a": 1} and {"a": 2}', 1),  # the first that is an object
        ('{"b": {"a": 1}, "c": tru', 0),  # the inner part of a broken object is not the answer
        ('{"a": 1', 0),
        ('{"a": Infinity}', 0),
        ("1", 0),
        ("", 0),
        ("{}", 0),
        ('{"a":' * 100_000, 0),
    ],
)
def test_field_accuracy_reads_the_first_object_of_an_answer(answer: str, score: float) -> None:
    assert metrics.field_accuracy(answer, '{"a": 1}') == score


def test_field_accuracy_compares_objects_in_lists_and_empty_objects() -> None:
    assert metrics.field_accuracy('{"l": [{"x": 2}, {"x": 1.0}]}', '{"l": [{"x": 1}, {"x": 2}]}') == 1
    assert metrics.field_accuracy('{"e": {}}', '{"e": {}}') == 1
    assert metrics.field_accuracy("{}", "{}") == 1
    assert metrics.field_accuracy("none", "none") == 1  # a reference that is no object is compared as text


def test_numbers_of_fields_are_compared_as_they_are_written() -> None:
    for one, other in (("1e400", "1e500"), ("0.1", "0.10000000000000000001"), ("1e999999999", "1e-999999999")):
        answer, reference = f'{{"a": {one}}}', f'{{"a": {other}}}'
        assert metrics.field_accuracy(answer, reference) == metrics.field_accuracy(reference, answer) == 0
        assert metrics.field_accuracy(answer, answer, tolerance=0.1) == metrics.field_accuracy(answer, answer) == 1
        assert metrics.field_accuracy('{"a": 1}', answer, tolerance=0.1) == 0
    assert (
        metrics.field_accuracy('{"a": 1.50}', '{"a": 15e-1}') == metrics.field_accuracy('{"a": 2.0}', '{"a": 2}') == 1
    )


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=60), st.text(max_size=60))
def test_every_metric_stays_between_0_and_1_and_knows_its_own_reference(answer: str, reference: str) -> None:
    for name, metric in metrics.METRICS.items():
        assert 0 <= metric(answer, reference) <= 1
        assert name == "json_valid" or metric(reference, reference) == pytest.approx(1)


@settings(deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.text(max_size=5), st.recursive(st.none() | st.booleans() | st.integers(), st.lists, max_leaves=5)
    )
)
def test_field_accuracy_finds_any_object_inside_prose(value: dict[str, object]) -> None:
    text = json.dumps(value)
    assert metrics.field_accuracy(f"The answer: {text}.", text) == 1


@pytest.mark.parametrize(
    ("references", "name", "reason"),
    [
        (["1.5", "15", "-1.5", "2"], "number", "the reference answers are numbers"),
        (["$1,200.50", "$3", "$0.99"], "number", "the reference answers are numbers"),
        (["5 kg", "300 g", "1.5 t"], "number", "the reference answers are numbers"),
        (["5 apples", "3 apples"], "number", "the reference answers are numbers"),
        (["12 %", "0.5%", "\u22123,5 %"], "number", "the reference answers are numbers"),
        (["1/2", "3", "1 1/4"], "number", "the reference answers are numbers"),
        ([str(number) for number in range(19)] * 6, "number", "the reference answers are numbers"),  # sums of one digit
        (["5 apples", "5 pears"], "token_f1", "the reference answers are free text"),
        (["5", "5%"], "token_f1", "the reference answers are free text"),
        (["3/5", "12/24", "7/1"], "token_f1", "the reference answers are free text"),  # could be days
        (["2026-03-05", "2026-04-01"], "token_f1", "the reference answers are free text"),
        (["5.3.2026", "10:30", "5-10"], "token_f1", "the reference answers are free text"),
        (["007", "012"], "token_f1", "the reference answers are free text"),
        ([">5", "<5"], "token_f1", "the reference answers are free text"),
        (["A", "C", "B"], "accuracy", "every reference answer is a single character"),
        (["<", ">", "="], "accuracy", "every reference answer is a single character"),
        (["1", "2", "3", "4", "5"] * 10, "accuracy", "the 50 reference answers use 5 short labels"),  # stars
        (["A", "A, C", "C"] * 10, "accuracy", "the 30 reference answers use 3 short labels"),
        (
            ["m", "M", "k"] * 10,
            "exact_match",
            'the 30 reference answers use 3 short labels, of which "M" and "m" differ in case only',
        ),
        (
            ["m", "M"] * 4,
            "exact_match",
            'every reference answer is a single character, of which "M" and "m" differ in case only',
        ),
    ],
)
def test_the_metric_fits_numbers_letters_and_closed_sets(references: list[str], name: str, reason: str) -> None:
    chosen = metrics.choose_metric(references)
    assert (chosen.name, chosen.reason) == (name, reason)


def test_wrong_numbers_are_wrong_by_the_metric_that_is_chosen() -> None:
    references = [f"{number / 10}" for number in range(11, 41)]
    metric = metrics.METRICS[metrics.choose_metric(references).name]
    for change in (lambda text: text.replace(".", ""), lambda text: f"-{text}", lambda text: f"{text}0%"):
        wrong = [metric(change(text), text) for text in references]
        assert sum(wrong) == (30 if "%" in change("1") else 0)


def test_labels_are_scored_by_accuracy() -> None:
    choice = metrics.choose_metric(["Refund", "invoice", "refund."] * 10)
    assert (choice.name, choice.secondary) == ("accuracy", ("exact_match", "normalised_match"))
    assert choice.reason == "the 30 reference answers use 2 short labels"


@pytest.mark.parametrize(
    "references",
    [
        [f"city {number}" for number in range(60)],  # short, but all different
        [f"label {number}" for number in range(21)] * 5,  # too many kinds
        ["yes", "no"] * 4,  # each seen 4 times: too few to call them labels
        ["a label of five words"] * 20,
        ["a" * 41] * 20,
    ],
)
def test_free_text_is_scored_by_token_f1(references: list[str]) -> None:
    choice = metrics.choose_metric(references)
    assert (choice.name, choice.secondary) == ("token_f1", ("rouge_l", "chrf", "exact_match", "normalised_match"))


def test_json_objects_are_scored_by_field() -> None:
    choice = metrics.choose_metric(['{"a": 1}'] * 20)
    assert (choice.name, choice.secondary) == ("field_accuracy", ("json_valid", "exact_match"))
    assert choice.reason == "every reference answer is a JSON object"
    assert (
        metrics.choose_metric(['{"a": 1}'] * 19 + ["unknown"]).reason
        == "95% of the reference answers are a JSON object"
    )
    assert metrics.choose_metric(['{"a": 1}'] * 18 + ["unknown"] * 2).name != "field_accuracy"


def test_one_class_only_is_a_mistake_before_anything_is_spent() -> None:
    told = r'tickets\.jsonl: all 30 reference answers are "Refund", so a program that always says it would score 100 %'
    with pytest.raises(UserError, match=told):
        metrics.choose_metric(["Refund", "refund."] * 15, where="tickets.jsonl")


def test_no_references_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"tickets\.jsonl: no reference answers"):
        metrics.choose_metric([], where="tickets.jsonl")


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r'evaluate\.metric: unknown metric "acuracy", did you mean "accuracy"\? Known: '
    ):
        metrics.resolve("acuracy")
    assert metrics.resolve("chrf") is metrics.chrf


def test_no_known_metric_is_named_twice() -> None:
    with pytest.raises(UserError) as caught:
        metrics.resolve("acuracy")
    known = str(caught.value).rpartition("Known: ")[2].rstrip(".").split(", ")
    assert len(known) == len(set(known)) and "number" in known


@pytest.fixture
def own_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_metrics_of_a_user.py").write_text(
        "import numpy as np\n"
        "def good(answer, reference): return np.float32(0.5)\n"
        "def truth(answer, reference): return answer == reference\n"
        "def nan(answer, reference): return float('nan')\n"
        "def percent(answer, reference): return 55.0\n"
        "def text(answer, reference): return 'good'\n"
        "def fails(answer, reference): return {}['x']\n"
        "LIMIT = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "own_metrics_of_a_user"


def test_a_users_metric_is_reached_by_its_dotted_name(own_metrics: str) -> None:
    assert metrics.resolve(f"{own_metrics}:good")("a", "b") == 0.5
    assert metrics.resolve(f"{own_metrics}:truth")("a", "a") == 1.0
    assert metrics.label(f"{own_metrics}:good") == "good"


def test_reports_call_each_metric_what_verdicts_call_it() -> None:
    named = [*metrics.METRICS, *metrics.CONFIGURABLE, metrics.BITS_PER_BYTE]
    assert {name: score_units.metric_name(name) for name in named} == {name: metrics.label(name) for name in named}
    assert set(named) == set(score_units.METRICS)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nan", "returned nan"),
        ("percent", 'returned 55.0 for the answer "no"; expected a number from 0 to 1'),
        ("text", "returned 'good'"),
        ("fails", "failed for the answer \"no\": KeyError: 'x'"),
    ],
)
def test_a_users_metric_that_misbehaves_is_told_with_the_item(own_metrics: str, function: str, message: str) -> None:
    name = f"{own_metrics}:{function}"
    with pytest.raises(UserError) as caught:
        metrics.score({name: metrics.resolve(name)}, "no", "yes", location="tickets.jsonl:118")
    assert str(caught.value).startswith(f'tickets.jsonl:118: the metric "{name}" ')
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:f", '"no_such_module:f" cannot be imported: No module named'),
        ("own_metrics_of_a_user:god", 'own_metrics_of_a_user has no function "god", did you mean "good"'),
        ("own_metrics_of_a_user:LIMIT", "it is of the type int, and no function"),
    ],
)
def test_a_dotted_name_that_leads_nowhere_is_a_mistake(own_metrics: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"^evaluate\.metric: .*{message}"):
        metrics.resolve(name)


def test_a_schema_or_an_embedder_adds_its_metric_to_what_is_shown(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object", "required": ["a"]}')
    settings = metrics.MetricSettings(json_schema=tmp_path / "schema.json", tolerance=0.1)
    found = metrics.scorers("field_accuracy", settings)
    assert list(found) == ["field_accuracy", "schema_valid", "json_valid", "exact_match"]
    scores = metrics.score(found, '{"a": 105}', '{"a": 100}', location="x:1")
    assert scores == {"field_accuracy": 1, "schema_valid": 1, "json_valid": 1, "exact_match": 0}
    assert list(metrics.scorers("bits_per_byte")) == []


@pytest.mark.parametrize(("name", "key"), [("schema_valid", "json_schema"), ("similarity", "embedder")])
def test_a_metric_without_its_setting_says_which(name: str, key: str) -> None:
    with pytest.raises(UserError, match=rf'^evaluate\.{key}: "{name}" needs'):
        metrics.resolve(name)


def test_every_answer_gets_all_its_scores() -> None:
    table = {name: metrics.METRICS[name] for name in ("token_f1", "exact_match")}
    assert metrics.score(table, "a cat", "cat", location="x:1") == {"token_f1": 1.0, "exact_match": 0.0}


def test_binary_knows_metrics_and_scores() -> None:
    assert metrics.binary("accuracy") and not metrics.binary("token_f1")
    assert metrics.binary([0, 1.0, 1]) and not metrics.binary([0, 0.5])
