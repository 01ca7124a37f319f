"""Rows that wait for a slot: a bounded queue in which each client gets its turn, however much another asks."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator

from luthier.engine.rows import Row


class Waiting:
    """Rows by client, first come first served within each. Not safe for threads by itself."""

    def __init__(self) -> None:
        self._by_client: dict[str, deque[Row]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_client.values()))

    def __iter__(self) -> Iterator[Row]:
        return (row for rows in self._by_client.values() for row in rows)

    def add(self, row: Row) -> None:
        self._by_client.setdefault(row.request.client, deque()).append(row)

    def put_back(self, row: Row) -> None:
        """In front of its client's others: it was being answered already."""
        self._by_client.setdefault(row.request.client, deque()).appendleft(row)

    def next(self, answered: Iterable[Row]) -> Row | None:
        """The row whose turn it is: the next of the client with the fewest rows that are `answered` now.

        Where several have as few, of that whose last turn is longest ago.
        """
        busy = Counter(row.request.client for row in answered)
        client = min(self._by_client, key=lambda name: busy[name], default=None)
        return None if client is None else self._by_client[client][0]

    def take(self, row: Row) -> None:
        """Takes out the row that `next` gave; its client goes to the end."""
        rows = self._by_client.pop(row.request.client)
        assert rows.popleft() is row
        if rows:
            self._by_client[row.request.client] = rows

    def drop_cancelled(self) -> list[Row]:
        """Takes out those that nobody waits for any more."""
        gone = [row for row in self if row.stream.cancelled]
        if gone:
            kept = {
                name: deque(row for row in rows if not row.stream.cancelled) for name, rows in self._by_client.items()
            }
            self._by_client = {name: rows for name, rows in kept.items() if rows}
        return gone

    def clear(self) -> list[Row]:
        """Takes out all."""
        rows = list(self)
        self._by_client = {}
        return rows
