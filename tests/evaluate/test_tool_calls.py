"""Calls are compared by function and arguments, and chosen as the metric where reference answers call."""

from typing import Any

import pytest

from luthier.chat import Message, ToolCall
from luthier.evaluate import metrics
from luthier.evaluate.metrics import tool_call, tool_name


def said(*calls: tuple[str, str], words: str = "") -> str:
    return Message("assistant", words, tool_calls=tuple(ToolCall(*call) for call in calls)).text


LAMP = ("lamp", '{"on": true, "room": "hall"}')
DOOR = ("door", '{"open": 1.0}')


@pytest.mark.parametrize(
    ("answer", "reference", "score", "names"),
    [
        (said(("lamp", '{"room": "Hall", "on":true}')), said(LAMP), 1.0, 1),
        (said(("lamp", '{"on": true, "room": "attic"}')), said(LAMP), 1 / 2, 1),
        (said(("lamp", '{"on": true}')), said(LAMP), 1 / 2, 1),
        (said(("lamp", '{"on": true, "room": "hall", "colour": 1}')), said(LAMP), 2 / 3, 1),
        (said(("door", '{"on": true, "room": "hall"}')), said(LAMP), 0.0, 0),
        (said(("stop", "{}")), said(("stop", "{}")), 1.0, 1),
        (said(DOOR, LAMP), said(LAMP, ("door", '{"open": 1}')), 1.0, 1),
        (said(LAMP), said(LAMP, DOOR), 1 / 2, 0),
        (said(LAMP, LAMP), said(LAMP), 1 / 2, 0),
        (said(LAMP, words="At once."), said(LAMP), 1.0, 1),
        ("It is on.", said(LAMP), 0.0, 0),
        ("<tool_call>lamp</tool_call>", said(LAMP), 0.0, 0),
        ('<tool_call>{"name": "lamp", "arguments": [1]}</tool_call>', said(LAMP), 0.0, 0),
        ("The lamp is on", "The lamp is off", 2 / 3, 0),
        ("It is on.", "It is on.", 1.0, 1),
        (said(LAMP), "The lamp is on", 0.0, 0),
    ],
)
def test_a_call_is_right_by_its_function_and_its_arguments(
    answer: str, reference: str, score: float, names: int
) -> None:
    assert tool_call(answer, reference) == pytest.approx(score)
    assert tool_name(answer, reference) == names


def test_numbers_may_differ_by_the_tolerance() -> None:
    metric = metrics.resolve("tool_call", settings=metrics.MetricSettings(tolerance=0.1))
    assert metric(said(("door", '{"open": 1.05}')), said(DOOR)) == 1.0


def test_the_metric_is_chosen_where_answers_call() -> None:
    alone = metrics.choose_metric([said(LAMP), said(DOOR)])
    assert (alone.name, alone.reason) == ("tool_call", "every reference answer calls a function")
    mixed = metrics.choose_metric([said(LAMP), "It is on.", "It is off."])
    assert mixed.reason == "1 of 3 reference answers call functions; the others are compared as text"
    assert mixed.secondary == ("tool_name", "exact_match")


def test_all_calls_are_counted_by_what_is_wrong_with_them() -> None:
    pairs = [
        (said(LAMP), said(LAMP)),
        (said(("lamp", "{}")), said(LAMP)),
        (said(DOOR), said(LAMP)),
        ("Hm.", said(LAMP)),
        ("Yes.", "Yes."),
        (said(DOOR), "Yes."),
    ]
    found: dict[str, Any] = metrics.aggregates("tool_call", pairs)["calls"]
    assert found == {"n": 4, "right": 1, "right_functions": 2, "no_call": 1, "others": 2, "surplus": 1}
