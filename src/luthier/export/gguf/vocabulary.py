"""A tokenizer in the words of a GGUF file, and by what name llama.cpp knows how it cuts text.

The file names the cutting only (`tokenizer.ggml.pre`), and llama.cpp has the rule under that name. A wrong name is no error
there, and splits one text in four otherwise. So each name that may fit is tried on texts, and one is taken under which
llama.cpp gives our ids for all of them.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer, models

from luthier.chat import Message, Template
from luthier.errors import UserError
from luthier.export.gguf.families import Metadata
from luthier.model.gguf import PRE_TOKENIZERS
from luthier.model.tokenizer import SPELLED_BYTE, HubTokenizer

CUTS = (
    "gpt-2", "smollm", "llama-bpe", "qwen2", "olmo", "gpt-4o", "tekken", "deepseek-llm", "deepseek-coder", "deepseek-v3",
    "starcoder", "refact", "command-r", "falcon", "mpt", "stablelm2", "dbrx", "smaug-bpe", "poro-chat", "viking", "jais",
    "codeshell", "bloom", "exaone", "exaone4", "chameleon", "minerva-7b", "megrez", "superbpe", "trillion", "seed-coder",
    "hunyuan", "hunyuan-dense", "kimi-k2", "grok-2", "lfm2", "granite-docling", "phi-2", "roberta-bpe", "falcon3",
)  # fmt: skip
"""Names that llama.cpp knows, the usual ones first."""
PREFIX = "tokenizer.ggml."
NAME, PHI_NAME = "fine-tuned", "fine-tuned phi-3"
"""A model's name is a setting: where it has `phi-3` in it, llama.cpp lets control tokens swallow the blanks behind them, and
ends where some of Phi-3's tokens are not there. So it is never the name of a run."""


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer, but for what has to be tried (`variants`)."""

    hub: HubTokenizer
    template: Template
    size: int
    """Embeddings of the model."""
    name: str
    documents: bool = False
    add_bos: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "add_bos", bool(self.hub.bos) and (self.documents or self._chats_begin_with_bos))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """tokenizer.json."""
        settings: dict[str, Any] = json.loads(self.hub.hub.backend_tokenizer.to_str())
        return settings

    @cached_property
    def byte_level(self) -> bool:
        """Whether it is GPT-2's kind of tokenizer; else SentencePiece's. Refuses any other."""
        model = self.settings["model"]
        if model["type"] != "BPE":
            raise UserError(
                f"the tokenizer is of the kind {model['type']}, which is not written as GGUF here; byte-level BPE and "
                "SentencePiece's BPE are. Export with --to merged.",
                where=self.name,
            )
        if "ByteLevel" in _kinds(self.settings["decoder"]):
            return True
        if not model.get("byte_fallback"):
            raise UserError(
                "the tokenizer has no letters for bytes and falls back to none (byte_fallback), so that GGUF cannot express "
                "it. Export with --to merged.",
                where=self.name,
            )
        return False

    @property
    def begin(self) -> list[int]:
        """What the file puts before a text: BOS or nothing."""
        return [self.hub.control[self.hub.bos]] if self.add_bos else []

    @property
    def normalises(self) -> bool:
        """Whether texts are brought to Unicode's NFC form first, which llama.cpp does not do."""
        return "NFC" in _kinds(self.settings["normalizer"])

    def metadata(self) -> Metadata:
        """Tokens, their kinds, merges or scores, control tokens, the chat template."""
        tokens, kinds = self._tokens()
        found: Metadata = {
            "general.name": PHI_NAME if self._control_tokens_swallow else NAME,
            f"{PREFIX}model": "gpt2" if self.byte_level else "llama",
            f"{PREFIX}tokens": tokens,
            f"{PREFIX}token_type": kinds,
            f"{PREFIX}add_bos_token": self.add_bos,
            f"{PREFIX}add_eos_token": False,
            "tokenizer.chat_template": self.template.portable_source,
        }
        if self.byte_level:
            found[f"{PREFIX}merges"] = [" ".join(pair) for pair in self._merges()]
        else:
            found[f"{PREFIX}scores"] = self._scores(tokens)
        return found | self._control_ids()

    def variants(self) -> Iterator[Metadata]:
        """What may stand beside it, the likely first: names of how text is cut; whether a blank is put in front."""
        if not self.byte_level:
            prefixed = _prepends(self.settings)
            for choice in (prefixed, not prefixed):
                yield {f"{PREFIX}pre": "default", f"{PREFIX}add_space_prefix": choice}
            return
        own = self.settings["pre_tokenizer"]
        likely = [word for word, make in PRE_TOKENIZERS.items() if json.loads(_as_json(make())) == own]
        for word in dict.fromkeys([*likely, *CUTS]):
            yield {f"{PREFIX}pre": word}

    @property
    def _chats_begin_with_bos(self) -> bool:
        found = self.template.prompt((Message("user", "x"),))
        return found[:1] == [self.hub.control.get(self.hub.bos)]

    @property
    def _control_tokens_swallow(self) -> bool:
        """Whether control tokens take the blanks behind them away, as Phi-3's do."""
        return not self.byte_level and any(
            token["special"] and token["rstrip"] for token in self.settings["added_tokens"]
        )

    def _tokens(self) -> tuple[list[str], list[int]]:
        added = {int(token["id"]): token for token in self.settings["added_tokens"]}
        spelled = {number: token for token, number in self.settings["model"]["vocab"].items()}
        unknown = self.settings["model"].get("unk_token")
        tokens, kinds = [], []
        for number in range(self.size):
            if number in added:
                token = added[number]["content"]
                kind = TokenType.CONTROL if added[number]["special"] else TokenType.USER_DEFINED
                if token == unknown and not self.byte_level:
                    kind = TokenType.UNKNOWN
            elif number in spelled:
                token = spelled[number]
                is_byte = not self.byte_level and SPELLED_BYTE.fullmatch(token)
                kind = TokenType.BYTE if is_byte else TokenType.NORMAL
            else:
                token, kind = f"[PAD{number}]", TokenType.UNUSED
            tokens.append(token)
            kinds.append(int(kind))
        return tokens, kinds

    def _merges(self) -> list[tuple[str, str]]:
        pairs = (each.split(" ", 1) if isinstance(each, str) else each for each in self.settings["model"]["merges"])
        return [(first, second) for first, second in pairs]

    def _scores(self, tokens: Sequence[str]) -> list[float]:
        """SentencePiece joins the pair whose whole has the highest score, BPE the one of the first merge: rank as a score."""
        ranks: dict[str, int] = {}
        for rank, pair in enumerate(self._merges()):
            ranks.setdefault("".join(pair), rank)
        return [-float(ranks.get(token, len(ranks))) for token in tokens]

    def _control_ids(self) -> Metadata:
        """Where a text begins and where an answer ends: each end token that the model was trained with has a place."""
        hub, ends = self.hub.hub, sorted(self.template.stop_ids)
        first = hub.eos_token_id if hub.eos_token_id in ends or not ends else ends[0]
        found: Metadata = {f"{PREFIX}eos_token_id": int(first)}
        others = [end for end in ends if end != first]
        for word, number in zip(("eot", "eom"), others, strict=False):
            found[f"{PREFIX}{word}_token_id"] = number
        for word, each in (("bos", hub.bos_token_id), ("unknown", hub.unk_token_id), ("padding", hub.pad_token_id)):
            if isinstance(each, int) and each < self.size:
                found[f"{PREFIX}{word}_token_id"] = each
        return found


def _as_json(pre_tokenizer: Any) -> str:
    coder = Tokenizer(models.BPE())
    coder.pre_tokenizer = pre_tokenizer
    return json.dumps(json.loads(coder.to_str())["pre_tokenizer"])


def _kinds(part: dict[str, Any] | None) -> set[str]:
    """The kinds of a tokenizer's part and of those inside it."""
    if not part:
        return set()
    inner = [each for key in ("normalizers", "pretokenizers", "decoders") for each in part.get(key, ())]
    return {part["type"]}.union(*(_kinds(each) for each in inner))


def _prepends(settings: dict[str, Any]) -> bool:
    """Whether a blank is put in front of a text."""
    text = json.dumps([settings["normalizer"], settings["pre_tokenizer"]])
    return "Prepend" in text or '"prepend_scheme": "first"' in text or '"prepend_scheme": "always"' in text


Try = Callable[[Metadata], list[str]]
"""From a variant to the differences that llama.cpp then shows, in words."""


def proven_variant(vocabulary: Vocabulary, attempt: Try) -> tuple[Metadata, list[str]]:
    """The first variant without a difference; else the one with the fewest, and those."""
    best: tuple[Metadata, list[str]] | None = None
    for variant in vocabulary.variants():
        found = attempt(variant)
        if not found:
            return variant, []
        if best is None or len(found) < len(best[1]):
            best = variant, found
    assert best is not None
    return best
