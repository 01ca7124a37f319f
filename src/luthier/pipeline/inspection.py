"""The verb `luthier inspect` where a model is named: lengths in its tokens, and which rows do not fit.

No model is loaded, only its tokenizer and its template; the data is looked at by `luthier.data.inspection`.
"""

from collections.abc import Iterator, Mapping, Sequence

from luthier.chat import Template
from luthier.data import encoding
from luthier.data import inspection as of_data
from luthier.data.checks import ledger, lengths
from luthier.data.checks.cut_answers import CUT, Limit
from luthier.data.checks.findings import Finding, Spot, plural
from luthier.data.dataset import Item
from luthier.data.inspection import Inspection, Progress, as_messages
from luthier.data.ledger import Ledger
from luthier.model.reference import ModelReference
from luthier.pipeline import defaults, row_limit
from luthier.recipe import Recipe

MOST_TOKENS = 60
"""Tokens of the longest answers from which on many of one length are a limit."""
AT_ONCE = 500
"""Rows that are tokenized together."""
FIT = "A run leaves them out. Shorten them, or use a model with a longer context."
SHORTENED = "A run trains on what is left. A model with a longer context, or a larger train.max_tokens, keeps more."


def inspect(asked: Recipe, *, progress: Progress = lambda what, done, of: None) -> Inspection:
    """Look at the data of a recipe, in tokens where it names a model; raises a UserError where it cannot be read."""
    tokens = _Tokens(asked) if "model" in asked.model_fields_set else None
    return of_data.inspect(asked, tokens=tokens, progress=progress)


class _Tokens:
    """Lengths in tokens of the rows that stream past, and which of them a run would leave out or shorten."""

    def __init__(self, asked: Recipe) -> None:
        model = ModelReference.of(asked.model, weights=False)
        self.model = asked.model
        self._asked, self._context = asked, model.context
        self._template: Template = model.template(variables=asked.chat.variables, today=asked.chat.date)
        self.control_tokens = frozenset(self._template.tokenizer.control)
        self._limit = 0
        self._waiting: list[Item] = []
        self._account = Ledger()
        self._rows: list[int] = []
        self._answers: list[int] = []
        self._longest = Limit("tokens", MOST_TOKENS)

    def see(self, item: Item) -> None:
        """Tokenize the item, with others."""
        self._waiting.append(item)
        if len(self._waiting) == AT_ONCE:
            self._encode()

    def _encode(self) -> None:
        items, self._waiting = self._waiting, []
        if not items:
            return
        if not self._limit:
            by_default = row_limit.by_default(self._context, documents=items[0].conversation.is_document)
            self._limit, _ = defaults.longest_row(self._asked, self._context, by_default)
        found = encoding.encode_all(items, self._template, self._limit, self._account, pairs=set())
        for item in items:
            encoded = found[item.location]
            self._rows += [len(row.ids) for row in encoded]
            self._answers += [row.loss_tokens for row in encoded]
            if encoded and not item.conversation.is_document:
                self._longest.see(encoded[-1].loss_tokens, item.conversation.answer, item.location)

    def sizes(self) -> dict[str, lengths.Lengths]:
        """Lengths of whole rows, of what is asked and of answers."""
        self._encode()
        asked = [row - answer for row, answer in zip(self._rows, self._answers, strict=True)]
        named = (("row", self._rows), ("question", asked), ("answer", self._answers))
        return {name: lengths.Lengths.of(each) for name, each in named}

    def findings(self) -> Iterator[Finding]:
        """Answers that stop where many do, and rows that do not fit, or not as a whole."""
        self._encode()
        if self._longest.is_one():
            spots = tuple(self._longest.spots)
            sentence = f"{plural(len(spots), 'answer')} stopping where many others stop: {self._longest}"
            yield Finding("cut-answer", "warning", sentence, CUT, spots)
        fit = f"({self._limit:,} tokens fit)"
        for reason, kind, advice in ((encoding.TOO_LONG, "too-long", FIT), (encoding.REFUSED, "unusable", "")):
            if left_out := _spots(self._account.dropped, reason):
                verb = "is" if len(left_out) == 1 else "are"
                yield Finding(
                    kind, "warning", f"{plural(len(left_out), 'row')} {verb} {reason} {fit}", advice, left_out
                )
        if shorter := _spots(self._account.notes, encoding.SHORTENED):
            sentence = (
                f"{plural(len(shorter), 'conversation')} too long as a whole, trained on without the oldest turns {fit}"
            )
            yield Finding("shortened", "note", sentence, SHORTENED, shorter)


def _spots(account: Mapping[str, Sequence[str]], reason: str) -> tuple[Spot, ...]:
    return tuple(ledger.spot(entry, reason) for entry in account.get(reason, ()))


__all__ = ["Inspection", "as_messages", "inspect"]
