"""What adds up over all answers: labels with their confusion, fields with precision and recall, likelihoods."""

import json
import math
from pathlib import Path

import pytest

from luthier.errors import UserError
from luthier.evaluate import metrics
from luthier.evaluate.metrics import labels, likelihood, objects
from luthier.evaluate.prompts import instruction


def test_choices_are_counted_by_their_letters() -> None:
    wanted = ["A. At noon.", "B. Never.", "B. By train.", "A. On foot."]
    found = labels.report(["a", "Never.", "A. By ship.", "On a bike"], wanted)
    assert found["accuracy"] == 2 / 4 and found["other"] == 1
    assert found["confusion"]["labels"] == ["A", "B"]
    assert found["confusion"]["counts"] == [[1, 0, 1], [1, 1, 0]]


def test_choices_with_their_letters_are_scored_by_accuracy_and_prompts_are_told() -> None:
    answers = [f"{'ABC'[n % 3]}. Pier number {n}" for n in range(30)]
    assert metrics.choose_metric(answers).name == "accuracy"
    assert str(instruction.from_answers(answers)).startswith("Answer with the letter and the text of the right choice")
    assert (
        instruction.from_answers(["good", "bad"] * 9) == "Answer with exactly one of these and nothing else: bad, good."
    )


def test_answers_that_the_data_calls_labels_are_labels_however_many() -> None:
    answers = [f"intent {n % 20}" for n in range(60)]
    assert metrics.choose_metric(answers).name == "token_f1"
    assert metrics.choose_metric(answers, are_labels=True).name == "accuracy"
    assert str(instruction.from_answers(answers, are_labels=True)).startswith("Answer with exactly one of these")


def test_labels_by_hand() -> None:
    wanted = ["Refund", "refund", "invoice", "invoice", "invoice", "delivery"]
    given = ["refund.", "invoice", "Invoice", "invoice", "no idea", "refund"]
    found = labels.report(given, wanted)
    assert found["accuracy"] == pytest.approx(3 / 6) and found["other"] == 1
    by_label = {each["label"]: (each["precision"], each["recall"], each["f1"], each["n"]) for each in found["classes"]}
    # refund: 1 right of 2 said, 2 asked · invoice: 2 of 3 said, 3 asked · delivery: never said.
    assert by_label["Refund"] == pytest.approx((1 / 2, 1 / 2, 1 / 2, 2))
    assert by_label["invoice"] == pytest.approx((2 / 3, 2 / 3, 2 / 3, 3))
    assert by_label["delivery"] == pytest.approx((0, 0, 0, 1))
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert found["confusion"] == {
        "labels": ["delivery", "invoice", "Refund"],
        "columns": ["delivery", "invoice", "Refund", "other answers"],
        "counts": [[0, 0, 1, 0], [0, 2, 0, 1], [0, 1, 1, 0]],
    }
    assert "note" not in found


def test_an_answer_that_is_no_label_is_wrong_even_where_a_label_is_called_other() -> None:
    found = labels.report(["something", "other answers"], ["other", "other answers"])
    assert (found["accuracy"], found["other"]) == (0.5, 1)


def test_one_class_is_said_and_no_answers_are_a_mistake() -> None:
    found = labels.report(["yes", "no"], ["yes", "yes"])
    assert found["note"].startswith(
        'all 2 reference answers are "yes", so a program that always says it would score 100 %'
    )
    with pytest.raises(UserError, match="no answers to count labels in"):
        labels.report([], [])


def test_fields_by_hand() -> None:
    wanted = [{"name": "Anna", "tags": ["a", "b", "b"], "at": {"city": "Bonn"}}, {"name": "Ben", "tags": []}]
    given = ['{"name": "ANNA", "tags": ["b", "a"], "extra": 1}', "no object"]
    found = objects.report(given, [json.dumps(each) for each in wanted])
    by_field = {each["field"]: each for each in found["fields"]}
    assert [*by_field] == ["at.city", "extra", "name", "tags"] and (found["n"], found["unread"]) == (2, 1)
    tags = by_field["tags"]  # given b, a; wanted a, b, b and the empty list: 2 right of 2 and of 4
    assert (tags["precision"], tags["recall"], tags["f1"]) == pytest.approx((1, 2 / 4, 4 / 6))
    assert (by_field["name"]["precision"], by_field["name"]["recall"]) == (1, 1 / 2)
    assert (by_field["at.city"]["recall"], by_field["at.city"]["missing"]) == (0, 1)
    assert (by_field["extra"]["precision"], by_field["extra"]["surplus"]) == (0, 1)
    # All together: right name, a, b; given name, b, a, extra; wanted name, a, b, b, city and name, [].
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((3 / 4, 3 / 7, 6 / 11))


def test_numbers_in_fields_have_a_tolerance() -> None:
    wanted, given = '{"total": 100, "parts": [10, 20, 20.5]}', '{"total": 101, "parts": [20.3, 10, 20.4]}'
    assert metrics.field_accuracy(given, wanted) == 0
    assert metrics.field_accuracy(given, wanted, tolerance=0.02) == 1
    assert metrics.field_accuracy('{"total": true, "parts": [1]}', wanted, tolerance=0.9) == 0
    # 20.3 fits 20 and 20.5, 20.4 fits only 20.5 within 1.6 %: paired so that most fit.
    report = objects.report([given], [wanted], tolerance=0.016)
    assert report["fields"][0] == pytest.approx(
        {"field": "parts", "precision": 1, "recall": 1, "f1": 1, "missing": 0, "surplus": 0}
    )


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "due": {"type": "string", "format": "date"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"name": "Anna"}', 1),
        ('```json\n{"name": "Anna", "due": "2026-03-05"}\n```', 1),
        ('{"name": "Anna", "due": "5 March"}', 0),
        ('{"name": 3}', 0),
        ('{"due": "2026-03-05"}', 0),
        ('{"name": "Anna", "age": 3}', 0),
        ('Here: {"name": "Anna"}', 0),
        ("null", 0),
        ('{"name":' * 100_000, 0),
    ],
)
def test_schema_valid_wants_the_whole_answer_to_keep_to_the_schema(tmp_path: Path, answer: str, score: float) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    assert metrics.resolve("schema_valid", settings=metrics.MetricSettings(json_schema=file))(answer, "{}") == score


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; expected a JSON Schema"),
        ("{", "not JSON: .* Expected a JSON Schema in UTF-8"),
        ('{"type": "objekt"}', r"not a JSON Schema: 'objekt' is not valid .*\(at \$\.type\)\. Correct the schema"),
        ("3", "not a JSON Schema: found a int, expected an object"),
    ],
)
def test_a_file_that_is_no_schema_is_a_mistake(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "schema.json"
    if content:
        file.write_text(content)
    with pytest.raises(UserError, match=rf"^evaluate\.json_schema: .*schema\.json: {message}"):
        objects.schema_valid(file)


def test_perplexity_and_bits_per_byte_by_hand() -> None:
    # Two answers of 3 and 1 tokens, each token with probability 1/4: perplexity 4, 2 bits a token, 8 bits over 10 bytes.
    both = likelihood.combine(
        [likelihood.Likelihood(3 * math.log(1 / 4), 3, 8), likelihood.Likelihood(math.log(1 / 4), 1, 2)]
    )
    assert both == pytest.approx((4 * math.log(1 / 4), 4, 10))
    assert likelihood.perplexity(both) == pytest.approx(4)
    assert likelihood.bits_per_byte(both) == pytest.approx(0.8)
    assert likelihood.perplexity(likelihood.Likelihood(-1e6, 10, 10)) == math.inf


def test_likelihoods_that_are_no_numbers_are_a_mistake() -> None:
    with pytest.raises(UserError, match="the log-likelihood of text 2 of 2 is nan"):
        likelihood.combine([likelihood.Likelihood(-1.0, 1, 1), likelihood.Likelihood(math.nan, 1, 1)])
    with pytest.raises(UserError, match="no tokens"):
        likelihood.perplexity(likelihood.Likelihood(0.0, 0, 0))
    with pytest.raises(UserError, match="no bytes"):
        likelihood.bits_per_byte(likelihood.Likelihood(-1.0, 1, 0))


def test_choices_by_sum_by_character_and_by_byte() -> None:
    # -4/4 and -5/8 per character; ä has two bytes, so -4/8 and -5/8 per byte.
    found = likelihood.choose([-4.0, -5.0], ["ääää", "abcdefgh"])
    assert found == (0, 1, 0)
    assert found.scores(1) == {"acc": 0, "acc_norm": 1, "acc_bytes": 0}
    assert likelihood.choose([-2.0, -2.0], ["ab", "cd"]) == (0, 0, 0)  # the first of equals


@pytest.mark.parametrize(
    ("sums", "options", "message"),
    [
        ([-1.0], ["a", "b"], "found 1 log-likelihoods for 2 options"),
        ([-1.0, math.nan], ["a", "b"], "expected finite numbers"),
        ([-1.0, -2.0], ["a", ""], "an option is empty"),
    ],
)
def test_choices_that_cannot_be_made_are_a_mistake(sums: list[float], options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        likelihood.choose(sums, options)
