"""Where a judge comes from: an OpenAI-compatible endpoint, a model on this machine, or a user's own function."""

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence

from luthier.chat import Message
from luthier.errors import MachineError, UserError
from luthier.evaluate.answers.endpoint import opener, split_thoughts
from luthier.evaluate.judge.pairwise import Judge
from luthier.extensions import import_function
from luthier.model import loading, reference, replies
from luthier.model.loading import LanguageModel
from luthier.model.replies import TokenBudget

KEY = "OPENAI_API_KEY"
_WHERE = "evaluate.judge"


def resolve(name: str, *, max_new_tokens: int = 256, where: str = _WHERE, what: str = "judge") -> Judge:
    """The judge that `evaluate.judge` names; or another model that is asked, which messages call by `what` it is.

    `http://localhost:8000/v1#model-name` is an endpoint, `package.module:function` a function from prompt to reply,
    anything else a model as in `model`. Its key, if it needs one, is read from OPENAI_API_KEY.
    """
    if name.startswith(("http://", "https://")):
        url, _, model = name.partition("#")
        if not model:
            raise UserError(f'which model of {url}? Write "{url}#its-name".', where=where)
        return endpoint(url, model, max_tokens=max_new_tokens, what=what)
    if ":" in name:
        return Judge.of(import_function(name, where=where), name)
    return local(loading.load(name), max_new_tokens=max_new_tokens, where=where, what=what)


def check(name: str) -> None:
    """Raises what `resolve` would, as far as that shows without loading a model or asking an endpoint."""
    if ":" in name:
        resolve(name)
    else:
        reference.find_folder(name)


def local(lm: LanguageModel, *, max_new_tokens: int = 256, where: str = _WHERE, what: str = "judge") -> Judge:
    """A model on this machine, decoded greedily in batches; its thoughts are no part of its reply."""
    room = TokenBudget.of(lm, max_new_tokens)

    def ask(prompts: Sequence[str]) -> list[str]:
        ids = [lm.template.prompt((Message("user", prompt),)) for prompt in prompts]
        longest = max(map(len, ids))
        if longest + room.tokens > lm.context:
            message = (
                f"a prompt takes {longest:,} tokens, its reply {room.tokens}; the {what}'s context holds {lm.context:,}"
            )
            raise UserError(f"{message}. Name a {what} with a longer context.", where=where)
        return [reply.text for reply in replies.ask(lm, ids, room)]

    return Judge(lm.name, ask)


def endpoint(url: str, model: str, *, max_tokens: int = 256, seconds: float = 120.0, what: str = "judge") -> Judge:
    """A model behind an OpenAI-compatible address (the part before /chat/completions), asked at temperature 0."""
    address = f"{url.rstrip('/')}/chat/completions"
    headers = {"Content-Type": "application/json"}
    asking = opener(url)
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"

    def ask(prompt: str) -> str:
        body = {
            "model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": max_tokens,
        }  # fmt: skip
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        try:
            with asking.open(request, timeout=seconds) as response:
                _, reply = split_thoughts(json.load(response)["choices"][0]["message"])
        except urllib.error.HTTPError as error:
            with error:
                reply = error.read(200).decode("utf-8", "replace").strip()
            message = f"the {what}'s endpoint answered {error.code} {error.reason}: {reply}"
            raise MachineError(f"{message}. Check the address, the model's name and {KEY}.", where=address) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            message = f"the {what}'s endpoint cannot be reached: {reason}. Is it running?"
            raise MachineError(
                f"{message} What it said so far is kept; run the same command again to continue.", where=address
            ) from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            message = f"the {what}'s endpoint gave no chat completion; expected choices[0].message.content."
            raise MachineError(f"{message} Is the address the part before /chat/completions?", where=address) from None
        return reply

    return Judge.of(ask, f"{model} at {url}")
