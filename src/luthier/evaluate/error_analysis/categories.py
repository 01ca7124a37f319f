"""The kinds of errors: how each is recognised in an answer, and what to change in the data when it is frequent.

`CATEGORIES` is the extension table; `evaluate.errors` adds a user's own, by a regular expression or a function.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from luthier.data.dataset import Item
from luthier.errors import UserError
from luthier.evaluate import metrics, text_features
from luthier.evaluate.error_analysis.spelling import Spelling
from luthier.extensions import import_function, is_dotted
from luthier.model.replies import THINKING

Line = Mapping[str, Any]
"""One line of answers.jsonl."""

Form = Literal["json", "label", "text"]
TWICE, MORE_WORDS = 2, 20  # too long: more than twice the reference's words, and at least 20 more


@dataclass(frozen=True)
class Data:
    """What the training rows say about good answers."""

    train: Sequence[Item]
    form: Form
    labels: Sequence[str]
    spelling: Spelling | None
    refusal: re.Pattern[str] | None

    @classmethod
    def of(cls, train: Sequence[Item], *, refusal: str | None) -> "Data":
        """Read off the training rows."""
        answers = [item.conversation.answer for item in train]
        kind = metrics.choose_metric(answers).name
        form: Form = {"field_accuracy": "json", "accuracy": "label"}.get(kind, "text")  # type: ignore[assignment]
        texts = [text for item in train for text in (item.conversation.question, item.conversation.answer)]
        spelling = Spelling.of(texts) if form == "text" else None
        labels = tuple(dict.fromkeys(answers)) if form == "label" else ()
        return cls(train, form, labels, spelling, text_features.refusal_pattern(refusal))

    @property
    def answers(self) -> list[str]:
        """The training answers."""
        return [item.conversation.answer for item in self.train]


@dataclass(frozen=True)
class Tally:
    """One category's errors of one model: each line with the words that say what is wrong."""

    found: Sequence[tuple[Line, str]]
    nearest: Sequence[Sequence[Item]]
    """The training rows most like each error."""


Detect = Callable[[Line, Data], str | None]
Advise = Callable[[Data, Tally], str]


@dataclass(frozen=True)
class Category:
    """`detect` gives what is wrong in a few words, or None; `advise` what to change in the data."""

    meaning: str
    detect: Detect
    advise: Advise


def misspelling(line: Line, data: Data) -> str | None:
    """A word one edit away from a frequent one. Answers in a fixed form are compared by their metric instead."""
    if data.spelling is None:
        return None
    answer = line["answer"]
    whole = answer if line["finish"] == "stop" else answer.rpartition(" ")[0]  # the last word may be a part of one
    found = data.spelling.misspelt(whole, (line["question"], line["reference"]))
    return ", ".join(f'"{word}" for "{meant}"' for word, meant in found.items()) or None


def too_long(line: Line, data: Data) -> str | None:
    """Cut at the limit, or far more words than the reference."""
    given, wanted = len(text_features.words(line["answer"])), len(text_features.words(line["reference"]))
    if line["finish"] == "length":
        return f"cut at the limit after {given} words; the reference has {wanted}"
    if given > TWICE * wanted and given >= wanted + MORE_WORDS:
        return f"{given} words; the reference has {wanted}"
    return None


def repetitive(line: Line, data: Data) -> str | None:
    """Runs in circles, where the reference does not."""
    if not text_features.is_looping(line["answer"], line["reference"]):
        return None
    times = text_features.longest_loop(line["answer"])
    if times >= 4:
        return f"says the same {times} times in a row"
    return f"{100 * text_features.repeated_share(line['answer']):.0f} % of it has been said before"


def refusal(line: Line, data: Data) -> str | None:
    """Declines to answer, where the reference answers."""
    declines = text_features.is_refusal(line["answer"], data.refusal)
    return (
        "refuses, the reference answers"
        if declines and not text_features.is_refusal(line["reference"], data.refusal)
        else None
    )


_FOREIGN = re.compile(r"^\s*(?:### ?\w+|\[/?INST\]|<\|\w+\|>|(?:user|assistant|question|human)\s*:)", re.I | re.M)


def wrong_format(line: Line, data: Data) -> str | None:
    """Not of the form that the training answers have: no such JSON, no such label, or the marks of a prompt in the text."""
    answer, reference = line["answer"], line["reference"]
    if line["finish"] == THINKING:
        return None
    if not answer.strip():
        return "empty"
    if data.form == "json":
        return _json_fault(answer, reference)
    if data.form == "label":
        known = any(metrics.accuracy(answer, label) for label in (*data.labels, reference))
        return None if known else "none of the labels"
    mark = _FOREIGN.search(answer)
    if mark and not _FOREIGN.search(reference):
        return f'goes on with "{mark.group().strip()}"'
    if metrics.json_valid(answer, "") and not metrics.json_valid(reference, ""):
        return "JSON instead of text"
    return None


def no_answer(line: Line, data: Data) -> str | None:
    """Still thinking when its tokens ran out."""
    return f"still thinking after {line['answer_tokens']:,} tokens" if line["finish"] == THINKING else None


def _json_fault(answer: str, reference: str) -> str | None:
    if not metrics.json_valid(answer, reference):
        return "not one JSON object" if metrics.first_object(answer) is None else "text around the JSON"
    given, wanted = metrics.first_object(answer), metrics.first_object(reference)
    if given is None or wanted is None:
        return None if given == wanted else "not a JSON object"
    missing, surplus = [name for name in wanted if name not in given], [name for name in given if name not in wanted]
    parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"adds {', '.join(surplus)}"] * bool(surplus)
    return " and ".join(parts) or None


def advise_spelling(data: Data, tally: Tally) -> str:
    """Correct the rows that teach the word, if any do."""
    wrong = {word for _, why in tally.found for word in re.findall(r'"([^"]+)" for', why)}
    rows = [item.place for item in data.train if wrong & set(text_features.words(item.conversation.answer))]
    if rows:
        return f"These words are spelt like this in {_rows(len(rows))} ({_places(rows)}): correct them there."
    return (
        "No training answer has these misspellings: they come from the model. Rows with the right words, or a larger "
        "model, help more than corrections."
    )


def advise_length(data: Data, tally: Tally) -> str:
    """Say how long the training answers are, and which are far longer."""
    lengths = [len(text_features.words(answer)) for answer in data.answers]
    _, median, high = text_features.quantiles(lengths)
    cut = sum("cut at the limit" in why for _, why in tally.found)
    long = [item.place for item, length in zip(data.train, lengths, strict=True) if length > 2 * high]
    told = f"Training answers have {median:.0f} words in the middle, and 9 in 10 at most {high:.0f}."
    if long:
        told += f" Twice that is exceeded in {_rows(len(long))} ({_places(long)}): shorten or split."
    if cut:
        told += f" Cut at the limit: {cut}. Where long answers are wanted, raise evaluate.max_new_tokens; else show short ones."
    return told + ("" if long or cut else " More rows with answers as short as you want them teach the length.")


def advise_repetition(data: Data, tally: Tally) -> str:
    """Look for loops and for stock sentences in the training answers."""
    loops = [item.place for item in data.train if text_features.is_looping(item.conversation.answer)]
    openings: dict[str, int] = {}
    for answer in data.answers:
        beginning = " ".join(text_features.words(answer)[:5])
        openings[beginning] = openings.get(beginning, 0) + 1
    common = max(openings, key=lambda beginning: openings[beginning])
    parts = [f"There are loops in {_rows(len(loops))} ({_places(loops)}): rewrite them."] if loops else []
    if openings[common] >= max(5, 0.05 * len(data.train)):
        share = 100 * openings[common] / len(data.train)
        parts.append(f'{share:.0f} % of the training answers begin "{common} …": vary them.')
    return " ".join(parts) or (
        "Training answers do not repeat themselves. More different rows, and short ones that end early, teach the model to "
        "stop; a smaller learning rate or fewer epochs keep it from falling into one sentence."
    )


def advise_refusal(data: Data, tally: Tally) -> str:
    """Look for refusals among the rows nearest to the refused questions."""
    refuse = [item.place for item in data.train if text_features.is_refusal(item.conversation.answer, data.refusal)]
    near = [
        item.place
        for rows in tally.nearest
        for item in rows
        if text_features.is_refusal(item.conversation.answer, data.refusal)
    ]
    if near:
        told = f"{_rows(len(set(near)))} nearest to these questions refuse ({_places(near)})"
        return f"{told}: check them, and add rows that answer beside them."
    if refuse:
        return f"{_rows(len(refuse))} refuse. Add answered questions like these, so that the model learns the border."
    return "No training answer refuses: the model brought this along. Rows that answer such questions undo it."


def advise_format(data: Data, tally: Tally) -> str:
    """Look for training answers that are of another form themselves."""
    odd = [item.place for item in data.train if _is_odd(item.conversation.answer, data.form)]
    if odd:
        return f"{_rows(len(odd))} are of another form themselves ({_places(odd)}): bring them into the common one."
    shape = {"json": "one JSON object", "label": "one of the labels", "text": "plain text"}[data.form]
    return f"All training answers are {shape}. More rows, or more epochs, fix a form that is not yet learnt."


def advise_room(data: Data, tally: Tally) -> str:
    """More room, or shorter thoughts."""
    return (
        "Raise evaluate.thinking_tokens in a new run. Where thoughts go on for ever, let the model answer without them, as "
        "chat.variables.enable_thinking=false does with many templates."
    )


def _is_odd(answer: str, form: Form) -> bool:
    """Whether a training answer is unlike the others; labels are what the training answers are."""
    if form == "json":
        return metrics.first_object(answer) is None
    return form == "text" and (_FOREIGN.search(answer) is not None or bool(metrics.json_valid(answer, "")))


CATEGORIES: dict[str, Category] = {
    "misspelling": Category("a word one letter away from the right one", misspelling, advise_spelling),
    "too long": Category(
        "cut at the limit, or more than twice the reference and 20 words more", too_long, advise_length
    ),
    "repetitive": Category("runs in circles", repetitive, advise_repetition),
    "refusal": Category("declines where the reference answers", refusal, advise_refusal),
    "wrong format": Category("not of the form that the training answers have", wrong_format, advise_format),
    "no answer": Category("was still thinking when its tokens ran out", no_answer, advise_room),
}
"""Error categories by name, in the order in which they are told."""


def own_categories(named: Mapping[str, str]) -> dict[str, Category]:
    """The user's categories: "module:function" as (answer, reference) → whether it is one, anything else as a regex."""
    return {name: _own(name, text) for name, text in named.items()}


def _own(name: str, text: str) -> Category:
    where = f"evaluate.errors.{name}"
    if name in CATEGORIES:
        raise UserError(f'"{name}" is a category of ours; give yours another name.', where=where)
    if is_dotted(text):
        found = import_function(text, where=where)
        return Category(f"by {text}", lambda line, data: _called(found, line, where), _advise_own)
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UserError(f'not a regular expression: {error}; found "{text}".', where=where) from None
    return Category(f"matches {text}", lambda line, data: _matched(pattern, line["answer"]), _advise_own)


def _called(function: Callable[[str, str], object], line: Line, where: str) -> str | None:
    try:
        return "found" if function(line["answer"], line["reference"]) else None
    except Exception as error:
        shown = json.dumps(line["answer"][:60], ensure_ascii=False)
        told = f"the function failed for the answer {shown}: {type(error).__name__}: {error}."
        raise UserError(told, where=where) from error


def _matched(pattern: re.Pattern[str], answer: str) -> str | None:
    match = pattern.search(answer)
    return f'has "{match.group()[:60]}"' if match else None


def _advise_own(data: Data, tally: Tally) -> str:
    """Where the training answers have it too, they teach it."""
    places = [item.place for rows in tally.nearest for item in rows]
    return (
        f"Look at the training rows nearest to these answers: {_places(list(dict.fromkeys(places)))}." if places else ""
    )


def _rows(count: int) -> str:
    return f"{count:,} training row" + ("" if count == 1 else "s")


def _places(places: Sequence[str], most: int = 4) -> str:
    shown = list(dict.fromkeys(places))
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
