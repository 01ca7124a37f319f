"""What the service remembers: keys, files, jobs, events; who sees what, and what happens when two want the same."""

import sqlite3
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job_service import Shop, upload
from luthier.errors import MachineError, UserError
from luthier.jobs import database, lease, model_table
from luthier.jobs.database import jobs
from luthier.jobs.errors import Conflict, InUse, InvalidRequest, LostJob, NotFound, QuotaExceeded
from luthier.jobs.limits import Limits
from luthier.jobs.rows import FileRow, JobError, JobSpec, ModelRow, NewEvent
from luthier.jobs.service import Jobs
from luthier.jobs.store import Store

from .conftest import POSTGRES

on_sqlite = pytest.mark.skipif(bool(POSTGRES), reason="looks into SQLite's own file")


@on_sqlite
def test_a_secret_opens_its_key_and_is_nowhere_in_the_database(store: Store) -> None:
    key, secret = store.keys.create("me")
    assert store.keys.verify(secret) == key
    assert store.keys.verify(secret + "x") is None and store.keys.verify("\ud800") is None
    store.close()
    content = b"".join(path.read_bytes() for path in store.home.glob("luthier.db*"))
    assert key.encode() in content and secret.encode() not in content


def test_a_revoked_key_opens_nothing_until_it_is_added_again(store: Store) -> None:
    key = store.keys.add("env", "chosen")
    assert store.keys.revoke(key) and not store.keys.revoke(key)
    assert store.keys.verify("chosen") is None and store.keys.count() == 0
    assert store.keys.add("env", "chosen") == key == store.keys.verify("chosen")


def test_the_home_is_for_nobody_else_on_the_machine(store: Store) -> None:
    assert [path.stat().st_mode & 0o077 for path in (store.home, store.uploads, store.home / "runs")] == [0, 0, 0]


@pytest.mark.parametrize("name", ["../../x", "..\\..\\x", "C:x", "\0", "x" * 5000, ".", "CON", "/etc/passwd", "\ud800"])
def test_a_files_name_is_kept_and_is_never_a_path(shop: Shop, name: str) -> None:
    before = set(shop.store.home.parent.rglob("*"))
    file = shop.upload(filename=name)
    new = set(shop.store.home.parent.rglob("*")) - before
    assert new == {shop.store.home / "files" / f"{file.id}.jsonl"}
    assert shop.store.files.get(shop.key, file.id).filename == name.replace("\0", "\ufffd").replace("\ud800", "\ufffd")


def test_a_key_sees_nothing_of_another_one(shop: Shop) -> None:
    other, job = shop.store.keys.create("other")[0], shop.job()
    for look in (
        lambda: shop.store.files.get(other, job.training_file),
        lambda: shop.store.files.list(other, after=job.training_file),
        lambda: shop.store.jobs.get(other, job.id),
        lambda: shop.store.jobs.get_by_number(other, job.number),
        lambda: shop.store.jobs.cancel(other, job.id),
        lambda: shop.store.jobs.create(JobSpec(other, "tiny", "tiny", job.training_file)),
    ):
        with pytest.raises(NotFound):
            look()
    assert shop.store.jobs.list(other).rows == () == shop.store.files.list(other).rows


def test_a_file_that_a_job_needs_is_not_deleted(shop: Shop) -> None:
    job = shop.job()
    with pytest.raises(InUse, match=f"needed by {job.id}"):
        shop.store.files.delete(shop.key, job.training_file)
    shop.store.jobs.cancel(shop.key, job.id)
    shop.store.files.delete(shop.key, job.training_file)
    assert list((shop.store.home / "files").iterdir()) == []
    with pytest.raises(NotFound):
        shop.store.files.get(shop.key, job.training_file)


def test_a_list_is_paged_on_though_its_cursor_was_deleted(shop: Shop) -> None:
    made = [shop.upload(f"{n}").id for n in range(5)]
    first = shop.store.files.list(shop.key, limit=2)
    for row in first.rows:
        shop.store.files.delete(shop.key, row.id)
    rest = shop.store.files.list(shop.key, limit=5, after=first.rows[-1].id)
    assert [row.id for row in first.rows + rest.rows] == made[::-1] and first.has_more and not rest.has_more
    assert [row.id for row in shop.store.files.list(shop.key, order="asc").rows] == made[:3]


def test_files_without_a_row_are_removed_and_expired_ones_are_found(shop: Shop) -> None:
    kept, late = shop.upload("a"), shop.upload("b", expires_after=-1)
    needed = shop.job(training_file=shop.upload("c", expires_after=-1).id)
    (shop.store.home / "files" / "file-stray.jsonl").write_text("")
    assert shop.store.files.remove_strays() == 1 and shop.store.files.path(shop.key, kept.id).is_file()
    assert [row.id for row in shop.store.files.expired()] == [late.id]
    assert needed.training_file != late.id


def test_room_is_refused_per_key_and_in_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "home", limits=Limits(bytes_per_key=10, bytes_in_all=15, jobs_per_key=1))
    a, b = (store.keys.create(name)[0] for name in "ab")
    file = upload(store, a, b"12345678")
    with pytest.raises(QuotaExceeded, match="10 bytes are allowed for this key, 8 bytes are used, and 3 bytes more"):
        upload(store, a, b"123")
    with pytest.raises(QuotaExceeded, match="15 bytes are allowed for all keys together"):
        upload(store, b, b"12345679")
    assert store.used_bytes() == store.used_bytes(a) == 8
    store.jobs.create(JobSpec(a, "m", "m", file.id))
    with pytest.raises(QuotaExceeded, match="1 jobs of this key are not finished, and 1 are allowed"):
        store.jobs.create(JobSpec(a, "m", "m", file.id))
    store.close()


def test_the_same_request_with_its_idempotency_key_makes_one_job(shop: Shop) -> None:
    file = shop.upload().id
    spec = JobSpec(shop.key, "tiny", "tiny", file, suffix="a")
    first = shop.store.jobs.create(spec, idempotency_key="k")
    assert shop.store.jobs.create(spec, idempotency_key="k") == first
    assert shop.store.jobs.create(spec, idempotency_key="other").id != first.id
    with pytest.raises(Conflict, match="another request") as error:
        shop.store.jobs.create(JobSpec(shop.key, "tiny", "tiny", file, suffix="b"), idempotency_key="k")
    assert error.value.code == "idempotency_key_reused"


WRONG: list[tuple[dict[str, object], str]] = [
    ({"method": "reinforcement"}, "method.type"),
    ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
    ({"hyperparameters": {"n_epochs": 1.5}}, "hyperparameters.n_epochs"),
    ({"hyperparameters": {"n_epochs": True}}, "hyperparameters.n_epochs"),
    ({"hyperparameters": {"batch_size": 10**6}}, "hyperparameters.batch_size"),
    ({"hyperparameters": {"learning_rate_multiplier": float("nan")}}, "hyperparameters.learning_rate_multiplier"),
    ({"hyperparameters": {"learning_rate_multiplier": -1}}, "hyperparameters.learning_rate_multiplier"),
    ({"hyperparameters": {"beta": 0.1}}, "hyperparameters.beta"),
    ({"hyperparameters": {"epochs": 3}}, "hyperparameters.epochs"),
    ({"suffix": "a:b"}, "suffix"),
    ({"suffix": "x" * 65}, "suffix"),
    ({"suffix": ""}, "suffix"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**80}, "seed"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
    ({"metadata": {"a": "x" * 513}}, "metadata"),
    ({"metadata": {"a": "\0"}}, "metadata"),
    ({"metadata": {"\ud800": ""}}, "metadata"),
    ({"settings": {"train.no_such": 1}}, "settings"),
    ({"settings": {"model": "/etc"}}, "settings"),
    ({"settings": {"train.seed": 1}}, "settings"),
    ({"settings": {"train.max_steps": 0}}, "settings"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=lambda value: str(value)[:60])
def test_what_is_not_allowed_is_said_when_it_is_asked(shop: Shop, fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        shop.job(**fields)
    assert error.value.param == param
    assert shop.store.jobs.list(shop.key).rows == ()


def test_a_file_that_is_not_there_is_named_by_its_parameter(shop: Shop) -> None:
    for name in ("training_file", "validation_file"):
        with pytest.raises(NotFound) as error:
            shop.job(**{name: "file-nothere"})
        assert (error.value.code, error.value.param) == ("file_not_found", name)


def test_jobs_are_listed_by_what_they_carry(shop: Shop) -> None:
    made = [shop.job(metadata={"n": str(n % 2), "all": "yes"}).id for n in range(6)]
    page = shop.store.jobs.list(shop.key, metadata={"n": "0"}, limit=2)
    assert [row.id for row in page.rows] == [made[4], made[2]] and page.has_more
    rest = shop.store.jobs.list(shop.key, metadata={"n": "0"}, limit=2, after=made[2])
    assert [row.id for row in rest.rows] == [made[0]] and not rest.has_more


@pytest.mark.parametrize(
    ("model", "suffix", "name"),
    [
        ("tiny", None, "ft:tiny:luthier::{id}"),
        ("org/tiny:8b", "My Bot_2", "ft:org/tiny:8b:luthier:my-bot-2:{id}"),
        ("ft:org/tiny:8b:luthier:a-b:abcd1234", None, "ft:org/tiny:8b:luthier::{id}"),
        ("ft:tiny:luthier::abcd1234:ckpt-step-20", "x", "ft:tiny:luthier:x:{id}"),
    ],
)
def test_a_tuned_model_bears_the_name_of_its_first_base(shop: Shop, model: str, suffix: str | None, name: str) -> None:
    job = shop.job(model=model, suffix=suffix)
    assert model_table.name_of(job) == name.format(id=job.id[-8:])
    assert model_table.name_of(job, 7) == model_table.name_of(job) + ":ckpt-step-7"


# The queue


def test_a_key_with_one_job_is_served_before_the_hundredth_of_another(shop: Shop) -> None:
    many = [shop.job(queued=True).id for _ in range(8)]
    other = shop.store.keys.create("other")[0]
    one = shop.job(other, queued=True)
    taken = [shop.store.queue.claim() for _ in range(4)]
    assert [job.id for job in taken if job] == [many[0], one.id, many[1], many[2]]


def test_keys_take_turns_where_one_slot_is_free_at_a_time(shop: Shop) -> None:
    other = shop.store.keys.create("other")[0]
    for _ in range(3):
        shop.job(queued=True)
        shop.job(other, queued=True)
    turns = []
    while job := shop.store.queue.claim():
        turns.append(job.key)
        shop.store.jobs.cancel(job.key, job.id)
    assert turns == [shop.key, other] * 3


def test_two_jobs_in_the_same_place_of_the_queue_are_two_jobs(shop: Shop) -> None:
    made = [shop.job(queued=True).id for _ in range(2)]
    with shop.store.database.writing() as connection:
        connection.execute(jobs.update().values(queued=1))  # as two workers of PostgreSQL may number them
    assert [job.id for job in (shop.store.queue.claim(), shop.store.queue.claim()) if job] == made


def test_the_same_request_at_the_same_moment_makes_one_job(shop: Shop) -> None:
    spec = JobSpec(shop.key, "tiny", "tiny", shop.upload().id)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: shop.store.jobs.create(spec, idempotency_key="k").id, range(8)))
    assert len(set(made)) == 1 and len(shop.store.jobs.list(shop.key).rows) == 1


class Clock:
    """The machine's clock, and its starts, in a test's hand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.time, self.start = 1000.0, "first"
        patch.setattr(lease, "clock", lambda: self.time)
        patch.setattr(lease, "boot", lambda: self.start)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_who_was_silent_for_too_long_has_lost_the_job_and_writes_nothing(shop: Shop, clock: Clock) -> None:
    queue, job = shop.store.queue, shop.job(queued=True)
    old = queue.claim()
    assert old
    clock.time += 29
    queue.beat(old)
    clock.time += 29
    assert queue.claim() is None  # still within the lease that was renewed
    clock.time += 2
    new = queue.claim()
    assert new and (new.id, new.fence, new.attempts) == (job.id, 2, 2)
    for late in (
        lambda: queue.beat(old),
        lambda: queue.record(old, [NewEvent("late")], log_offset=10**6),
        lambda: queue.release(old),
        lambda: queue.put_back(old, "late"),
    ):
        with pytest.raises(LostJob):
            late()
    assert "late" not in "".join(shop.messages(job)) and shop.store.jobs.get(shop.key, job.id).log_offset == 0
    queue.beat(new)


def test_no_lease_outlives_a_start_of_the_machine(shop: Shop, clock: Clock) -> None:
    shop.job(queued=True)
    assert shop.store.queue.claim()
    clock.time, clock.start = 3.0, "second"  # the clock begins anew
    taken = shop.store.queue.claim()
    assert taken and taken.fence == 2


def test_a_job_that_loses_its_worker_each_time_fails_with_the_reason(shop: Shop, clock: Clock) -> None:
    job = shop.job(queued=True)
    for attempt in (1, 2, 3):
        taken = shop.store.queue.claim()
        assert taken and taken.attempts == attempt
        clock.time += 31
    assert shop.store.queue.claim() is None
    ended = shop.store.jobs.get(shop.key, job.id)
    assert ended.state == "failed" and ended.error and ended.error.code == "worker_lost"
    assert "started 3 times without a step forward" in ended.error.message


def test_files_whose_check_ends_the_worker_each_time_are_given_up(shop: Shop) -> None:
    job = shop.job()
    assert [shop.store.queue.checking(job.id) for _ in range(5)] == [True, True, True, False, False]
    ended = shop.store.jobs.get(shop.key, job.id)
    assert ended.state == "failed" and ended.error and ended.error.code == "worker_lost"
    assert "Checking its files ended the worker 3 times" in ended.error.message


def test_a_pause_that_was_asked_holds_though_the_worker_is_gone(shop: Shop, clock: Clock) -> None:
    job = shop.job(queued=True)
    assert shop.store.queue.claim()
    shop.store.jobs.pause(shop.key, job.id)
    clock.time += 31
    assert shop.store.queue.claim() is None
    assert shop.store.jobs.get(shop.key, job.id).state == "paused"


def test_a_failed_job_is_resumed_where_its_api_knows_that(shop: Shop) -> None:
    refused, run = shop.job(), shop.job(queued=True)
    shop.store.queue.refuse(refused.id, JobError("invalid_file", "no rows"))
    taken = shop.store.queue.claim()
    assert taken and taken.id == run.id
    shop.store.queue.fail(taken, JobError("machine_error", "no memory"))
    for job, state in ((refused, "validating_files"), (run, "queued")):
        with pytest.raises(Conflict, match="has already failed"):
            shop.store.jobs.resume(shop.key, job.id)
        again = shop.store.jobs.resume(shop.key, job.id, failed=True)
        assert (again.state, again.error, again.finished_at) == (state, None, None)
    shop.store.jobs.cancel(shop.key, run.id)
    with pytest.raises(Conflict, match="has already been cancelled"):
        shop.store.jobs.resume(shop.key, run.id, failed=True)
    shop.store.queue.refuse(refused.id, JobError("invalid_file", "no rows"))
    shop.store.files.delete(shop.key, refused.training_file)
    with pytest.raises(NotFound, match="does not exist"):
        shop.store.jobs.resume(shop.key, refused.id, failed=True)


def test_old_runs_without_a_model_are_removed_and_their_jobs_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Jobs(tmp_path / "home", keep_days=3)
    shop = Shop(service.store)
    failed, tuned, waiting = (shop.job(queued=True) for _ in range(3))
    for job in (failed, tuned):
        taken = shop.store.queue.claim()
        assert taken and taken.id == job.id
        (folder := shop.store.run_folder(job.id)).mkdir()
        (folder / "report.html").write_text("x")
        if job is failed:
            shop.store.queue.fail(taken, JobError("machine_error", "no memory"), disk_bytes=1)
        else:
            model = ModelRow("ft:tiny:luthier::1", shop.key, job.id, "tiny", f"runs/{job.id}/model", 1)
            result = FileRow("file-" + "r" * 24, shop.key, "r.csv", "fine-tune-results", 0, "", 1)
            shop.store.queue.succeed(taken, [model], result, trained_tokens=1, disk_bytes=1)
    assert service.remove_old_runs(days=3) == []
    monkeypatch.setattr("luthier.jobs.service.now", lambda: database.now() + 4 * 86400)
    assert [row.id for row in service.remove_old_runs(days=3)] == [failed.id]
    assert not shop.store.run_folder(failed.id).exists() and shop.store.run_folder(tuned.id).exists()
    assert shop.store.jobs.get(shop.key, failed.id).disk_bytes == 0
    assert shop.store.jobs.get(shop.key, waiting.id).state == "queued"
    service.store.close()


def test_the_file_of_a_name_and_a_content_is_found(shop: Shop) -> None:
    first, second = shop.upload("a"), shop.upload("b")
    shop.upload("a", key=shop.store.keys.create("other")[0])
    files = shop.store.files
    assert files.named(shop.key, "rows.jsonl") == second
    assert files.named(shop.key, "rows.jsonl", sha256=first.sha256) == first
    files.delete(shop.key, first.id)
    assert files.named(shop.key, "rows.jsonl", sha256=first.sha256) is None and files.named(shop.key, "x") is None


def test_a_finished_job_is_neither_paused_resumed_nor_cancelled(shop: Shop) -> None:
    job = shop.job(queued=True)
    held = shop.store.queue.claim()
    assert held
    with pytest.raises(Conflict, match="is running, not paused"):
        shop.store.jobs.resume(shop.key, job.id)
    shop.store.jobs.cancel(shop.key, job.id)
    assert shop.store.jobs.cancel(shop.key, job.id).state == "cancelled"  # again is as once
    for change in (shop.store.jobs.pause, shop.store.jobs.resume):
        with pytest.raises(Conflict, match="has already been cancelled"):
            change(shop.key, job.id)
    with pytest.raises(LostJob):
        shop.store.queue.beat(held)
    assert shop.messages(job).count("Fine-tuning job cancelled") == 1


# Events


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(1, 5))
def test_events_are_paged_without_gap_or_repeat_while_more_come(batches: list[int], limit: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        shop = Shop(store)
        job = shop.job(queued=True)
        held = store.queue.claim()
        assert held
        seen, cursor, more = [], None, True
        start = store.jobs.get(shop.key, job.id).event_count
        while more:
            page = store.events.newest(job.id, after=cursor, limit=limit)
            seen += [event.number for event in page.rows]
            cursor, more = page.rows[-1].id, page.has_more
            if batches:
                store.queue.record(held, [NewEvent(str(n)) for n in range(batches.pop())])
        assert seen == list(range(start, 0, -1))
        ahead = store.events.since(job.id, 0, limit=10**4)
        assert [event.number for event in ahead] == list(range(1, store.jobs.get(shop.key, job.id).event_count + 1))
        store.close()


@pytest.mark.parametrize("cursor", ["ftevent-x-1", "", "ftevent-", "1"])
def test_a_cursor_of_no_event_is_refused(shop: Shop, cursor: str) -> None:
    with pytest.raises(NotFound):
        shop.store.events.newest(shop.job().id, after=cursor)


# Homes and databases


@on_sqlite
def test_a_database_of_a_newer_version_is_refused(store: Store) -> None:
    with sqlite3.connect(store.home / "luthier.db") as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'schema'")
    connection.close()
    with pytest.raises(UserError, match="version 99 of its tables, made by a newer Luthier; this one knows version 1"):
        Store(store.home)


def test_a_database_is_not_shared_by_two_homes(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="belongs to the service of another folder"):
        Store(tmp_path / "second", store.url)


def test_a_network_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = namedtuple("part", "mountpoint fstype")
    monkeypatch.setattr(
        psutil, "disk_partitions", lambda all: [part("/", "ext4"), part(str(tmp_path.resolve()), "nfs4")]
    )
    with pytest.raises(UserError, match=r"network disk \(nfs4\), where SQLite's locks do not hold"):
        Store(tmp_path / "home")


def test_a_database_without_a_driver_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no driver for this database"):
        Store(tmp_path / "home", "postgresql+nosuch://x/y")


def test_a_full_disk_is_told_and_loses_no_row(small_disk: Path) -> None:
    store = Store(small_disk / "home")
    shop = Shop(store)
    job = shop.job()
    with pytest.raises(MachineError, match="make room"):
        for _ in range(2000):
            shop.job(training_file=job.training_file, metadata={str(n): "x" * 500 for n in range(16)})
    assert store.jobs.get(shop.key, job.id) == job
    store.close()
    assert Store(small_disk / "home").jobs.get(shop.key, job.id) == job
