"""llama.cpp's C interface, as xllamacpp brings it: how a file cuts text, its logits, and greedy answers to many prompts.

Only to be used in a process of its own (`llama_process`), but for what computes nothing with a model.
"""

import ctypes
import os
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

ROOM = 1024  # bytes for a struct that is passed by value: more than it has does no harm
FLASH_OFF, F32 = 0, 0
BLOCK = 256  # llama.cpp rounds a context up to whole blocks of so many tokens
BATCH = 2048  # tokens that are handed over at once
CELLS = 8192  # tokens whose keys and values are kept, of all rows together
OUTPUT_BYTES = 64 << 20  # of scores that are kept at once
CONTEXT_DEFAULTS = {"n_ctx": (0, 512), "n_batch": (4, 2048), "n_ubatch": (8, 512), "n_seq_max": (12, 1),
                    "n_threads": (28, 4), "n_threads_batch": (32, 4), "rope_scaling_type": (40, -1), "pooling_type": (44, -1),
                    "attention_type": (48, -1), "flash_attn_type": (52, -1), "type_k": (104, 1),
                    "type_v": (108, 1)}  # fmt: skip
"""Where the fields of llama_context_params lie, and llama.cpp's own values there, which are looked at before any is set."""
VOCAB_ONLY = 72  # where llama_model_params has it


class _Struct(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint8 * ROOM),)

    def number(self, offset: int) -> int:
        return int(struct.unpack_from("<i", bytes(self), offset)[0])

    def set(self, offset: int, value: int) -> None:
        struct.pack_into("<i", (ctypes.c_uint8 * ROOM).from_buffer(self), offset, value)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)), ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8)),
        ("later", ctypes.c_uint8 * 64),
    )  # fmt: skip


@cache
def load_library() -> ctypes.CDLL:
    """llama.cpp's C interface, as xllamacpp brings it."""
    from xllamacpp import xllamacpp

    library = ctypes.CDLL(xllamacpp.__file__)
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    for name, result, arguments in (
        ("llama_model_default_params", _Struct, []),
        ("llama_context_default_params", _Struct, []),
        ("llama_model_load_from_file", pointer, [ctypes.c_char_p, _Struct]),
        ("llama_init_from_model", pointer, [pointer, _Struct]),
        ("llama_model_get_vocab", pointer, [pointer]),
        ("llama_vocab_n_tokens", number, [pointer]),
        ("llama_tokenize", number, [pointer, ctypes.c_char_p, number, pointer, number, ctypes.c_bool, ctypes.c_bool]),
        ("llama_batch_init", _Batch, [number, number, number]),
        ("llama_batch_free", None, [_Batch]),
        ("llama_decode", number, [pointer, _Batch]),
        ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [pointer, number]),
        ("llama_get_memory", pointer, [pointer]),
        ("llama_memory_clear", None, [pointer, ctypes.c_bool]),
        ("llama_n_ctx", ctypes.c_uint32, [pointer]),
        ("llama_n_batch", ctypes.c_uint32, [pointer]),
        ("llama_n_threads", number, [pointer]),
        ("ggml_row_size", ctypes.c_size_t, [ctypes.c_int, ctypes.c_int64]),
        ("ggml_quantize_chunk", ctypes.c_size_t, [ctypes.c_int, pointer, pointer, *[ctypes.c_int64] * 3, pointer]),
        ("llama_free", None, [pointer]),
        ("llama_model_free", None, [pointer]),
        ("llama_adapter_lora_init", pointer, [pointer, ctypes.c_char_p]),
        ("llama_memory_seq_rm", ctypes.c_bool, [pointer, *[number] * 3]),
        ("llama_memory_seq_cp", None, [pointer, *[number] * 4]),
        ("llama_sampler_init_greedy", pointer, []),
        ("llama_sampler_sample", number, [pointer, pointer, number]),
        ("llama_vocab_is_eog", ctypes.c_bool, [pointer, number]),
        ("llama_set_adapters_lora", number, [pointer, ctypes.POINTER(pointer), ctypes.c_size_t, pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Unreadable(Exception):
    """What llama.cpp does not take; the log says why."""


class Library:
    """A file behind llama.cpp's C interface: how it cuts text, its logits, and its greedy answers."""

    def __init__(
        self, file: str, adapter: str | None, context: int, threads: int, slots: int, vocab_only: bool
    ) -> None:
        self.library, self.context_size, self.threads, self.slots = load_library(), context, threads, slots
        self.adapter = adapter
        self.library.llama_backend_init()
        settings = self.library.llama_model_default_params()
        settings.set(VOCAB_ONLY, settings.number(VOCAB_ONLY) | int(vocab_only))
        self.model = self.library.llama_model_load_from_file(os.fsencode(file), settings)
        if not self.model:
            raise Unreadable("llama.cpp cannot load the file")
        self.vocab = self.library.llama_model_get_vocab(self.model)
        self.greedy = self.library.llama_sampler_init_greedy()
        self.flows: dict[bool, _Flow] = {}
        self.read: list[int] = []  # by slot 0 of the exact context

    def close(self) -> None:
        """Give the memory back."""
        for flow in self.flows.values():
            self.library.llama_free(flow.context)
        self.library.llama_model_free(self.model)

    def tokenize(self, text: str, *, special: bool, add: bool) -> list[int]:
        """Ids of a text; `special`: spelled control tokens are taken as such; `add`: BOS and EOS as the file says."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        ids = (ctypes.c_int32 * room)()
        found = self.library.llama_tokenize(self.vocab, data, len(data), ids, room, add, special)
        if found < 0:
            raise Unreadable("llama.cpp cannot tokenize the text")
        return ids[:found]

    def logits(self, ids: Sequence[int], begin: int) -> bytes:
        """Raw fp32 logits after each token from `begin` on; what the text before began with as well is not read again."""
        if len(ids) > self.context_size:
            raise Unreadable(f"{len(ids):,} tokens, and the context was opened with {self.context_size:,}")
        flow = self._flow(exact=True)
        known = min(common_beginning([self.read, ids]), begin) if self.read else 0
        self.read = []
        flow.cut(0, known)
        (outputs,) = flow.feed([(0, known, ids[known:], begin)])
        self.read = list(ids)
        size = 4 * self.library.llama_vocab_n_tokens(self.vocab)
        return b"".join(ctypes.string_at(self.library.llama_get_logits_ith(flow.context, at), size) for at in outputs)

    def answers(
        self, prompts: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]], limit: int, exact: bool
    ) -> list[tuple[list[int], str]]:
        """Greedy answers with their end tokens, and how they ended: `stop`, or `length` at the limit or the context's end.

        A draft is what an answer may be: it is read in one go, and counts as far as it is what llama.cpp writes itself.
        """
        flow = self._flow(exact)
        self.read = []
        shared = common_beginning(prompts)
        flow.start(prompts[0][:shared] if shared else [])
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]) + len(drafts[number]), reverse=True)
        free, rows, done = list(range(1, flow.slots + 1)), list[_Row](), dict[int, _Row]()
        while order or rows:
            while order and free:
                number = order.pop()
                prompt = prompts[number]
                room = min(limit, self.context_size - len(prompt))
                if room < 1:
                    raise Unreadable(f"a prompt of {len(prompt):,} tokens fills the context of {self.context_size:,}")
                rows.append(_Row(number, free.pop(), prompt[shared:], drafts[number], room, shared))
                flow.begin(rows[-1].slot)
            self._advance(flow, rows)
            for row in [row for row in rows if row.finish]:
                rows.remove(row)
                free.append(row.slot)
                done[row.number] = row
        return [(done[number].written, done[number].finish) for number in range(len(prompts))]

    def _advance(self, flow: "_Flow", rows: Sequence["_Row"]) -> None:
        """What is certain of each row and some of its draft through the model, and on to where llama.cpp writes otherwise."""
        room, taken, chunks = flow.outputs - len(rows), list[_Row](), list[_Chunk]()
        tokens = 0
        for row in rows:
            ahead = row.draft[: max(0, min(room, row.limit - len(row.written) - 1))]
            chunk = [*row.pending, *ahead]
            if taken and tokens + len(chunk) > flow.batch:
                break
            room, tokens = room - len(ahead), tokens + len(chunk)
            taken.append(row)
            chunks.append((row.slot, row.read, chunk, row.read + len(row.pending) - 1))
        for row, outputs in zip(taken, flow.feed(chunks), strict=True):
            row.read, row.pending = row.read + len(row.pending), []
            for left, at in zip(reversed(range(len(outputs))), outputs, strict=True):
                token = int(self.library.llama_sampler_sample(self.greedy, flow.context, at))
                row.write(token, ends=bool(self.library.llama_vocab_is_eog(self.vocab, token)), read=left > 0)
                if row.finish or row.pending:
                    break
            flow.cut(row.slot, row.read)

    def _flow(self, exact: bool) -> "_Flow":
        """Rows side by side; `exact`: without flash attention and with a cache in fp32, where nothing is rounded but what
        the file's types round, else as llama.cpp computes by itself."""
        if exact not in self.flows:
            self.flows[exact] = _Flow(self, exact)
        return self.flows[exact]

    def adapt(self, context: Any, file: str) -> None:
        """Put an adapter beside the model, at its full scale."""
        adapter = self.library.llama_adapter_lora_init(self.model, os.fsencode(file))
        if not adapter:
            raise Unreadable("llama.cpp does not take the adapter")
        scale = ctypes.c_float(1.0)
        one = (ctypes.c_void_p * 1)(adapter)
        if self.library.llama_set_adapters_lora(context, one, 1, ctypes.byref(scale)):
            raise Unreadable("llama.cpp does not apply the adapter")


_Chunk = tuple[int, int, Sequence[int], int]
"""(slot, position of its first token, tokens, position from which on the scores behind a token are wanted)"""


class _Flow:
    """A context with a row of tokens in each slot; slot 0 keeps what all rows begin with."""

    def __init__(self, owner: Library, exact: bool) -> None:
        self.library = library = owner.library
        settings = library.llama_context_default_params()
        odd = [name for name, (at, known) in CONTEXT_DEFAULTS.items() if settings.number(at) != known]
        if odd:
            raise Unreadable(f"this version of xllamacpp has other settings than known here ({', '.join(odd)})")
        self.length = -owner.context_size // BLOCK * -BLOCK
        self.slots = max(1, min(owner.slots, CELLS // self.length - 1))
        self.batch = max(BATCH, self.length)
        self.outputs = max(self.slots, OUTPUT_BYTES // (4 * library.llama_vocab_n_tokens(owner.vocab)))
        values = {
            "n_ctx": self.length * (self.slots + 1), "n_seq_max": self.slots + 1, "n_batch": self.batch, "n_ubatch": 512,
            "n_threads": owner.threads, "n_threads_batch": owner.threads,
        }  # fmt: skip
        if exact:
            values |= {"flash_attn_type": FLASH_OFF, "type_k": F32, "type_v": F32}
        for name, value in values.items():
            settings.set(CONTEXT_DEFAULTS[name][0], value)
        self.context = library.llama_init_from_model(owner.model, settings)
        if not self.context or library.llama_n_threads(self.context) != owner.threads:
            raise Unreadable("llama.cpp makes no context for the model")
        self.memory = library.llama_get_memory(self.context)
        if owner.adapter:
            owner.adapt(self.context, owner.adapter)

    def start(self, shared: Sequence[int]) -> None:
        """Forget all rows; new ones begin with these tokens."""
        self.library.llama_memory_clear(self.memory, True)
        self.shared = bool(shared)
        if shared:
            self.feed([(0, 0, shared, len(shared))])

    def begin(self, slot: int) -> None:
        """Let a row begin anew, with what all begin with."""
        self.library.llama_memory_seq_rm(self.memory, slot, -1, -1)
        if self.shared:
            self.library.llama_memory_seq_cp(self.memory, 0, slot, -1, -1)

    def cut(self, slot: int, position: int) -> None:
        """Take back what a row has read from this position on."""
        self.library.llama_memory_seq_rm(self.memory, slot, position, -1)

    def feed(self, chunks: Sequence[_Chunk]) -> list[list[int]]:
        """Compute tokens; gives the numbers under which the wanted scores of each chunk are to be had."""
        count = sum(len(ids) for _, _, ids, _ in chunks)
        batch = self.library.llama_batch_init(count, 0, 1)
        at, found = 0, list[list[int]]()
        try:
            batch.n_tokens = count
            for slot, begin, ids, wanted in chunks:
                first = at
                for position, token in enumerate(ids, start=begin):
                    batch.token[at], batch.pos[at], batch.logits[at] = token, position, position >= wanted
                    batch.n_seq_id[at], batch.seq_id[at][0] = 1, slot
                    at += 1
                found.append(list(range(first + max(0, wanted - begin), at)))
            if self.library.llama_decode(self.context, batch):
                raise Unreadable(f"llama.cpp cannot compute {count} tokens")
        finally:
            self.library.llama_batch_free(batch)
        return found


class _Row:
    """An answer as it is written."""

    def __init__(
        self, number: int, slot: int, rest: Sequence[int], draft: Sequence[int], limit: int, read: int
    ) -> None:
        self.number, self.slot, self.limit, self.read = number, slot, limit, read
        self.pending = list(rest)
        """Tokens that are certain, and still to be read."""
        self.draft = list(draft)
        """What may follow them."""
        self.written: list[int] = []
        self.finish = ""

    def write(self, token: int, *, ends: bool, read: bool) -> None:
        """The next token; `read`: whether the model has read the draft's next token, too."""
        self.written.append(token)
        self.finish = "stop" if ends else "length" if len(self.written) == self.limit else ""
        same, self.draft = self.draft[:1] == [token], self.draft[1:]
        if not same:
            self.draft = []
        if same and read:
            self.read += 1
        else:
            self.pending = [token]


def common_beginning(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens several rows have in common, which leaves each a token of its own."""
    if len(rows) < 2:
        return 0
    most = min(map(len, rows)) - 1
    return next((at for at in range(most) if len({row[at] for row in rows}) > 1), max(0, most))
