"""A Hugging Face tokenizer as the chat template wants it."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from luthier.chat import FastTokenizer, Template, base_template
from luthier.errors import UserError

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


class HubTokenizer(FastTokenizer):
    """The same with what transformers knows of it."""

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
        first = tokenizer("x").input_ids[:1]
        super().__init__(
            tokenizer.backend_tokenizer,
            control=control,
            spoken=frozenset(
                token.content for token in added.values() if token.content in control and not token.special
                and not token.content.startswith(WRITTEN_BY_TEMPLATES)
            ),
            named={name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)},
            bos=str(tokenizer.bos_token) if tokenizer.bos_token and first == [tokenizer.bos_token_id] else "",
            eos=str(tokenizer.eos_token),
        )  # fmt: skip

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
        decoder = json.loads(self.backend.to_str())["decoder"] or {}
        return any(part["type"] == "ByteLevel" for part in (decoder, *decoder.get("decoders", ())) if part)

    @cached_property
    def unspoken(self) -> frozenset[int]:
        """Ids that `decode` leaves out unless asked for."""
        return frozenset(self.hub.all_special_ids)

    @property
    def definition(self) -> str:
        """The tokenizer as JSON, as tokenizer.json has it."""
        return str(self.backend.to_str())


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
