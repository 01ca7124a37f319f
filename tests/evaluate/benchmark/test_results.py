"""Two models' results are compared item by item, and what is left on disk suffices to do the sums again."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from luthier.errors import CorruptedState
from luthier.evaluate.benchmark import record
from luthier.evaluate.benchmark.results import TaskResult, from_harness

SETTING = {"harness": "lm-eval 0", "chat": False, "limit": None}


def output(name: str, right: list[int]) -> dict[str, Any]:
    """What lm-eval gives for a task of one metric."""
    samples = [
        {
            "doc_id": number,
            "doc": {"place": f"a.jsonl:{number + 1}"},
            "filter": "none",
            "metrics": ["acc"],
            "acc": score,
        }
        for number, score in enumerate(right)
    ]
    return {
        "results": {
            name: {"alias": name, "acc,none": fmean(right), "acc_stderr,none": "N/A", "sample_len": len(right)}
        },
        "samples": {name: samples},
        "versions": {name: 1.0},
        "higher_is_better": {name: {"acc": True}},
    }


def kept(name: str, ours: list[int], theirs: list[int] | None) -> record.BenchmarkRecord:
    results: dict[str, list[TaskResult]] = {"fine-tuned": from_harness(output(name, ours))}
    if theirs is not None:
        results["base"] = from_harness(output(name, theirs))
    return record.make_record(results, SETTING, [], alpha=0.05)


def test_a_difference_has_its_test_interval_and_counts() -> None:
    summary = kept("quiz", [1] * 12 + [0] * 8, [0] * 10 + [1] * 2 + [0] * 7 + [1]).summary
    (metric,) = summary["tasks"][0]["metrics"]
    assert (metric["value"], metric["base"]) == (0.6, 0.15)
    assert metric["difference"] == pytest.approx(0.45)
    assert (metric["fixed"], metric["broken"]) == (10, 1)
    # McNemar's mid-p: 2·P(X < 1) + P(X = 1) for X ~ Binomial(11, 1/2) = (2·1 + 11)/2¹¹
    assert metric["test"] == "McNemar mid-p"
    assert metric["p_value"] == pytest.approx(13 / 2048)
    assert metric["interval"][0] > 0 and metric["word"] == "BETTER"


def test_the_same_answers_show_nothing() -> None:
    (metric,) = kept("quiz", [1, 0, 1], [1, 0, 1]).summary["tasks"][0]["metrics"]
    assert (metric["p_value"], metric["word"]) == (1.0, "NOT SHOWN")


def test_a_model_alone_has_no_difference() -> None:
    (metric,) = kept("quiz", [1, 0], None).summary["tasks"][0]["metrics"]
    assert metric == {"metric": "acc", "higher_is_better": True, "value": 0.5}


def test_a_number_of_the_whole_corpus_is_set_side_by_side_only() -> None:
    def corpus(value: float) -> list[TaskResult]:
        found = output("wiki", [0])
        found["results"]["wiki"] = {"word_perplexity,none": value}
        found["samples"]["wiki"][0] |= {"word_perplexity": (-12.5, 4)}
        found["higher_is_better"]["wiki"] = {"word_perplexity": False}
        return from_harness(found)

    (metric,) = record.make_record({"fine-tuned": corpus(9.0), "base": corpus(8.0)}, SETTING, [], alpha=0.05).summary[
        "tasks"
    ][0]["metrics"]
    assert metric["difference"] == 1.0 and not metric["higher_is_better"] and "p_value" not in metric


def test_filters_of_one_metric_have_names_of_their_own() -> None:
    found = output("sums", [1, 0])
    found["results"]["sums"] = {"acc,strict": 0.5, "acc,loose": 1.0}
    strict = [sample | {"filter": "strict"} for sample in found["samples"]["sums"]]
    found["samples"]["sums"] = strict + [sample | {"filter": "loose", "acc": 1} for sample in strict]
    (task,) = from_harness(found)
    assert [(metric.name, metric.items) for metric in task.metrics] == [
        ("acc (strict)", {0: 1.0, 1: 0.0}),
        ("acc (loose)", {0: 1.0, 1: 1.0}),
    ]


def test_the_files_hold_every_item_and_the_means_agree(tmp_path: Path) -> None:
    record.save_record(tmp_path, kept("quiz", [1, 1, 0], [0, 1, 0]))
    lines = [json.loads(line) for line in (tmp_path / "benchmark-answers.jsonl").read_text().splitlines()]
    (metric,) = json.loads((tmp_path / "benchmarks.json").read_text())["tasks"][0]["metrics"]
    by_arm = {arm: [line["scores"]["acc"] for line in lines if line["arm"] == arm] for arm in ("fine-tuned", "base")}
    assert {arm: fmean(scores) for arm, scores in by_arm.items()} == {
        "fine-tuned": metric["value"],
        "base": metric["base"],
    }
    assert lines[0] == {"task": "quiz", "item": 0, "place": "a.jsonl:1", "arm": "fine-tuned", "scores": {"acc": 1.0}}


def test_other_tasks_stay_and_the_same_one_is_replaced(tmp_path: Path) -> None:
    for made in (kept("first", [1, 0], [1, 1]), kept("second", [1], [1]), kept("first", [1, 1, 1], None)):
        whole = record.save_record(tmp_path, made)
    assert [(task["task"], task["items"]) for task in whole["tasks"]] == [("second", 1), ("first", 3)]
    lines = [json.loads(line) for line in (tmp_path / "benchmark-answers.jsonl").read_text().splitlines()]
    assert [line["task"] for line in lines] == ["second"] * 2 + ["first"] * 3


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "benchmarks.json").write_text("{")
    with pytest.raises(CorruptedState, match=r"benchmarks.json: not valid JSON"):
        record.save_record(tmp_path, kept("quiz", [1], None))
