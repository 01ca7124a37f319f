"""A GGUF file as an endpoint: llama.cpp answers in a process of its own, with the template in the file, as people run it.

So a quantised file can be judged beside the model that it was made from, on the same questions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from luthier.chat import Message
from luthier.engine import llama_cpp
from luthier.engine.llama_cpp import LlamaCpp
from luthier.errors import UserError
from luthier.evaluate.answers.endpoint import CONCURRENT_REQUESTS, Endpoint, Response, Unavailable
from luthier.model import gguf_file

MARGIN = 256  # tokens that a template may write around messages
BLOCK = 256  # llama.cpp rounds a context up to whole blocks of so many tokens


@dataclass
class GgufFile(Endpoint):
    """The file as an endpoint; nothing starts before the first question."""

    file: Path = field(default_factory=Path)
    longest: int = 0
    """Tokens that it looks back on."""

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
        return cls("", path.stem, file=path.absolute(), longest=int(found.metadata[f"{found.arch}.context_length"]))

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

    def _context(self, prompts: Sequence[tuple[Sequence[Message], Sequence[str]]], answer: int) -> int:
        """Room for the longest prompt, which has no more tokens than bytes, and its answer."""
        most = max(
            sum(len(message.text.encode()) for message in messages) + sum(len(tool.encode()) for tool in tools)
            for messages, tools in prompts
        )
        needed = most + MARGIN + answer
        return min(-needed // BLOCK * -BLOCK, self.longest)
