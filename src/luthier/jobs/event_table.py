"""Events of jobs, numbered from 1 without a gap: the number is drawn under the job's own row lock, so they commit in order."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from luthier.jobs.database import Database, events, jobs, now
from luthier.jobs.errors import NotFound
from luthier.jobs.rows import EventRow, NewEvent, Page, storable


def append(connection: Connection, job: str, new: Sequence[NewEvent]) -> None:
    """Add events to a job, in this transaction."""
    if not new:
        return
    more = jobs.update().where(jobs.c.id == job).values(event_count=jobs.c.event_count + len(new))
    last = connection.execute(more.returning(jobs.c.event_count)).scalar_one()
    first = last - len(new) + 1
    rows: list[dict[str, Any]] = [
        {"job": job, "number": number, "created_at": now(), "level": event.level, "message": storable(event.message)}
        | {"data": None if event.data is None else dict(event.data)}
        for number, event in enumerate(new, start=first)
    ]
    connection.execute(events.insert(), rows)


class Events:
    """What happened to the jobs; whose job it is was asked before."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self, job: str, *, after: str | None = None, limit: int = 20) -> Page[EventRow]:
        """Events from the newest on, or those that are older than the one with the id `after`."""
        query = sa.select(events).where(events.c.job == job).order_by(events.c.number.desc()).limit(limit + 1)
        if after is not None:
            query = query.where(events.c.number < number_of(job, after))
        with self._database.reading() as connection:
            found = [_of(row) for row in connection.execute(query).mappings()]
        return Page(tuple(found[:limit]), len(found) > limit)

    def since(self, job: str, number: int, *, limit: int = 500) -> Sequence[EventRow]:
        """Events from the one behind this number on, the oldest first."""
        query = (
            sa.select(events)
            .where(events.c.job == job, events.c.number > number)
            .order_by(events.c.number)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [_of(row) for row in connection.execute(query).mappings()]


def number_of(job: str, event: str) -> int:
    """The number of the event with this id; raises NotFound where no event of the job can have it."""
    head, _, number = event.rpartition("-")
    if (
        head != f"ftevent-{job.removeprefix('ftjob-')}"
        or not number.isascii()
        or not number.isdigit()
        or len(number) > 18
    ):
        raise NotFound(f"No such event of {job}: {event[:80]}", param="after")
    return int(number)


def _of(row: RowMapping) -> EventRow:
    return EventRow(row["job"], row["number"], row["created_at"], row["level"], row["message"], row["data"])
