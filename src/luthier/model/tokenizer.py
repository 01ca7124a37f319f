"""A Hugging Face tokenizer as the chat template wants it."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from luthier.chat import Template, base_template
from luthier.errors import UserError

WALL = "\U0010fffd"  # a control token of our own, behind which a text is no longer at its beginning
ORDINARY = re.compile(
    r"</?(?:table|caption|thead|tbody|tfoot|tr|th|td|ul|ol|li|h[1-6]|p|br|a|img|blockquote|strong|em|b|i|u|s|sub|sup|code|pre)>"
)
BRACKETED = re.compile(r"[<\[{\u3010].*[>\]}\u3011]", re.DOTALL)
WRITTEN_BY_TEMPLATES = ("<|", "<\uff5c")  # how the tokens begin that no answer spells
SPELLED_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
BYTES = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(256 + number): byte for number, byte in enumerate(byte for byte in range(256) if byte not in _PRINTABLE)
}
"""GPT-2's letters for bytes (`bytes_to_unicode` in its encoder.py): printable ones stand for themselves."""


class HubTokenizer:
    """Implements `luthier.chat.Tokenizer` over a fast tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise UserError("the model has no fast tokenizer (tokenizer.json); convert it with transformers first.")
        if not tokenizer.eos_token:
            raise UserError("the model's tokenizer names no end token (eos_token), so it could never learn to stop.")
        self.hub = tokenizer
        added = tokenizer.added_tokens_decoder
        control = {token.content: number for number, token in added.items() if token.special or _is_tag(token.content)}
        for spelled, number in (
            (tokenizer.eos_token, tokenizer.eos_token_id),
            (tokenizer.bos_token, tokenizer.bos_token_id),
        ):
            if spelled and isinstance(number, int):
                control.setdefault(str(spelled), number)
        self.control: Mapping[str, int] = control
        self.spoken = frozenset(
            token.content for token in added.values() if token.content in control and not token.special
            and not token.content.startswith(WRITTEN_BY_TEMPLATES)
        )  # fmt: skip
        self.named: Mapping[str, str] = {
            name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)
        }
        first = tokenizer("x").input_ids[:1]
        self.bos = str(tokenizer.bos_token) if tokenizer.bos_token and first == [tokenizer.bos_token_id] else ""
        self.eos = str(tokenizer.eos_token)
        self._forbidden = frozenset(control.values())
        self._spelled = re.compile("|".join(map(re.escape, control)) or r"(?!)")
        self._eats = {
            token.content: (token.lstrip, token.rstrip) for token in added.values() if token.lstrip or token.rstrip
        }

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Ids and start offsets of plain text; `<|im_end|>` in it is seven or so ordinary tokens."""
        backend, same = self._plain if self._spelled.search(text) else (self._backend, {})
        coded = backend.encode(text, add_special_tokens=False)
        return [same.get(token, token) for token in coded.ids], [start for start, _ in coded.offsets]

    def between(self, before: str, text: str, after: str) -> list[int]:
        """Ids of plain text between two control tokens, one or both of which may be missing."""
        if self._eats.get(before, (False, False))[1]:
            text = text.lstrip()
        if self._eats.get(after, (False, False))[0]:
            text = text.rstrip()
        return self._as_text(text, walled=bool(before))

    def _as_text(self, text: str, *, walled: bool) -> list[int]:
        """Ids of plain text; where the vocabulary itself has a control token's spelling, in two halves."""
        backend, same = self._plain
        coded = backend.encode(WALL + text if walled else text, add_special_tokens=False).ids
        ids = [same.get(token, token) for token in coded[walled:]]
        spelled = self._spelled.search(text)
        if spelled is None or not self._forbidden.intersection(ids):
            return ids
        cut = spelled.start() + 1
        return self._as_text(text[:cut], walled=walled) + self._as_text(text[cut:], walled=True)

    def render(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole renderings; many at once, on all cores that the environment allows."""
        coded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [one.ids for one in coded]

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of plain texts, many at once; in each, what is spelled like a control token is ordinary text."""
        spelled = [number for number, text in enumerate(texts) if self._spelled.search(text)]
        coded = self.render(texts)
        for number in spelled:
            coded[number] = self._as_text(texts[number], walled=False)
        return coded

    def decode(self, ids: Sequence[int], *, control: bool = False) -> str:
        """Text of ids, spaces exactly as generated; control tokens left out unless asked for."""
        return str(self.hub.decode(list(ids), skip_special_tokens=not control, clean_up_tokenization_spaces=False))

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes that each id stands for, blanks and all; a character may lie in several."""
        added = self.hub.added_tokens_decoder
        spelled = self.hub.convert_ids_to_tokens(list(ids))
        return [
            added[token].content.encode("utf-8", "replace") if token in added else self._piece(str(spelling or ""))
            for token, spelling in zip(ids, spelled, strict=True)
        ]

    def _piece(self, spelling: str) -> bytes:
        """The bytes of an entry of the vocabulary: spelled in letters for bytes, as `<0x0A>`, or with ▁ for a blank."""
        if self.spells_bytes:
            return b"".join(
                bytes([BYTES[letter]]) if letter in BYTES else letter.encode("utf-8", "replace") for letter in spelling
            )
        if byte := SPELLED_BYTE.fullmatch(spelling):
            return bytes([int(byte[1], 16)])
        return spelling.replace("\u2581", " ").encode("utf-8", "replace")

    @cached_property
    def spells_bytes(self) -> bool:
        """Whether the vocabulary is spelled in GPT-2's letters for bytes."""
        decoder = json.loads(self._backend.to_str())["decoder"] or {}
        return any(part["type"] == "ByteLevel" for part in (decoder, *decoder.get("decoders", ())) if part)

    @cached_property
    def unspoken(self) -> frozenset[int]:
        """Ids that `decode` leaves out unless asked for."""
        return frozenset(self.hub.all_special_ids)

    @property
    def definition(self) -> str:
        """The tokenizer as JSON, as tokenizer.json has it."""
        return str(self._backend.to_str())

    @property
    def _backend(self) -> Any:
        """The fast tokenizer, without what a call of transformers' may have left set on it.

        Nothing is set that is right already: setting waits, and lets no thread run, until others have tokenized their texts.
        """
        backend = self.hub.backend_tokenizer
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        if backend.encode_special_tokens:
            backend.encode_special_tokens = False
        return backend

    @cached_property
    def _plain(self) -> tuple[Any, Mapping[int, int]]:
        """The tokenizer without its control tokens, and its ids that differ for it from the real ones."""
        settings = json.loads(self._backend.to_str())
        left = [token for token in settings["added_tokens"] if token["content"] not in self.control]
        plain = type(self._backend).from_str(json.dumps({**settings, "added_tokens": left, "post_processor": None}))
        plain.add_special_tokens([WALL])
        same = {plain.token_to_id(token["content"]): int(token["id"]) for token in left}
        return plain, {own: real for own, real in same.items() if own != real}


def _is_tag(spelled: str) -> bool:
    """Whether an added token looks like a sign for machines, and not like a run of blanks or a word of HTML."""
    return bool(BRACKETED.fullmatch(spelled)) and not ORDINARY.fullmatch(spelled)


def _one(own: str | Mapping[str, str] | None) -> str | None:
    """A model's template; of several by name, transformers takes `tool_use` where tools are given, and else `default`."""
    if own is None or isinstance(own, str):
        return own
    plain = own.get("default") or next(iter(own.values()))
    if not own.get("tool_use"):
        return plain
    with_tools, without = (text.removesuffix("\n") for text in (own["tool_use"], plain))
    return f"{{% if tools %}}\n{with_tools}{{% else %}}\n{without}{{% endif %}}"


def template_of(
    tokenizer: PreTrainedTokenizerBase,
    *,
    variables: Mapping[str, object] | None = None,
    today: date | None = None,
    ends: Collection[int] = (),
) -> Template:
    """The model's own chat template, or ours for a base model. `ends` are the end tokens of its generation_config."""
    adapter = HubTokenizer(tokenizer)
    own = _one(tokenizer.chat_template)
    name = "the model's own chat template" if own else "Luthier's template for base models, as it brings none"
    return Template(own or base_template(adapter.bos), adapter, name, variables, today, frozenset(ends))
