"""The frozen plan: its hash, what counts as a departure, and what a test of some size can see."""

import hashlib
import json
from pathlib import Path

import pytest

from luthier.errors import CorruptedState
from luthier.evaluate.verdict import analysis_plan

CONTENT = {"n": 300, "arms": {"zero-shot": {"who": "base"}, "retrieved": {"shots": 8}}, "metric": {"name": "chrf"}}


def test_the_hash_can_be_recomputed_from_the_file(tmp_path: Path) -> None:
    frozen = analysis_plan.freeze(CONTENT, tmp_path / "plan.json")
    file = json.loads((tmp_path / "plan.json").read_text())
    canonical = json.dumps(file["plan"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(canonical.encode()).hexdigest() == file["sha256"] == frozen.sha256
    assert analysis_plan.read(tmp_path / "plan.json") == frozen


def test_equal_plans_have_equal_hashes_whatever_the_order() -> None:
    assert analysis_plan.digest(CONTENT) == analysis_plan.digest(dict(reversed(CONTENT.items())))
    assert analysis_plan.digest(CONTENT) != analysis_plan.digest(CONTENT | {"n": 301})


def test_a_plan_is_frozen_once(tmp_path: Path) -> None:
    first = analysis_plan.freeze(CONTENT, tmp_path / "plan.json")
    assert analysis_plan.freeze({"n": 1}, tmp_path / "plan.json") == first


def test_a_plan_that_was_changed_is_refused(tmp_path: Path) -> None:
    analysis_plan.freeze(CONTENT, tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text.replace("300", "200"))
    with pytest.raises(CorruptedState, match="the plan was changed after it was frozen"):
        analysis_plan.read(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text(text[:40])
    with pytest.raises(CorruptedState, match="not a plan any more"):
        analysis_plan.read(tmp_path / "plan.json")


def test_departures_are_named_one_by_one() -> None:
    done = {"n": 299, "arms": {"zero-shot": {"who": "base"}, "rag": {"passages": 4}}, "metric": {"name": "chrf"}}
    assert [departure.sentence for departure in analysis_plan.deviations(CONTENT, done)] == [
        "n: planned 300, done 299",
        'arms.retrieved: planned {"shots": 8}, done nothing',
        'arms.rag: planned nothing, done {"passages": 4}',
    ]
    assert analysis_plan.deviations(CONTENT, json.loads(json.dumps(CONTENT))) == []


def test_what_a_test_of_some_size_can_see() -> None:
    # By hand for n = 100: z = 1.96 + 0.8416, z² = 7.849; 2.8016 × √(0.2 / 107.849) = 0.1206.
    assert analysis_plan.visible_effect(100, 0.05) == pytest.approx(0.1206, abs=1e-4)
    assert analysis_plan.visible_effect(100, 0.05, groups=5) == 1.0 and analysis_plan.visible_effect(100, 0.05, 6) < 1
    assert analysis_plan.visible_effect(8, 0.05) > 0.3 and analysis_plan.visible_effect(2000, 0.05) < 0.03
