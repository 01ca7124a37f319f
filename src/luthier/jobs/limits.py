"""How much a key, and all of them together, may keep on the disk and in the queue."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

from luthier.jobs.database import files, jobs
from luthier.jobs.errors import QuotaExceeded
from luthier.jobs.rows import ACTIVE
from luthier.runs.durable import format_bytes


@dataclass(frozen=True)
class Limits:
    """None is no limit."""

    bytes_per_key: int | None = None
    """Of files and runs together."""
    bytes_in_all: int | None = None
    jobs_per_key: int = 1000
    """That wait, run or are paused."""

    @property
    def of_bytes(self) -> bool:
        """Whether the disk is limited at all."""
        return self.bytes_per_key is not None or self.bytes_in_all is not None


def used_bytes(connection: Connection, key: str | None = None) -> int:
    """What a key's files and runs take on the disk, or those of all keys."""
    kept, made = sa.func.coalesce(sa.func.sum(files.c.bytes), 0), sa.func.coalesce(sa.func.sum(jobs.c.disk_bytes), 0)
    of_files, of_jobs = sa.select(kept).where(files.c.deleted_at.is_(None)), sa.select(made)
    if key is not None:
        of_files, of_jobs = of_files.where(files.c.key == key), of_jobs.where(jobs.c.key == key)
    return int(connection.execute(of_files).scalar_one()) + int(connection.execute(of_jobs).scalar_one())


def expect_room(connection: Connection, limits: Limits, key: str, more: int, *, param: str) -> None:
    """Raises QuotaExceeded where `more` bytes would be too many."""
    for limit, whose, owner in (
        (limits.bytes_per_key, "this key", key),
        (limits.bytes_in_all, "all keys together", None),
    ):
        if limit is not None and (taken := used_bytes(connection, owner)) + more > limit:
            used = f"{format_bytes(taken)} are used" + (f", and {format_bytes(more)} more were to come" if more else "")
            raise QuotaExceeded(
                f"{format_bytes(limit)} are allowed for {whose}, {used}. Delete files or models that are no longer needed.",
                param=param,
            )


def expect_room_in_queue(connection: Connection, limits: Limits, key: str) -> None:
    """Raises QuotaExceeded where a key has as many unfinished jobs as it may have."""
    where = (jobs.c.key == key) & jobs.c.state.in_(ACTIVE)
    waiting = int(connection.execute(sa.select(sa.func.count()).select_from(jobs).where(where)).scalar_one())
    if waiting >= limits.jobs_per_key:
        raise QuotaExceeded(
            f"{waiting:,} jobs of this key are not finished, and {limits.jobs_per_key:,} are allowed. Wait for some of them, "
            "or cancel some.",
            code="too_many_jobs",
        )
