"""The simulated error rates lie in their bands: see tests/simulation.py, and scripts/simulate-statistics for the table."""

import pytest

import simulation

CASES = [case for case in simulation.cases() if case.promise != "nothing"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}: {case.method}, {case.what}" for case in CASES])
def test_the_statistics_are_as_often_wrong_as_they_say(case: simulation.Case) -> None:
    found = case.run(1.0)
    low, high = case.band
    print(f"{case.method}, {case.what}: {found.share:.4f} ± {found.error:.4f}")
    assert low <= found.share <= high
    assert found.error < (high - low) / 8  # the draws know the share far better than the band is wide


@pytest.mark.slow
def test_ignoring_groups_would_raise_false_alarms() -> None:
    (ignored,) = [case for case in simulation.cases() if "ignored" in case.method]
    assert ignored.run(0.1).share > 0.1
