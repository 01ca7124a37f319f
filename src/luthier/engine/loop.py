"""The engine's thread: whose turn it is, prompts in portions, a token for each row, and what happens when something fails."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import torch

from luthier.engine.adapters import RowAdapters
from luthier.engine.grammar import Grammars
from luthier.engine.lanes import Lane
from luthier.engine.prefixes import Prefixes
from luthier.engine.reading import Reading, groups_with
from luthier.engine.requests import AnswerFailed, Busy, Closed, GenerationRequest
from luthier.engine.rows import Row
from luthier.engine.streams import Stream
from luthier.engine.waiting import Waiting
from luthier.model import cache as caches
from luthier.model import decoding, memory, probes
from luthier.model.loading import LanguageModel

READINGS = 4  # prompts, or groups of short ones, that are read by turns
CPU_BESIDE, GPU_BESIDE = (
    128,
    2048,
)  # prompt tokens between two steps of rows that are written: a long prompt stops nobody
PREFIX_SHARE = 0.25  # of the memory for keys and values: for beginnings that come again
CANCELLED = "cancelled"


class Loop:
    """What the thread works on. Others put rows and commands in; all else is the thread's own."""

    def __init__(
        self, lm: LanguageModel, *, slots: int, longest_queue: int, cache_bytes: int, threads: int | None
    ) -> None:
        self.lm, self.slots, self.longest_queue, self.threads = lm, slots, longest_queue, threads
        tokens = max(1, cache_bytes // caches.bytes_per_token(lm.model.config, lm.model.dtype))
        self.adapters, self.grammars = RowAdapters(lm), Grammars(lm)
        self.prefixes = Prefixes(int(tokens * PREFIX_SHARE))
        self.room = tokens - self.prefixes.most_tokens
        """Tokens whose keys and values may be there at a time, beside kept beginnings."""
        self.changed = threading.Condition()
        self.waiting = Waiting()
        self.lanes: list[Lane] = []
        self.readings: list[Reading] = []
        self.tokens_read = self.tokens_written = self.steps = self.finished = self.failed = self.preempted = 0
        self._starting: list[Row] = []
        """Rows that have left the queue and are not yet in a reading."""
        self._commands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._closing: str | None = None
        self._turn = False
        self._seconds_each = 1.0  # seconds between two rows that end
        self._last_end = time.monotonic()
        self._plain = caches.is_plain(caches.roomy(lm.model.config, 0))
        on_cpu = lm.device.type == "cpu"
        self._alone, self._beside = (decoding.CPU_READS, CPU_BESIDE) if on_cpu else (decoding.GPU_READS, GPU_BESIDE)

    # What other threads call.

    def add(self, request: GenerationRequest) -> Stream:
        """Put a request into the queue."""
        grammar = self.grammars.begin(request.grammar) if request.grammar else None
        with self.changed:
            if self._closing:
                raise Closed("this model's engine is ending and takes no more requests.")
            row = Row(self.lm, request, adapter=self.adapters.key(request.adapter), grammar=grammar)
            if len(self.waiting) >= self.longest_queue:
                raise Busy(self._retry_after())
            self.waiting.add(row)
            self.prefixes.note(row.adapter, request.prompt)
            self.changed.notify_all()
        return row.stream

    def call(self, command: Callable[[], Any]) -> Any:
        """Run something in the engine's thread, between two steps; gives its result."""
        result: Future[Any] = Future()
        with self.changed:
            if self._closing:
                raise Closed("this model's engine is ending.")
            self._commands.append((command, result))
            self.changed.notify_all()
        return result.result()

    def close(self, *, drain: bool) -> None:
        """Take no more; end at once, or when all is answered that was asked."""
        with self.changed:
            self._closing = "drain" if drain else "now"
            self.changed.notify_all()

    def _retry_after(self) -> float:
        """Seconds until a quarter of the queue is likely to be answered."""
        return float(min(60, max(1, round(self._seconds_each * self.longest_queue / 4))))

    # The thread.

    def run(self) -> None:
        """Work until closed."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        while self._wait():
            self._run_commands()
            with self._guarded(self.rows, "go on"):
                self._turn_once()
        self._end()

    def _turn_once(self) -> None:
        """A portion of a prompt, and a token for each row."""
        self._drop_cancelled()
        self._starting = []
        with self._guarded(self._starting, "read its prompt"):
            self._start_reading()
        if self.readings:
            reading = self._next_reading()
            with self._guarded(reading.rows, "read its prompt"):
                self._read(reading)
        for lane in list(self.lanes):
            if lane in self.lanes:
                with self._guarded(lane.rows, "compute its next token"):
                    self._step(lane)
        self._tidy()

    def _wait(self) -> bool:
        """Sleeps while there is nothing to do; gives whether to go on."""
        with self.changed:
            while True:
                if self._closing == "now" or (self._closing and not self._busy and not self._commands):
                    return False
                if self._commands or self._busy:
                    return True
                self.changed.wait()

    @property
    def _busy(self) -> bool:
        return bool(self.lanes or self.readings or len(self.waiting))

    def _run_commands(self) -> None:
        while self._commands:
            command, result = self._commands.popleft()
            try:
                result.set_result(command())
            except BaseException as error:  # the caller's, who waits for it
                result.set_exception(error)

    @property
    def rows(self) -> list[Row]:
        """All that have a slot: they are read or written."""
        read, written = ([row for part in parts for row in part.rows] for parts in (self.readings, self.lanes))
        return [row for row in (*read, *written) if not row.stream.ended]

    def _drop_cancelled(self) -> None:
        with self.changed:
            gone = self.waiting.drop_cancelled()
        gone += [row for row in self.rows if row.stream.cancelled]
        for row in gone:
            row.finish(CANCELLED)
        if gone:
            self.readings = [each for each in self.readings if not all(row.stream.ended for row in each.rows)]
            self._tidy()

    def _tidy(self) -> None:
        """Rows that are over leave their lanes; lanes that have come to be of like length become one."""
        self.lanes = [lane for lane in self.lanes if not lane.is_over]
        for lane in self.lanes:
            lane.keep_going()
        for lane in self.lanes[1:]:
            if self.lanes[0].takes(lane):
                self.lanes.remove(lane)
                self._join(self.lanes[0], lane)
                break
        while len(self.rows) > 1 and sum(each.tokens for each in self.lanes) > self.room:
            self._preempt()

    def _start_reading(self) -> None:
        """Give slots to those who wait, as far as there are slots and memory."""
        while len(self.readings) < READINGS and (row := self._next()):
            alone = probes.longest_in_batch(self.lm.model, row.longest) < row.longest
            scored = row.request.prompt_logprobs and not row.written
            adapter = row.adapter
            known = None if scored or alone or not self._plain else self.prefixes.find(adapter, row.ids)
            rows, shared = self._starting, known.columns if known else 0
            while not alone and (other := self._next(rows)):
                fits = other.adapter == adapter or self.adapters.keeps_rows_apart
                if not fits or not groups_with(rows, other, shared, self._beside):
                    break
                found = self.prefixes.find(other.adapter, other.ids) if self._plain else None
                if found is not known or probes.longest_in_batch(self.lm.model, other.longest) < other.longest:
                    break
                rows.append(other)
                self._take(other)
            for each in rows if known else ():
                each.cached = shared
                self.prefixes.used(shared)
            self.readings.append(Reading(self.adapters, list(rows), known=known, alone=alone))
            rows.clear()

    def _next(self, chosen: list[Row] | None = None) -> Row | None:
        """The row whose turn it is, if it fits; taken out of the queue unless `chosen` are to be joined by it."""
        chosen = chosen or []
        answered = [*self.rows, *chosen]
        with self.changed:
            row = self.waiting.next(answered)
            if row is None or len(answered) >= self.slots:
                return None
            held = sum(lane.tokens for lane in self.lanes)
            held += sum(len(each.ids) for each in (*self._being_read, *chosen))
            if answered and held + len(row.ids) + decoding.SHARED_AT_LEAST * len(answered) > self.room:
                return None
            if not chosen:
                self.waiting.take(row)
                self._starting.append(row)
            return row

    @property
    def _being_read(self) -> list[Row]:
        return [row for reading in self.readings for row in reading.rows]

    def _take(self, row: Row) -> None:
        with self.changed:
            self.waiting.take(row)

    def _next_reading(self) -> Reading:
        """The one with the least left, and every other time the oldest."""
        self._turn = not self._turn
        return self.readings[0] if self._turn else min(self.readings, key=lambda each: each.left)

    def _read(self, reading: Reading) -> None:
        """A portion of a prompt."""
        before = reading.left
        lane = reading.advance(self._beside if self.lanes else self._alone)
        self.steps += 1
        self.tokens_read += before - reading.left if lane is None else before
        if lane is None:
            return
        self.readings.remove(reading)
        self._keep_beginnings(lane)
        self._count_ended(reading.rows)
        self.tokens_written += len(reading.rows)
        if lane.is_over:
            return
        lane.keep_going()
        home = next((each for each in self.lanes if each.takes(lane)), None)
        if home:
            self._join(home, lane)
        else:
            self.lanes.append(lane)

    def _keep_beginnings(self, lane: Lane) -> None:
        """Remember what the prompts of a lane have in common with others."""
        for index, row in enumerate(lane.rows if self._plain and not lane.alone else ()):
            prompt = row.request.prompt
            if length := self.prefixes.common_beginning(row.adapter, prompt):
                self.prefixes.keep(row.adapter, prompt[:length], lane.batch.beginning(index, length))

    def _step(self, lane: Lane) -> None:
        going = [row for row in lane.rows if not row.stream.ended]
        lane.step()
        self.steps += 1
        self.tokens_written += len(going)
        self._count_ended(going)

    def _join(self, home: Lane, lane: Lane) -> None:
        """Let the rows of a lane join another's; halfway, neither could be trusted."""
        with self._guarded([*home.rows, *lane.rows], "join other answers"):
            home.take(lane)

    def forget_adapters(self) -> None:
        """Free adapters that were removed and are used by no row any more."""
        with self.changed:
            used = {row.adapter for row in (*self.rows, *self.waiting)}
            for key in self.adapters.forget(used):
                self.prefixes.forget(key)

    def _preempt(self) -> None:
        """The row that has written least goes back to the queue, because memory is short; it is read again later."""
        row = min((row for lane in self.lanes for row in lane.rows), key=lambda each: len(each.written))
        lane = next(lane for lane in self.lanes if row in lane.rows)
        self.preempted += 1
        going = [index for index, other in enumerate(lane.rows) if other is not row]
        with self.changed:
            self.waiting.put_back(row)
        if going:
            lane.rows = [lane.rows[index] for index in lane.batch.thin(going)]
        else:
            self.lanes.remove(lane)

    def _count_ended(self, rows: list[Row]) -> None:
        ended = sum(row.stream.ended for row in rows)
        self.finished += ended
        if ended:
            self.forget_adapters()
            now = time.monotonic()
            self._seconds_each += 0.2 * ((now - self._last_end) / ended - self._seconds_each)
            self._last_end = now

    # When something fails.

    @contextlib.contextmanager
    def _guarded(self, concerned: list[Row], doing: str) -> Iterator[None]:
        """What fails inside ends the answers that it concerns, and nothing else; where memory is short, they try again."""
        before = list(concerned)
        try:
            yield
        except Exception as error:
            rows = [row for row in dict.fromkeys([*before, *concerned]) if not row.stream.ended]
            self._forget(rows)
            if memory.is_out_of_memory(error):
                self._make_do(rows, error)
                return
            for row in rows:
                self._fail(row, f"could not {doing}: {type(error).__name__}: {error}", error)

    def _forget(self, rows: list[Row]) -> None:
        """Their keys and values are not to be trusted any more."""
        gone = set(map(id, rows))
        self.readings = [each for each in self.readings if not gone & set(map(id, each.rows))]
        self.lanes = [each for each in self.lanes if not gone & set(map(id, each.rows))]

    def _make_do(self, rows: list[Row], error: Exception) -> None:
        """Memory ran out: from now on half as many rows at a time, and these once more; who was alone fails."""
        self.prefixes.forget(everything=True)
        if self.slots == 1 or (len(rows) == 1 and not self.lanes):
            for row in rows:
                self._fail(row, "not enough memory for the keys and values of this answer, even alone", error)
            return
        self.slots = max(1, min(self.slots, len(self.rows) + len(rows)) // 2)
        with self.changed:
            for row in reversed(rows):
                self.waiting.put_back(row)

    def _fail(self, row: Row, why: str, error: Exception) -> None:
        self.failed += 1
        failure = AnswerFailed(f"the answer cannot be finished: {why}.")
        failure.__cause__ = error
        row.stream.put(failure)

    def _end(self) -> None:
        """Closed: who still waits is told."""
        with self.changed:
            left = [*self.rows, *self.waiting.clear()]
            commands, self._commands = list(self._commands), deque()
            self._closing = "now"
        for row in left:
            row.stream.put(Closed("this model's engine ended before the answer did."))
        for _, result in commands:
            result.set_exception(Closed("this model's engine ended."))
        self.lanes, self.readings = [], []
