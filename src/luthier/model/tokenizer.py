"""A Hugging Face tokenizer as the chat template wants it."""

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from luthier.chat import BASE_TEMPLATE, Template
from luthier.errors import Mistake


class HubTokenizer:
    """Implements `luthier.chat.Tokenizer` over a fast tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise Mistake("the model has no fast tokenizer (tokenizer.json); convert it with transformers first.")
        if not tokenizer.eos_token:
            raise Mistake("the model's tokenizer names no end token (eos_token), so it could never learn to stop.")
        self.hub = tokenizer
        specials = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        for spelled, number in (
            (tokenizer.eos_token, tokenizer.eos_token_id),
            (tokenizer.bos_token, tokenizer.bos_token_id),
        ):
            if spelled and isinstance(number, int):
                specials.setdefault(str(spelled), number)
        self.control: Mapping[str, int] = specials
        first = tokenizer("x").input_ids[:1]
        self.bos = tokenizer.bos_token if tokenizer.bos_token and first == [tokenizer.bos_token_id] else ""
        self.eos = str(tokenizer.eos_token)

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Ids and start offsets of plain text; `<|im_end|>` in it is seven or so ordinary tokens."""
        coded = self.hub(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        return list(coded["input_ids"]), [start for start, _ in coded["offset_mapping"]]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens left out, spaces exactly as generated."""
        return str(self.hub.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def template_of(tokenizer: PreTrainedTokenizerBase) -> Template:
    """The model's own chat template, or ours for a base model."""
    adapter = HubTokenizer(tokenizer)
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default") or next(iter(own.values()))
    if own:
        return Template(own, adapter, "the model's own chat template")
    return Template(BASE_TEMPLATE, adapter, "Luthier's template for base models")
