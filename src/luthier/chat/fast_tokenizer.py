"""A tokenizer of the library `tokenizers` as the chat template wants it: all that making rows needs, in any process."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

WALL = "\U0010fffd"  # a control token of our own, behind which a text is no longer at its beginning


class FastTokenizer:
    """Implements `luthier.chat.Tokenizer`. Pickled, also where transformers knows more of it, it needs no transformers."""

    def __init__(
        self,
        backend: Any,
        *,
        control: Mapping[str, int],
        spoken: frozenset[str],
        named: Mapping[str, str],
        bos: str,
        eos: str,
    ) -> None:
        self._whole = backend
        self.control, self.spoken, self.named = control, spoken, named
        self.bos, self.eos = bos, eos
        self._forbidden = frozenset(control.values())
        self._spelled = re.compile("|".join(map(re.escape, control)) or r"(?!)")
        self._eats = {
            token.content: (token.lstrip, token.rstrip)
            for token in backend.get_added_tokens_decoder().values()
            if token.lstrip or token.rstrip
        }

    def __reduce__(self) -> tuple[Any, ...]:
        words = {"control": dict(self.control), "spoken": self.spoken, "named": dict(self.named)}
        return _restored, (self.backend, {**words, "bos": self.bos, "eos": self.eos})

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Ids and start offsets of plain text; `<|im_end|>` in it is seven or so ordinary tokens."""
        backend, same = self._plain if self._spelled.search(text) else (self.backend, {})
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
        coded = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
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
        return str(self.backend.decode(list(ids), skip_special_tokens=not control))

    @property
    def backend(self) -> Any:
        """The fast tokenizer, without what a call of transformers' may have left set on it.

        Nothing is set that is right already: setting waits, and lets no thread run, until others have tokenized their texts.
        """
        backend = self._whole
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
        settings = json.loads(self.backend.to_str())
        left = [token for token in settings["added_tokens"] if token["content"] not in self.control]
        plain = type(self.backend).from_str(json.dumps({**settings, "added_tokens": left, "post_processor": None}))
        plain.add_special_tokens([WALL])
        same = {plain.token_to_id(token["content"]): int(token["id"]) for token in left}
        return plain, {own: real for own, real in same.items() if own != real}


def _restored(backend: Any, words: Mapping[str, Any]) -> FastTokenizer:
    return FastTokenizer(backend, **words)
