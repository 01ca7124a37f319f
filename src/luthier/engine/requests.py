"""What an engine is asked, and what it gives back."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from luthier.errors import MachineError, UserError

MOST_LOGPROBS = 20
MOST_STOP_STRINGS, LONGEST_STOP_STRING = 16, 256


class Busy(MachineError):
    """The queue is full; `retry_after` is in how many seconds there is likely to be room."""

    def __init__(self, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(f"too many requests are waiting for this model; try again in {retry_after:.0f} s.")


class Closed(MachineError):
    """The engine has ended, or is about to, and takes no more requests."""


class AnswerFailed(MachineError):
    """An answer could not be computed to its end; the message says why."""


@dataclass(frozen=True)
class Grammar:
    """A JSON object; where `schema` is given, one that this JSON Schema, as text, allows."""

    schema: str | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """A prompt and how it is to be answered. Without a temperature greedily, as `model.generate.answer` does."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    """What is drawn depends on the seed alone, whatever else is answered; without one it is drawn anew each time."""
    stop_strings: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None
    """So many of the likeliest tokens beside each generated one; 0: its own log p only; None: nothing."""
    prompt_logprobs: bool = False
    """The same for the prompt's tokens."""
    grammar: Grammar | None = None
    adapter: str | None = None
    ignore_end: bool = False
    """Goes on behind tokens that end an answer."""
    stop_ids: frozenset[int] | None = None
    """Tokens that end an answer, of a template that is not the base model's; None: those of the base model's template."""
    client: str = ""
    """Who asks; clients get equal shares of the slots."""

    def check(self, vocabulary: int) -> None:
        """Raises what is wrong, all of it at once; `where` names the field."""
        if faults := list(self._faults(vocabulary)):
            raise UserError("; ".join(f"{name}: {fault}" for name, fault in faults) + ".", where=faults[0][0])

    def _faults(self, vocabulary: int) -> Iterator[tuple[str, str]]:
        if not self.prompt:
            yield "prompt", "it has no tokens"
        elif min(self.prompt) < 0 or max(self.prompt) >= vocabulary:
            bad = next(token for token in self.prompt if not 0 <= token < vocabulary)
            yield "prompt", f"found the token id {bad}, the model knows ids from 0 to {vocabulary - 1}"
        if self.max_new_tokens < 0:
            yield "max_new_tokens", f"found {self.max_new_tokens}, expected 0 or more"
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 100):
            yield "temperature", f"found {self.temperature}, expected a number from 0 to 100"
        if not 0 < self.top_p <= 1:
            yield "top_p", f"found {self.top_p}, expected more than 0 and at most 1"
        if self.seed is not None and self.seed < 0:
            yield "seed", f"found {self.seed}, expected 0 or more"
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            if not (math.isfinite(value) and -2 <= value <= 2):
                yield name, f"found {value}, expected a number from -2 to 2"
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            yield "logprobs", f"found {self.logprobs}, expected 0 to {MOST_LOGPROBS}"
        if len(self.stop_strings) > MOST_STOP_STRINGS:
            yield "stop_strings", f"found {len(self.stop_strings)} of them, at most {MOST_STOP_STRINGS} are looked for"
        if any(not 0 < len(text) <= LONGEST_STOP_STRING for text in self.stop_strings):
            yield "stop_strings", f"each has 1 to {LONGEST_STOP_STRING} characters"


@dataclass(frozen=True)
class TokenLogprob:
    """A token with its log p in nats, and the likeliest tokens at its place, the likeliest first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class PromptScored:
    """For each token of the prompt its log p; None for the first, which nothing precedes. Comes before all pieces."""

    logprobs: tuple[TokenLogprob | None, ...]


@dataclass(frozen=True)
class Piece:
    """What was generated since the last piece: ids, and such text as is whole characters and begins no stop string."""

    ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Finished:
    """The end of an answer."""

    finish: str
    """`stop` at an end token, a stop string or a grammar's end; `length`; `no room` behind a prompt that fills the context;
    `cancelled`."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Tokens of the prompt that were not computed, because an earlier request began alike."""
    stop_string: str | None = None
    """The stop string that ended it."""


Event = PromptScored | Piece | Finished


@dataclass(frozen=True)
class Completion:
    """A whole answer."""

    ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...]
    finished: Finished
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()
