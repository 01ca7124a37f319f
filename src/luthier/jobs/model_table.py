"""Tuned models by their names: `ft:<base>:luthier:<suffix>:<id>`, and `…:ckpt-step-N` for its checkpoints."""

import re
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from luthier.jobs import hyperparameters
from luthier.jobs.database import Database, jobs, models
from luthier.jobs.errors import InUse, NotFound
from luthier.jobs.rows import ACTIVE, JobRow, ModelRow

ORGANIZATION = "luthier"


_TUNED = re.compile(rf"ft:(.+):{ORGANIZATION}:[a-z0-9-]*:[a-z0-9]+(?::ckpt-step-\d+)?")


def base_of(model: str) -> str:
    """The base's own name: of a tuned model the one in its name, of any other model that itself."""
    found = _TUNED.fullmatch(model)
    return found[1] if found else model


def name_of(job: JobRow, step: int | None = None) -> str:
    """The name of the model that a job makes, or of its checkpoint after a step."""
    name = f"ft:{base_of(job.model)}:{ORGANIZATION}:{hyperparameters.slug(job.suffix)}:{job.id[-8:]}"
    return name if step is None else f"{name}:ckpt-step-{step}"


def insert(connection: Connection, rows: Sequence[ModelRow]) -> None:
    """Enter models; those of the same name are replaced."""
    for row in rows:
        connection.execute(models.delete().where(models.c.name == row.name))
        connection.execute(models.insert().values(**vars(row)))


class Models:
    """The tuned models of all keys; each key sees its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str, name: str) -> ModelRow:
        with self._database.reading() as connection:
            return _existing(connection, key, name)

    def list(self, key: str, *, checkpoints: bool = True) -> Sequence[ModelRow]:
        """The models of a key, the newest first; with the checkpoints that are kept beside them."""
        query = sa.select(models).where(models.c.key == key).order_by(models.c.created_at.desc(), models.c.name)
        with self._database.reading() as connection:
            rows = [_of(row) for row in connection.execute(query).mappings()]
        return [row for row in rows if checkpoints or row.step is None]

    def delete(self, key: str, name: str) -> tuple[ModelRow, int]:
        """Delete a model's name; gives what it was, and how many models of its job are left.

        Raises InUse where a job that is not finished starts from it.
        """
        with self._database.writing() as connection:
            row = _existing(connection, key, name)
            needed = sa.select(jobs.c.id).where(jobs.c.model == name, jobs.c.state.in_(ACTIVE))
            if needed_by := list(connection.execute(needed).scalars()):
                raise InUse(f"{', '.join(needed_by)} starts from {name}; wait until it has finished.", param="model")
            connection.execute(models.delete().where(models.c.name == name))
            left = sa.select(sa.func.count()).select_from(models).where(models.c.job == row.job)
            return row, int(connection.execute(left).scalar_one())


def _existing(connection: Connection, key: str, name: str) -> ModelRow:
    where = (models.c.name == name) & (models.c.key == key)
    row = connection.execute(sa.select(models).where(where)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"The model '{name[:200]}' does not exist", code="model_not_found", param="model")
    return _of(row)


def _of(row: RowMapping) -> ModelRow:
    return ModelRow(**row)
