"""A request while it is answered: what it has read and written, what ends it, and what its stream is told."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from luthier.engine.grammar import GrammarState
from luthier.engine.requests import Finished, GenerationRequest, Piece, PromptScored, TokenLogprob
from luthier.engine.streams import Stream
from luthier.engine.text import TextStream
from luthier.model import generate
from luthier.model.loading import LanguageModel
from luthier.model.tokenizer import HubTokenizer


class Row:
    """A request, its stream, and all that its answer depends on."""

    def __init__(
        self,
        lm: LanguageModel,
        request: GenerationRequest,
        *,
        adapter: str | None = None,
        grammar: GrammarState | None = None,
    ) -> None:
        tokenizer = lm.template.tokenizer
        assert isinstance(tokenizer, HubTokenizer)
        self.request = request
        self.adapter, self.grammar = adapter, grammar
        self.stream = Stream()
        self.limit = generate.limits_of(lm, [request.prompt], request.max_new_tokens)[0]
        self.full = not self.limit and request.max_new_tokens > 0
        """Whether its prompt leaves no room for an answer."""
        self.written: list[int] = []
        self.cached = 0
        """Tokens of the prompt that were there already."""
        self.prompt_logprobs: list[TokenLogprob | None] = [None]
        self.counts: Counter[int] = Counter()
        self.generator = np.random.default_rng(request.seed)
        self.text = TextStream(tokenizer, request.stop_strings)
        self._stops = lm.template.stop_ids if request.stop_ids is None else request.stop_ids
        if request.ignore_end:
            self._stops = frozenset()

    @property
    def ids(self) -> Sequence[int]:
        """All that stands in the row: the prompt, and what was written behind it."""
        return (*self.request.prompt, *self.written)

    @property
    def longest(self) -> int:
        """Tokens that the row may come to."""
        return len(self.request.prompt) + self.limit

    @property
    def is_plain(self) -> bool:
        """Whether its next token is simply the likeliest one, and nobody asks how likely."""
        asked = self.request
        penalties = asked.presence_penalty or asked.frequency_penalty
        return not (asked.temperature or penalties or asked.grammar or asked.logprobs is not None)

    def begin(self) -> None:
        """Tells what was found about the prompt; ends where there is nothing to write."""
        if self.request.prompt_logprobs and not self.written:
            self.stream.put(PromptScored(tuple(self.prompt_logprobs)))
        if not self.limit:
            self.finish(generate.NO_ROOM if self.full else "length")

    def accept(self, token: int, logprob: TokenLogprob | None = None) -> bool:
        """The row's next token; gives whether the answer goes on."""
        self.written.append(token)
        if self.request.presence_penalty or self.request.frequency_penalty:
            self.counts[token] += 1
        text = self.text.add(token)
        stopped = token in self._stops or self.text.stop_string is not None
        if self.grammar and not stopped:
            stopped = not self.grammar.accept(token)
        over = stopped or len(self.written) >= self.limit
        if over:
            text += self.text.end()
        self.stream.put(Piece((token,), text, (logprob,) if logprob else ()))
        if over:
            self.finish("stop" if stopped or self.text.stop_string is not None else "length")
        return not over

    def finish(self, how: str) -> None:
        """The end of its stream."""
        self.stream.put(Finished(how, len(self.request.prompt), len(self.written), self.cached, self.text.stop_string))
