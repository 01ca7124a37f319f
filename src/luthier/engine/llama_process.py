"""llama.cpp in a process of its own: run as a script by `luthier.engine.llama_cpp`, and by nobody else.

llama.cpp prints to the terminal, ends the process where a file surprises it, keeps state for the whole process, and its server
opens a port on 127.0.0.1. All of that stays in here. Requests come over a pipe, one after the other; when the pipe closes,
because whoever asked has ended, the process ends too. It imports nothing of Luthier, so that it starts at once.
"""

import ctypes
import json
import os
import struct
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from multiprocessing.connection import Connection
from os import _exit
from queue import Queue
from typing import Any

ROOM = 1024  # bytes for a struct that is passed by value: more than it has does no harm
FLASH_OFF, F32 = 0, 0
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
        ("llama_set_adapters_lora", number, [pointer, ctypes.POINTER(pointer), ctypes.c_size_t, pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Unreadable(Exception):
    """What llama.cpp does not take; the log says why."""


class Library:
    """A file behind llama.cpp's C interface: how it cuts text, and its logits computed in fp32."""

    def __init__(self, file: str, adapter: str | None, context: int, threads: int, vocab_only: bool) -> None:
        self.library, self.context_size, self.threads = load_library(), context, threads
        self.adapter = adapter
        self.library.llama_backend_init()
        settings = self.library.llama_model_default_params()
        settings.set(VOCAB_ONLY, settings.number(VOCAB_ONLY) | int(vocab_only))
        self.model = self.library.llama_model_load_from_file(os.fsencode(file), settings)
        if not self.model:
            raise Unreadable("llama.cpp cannot load the file")
        self.vocab = self.library.llama_model_get_vocab(self.model)
        self.context = None

    def close(self) -> None:
        """Give the memory back."""
        if self.context is not None:
            self.library.llama_free(self.context)
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
        """Raw fp32 logits after each token from `begin` on."""
        if len(ids) > self.context_size:
            raise Unreadable(f"{len(ids):,} tokens, and the context was opened with {self.context_size:,}")
        library, context = self.library, self._fp32_context()
        library.llama_memory_clear(library.llama_get_memory(context), True)
        batch = library.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for at, token in enumerate(ids):
                batch.token[at], batch.pos[at], batch.logits[at] = token, at, at >= begin
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            if library.llama_decode(context, batch):
                raise Unreadable(f"llama.cpp cannot compute a text of {len(ids)} tokens")
            size = 4 * library.llama_vocab_n_tokens(self.vocab)
            found = (library.llama_get_logits_ith(context, at) for at in range(begin, len(ids)))
            return b"".join(ctypes.string_at(each, size) for each in found)
        finally:
            library.llama_batch_free(batch)

    def _fp32_context(self) -> Any:
        """A context without flash attention and with a cache in fp32: nothing is rounded but what the file's types round."""
        if self.context is None:
            settings = self.library.llama_context_default_params()
            odd = [name for name, (at, known) in CONTEXT_DEFAULTS.items() if settings.number(at) != known]
            if odd:
                raise Unreadable(f"this version of xllamacpp has other settings than known here ({', '.join(odd)})")
            for name, value in {
                "n_ctx": self.context_size, "n_batch": self.context_size, "n_ubatch": min(512, self.context_size),
                "n_threads": self.threads, "n_threads_batch": self.threads, "flash_attn_type": FLASH_OFF, "type_k": F32,
                "type_v": F32,
            }.items():  # fmt: skip
                settings.set(CONTEXT_DEFAULTS[name][0], value)
            self.context = self.library.llama_init_from_model(self.model, settings)
            if not self.context or self.library.llama_n_threads(self.context) != self.threads:
                raise Unreadable("llama.cpp makes no context for the model")
            if self.adapter:
                self._adapt(self.adapter)
        return self.context

    def _adapt(self, file: str) -> None:
        adapter = self.library.llama_adapter_lora_init(self.model, os.fsencode(file))
        if not adapter:
            raise Unreadable("llama.cpp does not take the adapter")
        scale = ctypes.c_float(1.0)
        one = (ctypes.c_void_p * 1)(adapter)
        if self.library.llama_set_adapters_lora(self.context, one, 1, ctypes.byref(scale)):
            raise Unreadable("llama.cpp does not apply the adapter")


class Server:
    """llama.cpp's server on a port of 127.0.0.1 that the system chooses: templates, and answers in parallel slots."""

    def __init__(self, file: str, adapter: str | None, context: int, threads: int, slots: int, exact: bool) -> None:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path, settings.port, settings.use_jinja = file, 0, True
        settings.n_ctx, settings.n_parallel, settings.kv_unified = context * slots, slots, False
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        settings.fit_params, settings.warmup, settings.n_predict = False, False, -1
        if exact:
            settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
            settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if adapter:
            settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
        self.server = xllamacpp.Server(settings)
        self.address, self.slots = str(self.server.listening_address), slots

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """What the server says to a request; its own message where it refuses one."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            found = json.loads(error.read() or b"{}")
            raise Unreadable(str(found.get("error", {}).get("message", error))) from None

    def render(self, body: dict[str, Any]) -> str:
        """The prompt that the chat template in the file makes of messages."""
        return str(self.post("/apply-template", body)["prompt"])

    def complete(self, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers to many prompts, as many at once as there are slots."""
        with ThreadPoolExecutor(self.slots) as threads:
            return list(threads.map(lambda body: self.post("/completion", body), bodies))


class _Worker:
    """One file and what has been started for it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self._library: Library | None = None
        self._server: Server | None = None

    def answer(self, request: dict[str, Any]) -> Any:
        kind = request["do"]
        if kind == "switch":
            return self.switch(request["settings"])
        if kind == "address":
            return self.server.address
        if kind == "tokenize":
            how = {"special": request["special"], "add": request["add"]}
            return [self.library.tokenize(text, **how) for text in request["texts"]]
        if kind == "logits":
            return self.library.logits(request["ids"], request["begin"])
        if kind == "render":
            return self.server.render(request["body"])
        assert kind == "complete", kind
        return self.server.complete(request["bodies"])

    def switch(self, settings: dict[str, Any]) -> None:
        """Take another file; a server cannot be left."""
        assert self._server is None
        if self._library is not None:
            self._library.close()
        self.settings, self._library = settings, None

    @property
    def library(self) -> Library:
        if self._library is None:
            names = ("file", "adapter", "context", "threads", "vocab_only")
            self._library = Library(**{name: self.settings[name] for name in names})
        return self._library

    @property
    def server(self) -> Server:
        if self._server is None:
            names = ("file", "adapter", "context", "threads", "slots", "exact")
            self._server = Server(**{name: self.settings[name] for name in names})
        return self._server


def main() -> None:
    """Answer requests until the pipe closes."""
    pipe = Connection(int(sys.argv[1]))
    requests: Queue[Any] = Queue()

    def receive() -> None:
        try:
            while True:
                requests.put(pipe.recv())
        except (EOFError, OSError):
            _exit(0)  # whoever asked is gone, also while llama.cpp computes

    threading.Thread(target=receive, daemon=True).start()
    worker = _Worker(requests.get())
    while True:
        request = requests.get()
        try:
            answer = ("done", worker.answer(request))
        except (Unreadable, RuntimeError, ValueError, OSError) as error:
            answer = ("refused", str(error) or type(error).__name__)
        pipe.send(answer)


if __name__ == "__main__":
    main()
