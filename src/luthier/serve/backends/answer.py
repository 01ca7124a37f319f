"""A backend's answer to one message, as an engine's answers come: pieces of text, and an end."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from luthier.engine.requests import Event, Finished, Piece
from luthier.serve.backends.backend import Backend


class Answer:
    """Asked when somebody begins to read; who stops reading has left there too."""

    def __init__(self, backend: Backend, body: Mapping[str, Any], *, client: str) -> None:
        """`body` is that of a chat completion, without a model and what makes it a stream."""
        self._backend, self._client = backend, client
        self._body = {**body, "stream": True, "stream_options": {"include_usage": True}}

    async def aevents(self) -> AsyncIterator[Event]:
        finish: str | None = None
        usage: Mapping[str, Any] = {}
        async with self._backend.stream("chat/completions", self._body, client=self._client) as events:
            async for event in events:
                usage = event.get("usage") or usage
                try:
                    for choice in event["choices"]:
                        finish = choice.get("finish_reason") or finish
                        if text := (choice.get("delta") or {}).get("content"):
                            yield Piece((), str(text))
                except (KeyError, TypeError, AttributeError):
                    self._backend.fail("its answer is no chat completion")
        read, written = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        yield Finished("stop" if finish == "stop" else "length", read, written)

    def cancel(self) -> None:
        """Nothing waits that would have to be told."""
