"""What is asked of an exported model to compare it with its run, whichever program runs it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from luthier.engine.llama_cpp import Completion


class Running(Protocol):
    """An exported model in the program that people run it with: llama.cpp (`LlamaCpp`), or transformers."""

    def tokenize(self, texts: Sequence[str], *, special: bool = False, add: bool = False) -> list[list[int]]:
        """Ids of texts. `special`: spelled control tokens are taken as such; `add`: with BOS where the export says so."""
        ...

    def logits(self, ids: Sequence[int], *, begin: int = 0) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Logits after each token from number `begin` on, a row each."""
        ...

    def render(self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The prompt that the export's chat template makes of these messages."""
        ...

    def complete(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, drafts: Sequence[Sequence[int]] | None = None
    ) -> list[Completion]:
        """Greedy answers to prompts of ids. A draft is what an answer may be; it can save time, and changes no answer."""
        ...
