"""What the report says: caveats, stages of an unfinished run, costs and numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier.report import run_contents, text
from luthier.report.formatting import duration, moment, rounded
from luthier.report.score_units import BITS, POINTS

MakeRun = Callable[..., Path]


def report_text(folder: Path) -> text.ReportText:
    return text.compose(run_contents.read(folder))


def caveats(folder: Path) -> str:
    return "\n".join(caveat.what for caveat in report_text(folder).caveats)


def test_every_result_of_one_run_admits_that_variation_was_not_measured(make_run: MakeRun) -> None:
    assert "Run-to-run variation was not measured." in caveats(make_run())


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ({"n": 60}, "Only 60 test items."),
        ({"groups": 18}, "Only 18 groups in the test items."),
        ({"smallest_visible_effect": 0.049}, "Effects under 4.9 points could go unnoticed."),
        ({"smallest_visible_effect": 1.4}, "No effect of any size could have been shown."),
        ({"chosen_on": "test"}, "retrieved was chosen among 3 prompt arms on the test items."),
        ({"best_prompt_arm": "few-shot"}, "On the test items retrieved scored higher than the arm chosen on dev"),
        ({}, "retrieved was chosen among 3 prompt arms on the dev items, and so was the checkpoint."),
        ({}, "Cut at the token limit: 13 of 140 answers by zero-shot."),
    ],
)
def test_a_weakness_of_the_evidence_is_a_caveat(make_run: MakeRun, verdict: dict[str, Any], expected: str) -> None:
    assert expected in caveats(make_run(verdict=verdict))


def test_prompts_and_examples_that_did_not_fit_are_caveats(make_run: MakeRun) -> None:
    folder = make_run(arms={"few-shot": {"who": "base", "shots": 4}})
    file = folder / "evaluation" / "verdict.json"
    verdict = json.loads(file.read_text())
    verdict["arms"]["zero-shot"]["no_room"] = 4
    verdict["arms"]["few-shot"]["shots"] = 2.25
    file.write_text(json.dumps(verdict))
    assert "Did not fit into the model's context: 4 of 140 prompts of zero-shot." in caveats(folder)
    assert "Fewer examples shown than planned, on average: few-shot 2.2 instead of 4." in caveats(folder)


def test_answers_that_are_all_thoughts_are_a_caveat_and_thoughts_a_cost(make_run: MakeRun) -> None:
    folder = make_run()
    file = folder / "evaluation" / "verdict.json"
    verdict = json.loads(file.read_text())
    verdict["arms"]["zero-shot"] |= {"still_thinking": 12, "answer_tokens": 230.0, "thought_tokens": 200.0}
    file.write_text(json.dumps(verdict))
    assert "Still thinking at the token limit: 12 of 140 answers by zero-shot." in caveats(folder)
    table = report_text(folder).table
    assert table is not None and "In brackets: how many of the answer's tokens are thoughts before it." in table.note
    costs = {row.arm.name: row.cells[table.columns.index("answer tokens")] for row in table.rows}
    assert costs["zero-shot"] == "230 (200)" and "(" not in costs["fine-tuned"]


def test_a_large_test_raises_no_caveat_of_its_size(make_run: MakeRun) -> None:
    assert "Only" not in caveats(make_run())


def test_a_ledger_that_does_not_add_up_is_the_first_caveat(make_run: MakeRun) -> None:
    assert caveats(make_run(data={"kept": 1390})).startswith("The rows do not add up.")


@pytest.mark.parametrize(
    ("best_step", "expected"),
    [(400, "Dev loss was still falling at the end."), (40, "Dev loss was lowest at its first check.")],
)
def test_where_the_best_checkpoint_lies_tells_of_the_training(make_run: MakeRun, best_step: int, expected: str) -> None:
    folder = make_run()
    with (folder / "events.jsonl").open("a") as events:
        events.write(f'{{"time": "", "kind": "trained", "step": 412, "best_step": {best_step}, "best_loss": 0.7}}\n')
    assert expected in caveats(folder)


def test_training_that_never_beat_the_base_model_on_dev_is_a_caveat(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "events.jsonl").open("a") as events:
        events.write('{"time": "", "kind": "trained", "step": 412, "best_step": 400, "best_loss": 2.8}\n')
    assert "Dev loss was 2.710 before training and never fell below it." in caveats(folder)


def test_a_run_that_learnt_preferences_tells_of_its_held_out_pairs(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "events.jsonl").open("a") as events:
        for step, margin, reward in ((0, 0.0, 0.0), (412, 0.7312, -0.4)):
            figures = f'"accuracy": {0.5 + margin / 2:.2f}, "margin": {margin}, "chosen_reward": {reward}'
            events.write(f'{{"time": "", "kind": "dev", "step": {step}, "loss": 0.6, "best": true, {figures}}}\n')
        events.write('{"time": "", "kind": "trained", "step": 412, "best_step": 412, "best_loss": 0.6}\n')
    expected = "prefers the chosen answer in 87 % of the dev pairs, by a mean margin of 0.731 (0.000 before training)"
    assert expected in report_text(folder).training
    assert "the chosen answers became less likely" in caveats(folder)
    assert "preference was measured on dev pairs only" in caveats(folder)


def test_a_run_that_learnt_from_single_answers_tells_of_its_held_out_ones(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "events.jsonl").open("a") as events:
        for step, margin, kl in ((0, 0.0, 0.0), (412, 0.7312, 1.25)):
            figures = f'"accuracy": 0.87, "margin": {margin}, "chosen_reward": -0.1, "kl": {kl}'
            events.write(f'{{"time": "", "kind": "dev", "step": {step}, "loss": 0.4, "best": true, {figures}}}\n')
        events.write('{"time": "", "kind": "trained", "step": 412, "best_step": 412, "best_loss": 0.4}\n')
    training = report_text(folder).training
    assert (
        "The model moved 87 % of the dev answers the way that people want, liked ones up and disliked ones" in training
    )
    assert "down, with a mean margin of 0.731 (0.000 before training) and a KL of 1.250 nats." in training
    assert "the liked answers became less likely" in caveats(folder)
    assert "compares answers with the liked ones" in caveats(folder)


def test_a_stopped_run_says_why_and_how_to_go_on(make_run: MakeRun) -> None:
    folder = make_run(stop_at_step=137)
    stopped = report_text(folder)
    assert (stopped.word, stopped.claim) == ("NO VERDICT YET", "The run stopped before there was a verdict")
    assert stopped.particulars == "Interrupted by Ctrl-C."
    assert stopped.continue_command == f"luthier resume {folder}"
    assert stopped.missing == ("Verdict, arms and examples: no test question has been asked yet.",)


def test_a_run_that_was_killed_says_how_far_it_had_come(make_run: MakeRun) -> None:
    killed = report_text(make_run(stop_at_step=137, run={"state": "running", "reason": None}))
    assert killed.particulars == "Training was at step 137 of 412."


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("the loss of step 10 is not finite.", "The loss of step 10 is not finite."),
        ('ticket.jsonl: no such file, did you mean "tickets.jsonl"?', None),
        ("disk full", "Disk full."),
    ],
)
def test_a_failed_run_gives_its_reason(make_run: MakeRun, reason: str, sentence: str | None) -> None:
    failed = report_text(make_run(stop_at_step=9, run={"state": "failed", "reason": reason}))
    assert failed.claim == "The run failed before there was a verdict"
    assert failed.particulars == (sentence or reason)


def test_a_folder_with_a_space_can_be_pasted_into_a_shell(make_run: MakeRun) -> None:
    folder = make_run("my run", stop_at_step=3)
    assert report_text(folder).continue_command == f"luthier resume '{folder}'"


def test_a_complete_run_needs_no_going_on(make_run: MakeRun) -> None:
    assert report_text(make_run()).continue_command is None


def test_cost_compares_the_tuned_model_with_the_best_prompt(make_run: MakeRun) -> None:
    # (58.4 against 864.4 prompt tokens; 0.74 against 2.45 seconds)
    expected = (
        "Per question, the fine-tuned model reads 93 % fewer prompt tokens than retrieved and answers 3.3 times faster."
    )
    assert report_text(make_run()).cost == expected


def test_the_number_of_examples_is_the_one_that_was_chosen_on_dev(make_run: MakeRun) -> None:
    planned = {"few-shot": {"who": "base", "shots": 1}, "retrieved": {"who": "base", "shots": 8}}
    table = report_text(make_run(arms=planned)).table
    assert table is not None
    explained = {row.label: row.explanation for row in table.rows}
    assert explained["few-shot"] == "the same 1 training example before every question"
    assert explained["retrieved"] == "the 8 training examples most similar to the question (BM25) before it"


def test_another_model_is_no_prompt_that_could_have_been_chosen(make_run: MakeRun) -> None:
    other = {"who": "endpoint", "model": "big-one", "prompt": "retrieved"}
    folder = make_run(verdict={"best_prompt_arm": "few-shot"}, arms={"retrieved": other})
    assert "few-shot was chosen among 2 prompt arms on the dev items" in caveats(folder)
    assert "scored higher than the arm chosen on dev" not in caveats(folder)
    table = report_text(folder).table
    assert table is not None
    assert {row.label: row.explanation for row in table.rows}["retrieved"] == (
        "big-one, another model, with the prompt of retrieved"
    )


def test_a_column_that_no_arm_fills_is_left_out(make_run: MakeRun) -> None:
    table = report_text(make_run(documents=True)).table
    assert table is not None
    assert table.columns == ("answer tokens",)


def test_documents_are_told_in_bits_per_byte_not_in_points(make_run: MakeRun) -> None:
    documents = report_text(make_run(documents=True))
    assert documents.unit is BITS and documents.table is not None
    assert documents.no_examples.startswith("Documents are scored on their own text")
    assert documents.table.rows[-1].mean == "0.940" and documents.table.note == "Lower is better."


def test_what_costs_the_same_is_said_to_cost_the_same(make_run: MakeRun) -> None:
    folder = make_run()
    path = folder / "evaluation" / "verdict.json"
    verdict = json.loads(path.read_text())
    best = verdict["arms"][verdict["best_prompt_arm"]]
    verdict["arms"]["fine-tuned"] |= {"prompt_tokens": best["prompt_tokens"] * 1.001, "seconds": best["seconds"] * 1.01}
    path.write_text(json.dumps(verdict))
    name = verdict["best_prompt_arm"]
    assert report_text(folder).cost == (
        f"Per question, the fine-tuned model reads as many prompt tokens as {name} and answers about as fast."
    )


@pytest.mark.parametrize(
    ("effect", "shown"), [(0.0, ""), (None, ""), (1e-6, "0.1 points"), (0.121, "12.1 points"), (1.0, "")]
)
def test_a_visible_effect_is_never_nothing(make_run: MakeRun, effect: float | None, shown: str) -> None:
    folder = make_run()
    path = folder / "evaluation" / "verdict.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"smallest_visible_effect": effect}))
    test = report_text(folder).test
    assert ("The smallest effect that it could have shown is " in test) == bool(shown) and shown in test
    found = caveats(folder)
    assert ("could go unnoticed" in found) == bool(shown) and ("No effect of any size" in found) == (effect == 1.0)


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (999, "999"),
        (1000, "1 k"),
        (999_499, "999 k"),
        (999_999, "1 M"),
        (134_515_008, "135 M"),
        (1_235_814_400, "1.24 B"),
    ],
)
def test_sizes_have_three_digits(count: int, written: str) -> None:
    assert rounded(count) == written


def test_the_verdict_parts_into_its_claim_and_its_particulars() -> None:
    assert text.split_sentence("Fine-tuning is BETTER than x: token F1 66.9") == (
        "Fine-tuning is BETTER than x",
        "Token F1 66.9",
    )
    assert text.split_sentence("Nothing to part.") == ("Nothing to part.", "")


def test_scores_are_points_of_a_hundred_with_true_minus_signs() -> None:
    assert POINTS.score(0.6137) == "61.4"
    assert POINTS.signed(-0.0714) == "\N{MINUS SIGN}7.1"
    assert POINTS.signed(-0.0001) == POINTS.signed(0.0) == POINTS.score(-0.0001) == "0.0"
    assert BITS.score(1.3046) == "1.305"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(8.6, "9 s"), (59.7, "1 min 00 s"), (873.4, "14 min 33 s"), (7500, "2 h 05 min")]
)
def test_durations_are_told_in_the_two_units_that_matter(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_the_moment_is_told_in_utc() -> None:
    assert moment("2026-11-24T14:03:11.020+01:00") == "24 November 2026, 13:03 UTC"
    assert moment("yesterday") == "yesterday"


def test_the_sanity_check_before_the_first_step_is_told(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "events.jsonl").open("a") as events:
        events.write('{"time": "", "kind": "selftest", "rows": 8, "learnt": 312, "ends": true, "apart": true}\n')
    assert report_text(folder).training.endswith(
        "Sanity check on 8 rows before the first step: the loss counts exactly the 312 tokens that it should; each row ends "
        "with an end token; rows in one batch do not see each other."
    )


def test_the_report_says_whether_rows_are_those_of_the_template(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "events.jsonl").open("a") as events:
        events.write(
            '{"time": "", "kind": "template", "clean": true, "sentence": "rows and prompts of 9 are those of X"}\n'
        )
    assert report_text(folder).training.endswith(" Chat template: rows and prompts of 9 are those of X.")
