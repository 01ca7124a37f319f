"""Jobs as clients see them: created once, listed, cancelled, paused and resumed. The table is the queue as well (`queue`).

    validating_files → queued → running → succeeded | failed
              ⇅           ⇅        ↓            (cancelled from all but these two)
              paused ←─────────────┘            at the end of a step; for want of room by itself

Each change is one statement that names the state it starts from, so of two that race one finds nothing to change.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from luthier.jobs import hyperparameters
from luthier.jobs.database import Database, idempotency, jobs, now
from luthier.jobs.errors import Conflict, NotFound
from luthier.jobs.event_table import append
from luthier.jobs.file_table import expect_files
from luthier.jobs.limits import Limits, expect_room, expect_room_in_queue
from luthier.jobs.rows import ACTIVE, JobError, JobRow, JobSpec, NewEvent, Page, State, new_id


class JobTable:
    """The jobs of all keys; each key sees its own."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database, self._limits = database, limits

    def create(self, spec: JobSpec, *, idempotency_key: str | None = None) -> JobRow:
        """A new job, or the one that the same request with the same idempotency key has made before.

        Raises InvalidRequest for values that are not allowed, NotFound for files that are not there, QuotaExceeded, and
        Conflict where the idempotency key came with another request.
        """
        hyperparameters.check(spec)
        with contextlib.suppress(
            sa.exc.IntegrityError
        ):  # the same request came at the same moment, and has made the job
            return self._create(spec, idempotency_key)
        return self._create(spec, idempotency_key)

    def _create(self, spec: JobSpec, idempotency_key: str | None) -> JobRow:
        request = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True, default=str).encode()).hexdigest()
        with self._database.writing() as connection:
            if idempotency_key is not None:
                where = (idempotency.c.key == spec.key) & (idempotency.c.word == idempotency_key)
                known = connection.execute(sa.select(idempotency).where(where)).mappings().one_or_none()
                if known is not None:
                    if known["request"] != request:
                        raise Conflict(
                            "this Idempotency-Key came with another request before; take a new one for each request.",
                            code="idempotency_key_reused",
                        )
                    return _existing(connection, spec.key, known["job"])
            expect_room_in_queue(connection, self._limits, spec.key)
            expect_room(connection, self._limits, spec.key, 1, param="training_file")
            named = {"training_file": spec.training_file, "validation_file": spec.validation_file}
            expect_files(connection, spec.key, named)
            row = _insert(connection, spec)
            if idempotency_key is not None:
                values = {"key": spec.key, "word": idempotency_key, "request": request, "job": row}
                connection.execute(idempotency.insert().values(**values))
            return _existing(connection, spec.key, row)

    def get(self, key: str, job: str) -> JobRow:
        with self._database.reading() as connection:
            return _existing(connection, key, job)

    def get_by_number(self, key: str, number: int) -> JobRow:
        """The job with this number, for APIs whose ids are numbers."""
        with self._database.reading() as connection:
            where = (jobs.c.number == number) & (jobs.c.key == key)
            job = connection.execute(sa.select(jobs.c.id).where(where)).scalar()
            if job is None:
                raise NotFound(f"There is no job {number}.", param="job_id")
            return _existing(connection, key, job)

    def list(
        self,
        key: str,
        *,
        after: str | None = None,
        limit: int = 20,
        metadata: Mapping[str, str] | None = None,
        kind: str | None = None,
    ) -> Page[JobRow]:
        """Jobs from the newest on; with `metadata`, those that have all of these pairs."""
        found: list[JobRow] = []
        with self._database.reading() as connection:
            before = None if after is None else _existing(connection, key, after).number
            query = sa.select(jobs).where(jobs.c.key == key).order_by(jobs.c.number.desc())
            query = query if before is None else query.where(jobs.c.number < before)
            query = query if kind is None else query.where(jobs.c.kind == kind)
            query = query if metadata else query.limit(limit + 1)
            for row in connection.execute(query).mappings():
                if metadata is None or metadata.items() <= row["metadata"].items():
                    found.append(job_of(row))
                    if len(found) > limit:
                        break
        return Page(tuple(found[:limit]), len(found) > limit)

    def cancel(self, key: str, job: str) -> JobRow:
        """Cancel a job, now and for good; a training stops at the end of its step. Again is as once."""
        with self._database.writing() as connection:
            done = _change(
                connection, key, job, ACTIVE, state="cancelled", wish="", finished_at=now(), lease_until=None
            )
            if done:
                append(connection, job, [NewEvent("Fine-tuning job cancelled", "warn")])
            found = _existing(connection, key, job)
            if found.state != "cancelled":
                raise Conflict(f"Job has already {_ENDED[found.state]}: {job}", param="fine_tuning_job_id")
            return found

    def pause(self, key: str, job: str) -> JobRow:
        """Pause a job; one that runs is asked to, and is paused at the end of its step. Again is as once."""
        with self._database.writing() as connection:
            if _change(connection, key, job, ("validating_files", "queued"), state="paused", wish=""):
                append(connection, job, [NewEvent("Fine-tuning job paused")])
            elif _change(connection, key, job, ("running",), wish="pause"):
                append(connection, job, [NewEvent("Pausing at the end of the current step")])
            found = _existing(connection, key, job)
            if found.is_finished:
                raise Conflict(f"Job has already {_ENDED[found.state]}: {job}", param="fine_tuning_job_id")
            return found

    def resume(self, key: str, job: str, *, failed: bool = False) -> JobRow:
        """Put a paused job back into the queue, or take back that a running one should pause.

        With `failed`, a job that has failed as well: it goes on from the last checkpoint of its run. Raises QuotaExceeded
        where there is still no room for it.
        """
        with self._database.writing() as connection:
            last = sa.select(sa.func.coalesce(sa.func.max(jobs.c.queued), 0) + 1).scalar_subquery()
            where = (jobs.c.id == job) & (jobs.c.key == key)
            stopped = where & jobs.c.state.in_(("paused", "failed") if failed else ("paused",))
            if connection.execute(sa.select(sa.exists().where(stopped))).scalar():
                expect_room(connection, self._limits, key, 0, param="fine_tuning_job_id")
                if failed:
                    found = _existing(connection, key, job)
                    named = {"training_file": found.training_file, "validation_file": found.validation_file}
                    expect_files(connection, key, named)
            fresh = {"error": None, "finished_at": None, "attempts": 0}
            unchecked = stopped & (jobs.c.queued == 0)  # its files were never looked at, or found wanting
            back = connection.execute(jobs.update().where(unchecked).values(state="validating_files", **fresh)).rowcount
            back += connection.execute(
                jobs.update().where(stopped).values(state="queued", queued=last, **fresh)
            ).rowcount
            back += connection.execute(
                jobs.update().where(where, jobs.c.state == "running", jobs.c.wish == "pause").values(wish="")
            ).rowcount
            if back:
                append(connection, job, [NewEvent("Fine-tuning job resumed")])
            found = _existing(connection, key, job)
            if not back:
                words = f"has already {_ENDED[found.state]}" if found.is_finished else f"is {found.state}, not paused"
                raise Conflict(f"Job {words}: {job}", param="fine_tuning_job_id")
            return found


_ENDED: dict[State, str] = {"succeeded": "completed", "failed": "failed", "cancelled": "been cancelled"}
_FIELDS = tuple(field.name for field in fields(JobRow))


def job_of(row: RowMapping) -> JobRow:
    """A job from its row."""
    values: dict[str, Any] = {name: row[name] for name in _FIELDS}
    values["error"] = JobError(**values["error"]) if values["error"] else None
    values["result_files"] = tuple(values["result_files"])
    return JobRow(**values)


def _existing(connection: Connection, key: str, job: str) -> JobRow:
    where = (jobs.c.id == job) & (jobs.c.key == key)
    row = connection.execute(sa.select(jobs).where(where)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"Could not find fine tune: {job[:80]}", code="fine_tune_not_found", param="fine_tuning_job_id")
    return job_of(row)


def _change(connection: Connection, key: str, job: str, states: tuple[State, ...], **values: object) -> bool:
    """Change a job that is in one of these states, and to something else than it is; whether it did."""
    where = (jobs.c.id == job) & (jobs.c.key == key) & jobs.c.state.in_(states)
    if values.keys() == {"wish"}:
        where &= jobs.c.wish != values["wish"]
    return connection.execute(jobs.update().where(where).values(**values)).rowcount == 1


def _insert(connection: Connection, spec: JobSpec) -> str:
    """Enter a job, with its first events; its id."""
    job = new_id("ftjob-")
    values: dict[str, Any] = {**{field.name: getattr(spec, field.name) for field in fields(spec)}, "id": job}
    for name in ("hyperparameters", "metadata", "settings"):
        values[name] = dict(values[name])
    seed = int(hashlib.sha256(job.encode()).hexdigest()[:7], 16) if spec.seed is None else spec.seed
    connection.execute(
        jobs.insert().values(**values | {"seed": seed, "state": "validating_files", "created_at": now()})
    )
    beside = f" and validation file: {spec.validation_file}" if spec.validation_file else ""
    append(
        connection,
        job,
        [
            NewEvent(f"Created fine-tuning job: {job}"),
            NewEvent(f"Validating training file: {spec.training_file}{beside}"),
        ],
    )
    return job
