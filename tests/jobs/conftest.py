"""A store in a folder of its own, and what tests put into it.

With LUTHIER_TEST_POSTGRES=postgresql://user@host:port/postgres the stores of these tests keep their rows there, each in a
database of its own; psycopg has to be installed.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from job_service import Shop
from luthier.jobs.store import Store

POSTGRES = os.environ.get("LUTHIER_TEST_POSTGRES")


@pytest.fixture
def database() -> Iterator[str | None]:
    """The URL of a fresh database; None is a file in the store's home."""
    if not POSTGRES:
        yield None
        return
    name = f"luthier_{uuid.uuid4().hex}"
    server = sa.create_engine(POSTGRES, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield sa.make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def store(tmp_path: Path, database: str | None) -> Iterator[Store]:
    one = Store(tmp_path / "home", database)
    yield one
    one.close()


@pytest.fixture
def shop(store: Store) -> Shop:
    return Shop(store)
