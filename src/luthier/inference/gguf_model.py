"""A GGUF file that is asked by name: llama.cpp answers in a process of its own, as people run the file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier.chat import Message
from luthier.engine import llama_cpp
from luthier.errors import UserError
from luthier.evaluate.answers.endpoint import Unavailable
from luthier.evaluate.answers.gguf_file import GgufFile
from luthier.model import gguf_file
from luthier.model.replies import Answer

BY_LLAMA_CPP = "llama.cpp answers, with the numbers and the template in the file"
UNPACKED = "unpacked and answered in fp32, because llama.cpp is not installed: pip install 'luthier[gguf]'"


@dataclass
class GgufModel:
    """The file, and how many tokens it may think before an answer."""

    endpoint: GgufFile
    thinking_tokens: int | None = None
    system: str | None = None

    @classmethod
    def at(cls, path: Path, thinking_tokens: int | None) -> "GgufModel":
        """The file; refuses a damaged one."""
        return cls(GgufFile.at(path, where=str(path)), thinking_tokens)

    @property
    def file(self) -> Path:
        """Where it is."""
        return self.endpoint.file

    def ask(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        tools: Sequence[Sequence[str]] | None = None,
        on_batch: Callable[[dict[int, Answer]], None] | None = None,
    ) -> list[Answer]:
        """Answers in the order of the prompts, the most likely token each time; several are answered at once."""
        answers: dict[int, Answer] = {}
        asked = list(zip(prompts, tools or [()] * len(prompts), strict=True))
        try:
            for number, response in self.endpoint.answers(
                asked, max_new_tokens=max_new_tokens + (self.thinking_tokens or 0)
            ):
                answers[number] = response.answer
                if on_batch:
                    on_batch({number: response.answer})
        except Unavailable as reason:
            raise UserError(f"llama.cpp does not answer: {reason}", where=str(self.file)) from None
        return [answers[number] for number in range(len(prompts))]

    def close(self) -> None:
        """End what a conversation has opened."""
        self.endpoint.close()


def find(name: str, thinking_tokens: int | None, on_note: Callable[[str], object]) -> GgufModel | None:
    """The GGUF file of this name, where llama.cpp is installed to answer; says how a file is answered."""
    if not gguf_file.is_file(name):
        return None
    on_note(BY_LLAMA_CPP if llama_cpp.is_installed() else UNPACKED)
    return GgufModel.at(Path(name).expanduser(), thinking_tokens) if llama_cpp.is_installed() else None
