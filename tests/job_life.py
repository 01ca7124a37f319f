"""A job in the hands of clients and of workers, late ones among them, in whatever order: for hypothesis and threads."""

import contextlib
import tempfile
import threading
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from job_service import Shop
from luthier.jobs.errors import Conflict, LostJob
from luthier.jobs.rows import RESULTS, TERMINAL, FileRow, JobError, JobRow, ModelRow, NewEvent, new_id
from luthier.jobs.store import Store

ENDS = ("The job has successfully completed", "Fine-tuning job cancelled", "The job failed: ")
CLOCK = [0.0]


def succeed(store: Store, job: JobRow) -> None:
    name = f"ft:tiny:luthier::{job.id[-8:]}"
    model = ModelRow(name, job.key, job.id, "tiny", f"runs/{job.id}/model", 1)
    result = FileRow(new_id("file-"), job.key, "step_metrics.csv", RESULTS, 1, "", 1)
    store.queue.succeed(job, [model], result, trained_tokens=1, disk_bytes=1)


class Life(RuleBasedStateMachine):
    """One job, and every hand that may touch it. `held` are all workers that ever had it, the late ones among them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name))
        self.shop = Shop(self.store)
        self.job = self.shop.job()
        self.held: list[JobRow] = []
        self.end: JobRow | None = None

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def now(self) -> JobRow:
        return self.store.jobs.get(self.shop.key, self.job.id)

    @rule()
    def accept(self) -> None:
        self.store.queue.accept(self.job.id, {"n_epochs": 3}, {})

    @rule()
    def refuse(self) -> None:
        before = self.now().state
        self.store.queue.refuse(self.job.id, JobError("x", "y"))
        assert self.now().state == ("failed" if before == "validating_files" else before)

    @rule(ask=st.sampled_from(["cancel", "pause", "resume"]))
    def ask(self, ask: str) -> None:
        before = self.now()
        try:
            after = getattr(self.store.jobs, ask)(self.shop.key, self.job.id)
        except Conflict:
            allowed = {
                "cancel": ("succeeded", "failed"),
                "pause": TERMINAL,
                "resume": (*TERMINAL, "queued", "validating_files"),
            }
            assert before.state in allowed[ask] or (ask == "resume" and before.state == "running" and not before.wish)
            return
        if ask == "cancel":
            assert after.state == "cancelled"
        elif ask == "pause":
            assert after.state == "paused" or (after.state == "running" and after.wish == "pause")
        else:
            assert after.state in ("queued", "validating_files", "running") and not after.wish

    @rule()
    def claim(self) -> None:
        before, taken = self.now(), self.store.queue.claim()
        if taken:
            lost = before.state == "running" and before.fence == taken.fence - 1
            assert taken.id == self.job.id and (before.state == "queued" or lost)
            self.held.append(taken)

    @rule()
    def be_silent(self) -> None:
        CLOCK[0] += 31

    @precondition(lambda self: self.held)
    @rule(data=st.data(), what=st.sampled_from(["beat", "wish", "record", "release", "put_back", "fail", "succeed"]))
    def work(self, data: Any, what: str) -> None:
        who = data.draw(st.sampled_from(self.held))
        before, queue = self.now(), self.store.queue
        owns = before.state == "running" and before.fence == who.fence
        acts = {
            "beat": lambda: queue.beat(who),
            "wish": lambda: queue.wish(who),
            "record": lambda: queue.record(who, [NewEvent("step")], attempts=1),
            "release": lambda: queue.release(who),
            "put_back": lambda: queue.put_back(who, "gone"),
            "fail": lambda: queue.fail(who, JobError("a", "b")),
            "succeed": lambda: succeed(self.store, who),
        }
        try:
            acts[what]()
        except LostJob:
            assert not owns and self.now() == before
        else:
            assert owns
            if what == "release":
                assert self.now().state == ("paused" if before.wish == "pause" else "queued")

    @invariant()
    def ends_once_and_for_good(self) -> None:
        row, messages = self.now(), self.shop.messages(self.job)
        if self.end is not None:
            assert row == self.end
        if row.is_finished:
            self.end = row
        assert sum(message.startswith(ENDS) for message in messages) == row.is_finished
        assert row.event_count == len(messages)
        assert bool(self.store.models.list(self.shop.key)) == (row.state == "succeeded")
        assert (row.finished_at is not None) == row.is_finished


def live(examples: int, steps: int) -> None:
    """Try so many lives of so many steps; needs `lease.clock` to be `CLOCK`."""
    checks = list(HealthCheck)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Life,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks
        ),
    )


def race(store: Store, times: int) -> dict[str, int]:
    """How often a job that was cancelled and finished at the same moment ended in which state."""
    shop, ends = Shop(store), {"succeeded": 0, "cancelled": 0}
    for _ in range(times):
        job = shop.job(queued=True)
        held = store.queue.claim()
        assert held and held.id == job.id
        start = threading.Barrier(2)

        def finish(held: JobRow = held, start: threading.Barrier = start) -> None:
            start.wait()
            with contextlib.suppress(LostJob):
                succeed(store, held)

        def cancel(job: JobRow = job, start: threading.Barrier = start) -> None:
            start.wait()
            with contextlib.suppress(Conflict):
                store.jobs.cancel(shop.key, job.id)

        threads = [threading.Thread(target=one) for one in (finish, cancel)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended = store.jobs.get(shop.key, job.id)
        assert sum(message.startswith(ENDS) for message in shop.messages(job)) == 1
        assert (ended.fine_tuned_model is not None) == (ended.state == "succeeded")
        ends[ended.state] += 1
    return ends
