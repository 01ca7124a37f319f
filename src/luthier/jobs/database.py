"""The tables, and transactions over them: SQLite in a file of the service's home, or PostgreSQL; the same statements for both.

SQLite keeps a write-ahead log and flushes it at every commit (WAL, synchronous=FULL), so that what a client was told is there
after a power cut. A transaction that writes takes SQLite's one write lock at its beginning, where waiting is possible.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, make_url

from luthier.errors import CorruptedState, MachineError, UserError

SCHEMA = 1
"""Version of the tables; a database of a newer one is refused."""
DATABASE_VARIABLE = "LUTHIER_DATABASE"
"""The variable with the database's URL, which may hold a password and so is no argument of a command."""
BUSY_SECONDS = 20  # that a transaction waits for another one's

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_metadata = sa.MetaData()

meta = sa.Table("meta", _metadata, sa.Column("name", sa.String, primary_key=True), sa.Column("value", sa.String))
keys = sa.Table(
    "keys",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("hash", sa.String, nullable=False, unique=True),
    sa.Column("created_at", _NUMBER, nullable=False),
    sa.Column("revoked_at", _NUMBER),
)
files = sa.Table(
    "files",
    _metadata,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("key", sa.String, nullable=False, index=True),
    sa.Column("filename", sa.String, nullable=False),
    sa.Column("purpose", sa.String, nullable=False),
    sa.Column("bytes", _NUMBER, nullable=False),
    sa.Column("sha256", sa.String, nullable=False),
    sa.Column("created_at", _NUMBER, nullable=False),
    sa.Column("expires_at", _NUMBER),
    sa.Column("deleted_at", _NUMBER),  # the row stays: a client that pages through a list may have deleted its cursor
    sa.Index("files_by_name", "key", "filename"),
    sqlite_autoincrement=True,
)
jobs = sa.Table(
    "jobs",
    _metadata,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("key", sa.String, nullable=False, index=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False, index=True),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("reference", sa.String, nullable=False),
    sa.Column("training_file", sa.String, nullable=False),
    sa.Column("validation_file", sa.String),
    sa.Column("method", sa.String, nullable=False),
    sa.Column("hyperparameters", sa.JSON, nullable=False),
    sa.Column("suffix", sa.String),
    sa.Column("seed", _NUMBER, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("created_at", _NUMBER, nullable=False),
    sa.Column("started_at", _NUMBER),
    sa.Column("finished_at", _NUMBER),
    sa.Column("estimated_finish", _NUMBER),
    sa.Column("step", _NUMBER, nullable=False, default=0),
    sa.Column("steps", _NUMBER, nullable=False, default=0),
    sa.Column("trained_tokens", _NUMBER),
    sa.Column("fine_tuned_model", sa.String),
    sa.Column("result_files", sa.JSON, nullable=False, default=list),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("wish", sa.String, nullable=False, default=""),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("event_count", _NUMBER, nullable=False, default=0),
    sa.Column("disk_bytes", _NUMBER, nullable=False, default=0),
    sa.Column("queued", _NUMBER, nullable=False, default=0),  # its place in the queue
    sa.Column("turn", _NUMBER, nullable=False, default=0),  # when it was started, counted in starts
    sa.Column("fence", _NUMBER, nullable=False, default=0),
    sa.Column("lease_boot", sa.String),
    sa.Column("lease_until", sa.Float(53)),  # by the monotonic clock since that boot, which nobody can set
    sa.Column("log_offset", _NUMBER, nullable=False, default=0),
    sqlite_autoincrement=True,
)
events = sa.Table(
    "events",
    _metadata,
    sa.Column("job", sa.String, primary_key=True),
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("created_at", _NUMBER, nullable=False),
    sa.Column("level", sa.String, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("data", sa.JSON(none_as_null=True)),
)
models = sa.Table(
    "models",
    _metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("key", sa.String, nullable=False, index=True),
    sa.Column("job", sa.String, nullable=False, index=True),
    sa.Column("base", sa.String, nullable=False),
    sa.Column("folder", sa.String, nullable=False),
    sa.Column("created_at", _NUMBER, nullable=False),
    sa.Column("step", _NUMBER),
)
idempotency = sa.Table(
    "idempotency",
    _metadata,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("word", sa.String, primary_key=True),
    sa.Column("request", sa.String, nullable=False),  # a hash of what was asked
    sa.Column("job", sa.String, nullable=False),
)


def now() -> int:
    """The time as APIs have it: seconds since 1970. For people to read; nothing is decided by it but when a file expires."""
    return int(time.time())


class Database:
    """An engine, and transactions on it whose troubles are told as ours."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_file = self.url.get_backend_name() == "sqlite"
        try:
            self.engine = sa.create_engine(self.url, pool_pre_ping=not self.is_file)
        except (ModuleNotFoundError, sa.exc.NoSuchModuleError) as error:
            raise UserError(
                f"no driver for this database ({error}). For PostgreSQL: pip install 'psycopg[binary]'.",
                where=self.url.render_as_string(),
            ) from None
        if self.is_file:
            sa.event.listen(self.engine, "connect", _configure)
            sa.event.listen(self.engine, "begin", _begin)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        """The tables, where they are missing; refuses those of a newer version."""
        with self.writing() as connection:
            _metadata.create_all(connection)
            for index in files.indexes:  # which tables of an earlier version lack
                index.create(connection, checkfirst=True)
            found = connection.execute(sa.select(meta.c.value).where(meta.c.name == "schema")).scalar()
            if found is None:
                connection.execute(meta.insert().values(name="schema", value=str(SCHEMA)))
            elif int(found) > SCHEMA:
                raise UserError(
                    f"the database has version {found} of its tables, made by a newer Luthier; this one knows version "
                    f"{SCHEMA}. Update Luthier, or name another --home.",
                    where=self.url.render_as_string(),
                )

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads, and waits for nobody."""
        with self._troubles(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is on the disk on return; an exception leaves nothing of it."""
        options = {"luthier_writes": True}
        with self._troubles(), self.engine.connect() as connection, connection.execution_options(**options).begin():
            yield connection

    def fixed(self, name: str, value: str) -> str:
        """The value that is noted under a name, for good: this one, unless another came before."""
        with self.writing() as connection:
            found = connection.execute(sa.select(meta.c.value).where(meta.c.name == name)).scalar()
            if found is None:
                connection.execute(meta.insert().values(name=name, value=value))
            return value if found is None else str(found)

    def close(self) -> None:
        self.engine.dispose()

    @contextlib.contextmanager
    def _troubles(self) -> Iterator[None]:
        where = self.url.render_as_string()
        try:
            yield
        except sa.exc.OperationalError as error:
            raise MachineError(
                f"the database does not answer ({_first_line(error)}). What was written before is kept; if its disk is full, "
                "make room.",
                where=where,
            ) from error
        except sa.exc.DatabaseError as error:
            if "malformed" in str(error) or "not a database" in str(error):
                raise CorruptedState(
                    f"the database is damaged ({_first_line(error)}); restore it from a copy.", where=where
                ) from error
            raise


def _first_line(error: sa.exc.DatabaseError) -> str:
    return str(error.orig).strip().splitlines()[0]


def _configure(connection: Any, record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's own BEGIN and COMMIT, and none from the driver
    for pragma in (f"busy_timeout={BUSY_SECONDS * 1000}", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("luthier_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
