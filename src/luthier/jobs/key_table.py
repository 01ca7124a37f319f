"""Keys: who may ask. A key is shown once, when it is made; what is kept of it is its SHA-256."""

import hashlib
import hmac
import secrets

import sqlalchemy as sa

from luthier.jobs.database import Database, keys, now
from luthier.jobs.rows import new_id


class Keys:
    """The keys of the service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str) -> tuple[str, str]:
        """A new key: its id, and the secret, which nobody can find out again."""
        secret = f"sk-luthier-{secrets.token_urlsafe(32)}"
        return self.add(name, secret), secret

    def add(self, name: str, secret: str) -> str:
        """A key whose secret was chosen elsewhere; its id, which stays the same when it is added again."""
        digest = _digest(secret)
        with self._database.writing() as connection:
            found = connection.execute(sa.select(keys.c.id).where(keys.c.hash == digest)).scalar()
            if found is not None:
                connection.execute(keys.update().where(keys.c.id == found).values(revoked_at=None))
                return str(found)
            key = new_id("key-")
            connection.execute(keys.insert().values(id=key, name=name, hash=digest, created_at=now()))
        return key

    def verify(self, secret: str) -> str | None:
        """The id of the key with this secret; None where there is none, after the same time."""
        digest = _digest(secret)
        found = None
        with self._database.reading() as connection:
            for row in connection.execute(sa.select(keys.c.id, keys.c.hash).where(keys.c.revoked_at.is_(None))):
                if hmac.compare_digest(row.hash, digest):  # every key is compared, and each to its end
                    found = str(row.id)
        return found

    def revoke(self, key: str) -> bool:
        """Let a key open nothing any more; whether there was one."""
        with self._database.writing() as connection:
            done = connection.execute(
                keys.update().where(keys.c.id == key, keys.c.revoked_at.is_(None)).values(revoked_at=now())
            )
        return done.rowcount == 1

    def count(self) -> int:
        """How many keys open something."""
        with self._database.reading() as connection:
            where = keys.c.revoked_at.is_(None)
            return int(connection.execute(sa.select(sa.func.count()).select_from(keys).where(where)).scalar_one())


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
