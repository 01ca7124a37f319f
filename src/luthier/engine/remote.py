"""A server that answers elsewhere, behind the same door: llama-server, vLLM, or whatever speaks OpenAI's completions.

Prompts go there as token ids, which llama-server and vLLM take, or as text to those that do not.
"""

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from luthier.engine.requests import (
    AnswerFailed,
    Busy,
    Closed,
    Finished,
    GenerationRequest,
    Piece,
    TokenLogprob,
)
from luthier.engine.streams import Stream
from luthier.errors import UserError
from luthier.model.tokenizer import HubTokenizer

TIMEOUT_SECONDS = 120.0  # without a byte
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
LONGEST_LINE = 1 << 20


class RemoteEngine:
    """Submits requests to `url`, such as `http://localhost:8000/v1`, for the model that it calls `model`.

    `tokenizer` is that model's: it writes prompts as text for a server that takes no ids. At most `slots` requests are there
    at a time, and `longest_queue` more wait here. An adapter is asked for by its name as a model, as vLLM has it.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        tokenizer: HubTokenizer,
        key: str | None = None,
        slots: int = 32,
        longest_queue: int = 256,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f'found "{url}", expected an address such as http://localhost:8000/v1.', where="url")
        self.url, self.model = url.rstrip("/"), model
        self._tokenizer, self._key = tokenizer, key
        self._most = slots + longest_queue
        self._open = 0
        self._takes_ids = True
        self._closed = False
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix=f"asking {url}")

    def submit(self, request: GenerationRequest) -> Stream:
        """The answer, as it comes. Raises `Busy` where too many wait, and a `UserError` for what cannot be asked there."""
        request.check(len(self._tokenizer.hub))
        if request.prompt_logprobs:
            raise UserError("the server at this address is not asked for log p of prompts.", where="prompt_logprobs")
        with self._lock:
            if self._closed:
                raise Closed("this model's engine is ending and takes no more requests.")
            if self._open >= self._most:
                raise Busy(5)
            self._open += 1
        stream = Stream()
        self._pool.submit(self._answer, request, stream)
        return stream

    def close(self, *, drain: bool = False) -> None:
        """Ask no more; what is on its way is read to its end, or with `drain` what waits as well."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=drain, cancel_futures=False)

    def _answer(self, request: GenerationRequest, stream: Stream) -> None:
        """Ask, and pass on what comes; in a thread of the pool."""
        try:
            if self._closed:
                raise Closed("this model's engine ended before the answer did.")
            try:
                self._pass_on(request, stream)
            except _TakesNoIds:
                self._takes_ids = False
                self._pass_on(request, stream)
        except (UserError, Busy) as error:
            stream.put(error)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            stream.put(AnswerFailed(f"no answer from {self.url} ({reason})."))
        except Exception as error:
            stream.put(AnswerFailed(f"the answer of {self.url} is no completion ({type(error).__name__}: {error})."))
        finally:
            with self._lock:
                self._open -= 1

    def _pass_on(self, request: GenerationRequest, stream: Stream) -> None:
        finish, written, read = None, 0, len(request.prompt)
        for event in self._events(request):
            if stream.cancelled:  # closes the connection, at which servers stop
                finish = "cancelled"
                break
            usage = event.get("usage") or {}
            read = int(usage.get("prompt_tokens") or read)
            for choice in event.get("choices") or ():
                finish = choice.get("finish_reason") or finish
                text, logprobs = str(choice.get("text") or ""), _logprobs(choice, self._tokenizer)
                written += max(1, len(logprobs)) if text else 0
                if text:
                    stream.put(Piece((), text, logprobs))
            written = int(usage.get("completion_tokens") or written)
        if finish is None:
            raise AnswerFailed(f"the answer of {self.url} ended in the middle.")
        stream.put(Finished(finish, read, written))

    def _events(self, request: GenerationRequest) -> Iterator[dict[str, Any]]:
        """The events that the server sends, as JSON."""
        headers = {"Content-Type": "application/json", "User-Agent": "luthier"}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        body = json.dumps(self._body(request)).encode()
        asked = urllib.request.Request(f"{self.url}/completions", body, headers)
        local = urlsplit(self.url).hostname in LOOPBACK  # a proxy does not know this machine's own addresses
        opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
        try:
            reply = opener.open(asked, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        with reply:
            while line := reply.readline(LONGEST_LINE):
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                event = json.loads(data)
                if "error" in event:
                    raise AnswerFailed(f"the server at {self.url} said: {_message(event)}.")
                yield event

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        ids = list(request.prompt)
        body: dict[str, Any] = {
            "model": request.adapter or self.model,
            "prompt": ids if self._takes_ids else self._tokenizer.decode(ids, control=True),
            "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        body |= {"seed": request.seed} if request.seed is not None else {}
        body |= {"stop": list(request.stop_strings)} if request.stop_strings else {}
        body |= {"logprobs": request.logprobs} if request.logprobs is not None else {}
        body |= {"ignore_eos": True} if request.ignore_end else {}
        if request.grammar:
            schema = request.grammar.schema
            body["response_format"] = (
                {"type": "json_object"}
                if schema is None
                else {"type": "json_schema", "json_schema": {"name": "answer", "schema": json.loads(schema)}}
            )
        return body

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """What a status that is no success means for the request."""
        message = _message_of(error)
        if error.code in (429, 503):
            return Busy(_seconds(error.headers.get("Retry-After")))
        if self._takes_ids and error.code in (400, 422) and "prompt" in message.lower():
            return _TakesNoIds()
        return AnswerFailed(f"the server at {self.url} answered {error.code} ({message}).")


class _TakesNoIds(Exception):
    """The server wants prompts as text."""


def _logprobs(choice: Mapping[str, Any], tokenizer: HubTokenizer) -> tuple[TokenLogprob, ...]:
    """Log p as OpenAI's completions give it; ids by the tokens' spelling, -1 where that is no token of the model."""
    found = choice.get("logprobs") or {}
    tops = found.get("top_logprobs") or [{}] * len(found.get("tokens") or ())
    return tuple(
        TokenLogprob(
            _id(token, tokenizer), float(logprob), tuple((_id(each, tokenizer), float(p)) for each, p in top.items())
        )
        for token, logprob, top in zip(found.get("tokens") or (), found.get("token_logprobs") or (), tops, strict=False)
    )


def _id(text: str, tokenizer: HubTokenizer) -> int:
    ids, _ = tokenizer.encode(text)
    return ids[0] if len(ids) == 1 else -1


def _message(body: Any) -> str:
    """What an error's body says, in short."""
    found = body.get("error", body) if isinstance(body, dict) else body
    return " ".join(str(found.get("message", found) if isinstance(found, dict) else found).split())[:200].rstrip(".")


def _message_of(error: urllib.error.HTTPError) -> str:
    try:
        content = error.read().decode("utf-8", "replace")
    except OSError:
        return error.reason
    try:
        return _message(json.loads(content))
    except ValueError:
        return " ".join(content.split())[:200] or error.reason


def _seconds(text: str | None) -> float:
    """Seconds of a Retry-After header, from 1 to 60."""
    try:
        return min(60.0, max(1.0, float(text or 1)))
    except ValueError:
        return 1.0
