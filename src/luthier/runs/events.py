"""The events of a run: one line of JSON each, appended and never changed; every screen and page is drawn from them."""

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from luthier.runs.durable import append_json_lines

PASSING = ("step", "arm", "reference")  # kinds so frequent that they are flushed with the next one of another kind
Event = dict[str, Any]


def now() -> str:
    """The time as events have it: UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new(kind: str, **fields: object) -> Event:
    """An event of this moment."""
    return {"time": now(), "kind": kind, **fields}


class EventLog:
    """A file of events: one process appends to it, any number may read on where they were."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: Event) -> None:
        """Write an event down; it is on the disk on return, unless its kind is a passing one."""
        append_json_lines(self.path, [event], flush=event["kind"] not in PASSING)

    def tail(self, offset: int = 0) -> tuple[list[Event], int]:
        """The events from this byte on, and the byte to go on from next time.

        That is behind the last whole event: what a crash may have left after it, a line cut short or bytes that are no JSON,
        is not passed over until an event follows. Such bytes are cut away before a run goes on, so an offset stays right.
        """
        with self.path.open("rb") as file:
            file.seek(offset)
            lines = file.read().split(b"\n")
        events, end = [], offset
        for line in lines[:-1]:  # behind the last line break is nothing, or an event that is being written
            offset += len(line) + 1
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
                end = offset
        return events, end
