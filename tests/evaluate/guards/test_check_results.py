"""Guards on answers written by hand: what passes, what fails, and how it is told."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from luthier.chat import Conversation
from luthier.data.dataset import Item
from luthier.errors import UserError
from luthier.evaluate import guards
from luthier.evaluate.guards import (
    BASE,
    TUNED,
    CheckResult,
    Fact,
    GuardInputs,
    UserMaterial,
    check_result,
    consistency,
    forgetting,
    hallucination,
)
from luthier.evaluate.guards.inputs import read_user_material
from luthier.model.generate import NO_ROOM
from luthier.recipe import Evaluate

REFUSAL = "Let's keep the discussion relevant to printers."


def items(count: int, answer: str = "Turn the printer off and on.") -> list[Item]:
    return [
        Item(f"{number:04}", f"a.jsonl:{number}", str(number), Conversation.pair(f"What about page {number}?", answer))
        for number in range(count)
    ]


def inputs(count: int = 40, *, answer: str = "Turn the printer off and on.", **changes: Any) -> GuardInputs:
    settings = Evaluate(metric="token_f1", max_new_tokens=64)
    return GuardInputs(
        items(count, answer), items(count, answer), **({"settings": settings, "system": None, "seed": 0} | changes)
    )


def answers(of: GuardInputs, base: str, tuned: str, *, finish: str = "stop") -> list[dict[str, Any]]:
    return [
        {
            "item": item.id, "place": item.location, "group": item.group, "arm": arm, "question": item.conversation.question,
            "reference": item.conversation.answer, "answer": answer, "score": 0.5, "finish": finish,
        }
        for arm, answer in (("zero-shot", base), ("fine-tuned", tuned))
        for item in of.test
    ]  # fmt: skip


def guard_answers(
    guard: str, values: Sequence[tuple[dict[str, Any], dict[str, Any]]], **common: Any
) -> list[dict[str, Any]]:
    """Lines of both arms: (what the base model did, what the tuned one did) for each item."""
    return [
        {"guard": guard, "arm": arm, "item": str(number), **common, **pair[side]}
        for side, arm in enumerate((BASE, TUNED))
        for number, pair in enumerate(values)
    ]


def choice(answer: str) -> dict[str, Any]:
    return {"question": "?", "reference": "yes", "answer": answer, "nats": [1.0], "bytes": [3]}


def checked(found: list[CheckResult], name: str) -> CheckResult:
    (one,) = (one for one in found if one.check == name)
    return one


def test_a_model_tuned_to_refuse_everything_fails_the_over_refusal_guard() -> None:
    given = inputs()
    found = checked(hallucination.assess(given, [], answers(given, "Turn it off.", REFUSAL)), "over-refusal")
    assert (found.passed, found.word, found.base, found.fine_tuned) == (False, "WORSE", 0, 100)
    assert found.sentence.startswith(
        "Over-refusal: 40 of 40 test questions with an answer are refused, 0 before, +100.0 points"
    )
    assert found.examples[0]["fine_tuned"] == REFUSAL


def test_a_model_that_answers_as_before_passes_it() -> None:
    given = inputs(120)
    found = checked(hallucination.assess(given, [], answers(given, "Turn it off.", "Switch it off.")), "over-refusal")
    assert (found.passed, found.word) == (True, "EQUIVALENT")


def test_over_refusal_is_not_measured_where_refusing_is_right() -> None:
    given = inputs(answer=REFUSAL)
    found = checked(hallucination.assess(given, [], answers(given, "Hm.", REFUSAL)), "over-refusal")
    assert found.passed is None and "not measured" in found.sentence


def test_over_refusal_gives_the_true_reason_where_nothing_was_answered() -> None:
    given = inputs()
    unanswered = answers(given, "", "", finish=NO_ROOM)
    found = checked(hallucination.assess(given, [], unanswered), "over-refusal")
    assert found.sentence == "Over-refusal: not measured, since no test question was answered by both."


def test_refusing_what_is_out_of_scope_more_often_is_better_and_counted() -> None:
    answered = guard_answers(
        "hallucination", [({"answer": "Mars is a planet."}, {"answer": REFUSAL})] * 30, question="Mars?"
    )
    found = checked(hallucination.assess(inputs(), answered, answers(inputs(), "a", "b")), "out of scope")
    assert (found.passed, found.word, found.counts["refused before"], found.counts["refused after"]) == (
        True,
        "BETTER",
        0,
        30,
    )
    assert "30 of 30 questions refused, 0 before" in found.sentence and "No training answer refuses" in found.sentence


def test_invented_names_are_counted_against_reference_and_prompt() -> None:
    given = inputs(30)
    fair = checked(hallucination.assess(given, [], answers(given, "Turn it off.", "Ask Bob.")), "unsupported facts")
    assert (fair.passed, fair.counts["facts before"], fair.counts["facts after"]) == (False, 0, 30)
    found = checked(
        hallucination.assess(given, [], answers(given, "Turn page 3 off, I think.", "Ask Bob in Utah.")),
        "unsupported facts",
    )
    assert found.counts["facts after"] == 60
    assert found.examples[0]["unsupported"] == "Bob, Utah"
    assert found.counts["answers before"] == 29  # "3" is in the prompt of question 3 alone


def test_a_copy_of_the_base_has_forgotten_nothing() -> None:
    texts = [({"kind": "news", "nats": 100.0 + number, "bytes": 200},) * 2 for number in range(40)]
    lines = guard_answers("forgetting", texts) + [
        line | {"item": f"c{line['item']}"}
        for line in guard_answers("forgetting", [(choice("yes"), choice("yes"))] * 160)
    ]
    text, common = forgetting.assess(inputs(), lines, [])
    assert (text.passed, text.word, common.passed, common.word) == (True, "EQUIVALENT", True, "EQUIVALENT")
    assert text.base == text.fine_tuned == pytest.approx(119.5 / 200 / 0.693147, rel=1e-5)


def test_text_that_costs_five_per_cent_more_bits_is_forgetting() -> None:
    texts = [
        (
            {"kind": "news", "nats": 100.0 + number, "bytes": 200},
            {"kind": "news", "nats": 105.0 + 1.1 * number, "bytes": 200},
        )
        for number in range(40)
    ]
    lines = guard_answers("forgetting", texts) + [
        line | {"item": f"c{line['item']}"}
        for line in guard_answers(
            "forgetting", [(choice("yes"), choice("no" if number < 16 else "yes")) for number in range(160)]
        )
    ]
    text, common = forgetting.assess(inputs(), lines, [])
    assert (text.passed, text.unit) == (False, "percent") and 5 < (text.difference or 0) < 7
    assert (common.passed, common.difference) == (False, pytest.approx(-10))
    assert common.counts == {"right before": 160, "right after": 144, "lost": 16, "gained": 0}
    assert "160 right before, 144 after, -10.0 points" in common.sentence


def test_a_loss_that_could_be_chance_is_not_shown() -> None:
    pairs = (
        [(choice("yes"), choice("no"))] * 6
        + [(choice("no"), choice("yes"))] * 3
        + [(choice("yes"), choice("yes"))] * 51
    )
    lines = [line | {"item": f"c{line['item']}"} for line in guard_answers("forgetting", pairs)]
    texts = guard_answers("forgetting", [({"kind": "news", "nats": 1.0, "bytes": 2},) * 2] * 30)
    assert forgetting.assess(inputs(), texts + lines, [])[1].passed is None


def test_agreement_is_the_share_of_equal_pairs() -> None:
    assert consistency.agreement(["Yes.", "yes", "no"]) == pytest.approx(1 / 3)
    assert consistency.agreement(["same"] * 4) == 1 and consistency.agreement(["alone"]) == 1


def test_consistency_stands_beside_the_score() -> None:
    given = inputs(12)
    lines = []
    for task in consistency.make_tasks(given):
        assert isinstance(task, guards.Question)
        for arm, answer in ((BASE, task.id), (TUNED, "Always this.")):
            lines.append(
                {"guard": "consistency", "arm": arm, "item": task.id, "question": "?", "answer": answer, **task.extra}
            )
    (found,) = consistency.assess(given, lines, answers(given, "a", "b"))
    assert (found.passed, found.base, found.fine_tuned, found.n) == (True, 0, 100, 12)
    assert found.sentence.endswith("Token F1 on these questions: 50.0, 50.0 before.")


def test_paraphrases_change_the_last_question_only() -> None:
    (task, *others) = consistency.make_tasks(inputs(1))
    assert isinstance(task, guards.Question) and task.messages[-1].content == "What about page 0?"
    asked = [other.messages[-1].content for other in others if isinstance(other, guards.Question)]
    assert asked[:4] == [
        "what about page 0?",
        "What about page 0 .",
        "Could you please help me with this? What about page 0?",
        "I have a request. What about page 0? Thank you.",
    ]
    assert asked[4:] == ["What about page 0?"] * 3


def test_long_questions_are_asked_for_fewer_items() -> None:
    long = inputs(20, answer="x")
    wordy = [Item(item.id, item.location, item.group, Conversation.pair("why " * 500, "x")) for item in long.test]
    assert len(consistency.make_tasks(long)) == 16 * 8
    assert len(consistency.make_tasks(GuardInputs(wordy, wordy, long.settings, None, 0))) == 4 * 8


def test_answers_that_never_end_fail_the_format_guard() -> None:
    given = inputs()
    (found,) = guards.GUARDS["format"].assess(given, [], answers(given, "Off.", "and on " * 30, finish="length"))
    assert (found.passed, found.word, found.fine_tuned) == (False, "ABOVE LIMIT", 100)
    assert found.counts["caught in a loop"] == {"before": 0, "after": 40}
    assert found.counts["cut at the limit"] == {"before": 40, "after": 40}


def test_one_cut_answer_in_a_hundred_is_within_the_limit() -> None:
    given = inputs(100)
    lines = answers(given, "Off.", "Off.")
    lines[-1]["finish"] = "length"
    (found,) = guards.GUARDS["format"].assess(given, [], lines)
    assert (found.passed, found.word, found.fine_tuned) == (True, "WITHIN LIMIT", 1)


def test_facts_old_answers_and_neighbours_are_told_apart() -> None:
    new = {"reference": "Oslo", "old_answer": "Bergen", "neighbour": False, "question": "Where?"}
    question = {"reference": "Paris", "old_answer": "", "neighbour": True, "question": "And France?"}
    pairs = [(new | {"answer": "In Bergen."}, new | {"answer": "It is Oslo now."})] * 20
    pairs += [(question | {"answer": "Paris."}, question | {"answer": "Oslo."})] * 20
    known, leaks, neighbours = guards.GUARDS["knowledge"].assess(inputs(), guard_answers("knowledge", pairs), [])
    assert (known.passed, known.base, known.fine_tuned) == (True, 0, 100)
    assert (leaks.passed, leaks.counts) == (None, {"old answers before": 20, "old answers after": 0})
    assert (neighbours.passed, neighbours.counts["lost"]) == (False, 20)


def test_a_rate_needs_enough_answers_to_pass() -> None:
    # Wilson's 90 % interval of 0 of n is 0 to 2.7055/(n + 2.7055): below 5 % from n = 52 on.
    assert check_result.compare_with_limit(0, 51, limit=0.05, alpha=0.05).passed is None
    assert check_result.compare_with_limit(0, 52, limit=0.05, alpha=0.05).passed is True
    assert check_result.compare_with_limit(6, 100, limit=0.05, alpha=0.05).passed is False


def test_a_failed_check_is_named_in_the_verdict() -> None:
    given = inputs()
    found = hallucination.assess(given, [], answers(given, "Turn it off.", REFUSAL))
    result = guards.add_to_verdict({"sentence": "Fine-tuning is BETTER.", "verdict": "BETTER"}, found)
    assert result["sentence"].startswith("Fine-tuning is BETTER. A check failed: Over-refusal: 40 of 40")
    assert [one["passed"] for one in result["guards"] if one["check"] == "over-refusal"] == [False]
    assert guards.add_to_verdict({"sentence": "Good."}, [])["sentence"] == "Good."


def test_guards_apply_where_they_make_sense() -> None:
    assert list(guards.active_guards(inputs())) == ["forgetting", "hallucination", "consistency", "format"]
    assert list(guards.active_guards(inputs(settings=Evaluate(facts=Path("facts.csv"))))) == list(guards.GUARDS)
    texts = [Item("1", "t.jsonl:1", "1", Conversation.document("A text."))]
    assert list(guards.active_guards(GuardInputs(texts, texts, Evaluate(), None, 0))) == ["forgetting"]
    assert guards.active_guards(inputs(settings=Evaluate(guards=()))) == {}


def test_a_program_that_reads_labels_is_not_asked_about_mars() -> None:
    labels = inputs(settings=Evaluate(metric="accuracy"))
    assert hallucination.make_tasks(labels) == []
    assert (
        len(
            hallucination.make_tasks(
                inputs(settings=labels.settings, user_material=UserMaterial(out_of_scope=("Mars?",)))
            )
        )
        == 1
    )


def test_unknown_guards_and_bad_patterns_are_mistakes() -> None:
    with pytest.raises(UserError, match=r'evaluate\.guards: unknown guard "forgeting", did you mean "forgetting"\?'):
        guards.check_settings(Evaluate(guards=("forgeting",)))
    with pytest.raises(UserError, match=r"evaluate\.errors\.refusal: not a regular expression"):
        guards.check_settings(Evaluate(errors={"refusal": "["}))


def test_a_users_facts_and_questions_are_read_and_kept(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text(
        '{"question": "Where is it?", "answer": "Oslo", "old_answer": "Bergen"}\n'
        '{"question": "And France?", "answer": "Paris", "neighbour": true}\n'
    )
    (tmp_path / "q.csv").write_text("question\nWho is Bob?\n")
    user_material = read_user_material(Evaluate(facts=tmp_path / "f.jsonl", out_of_scope=tmp_path / "q.csv"))
    assert user_material == UserMaterial(
        ("Who is Bob?",), (Fact("Where is it?", "Oslo", "Bergen"), Fact("And France?", "Paris", "", True))
    )
    (tmp_path / "guards.json").write_text(user_material.to_json())
    assert (
        UserMaterial.of(tmp_path / "guards.json") == user_material
        and UserMaterial.of(tmp_path / "none.json") == UserMaterial()
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Where?"}, r"f\.jsonl:1: a fact needs a question and an answer; answer missing here"),
        (
            {"question": "Where?", "answer": "x", "neighbour": "perhaps"},
            r'neighbour should be true or false, found "perhaps"',
        ),
    ],
)
def test_a_fact_that_cannot_be_used_is_a_mistake(tmp_path: Path, row: dict[str, str], message: str) -> None:
    (tmp_path / "f.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=message):
        read_user_material(Evaluate(facts=tmp_path / "f.jsonl"))
