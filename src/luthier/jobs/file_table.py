"""Files of the service: kept under an id of ours, whatever the client calls them, and looked up by that id alone."""

import re
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from luthier.jobs.database import Database, files, jobs, now
from luthier.jobs.errors import InUse, NotFound
from luthier.jobs.limits import Limits, expect_room
from luthier.jobs.rows import ACTIVE, FileRow, Order, Page, new_id, storable
from luthier.runs import durable

ID = re.compile(r"file-[a-z0-9]{24}")


class Files:
    """The files of all keys; each key sees its own. Their content lies in one folder."""

    def __init__(self, database: Database, folder: Path, limits: Limits) -> None:
        self._database, self.folder, self._limits = database, folder, limits

    def add(
        self,
        key: str,
        *,
        filename: str,
        purpose: str,
        content: Path,
        bytes: int,
        sha256: str,
        expires_after: int | None = None,
        suffix: str = ".jsonl",
    ) -> FileRow:
        """Take over a file, which must lie on the same disk and is moved; raises QuotaExceeded before that.

        `expires_after` is in seconds from now. `suffix` says what kind of file it is to those who read it.
        """
        assert re.fullmatch(r"\.[a-z0-9]{1,10}", suffix), suffix
        made = now()
        row = FileRow(
            new_id("file-"),
            key,
            storable(filename),
            purpose,
            bytes,
            sha256,
            made,
            made + expires_after if expires_after else None,
        )
        with self._database.writing() as connection:
            expect_room(connection, self._limits, key, bytes, param="file")
            self.insert(connection, row, suffix)
            durable.move(content, self.folder / f"{row.id}{suffix}")  # before the commit: no row is without its content
        return row

    def insert(self, connection: Connection, row: FileRow, suffix: str) -> None:
        """Enter a file whose content is, or will be, in its place when the transaction ends."""
        values = {name: getattr(row, name) for name in FileRow.__dataclass_fields__}
        connection.execute(files.insert().values(**values))

    def get(self, key: str, file: str) -> FileRow:
        with self._database.reading() as connection:
            return _of(_existing(connection, key, file))

    def named(self, key: str, filename: str, *, sha256: str | None = None) -> FileRow | None:
        """The key's newest file of this name, or of this name and content."""
        where = (files.c.key == key) & files.c.deleted_at.is_(None) & (files.c.filename == filename)
        where = where if sha256 is None else where & (files.c.sha256 == sha256)
        with self._database.reading() as connection:
            query = sa.select(files).where(where).order_by(files.c.number.desc()).limit(1)
            row = connection.execute(query).mappings().first()
            return None if row is None else _of(row)

    def path(self, key: str, file: str) -> Path:
        """Where its content is."""
        self.get(key, file)
        return self.location(file)

    def location(self, file: str) -> Path:
        """Where the content of a file with this id is, whoever's it is."""
        assert ID.fullmatch(file), file
        found = sorted(self.folder.glob(f"{file}.*"))
        if not found:
            raise NotFound(f"No such file: {file}; its content is gone.", param="file")
        return found[0]

    def list(
        self,
        key: str,
        *,
        after: str | None = None,
        limit: int = 10000,
        order: Order = "desc",
        purpose: str | None = None,
    ) -> Page[FileRow]:
        """Files by their age; `after` is the id of the last one that was seen, which may be deleted since."""
        query = sa.select(files).where(files.c.key == key, files.c.deleted_at.is_(None))
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        newest = order == "desc"
        query = query.order_by(files.c.number.desc() if newest else files.c.number).limit(limit + 1)
        with self._database.reading() as connection:
            if after is not None:
                where = (files.c.id == after) & (files.c.key == key)
                number = connection.execute(sa.select(files.c.number).where(where)).scalar()
                if number is None:
                    raise NotFound(f"No such file: {after}", param="after")
                query = query.where(files.c.number < number if newest else files.c.number > number)
            found = [_of(row) for row in connection.execute(query).mappings()]
        return Page(tuple(found[:limit]), len(found) > limit)

    def delete(self, key: str, file: str) -> None:
        """Delete a file; raises InUse where a job that is not finished needs it."""
        with self._database.writing() as connection:
            _existing(connection, key, file)
            if needed_by := jobs_that_need(connection, file):
                raise InUse(
                    f"{file} is needed by {', '.join(needed_by)}; wait until it has finished, or cancel it first.",
                    code="file_in_use",
                    param="file_id",
                )
            connection.execute(files.update().where(files.c.id == file).values(deleted_at=now()))
        self.remove_content(file)

    def expired(self) -> Sequence[FileRow]:
        """Files whose time has come and that no unfinished job needs."""
        query = sa.select(files).where(files.c.deleted_at.is_(None), files.c.expires_at <= now())
        with self._database.reading() as connection:
            rows = [_of(row) for row in connection.execute(query).mappings()]
            return [row for row in rows if not jobs_that_need(connection, row.id)]

    def remove_content(self, file: str) -> None:
        for path in self.folder.glob(f"{file}.*"):
            durable.remove(path)

    def remove_strays(self) -> int:
        """Remove content that has no row: of deletions and uploads that a crash cut short. How many there were."""
        with self._database.reading() as connection:
            known = set(connection.execute(sa.select(files.c.id).where(files.c.deleted_at.is_(None))).scalars())
        strays = [path for path in self.folder.glob("file-*") if path.name.partition(".")[0] not in known]
        for path in strays:
            durable.remove(path)
        return len(strays)


def jobs_that_need(connection: Connection, file: str) -> list[str]:
    """The unfinished jobs that were given this file."""
    uses = (jobs.c.training_file == file) | (jobs.c.validation_file == file)
    return list(connection.execute(sa.select(jobs.c.id).where(uses, jobs.c.state.in_(ACTIVE))).scalars())


def _existing(connection: Connection, key: str, file: str) -> RowMapping:
    where = (files.c.id == file) & (files.c.key == key) & files.c.deleted_at.is_(None)
    row = connection.execute(sa.select(files).where(where)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"No such File object: {file}", param="id")
    return row


def expect_files(connection: Connection, key: str, named: dict[str, str | None]) -> None:
    """Raises NotFound where a job is given a file that is not there; `named` by the request's parameter."""
    for param, file in named.items():
        if file is not None:
            try:
                _existing(connection, key, file)
            except NotFound:
                raise NotFound(f"{param} {file} does not exist.", code="file_not_found", param=param) from None


def _of(row: RowMapping) -> FileRow:
    return FileRow(**{name: row[name] for name in FileRow.__dataclass_fields__})
