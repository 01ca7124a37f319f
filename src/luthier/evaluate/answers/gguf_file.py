"""A GGUF file as an endpoint: llama.cpp answers in a process of its own, with the template in the file, as people run it.

So a quantised file can be judged beside the model that it was made from, on the same questions.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from luthier.chat import Message
from luthier.chat.message_dicts import as_dicts
from luthier.engine import llama_cpp
from luthier.engine.llama_cpp import LlamaCpp
from luthier.errors import UserError
from luthier.evaluate.answers.endpoint import (
    CONCURRENT_REQUESTS,
    OPENAI,
    Endpoint,
    Response,
    Unavailable,
    opener,
    split_thoughts,
)
from luthier.model import gguf_file
from luthier.model.replies import Answer

CHAT_CONTEXT = 8192  # tokens that a conversation gets memory for
MARGIN = 256  # tokens that a template may write around messages
BLOCK = 256  # llama.cpp rounds a context up to whole blocks of so many tokens


class TooLong(Exception):
    """The messages fill the context."""


@dataclass
class GgufFile(Endpoint):
    """The file as an endpoint; nothing starts before the first question."""

    file: Path = field(default_factory=Path)
    longest: int = 0
    """Tokens that it looks back on."""
    _llama: LlamaCpp | None = field(default=None, init=False, repr=False)

    @classmethod
    def at(cls, path: Path, *, where: str) -> "GgufFile":
        """The file; refuses a damaged one, and a machine without llama.cpp."""
        if not llama_cpp.is_installed():
            raise llama_cpp.not_installed_error(where)
        found = gguf_file.read(path)
        if found.metadata.get("general.type") == "adapter":
            raise UserError("this file is an adapter alone; name a file with a whole model.", where=str(path))
        if f"{found.arch}.context_length" not in found.metadata:
            raise UserError(
                f"the file does not state {found.arch or 'its architecture'}.context_length, so it is no language model.",
                where=str(path),
            )
        return cls("", path.stem, file=path.absolute(), longest=int(found.setting(f"{found.arch}.context_length", 0)))

    def answers(
        self, prompts: Sequence[tuple[Sequence[Message], Sequence[str]]], *, max_new_tokens: int
    ) -> Iterator[tuple[int, Response]]:
        """Each prompt's number with its answer, as they arrive; the process ends with the last."""
        if not prompts:
            return
        try:
            with LlamaCpp(
                self.file, context=self._context(prompts, max_new_tokens), slots=CONCURRENT_REQUESTS, exact=False
            ) as llama:
                self.url = f"{llama.address}/v1"
                yield from super().answers(prompts, max_new_tokens=max_new_tokens)
        except UserError as refusal:
            raise Unavailable(refusal.message) from None

    def ask(self, messages: Sequence[Message], *, max_new_tokens: int, tools: Sequence[str] = ()) -> Response:
        """One answer, greedy; while `answers` runs, from its process."""
        if self.url:
            return super().ask(messages, max_new_tokens=max_new_tokens, tools=tools)
        [(_, response)] = self.answers([(messages, tools)], max_new_tokens=max_new_tokens)
        self.url = ""
        return response

    def stream(self, messages: Sequence[Message], *, max_new_tokens: int) -> Iterator[Answer]:
        """What the file has said so far, after each piece of one reply; llama.cpp stays open for the next until `close`.

        Raises `TooLong` where the messages fill the context.
        """
        if self._llama is None:
            self._llama = LlamaCpp(self.file, context=min(self.longest, CHAT_CONTEXT), slots=1, exact=False)
        start, text, thoughts = time.perf_counter(), "", ""
        for count, choice in enumerate(self._pieces(self._llama.address, messages, max_new_tokens)):
            said = choice.get("delta") or {}
            text += said.get("content") or ""
            thoughts += said.get("reasoning_content") or ""
            before, answer = split_thoughts({"content": text, "reasoning_content": thoughts or None})
            finish = "length" if choice.get("finish_reason") == "length" else "stop"
            yield Answer(answer, before, finish, count, 0, time.perf_counter() - start)

    def close(self) -> None:
        """End the process that `stream` has opened."""
        if self._llama is not None:
            self._llama.close()
            self._llama = None

    def _pieces(self, address: str, messages: Sequence[Message], max_new_tokens: int) -> Iterator[dict[str, Any]]:
        """The choices of a streamed chat completion."""
        shown = as_dicts([replace(message, reasoning=None) for message in messages], OPENAI)
        body = {"messages": shown, "temperature": 0, "max_tokens": max_new_tokens, "stream": True}
        url, headers = f"{address}/v1/chat/completions", {"Content-Type": "application/json"}
        try:
            with opener(url).open(urllib.request.Request(url, json.dumps(body).encode(), headers)) as reply:
                for line in reply:
                    if line.startswith(b"data: {"):
                        yield from json.loads(line[6:]).get("choices") or ()
        except urllib.error.HTTPError as error:
            refusal = error.read().decode("utf-8", "replace")
            raise TooLong(refusal) if "context" in refusal else UserError(refusal, where=str(self.file)) from None

    def _context(self, prompts: Sequence[tuple[Sequence[Message], Sequence[str]]], answer: int) -> int:
        """Room for the longest prompt, which has no more tokens than bytes, and its answer."""
        most = max(
            sum(len(message.text.encode()) for message in messages) + sum(len(tool.encode()) for tool in tools)
            for messages, tools in prompts
        )
        needed = most + MARGIN + answer
        return min(-needed // BLOCK * -BLOCK, self.longest)
