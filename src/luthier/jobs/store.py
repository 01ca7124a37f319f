"""The store: everything the service remembers, in one database and one folder (its home).

home/luthier.db    keys, files, jobs, events, models (or a PostgreSQL database by its URL)
home/files/        contents of files, under ids of ours
home/uploads/      what is still arriving
home/runs/ID/      a job's run folder, like any other
"""

import uuid
from pathlib import Path

import psutil
import sqlalchemy as sa

from luthier.errors import UserError
from luthier.jobs import lease
from luthier.jobs.database import Database
from luthier.jobs.event_table import Events
from luthier.jobs.file_table import Files
from luthier.jobs.job_table import JobTable
from luthier.jobs.key_table import Keys
from luthier.jobs.limits import Limits, expect_room, used_bytes
from luthier.jobs.model_table import Models
from luthier.jobs.queue import Queue
from luthier.jobs.rows import ModelRow
from luthier.runs import durable

NETWORK_DISKS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "afs",
    "9p",
    "ceph",
    "lustre",
    "gfs2",
    "glusterfs",
    "fuse.sshfs",
}
"""File systems over a network, whose locks SQLite cannot rely on."""
PRIVATE = 0o700
FOLDERS = ("files", "uploads", "runs", "logs")


class Store:
    """Keys, files, jobs, events and models; each part is an attribute."""

    def __init__(
        self, home: Path, url: str | None = None, *, limits: Limits | None = None, lease_seconds: float = lease.SECONDS
    ) -> None:
        self.home = home.absolute()
        self.limits = limits or Limits()
        for folder in (self.home, *(self.home / name for name in FOLDERS)):
            if not folder.is_dir():
                durable.make_folders(folder)
                folder.chmod(PRIVATE)  # people's data: for nobody else on this machine
        self.url = url or f"sqlite:///{self.home / 'luthier.db'}"
        file = sa.make_url(self.url)
        if file.get_backend_name() == "sqlite":
            _expect_local_disk(Path(file.database or ""))
        self.database = Database(self.url)
        try:
            self._expect_own_home()
        except BaseException:
            self.database.close()
            raise
        self.keys = Keys(self.database)
        self.files = Files(self.database, self.home / "files", self.limits)
        self.jobs = JobTable(self.database, self.limits)
        self.events = Events(self.database)
        self.models = Models(self.database)
        self.queue = Queue(self.database, self.files, lease_seconds=lease_seconds)

    @property
    def uploads(self) -> Path:
        """Where a file is written while it arrives, before `files.add` takes it over."""
        return self.home / "uploads"

    def run_folder(self, job: str) -> Path:
        return self.home / "runs" / job

    def log_of(self, job: str) -> Path:
        """What the processes of a job wrote to their standard error; for whoever runs the service."""
        return self.home / "logs" / f"{job}.log"

    def model_folder(self, model: ModelRow) -> Path:
        return self.home / model.folder

    def used_bytes(self, key: str | None = None) -> int:
        """What a key's files and runs take, or those of all."""
        with self.database.reading() as connection:
            return used_bytes(connection, key)

    def expect_room(self, key: str) -> None:
        """Raises QuotaExceeded where a key, or all of them, have more on the disk than they may."""
        with self.database.reading() as connection:
            expect_room(connection, self.limits, key, 0, param="fine_tuning_job_id")

    def close(self) -> None:
        self.database.close()

    def _expect_own_home(self) -> None:
        """Refuses a database that another home uses: its files and runs would be missing here."""
        note = self.home / "home-id"
        if not note.is_file():
            durable.write_atomic(note, uuid.uuid4().hex)
        mine = note.read_text(encoding="ascii").strip()
        if self.database.fixed("home", mine) != mine:
            raise UserError(
                f"this database belongs to the service of another folder than {self.home}. Name its --home, or another "
                "database.",
                where=self.database.url.render_as_string(),
            )


def _expect_local_disk(file: Path) -> None:
    kind = _file_system(file)
    if kind in NETWORK_DISKS:
        raise UserError(
            f"this folder is on a network disk ({kind}), where SQLite's locks do not hold; put --home on a local disk, or "
            "name a PostgreSQL database.",
            where=str(file.parent),
        )


def _file_system(path: Path) -> str:
    """The kind of file system that a path is on."""
    found = sorted(psutil.disk_partitions(all=True), key=lambda part: -len(part.mountpoint))
    path = path.resolve()
    return next((part.fstype for part in found if path.is_relative_to(part.mountpoint)), "")
