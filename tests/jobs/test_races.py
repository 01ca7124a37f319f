"""Clients and workers want different things of the same job, in every order: it has one end, and only its holder writes."""

import pytest

from job_life import CLOCK, live, race
from luthier.jobs import lease
from luthier.jobs.store import Store


def test_a_job_has_one_end_in_whatever_order_things_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "clock", lambda: CLOCK[0])
    live(10, 20)


def test_cancel_and_finish_at_the_same_moment_leave_one_end(store: Store) -> None:
    assert sum(race(store, 15).values()) == 15
