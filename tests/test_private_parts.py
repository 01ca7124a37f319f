"""What we use of other libraries beyond what they document works in the versions that are installed.

Whoever moves a version learns here, from one sentence, what is gone, who needs it, and for what.
"""

import re
from pathlib import Path

import pytest
from torch import nn

import private_trials
from private_parts import PARTS, Part
from private_trials import complaint


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.library}: {part.name}")
def test_a_private_part_does_what_it_is_used_for(part: Part, tmp_path: Path) -> None:
    if told := complaint(part, tmp_path):
        pytest.fail(told, pytrace=False)


def test_a_part_that_is_gone_is_told_with_its_place_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Path) -> None:
        nn.Linear(1, 1)._gone  # noqa: B018

    monkeypatch.setattr(private_trials, "gone", gone, raising=False)
    told = complaint(Part("torch", "_gone", ("model/layers.py",), "a test", "gone"), tmp_path)
    assert told and re.fullmatch(
        r"torch 2\S+: _gone is gone or does something else \('Linear' object has no attribute '_gone'\)\. "
        r"src/luthier/model/layers\.py needs it for a test: mend that, or keep torch below this version in pyproject\.toml\.",
        told,
    )
