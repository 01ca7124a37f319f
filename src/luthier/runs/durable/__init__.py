"""Writing so that a crash, a power cut or a full disk leaves the old or the new, never something between.

Everything in a run folder is written through here:

    disk      every call that changes a disk, and no others
    pinned    folders that must stay the same while work is going on in them
    files     whole files and folders, which take their place when all of them is on the disk
    lines     files of JSON Lines that grow
"""

from luthier.runs.durable.disk import (
    CHUNK,
    REASONS,
    Disk,
    format_bytes,
    free_space,
    require_space,
    size,
    sync,
    system_errors,
)
from luthier.runs.durable.files import (
    NewFile,
    append_bytes,
    digest,
    flushed_file,
    make_folders,
    move,
    remove,
    remove_leftovers,
    scratch_folder,
    temporary_folder,
    temporary_name,
    whole_file,
    whole_folder,
    write_atomic,
)
from luthier.runs.durable.lines import append_json_lines, read_json_lines, repair
from luthier.runs.durable.pinned import disk_errors, expect_same_folder, pinned

__all__ = [
    "CHUNK",
    "REASONS",
    "Disk",
    "NewFile",
    "append_bytes",
    "append_json_lines",
    "digest",
    "disk_errors",
    "expect_same_folder",
    "flushed_file",
    "format_bytes",
    "free_space",
    "make_folders",
    "move",
    "pinned",
    "read_json_lines",
    "remove",
    "remove_leftovers",
    "repair",
    "require_space",
    "scratch_folder",
    "size",
    "sync",
    "system_errors",
    "temporary_folder",
    "temporary_name",
    "whole_file",
    "whole_folder",
    "write_atomic",
]
