"""JSON that is valid from its first token to its last: masks over the vocabulary by llguidance, in bounded time and memory."""

import json
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from luthier.engine.requests import Grammar
from luthier.errors import UserError
from luthier.extensions import not_installed
from luthier.model.loading import LanguageModel
from luthier.model.tokenizer import HubTokenizer

WHERE = "response_format"
LONGEST_SCHEMA = 64 * 1024  # characters
DEEPEST_SCHEMA = 64
KEPT = 32  # compiled grammars
WHITESPACE = r"[\x20\x0A\x0D\x09]{1,20}"  # without a bound a small model may write blanks until its limit
LIMITS = {
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}


class GrammarState:
    """Where an answer stands in its grammar."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def allowed(self, device: torch.device) -> Tensor:
        """For each token whether it may come next; raises where the grammar has become too much for its limits."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise UserError(
                f"the schema is too complex to go on: {_first_line(self._matcher.get_error())}.", where=WHERE
            )
        flags = np.unpackbits(bits, bitorder="little")[: self._vocabulary].astype(bool)
        return torch.from_numpy(np.pad(flags, (0, self._vocabulary - len(flags)))).to(device)

    def accept(self, token: int) -> bool:
        """The answer's next token; gives whether more may follow."""
        self._matcher.consume_token(token)
        return not self._matcher.is_stopped()


class Grammars:
    """Compiled grammars of a model, kept for requests that ask for the same; to be used from any thread."""

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self._vocabulary = int(lm.model.config.get_text_config().vocab_size)
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._kept: OrderedDict[Grammar, Any] = OrderedDict()

    def begin(self, grammar: Grammar) -> GrammarState:
        """The beginning of an answer; a schema that cannot be followed is a `UserError`."""
        with self._lock:
            matcher = self._kept.get(grammar)
            if matcher is None:
                matcher = self._compile(grammar)
                self._kept[grammar] = matcher
            self._kept.move_to_end(grammar)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return GrammarState(matcher.deep_copy(), self._vocabulary)

    def _compile(self, grammar: Grammar) -> Any:
        try:
            import llguidance
        except ImportError:
            raise not_installed("llguidance", "serve", where=WHERE) from None
        schema = _checked(grammar.schema)
        if self._tokenizer is None:
            tokenizer = self._lm.template.tokenizer
            assert isinstance(tokenizer, HubTokenizer)
            ends = sorted(self._lm.template.stop_ids)
            self._tokenizer = llguidance.LLTokenizer(tokenizer.definition, n_vocab=self._vocabulary, eos_token=ends)
        try:
            text = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": WHITESPACE})
        except ValueError as error:
            raise UserError(f"the schema cannot be used: {_first_line(str(error))}.", where=WHERE) from None
        limits = llguidance.LLParserLimits(**LIMITS)
        matcher = llguidance.LLMatcher(self._tokenizer, text, log_level=0, limits=limits)
        if matcher.is_error():
            raise UserError(f"the schema cannot be used: {_first_line(matcher.get_error())}.", where=WHERE)
        return matcher


def _checked(schema: str | None) -> str:
    """The schema as text; refuses one that is too long, too deep or no JSON object."""
    if schema is None:
        return '{"type": "object"}'
    if len(schema) > LONGEST_SCHEMA:
        raise UserError(
            f"the schema has {len(schema):,} characters, at most {LONGEST_SCHEMA:,} are taken.", where=WHERE
        )
    try:
        found = json.loads(schema)
        deep = _depth(found)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the schema is no JSON ({_first_line(str(error))}).", where=WHERE) from None
    if not isinstance(found, dict):
        raise UserError(f"the schema is a JSON {type(found).__name__}, expected an object.", where=WHERE)
    if deep > DEEPEST_SCHEMA:
        raise UserError(f"the schema is nested {deep} deep, at most {DEEPEST_SCHEMA} are taken.", where=WHERE)
    return schema


def _depth(value: Any) -> int:
    if isinstance(value, (dict, list)):
        inside = value.values() if isinstance(value, dict) else value
        return 1 + max(map(_depth, inside), default=0)
    return 0


def _first_line(text: str) -> str:
    """The beginning of a message of the library's, short enough to be read."""
    return (text.strip().splitlines() or [""])[0][:200].rstrip(".")
