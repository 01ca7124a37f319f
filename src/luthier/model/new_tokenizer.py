"""A tokenizer made from a corpus: byte-level BPE with the control tokens of a chat, and how well it does.

The same texts in the same order give the same file, whatever the number of threads. All 256 bytes are in it, so it can write
any text.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from luthier.errors import UserError
from luthier.model.folder import read_tokenizer
from luthier.model.tokenizer import HubTokenizer
from luthier.runs.durable import digest, whole_folder

END, PAD, START_OF_MESSAGE, END_OF_MESSAGE = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
CONTROL = (END, PAD, START_OF_MESSAGE, END_OF_MESSAGE)
SMALLEST = 256 + len(CONTROL)
"""Every byte, and the control tokens."""
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, the template that most small chat models are trained with."""
TRAINED_ON = 100_000_000
"""Characters from which a vocabulary is made, when there are more: as many as a machine counts in a minute or two."""


@dataclass(frozen=True)
class Compression:
    """How many bytes of text a token stands for."""

    name: str
    vocabulary: int
    bytes: int
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / max(1, self.tokens)


def train(texts: Iterable[str], vocabulary: int, *, where: str, fewer: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of so many entries, control tokens included; refuses more than the texts have, or has `fewer`."""
    if vocabulary < SMALLEST:
        raise UserError(
            f"a vocabulary of {vocabulary:,} cannot hold the 256 bytes and {len(CONTROL)} control tokens. "
            f"Expected at least {SMALLEST}.",
            where="vocab",
        )
    coder = Tokenizer(models.BPE())
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    counted = _Counted(texts)
    coder.train_from_iterator(counted, trainer)
    if not counted.characters:
        raise UserError("there is no text in it. Expected documents.", where=where)
    if (found := coder.get_vocab_size()) < vocabulary and not fewer:
        raise UserError(
            f"a vocabulary of {vocabulary:,} was asked for, and its {counted.characters:,} characters have no more than "
            f"{found:,} different pieces. Set vocab={found} or lower, or give more text.",
            where=where,
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=coder, eos_token=END, pad_token=PAD, chat_template=CHAT, clean_up_tokenization_spaces=False,
    )  # fmt: skip


class _Counted:
    """Texts up to a limit, and how many characters they had."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts, self.characters = texts, 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.characters += len(text)
            yield text
            if self.characters >= TRAINED_ON:
                return


def save(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer as a folder that transformers reads; none stands there before."""
    with whole_folder(folder) as temporary:
        tokenizer.save_pretrained(temporary)


def read(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, which need hold no model."""
    if not (folder / "tokenizer.json").is_file():
        raise UserError("found no tokenizer.json there. `luthier tokenizer` makes one.", where=str(folder))
    return read_tokenizer(folder, str(folder))


def identity(folder: Path) -> str:
    """SHA-256 of what decides which tokens come out."""
    return digest(folder / "tokenizer.json")


def expect_round_trip(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
    """Raises where a text does not come back as it was, bit for bit: then the tokenizer is of no use."""
    adapter = HubTokenizer(tokenizer)
    for text, ids in zip(texts, adapter.encode_texts(texts), strict=True):
        back = adapter.decode(ids, control=True)
        if back != text:
            at = next(
                (at for at, (one, other) in enumerate(zip(text, back, strict=False)) if one != other),
                min(len(text), len(back)),
            )
            raise UserError(
                f"the tokenizer does not give a text back as it was: {text[at : at + 20]!r} became {back[at : at + 20]!r}. "
                "Take another tokenizer.",
                where="tokenizer",
            )


def compression(name: str, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Compression:
    """How few tokens it takes for these texts."""
    ids = HubTokenizer(tokenizer).encode_texts(texts)
    size = sum(len(text.encode()) for text in texts)
    return Compression(name, len(tokenizer), size, sum(map(len, ids)))


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 of a tokenizer as it would be written."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str(pretty=True).encode()).hexdigest()
