"""Asks a model behind an OpenAI-compatible address: chat completions over HTTP, with retries, a few at a time.

What waiting does not cure is one `Unavailable` with the reason; the caller leaves the arm out and says so.
"""

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from luthier.chat import Message, ToolCall
from luthier.chat.message_dicts import MessageFormat, as_dicts
from luthier.errors import UserError
from luthier.model.replies import THINKING, Answer
from luthier.recipe import Endpoint as Settings

CONCURRENT_REQUESTS = 4  # most services allow as many, and a local server batches them
TRIES = 4
TIMEOUT_SECONDS = 120.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
OPENAI = MessageFormat(arguments="text", empty_content="none")
"""How OpenAI's interface takes messages."""
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Unavailable(Exception):
    """The endpoint gives no answers: it is down, refuses, or says something that is not an answer."""


@dataclass(frozen=True)
class Response:
    """One answer; token counts are the endpoint's own, 0 where it gives none."""

    answer: Answer
    prompt_tokens: int


@dataclass
class Endpoint:
    """A model behind an address, such as `http://localhost:8000/v1`."""

    url: str
    model: str
    key: str | None = None
    pause_seconds: float = FIRST_PAUSE_SECONDS
    """Before the second try; each further pause is twice as long."""
    _limit: str = field(default="max_tokens", init=False)
    """What the endpoint calls the token limit; newer services refuse the older name."""
    _cancelled: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    @classmethod
    def of(cls, name: str, settings: Settings) -> "Endpoint":
        """The endpoint of the recipe, with the key from the environment, which is never written down."""
        where = f"evaluate.endpoints.{name}"
        parts = urlsplit(settings.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            expected = "expected an address such as http://localhost:8000/v1, or a GGUF file"
            raise UserError(f'found "{settings.url}", {expected}.', where=f"{where}.url")
        if settings.key_env and not os.environ.get(settings.key_env):
            raise UserError(
                f'the environment variable "{settings.key_env}" is not set; put the key there, it is never stored.',
                where=f"{where}.key_env",
            )
        return cls(settings.url, settings.model, os.environ[settings.key_env] if settings.key_env else None)

    def answers(
        self, prompts: Sequence[tuple[Sequence[Message], Sequence[str]]], *, max_new_tokens: int
    ) -> Iterator[tuple[int, Response]]:
        """Each prompt's number with its answer, as they arrive; raises Unavailable at the first that cannot be had.

        A prompt is messages, and the functions that they offer.
        """
        pool = ThreadPoolExecutor(CONCURRENT_REQUESTS)
        waiting = {
            pool.submit(self.ask, messages, max_new_tokens=max_new_tokens, tools=tools): number
            for number, (messages, tools) in enumerate(prompts)
        }
        try:
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
        finally:
            self._cancelled.set()  # those that wait between two tries give up
            pool.shutdown(cancel_futures=True)
            self._cancelled.clear()

    def ask(self, messages: Sequence[Message], *, max_new_tokens: int, tools: Sequence[str] = ()) -> Response:
        """One answer, greedy. Tries again after a pause when the endpoint is busy or out of reach."""
        start = time.perf_counter()
        reason = ""
        for number in range(TRIES):
            if number:
                self._cancelled.wait(min(self.pause_seconds * 2 ** (number - 1), LONGEST_PAUSE_SECONDS))
            if self._cancelled.is_set() and number:
                break
            try:
                return self._response(self._post(messages, max_new_tokens, tools), time.perf_counter() - start)
            except urllib.error.HTTPError as error:
                message = _error_message(error)
                reason = f"it answered {error.code} ({message})"
                if error.code == 400 and "max_completion_tokens" in message and self._limit == "max_tokens":
                    self._limit = "max_completion_tokens"
                elif error.code == 429 or error.code >= 500:
                    self._cancelled.wait(min(_retry_after_seconds(error), LONGEST_PAUSE_SECONDS))
                else:
                    raise Unavailable(reason) from None
            except (OSError, http.client.HTTPException) as error:
                reason = f"no answer from {self.url} ({getattr(error, 'reason', None) or error})"
        raise Unavailable(f"{reason} after {TRIES} tries")

    def _post(self, messages: Sequence[Message], max_new_tokens: int, tools: Sequence[str]) -> Any:
        """The endpoint's reply, as JSON."""
        body = {
            "model": self.model,
            "messages": as_dicts([replace(message, reasoning=None) for message in messages], OPENAI),
            "temperature": 0,
            self._limit: max_new_tokens,
            **({"tools": [json.loads(tool) for tool in tools]} if tools else {}),
        }
        headers = {"Content-Type": "application/json", "User-Agent": "luthier"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        address = self.url.rstrip("/")
        address += "" if address.endswith("/chat/completions") else "/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        with opener(self.url).open(request, timeout=TIMEOUT_SECONDS) as reply:
            content = reply.read()
        try:
            return json.loads(content)
        except ValueError:
            raise Unavailable(f"it answered no JSON: {content[:80]!r}") from None

    @staticmethod
    def _response(reply: Any, seconds: float) -> Response:
        try:
            choice = reply["choices"][0]
            usage = reply.get("usage") or {}
            thoughts, text = split_thoughts(choice["message"])
            text = Message("assistant", text, tool_calls=_calls(choice["message"])).text
            finish = "length" if choice.get("finish_reason") == "length" else "stop"
            if finish == "length" and thoughts is not None and not text:
                finish = THINKING
            thought_tokens = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
            tokens = int(usage.get("completion_tokens") or 0)
            answer = Answer(text, thoughts, finish, tokens, int(thought_tokens or 0), seconds)
            return Response(answer, prompt_tokens=int(usage.get("prompt_tokens") or 0))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            shown = json.dumps(reply, ensure_ascii=False)[:120]
            raise Unavailable(f"its reply is no chat completion: {shown}") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other that is no success: the key would go along to whatever address it names."""

    def redirect_request(self, *asked: Any) -> None:
        return None


def opener(url: str) -> urllib.request.OpenerDirector:
    """What asks an address: without redirects, and on this machine without a proxy, which does not know its addresses."""
    local = urlsplit(url).hostname in _LOOPBACK
    return urllib.request.build_opener(_NoRedirects, *([urllib.request.ProxyHandler({})] if local else []))


def split_thoughts(message: Mapping[str, Any]) -> tuple[str | None, str]:
    """The thoughts and the answer of a chat completion's message.

    Services give thoughts in a field of their own, under either of two names, or leave them in the text before `</think>`.
    """
    text = str((message.get("content") if message.get("tool_calls") else message["content"]) or "").strip()
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    if thoughts is None and "</think>" in text:
        thoughts, _, text = text.partition("</think>")
    elif thoughts is None and text.startswith("<think>"):
        thoughts, text = text, ""
    if thoughts is None:
        return None, text
    return str(thoughts).strip().removeprefix("<think>").strip(), text.strip()


def _calls(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The calls of a chat completion's message."""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    return tuple(ToolCall(str(each["name"]), str(each.get("arguments") or "{}")) for each in functions)


def _error_message(error: urllib.error.HTTPError) -> str:
    """What the endpoint says about an error, in short."""
    try:
        content = error.read().decode("utf-8", "replace")
    except OSError:
        return error.reason
    try:
        found = json.loads(content)["error"]
        content = str(found["message"] if isinstance(found, dict) else found)
    except (ValueError, KeyError, TypeError):
        pass
    return " ".join(content.split())[:200] or error.reason


def _retry_after_seconds(error: urllib.error.HTTPError) -> float:
    """Seconds that the endpoint asks to wait beyond our own pause."""
    try:
        return max(0.0, float(error.headers.get("Retry-After") or 0))
    except ValueError:
        return 0.0
