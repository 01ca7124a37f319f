"""llama.cpp in a process of its own: run as a script by `luthier.engine.llama_cpp`, and by nobody else.

llama.cpp prints to the terminal, ends the process where a file surprises it, keeps state for the whole process, and its server
opens a port on 127.0.0.1. All of that stays in here. Requests come over a pipe, one after the other; when the pipe closes,
because whoever asked has ended, the process ends too. It imports no more of Luthier than `llama_library`, so that it starts
at once.
"""

import json
import sys
import threading
import urllib.error
import urllib.request
from multiprocessing.connection import Connection
from os import _exit
from queue import Queue
from typing import Any

from luthier.engine.llama_library import Library, Unreadable


class Server:
    """llama.cpp's server on a port of 127.0.0.1 that the system chooses: templates, and whoever else asks it."""

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
        self.address = str(self.server.listening_address)

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
        return self.library.answers(request["prompts"], request["drafts"], request["limit"], self.settings["exact"])

    def switch(self, settings: dict[str, Any]) -> None:
        """Take another file; a server cannot be left."""
        assert self._server is None
        if self._library is not None:
            self._library.close()
        self.settings, self._library = settings, None

    @property
    def library(self) -> Library:
        if self._library is None:
            names = ("file", "adapter", "context", "threads", "slots", "vocab_only")
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
