"""The kinds of errors: how each is recognised in an answer, and what to change in the data where it is frequent.

`CATEGORIES` is the extension table; `evaluate.errors` adds a user's own, by a regular expression or a function.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.data import refusals
from luthier.data.dataset import Item
from luthier.errors import UserError
from luthier.evaluate import metrics, text_features
from luthier.evaluate.answers import AnswerRecord, all_references, matched_reference
from luthier.evaluate.error_analysis.spelling import Spelling
from luthier.extensions import import_function, is_dotted
from luthier.model.replies import THINKING

AnswerFormat = Literal["json", "label", "text", "call"]
TWICE, MORE_WORDS = 2, 20
"""An answer is too long where it has more than twice the reference's words, and at least 20 more."""


@dataclass(frozen=True)
class TrainingProfile:
    """What the training rows say about good answers."""

    train: Sequence[Item]
    format: AnswerFormat
    labels: Sequence[str]
    spelling: Spelling | None
    refusal: re.Pattern[str] | None

    @classmethod
    def of(cls, train: Sequence[Item], *, refusal: str | None) -> "TrainingProfile":
        """The profile of these training rows; `refusal` is the user's own pattern."""
        answers = [item.conversation.answer for item in train]
        kind = metrics.choose_metric(answers).name
        format: AnswerFormat = {"field_accuracy": "json", "accuracy": "label", "tool_call": "call"}.get(kind, "text")  # type: ignore[assignment]
        texts = [text for item in train for text in (item.conversation.question, item.conversation.answer)]
        spelling = Spelling.of(texts) if format == "text" else None
        labels = tuple(dict.fromkeys(answers)) if format == "label" else ()
        return cls(train, format, labels, spelling, refusals.refusal_pattern(refusal))

    @property
    def answers(self) -> list[str]:
        """The training answers."""
        return [item.conversation.answer for item in self.train]


@dataclass(frozen=True)
class Occurrences:
    """One category's errors of one model: each answer with a few words on what is wrong."""

    found: Sequence[tuple[AnswerRecord, str]]
    nearest: Sequence[Sequence[Item]]
    """The training rows most like each error."""


Detect = Callable[[AnswerRecord, TrainingProfile], str | None]
Advise = Callable[[TrainingProfile, Occurrences], str]


@dataclass(frozen=True)
class Category:
    """`detect` says in a few words what is wrong with an answer, or gives None; `advise` says what to change in the data."""

    meaning: str
    detect: Detect
    advise: Advise


def misspelling(record: AnswerRecord, profile: TrainingProfile) -> str | None:
    """A word one edit away from a frequent one; only where answers are free text."""
    if profile.spelling is None:
        return None
    answer = record["answer"]
    whole = answer if record["finish"] == "stop" else answer.rpartition(" ")[0]  # the last word may be a part of one
    found = profile.spelling.misspelt(whole, (record["question"], all_references(record)))
    return ", ".join(f'"{word}" for "{meant}"' for word, meant in found.items()) or None


def too_long(record: AnswerRecord, profile: TrainingProfile) -> str | None:
    """Cut at the limit, or far more words than the reference."""
    reference = matched_reference(record)
    length, wanted = len(text_features.words(record["answer"])), len(text_features.words(reference))
    if record["finish"] == "length":
        return f"cut at the token limit after {length} words; the reference has {wanted}"
    if length > TWICE * wanted and length >= wanted + MORE_WORDS:
        return f"{length} words; the reference has {wanted}"
    return None


def repetitive(record: AnswerRecord, profile: TrainingProfile) -> str | None:
    """Repeats itself, where the reference does not."""
    if not text_features.is_looping(record["answer"], matched_reference(record)):
        return None
    times = text_features.longest_loop(record["answer"])
    if times >= 4:
        return f"says the same thing {times} times in a row"
    return f"{100 * text_features.repeated_share(record['answer']):.0f} % of it repeats what came before"


def refusal(record: AnswerRecord, profile: TrainingProfile) -> str | None:
    """Refuses to answer, where the reference answers."""
    refuses, should_refuse = (
        refusals.is_refusal(text, profile.refusal) for text in (record["answer"], matched_reference(record))
    )
    return "refuses, the reference answers" if refuses and not should_refuse else None


_PROMPT_MARKS = re.compile(r"^\s*(?:### ?\w+|\[/?INST\]|<\|\w+\|>|(?:user|assistant|question|human)\s*:)", re.I | re.M)


def wrong_format(record: AnswerRecord, profile: TrainingProfile) -> str | None:
    """Not in the format of the training answers: no such JSON, no such label, or the marks of a prompt in the text."""
    answer, reference = record["answer"], matched_reference(record)
    if record["finish"] == THINKING:
        return None
    if not answer.strip():
        return "empty"
    if profile.format == "json":
        return _json_error(answer, reference)
    if profile.format == "call":
        calls, should_call = bool(metrics.calls_in(answer)), bool(metrics.calls_in(reference))
        return None if calls == should_call else "text instead of a call" if should_call else "a call instead of text"
    if profile.format == "label":
        known = any(metrics.accuracy(answer, label) for label in (*profile.labels, reference))
        return None if known else "none of the labels"
    mark = _PROMPT_MARKS.search(answer)
    if mark and not _PROMPT_MARKS.search(reference):
        return f'goes on with "{mark.group().strip()}"'
    if metrics.json_valid(answer, "") and not metrics.json_valid(reference, ""):
        return "JSON instead of text"
    return None


def no_answer(record: AnswerRecord, profile: TrainingProfile) -> str | None:
    """Still thinking when its tokens ran out."""
    return f"still thinking after {record['answer_tokens']:,} tokens" if record["finish"] == THINKING else None


def _json_error(answer: str, reference: str) -> str | None:
    if not metrics.json_valid(answer, reference):
        return "not one JSON object" if metrics.first_object(answer) is None else "text around the JSON"
    found, wanted = metrics.first_object(answer), metrics.first_object(reference)
    if found is None or wanted is None:
        return None if found == wanted else "not a JSON object"
    missing, surplus = [name for name in wanted if name not in found], [name for name in found if name not in wanted]
    parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"adds {', '.join(surplus)}"] * bool(surplus)
    return " and ".join(parts) or None


def advise_spelling(profile: TrainingProfile, occurrences: Occurrences) -> str:
    """Correct the training rows that spell a word like this, if any do."""
    wrong = {word for _, why in occurrences.found for word in re.findall(r'"([^"]+)" for', why)}
    rows = [item.location for item in profile.train if wrong & set(text_features.words(item.conversation.answer))]
    if rows:
        return f"These words are spelt like this in {_rows(len(rows))} ({_locations(rows)}): correct them there."
    return (
        "No training answer has these misspellings: they come from the model. Rows with the right words, or a larger "
        "model, help more than corrections."
    )


def advise_length(profile: TrainingProfile, occurrences: Occurrences) -> str:
    """Say how long the training answers are, and which are far longer."""
    lengths = [len(text_features.words(answer)) for answer in profile.answers]
    _, median, high = text_features.quantiles(lengths)
    cut = sum(record["finish"] == "length" for record, _ in occurrences.found)
    long = [item.location for item, length in zip(profile.train, lengths, strict=True) if length > 2 * high]
    sentences = [f"Half of the training answers have at most {median:.0f} words, 9 in 10 at most {high:.0f}."]
    if long:
        sentences.append(f"More than twice that in {_rows(len(long))} ({_locations(long)}): shorten or split them.")
    if cut:
        cut_answers = f"{cut:,} answer{' was' if cut == 1 else 's were'} cut at the token limit"
        sentences.append(
            f"{cut_answers}: raise evaluate.max_new_tokens if you want long answers, else train on shorter ones."
        )
    if not long and not cut:
        sentences.append("Add rows whose answers are as short as you want them.")
    return " ".join(sentences)


def advise_repetition(profile: TrainingProfile, occurrences: Occurrences) -> str:
    """Look for loops and for stock sentences in the training answers."""
    loops = [item.location for item in profile.train if text_features.is_looping(item.conversation.answer)]
    openings: dict[str, int] = {}
    for answer in profile.answers:
        beginning = " ".join(text_features.words(answer)[:5])
        openings[beginning] = openings.get(beginning, 0) + 1
    common = max(openings, key=lambda beginning: openings[beginning])
    parts = [f"Answers repeat themselves in {_rows(len(loops))} ({_locations(loops)}): rewrite them."] if loops else []
    if openings[common] >= max(5, 0.05 * len(profile.train)):
        share = 100 * openings[common] / len(profile.train)
        parts.append(f'{share:.0f} % of the training answers begin "{common} …": vary them.')
    return " ".join(parts) or (
        "Training answers do not repeat themselves. Add more varied rows, and short ones, so that the model learns to stop; "
        "a lower train.learning_rate or fewer train.epochs may help too."
    )


def advise_refusal(profile: TrainingProfile, occurrences: Occurrences) -> str:
    """Look for refusals among the training rows most like the refused questions."""
    refuse = [item.location for item in profile.train if refusals.is_refusal(item.conversation.answer, profile.refusal)]
    near = [
        item.location
        for rows in occurrences.nearest
        for item in rows
        if refusals.is_refusal(item.conversation.answer, profile.refusal)
    ]
    if near:
        return (
            f"Refusals in {_rows(len(set(near)))} most like these questions ({_locations(near)}): check them, and add rows "
            "that answer such questions."
        )
    if refuse:
        return f"Refusals in {_rows(len(refuse))}. Add answered questions like these: they teach when not to refuse."
    return "No training answer refuses: the base model did already. Add rows that answer such questions."


def advise_format(profile: TrainingProfile, occurrences: Occurrences) -> str:
    """Look for training answers that have another format themselves."""
    odd = [item.location for item in profile.train if _is_odd(item.conversation.answer, profile.format)]
    if odd:
        return f"Another format in {_rows(len(odd))} ({_locations(odd)}): bring them into the common one."
    shape = {
        "json": "one JSON object", "label": "one of the labels", "text": "plain text", "call": "calls or text",
    }[profile.format]  # fmt: skip
    return f"All training answers are {shape}. More rows or more epochs help the model learn this format."


def advise_thinking(profile: TrainingProfile, occurrences: Occurrences) -> str:
    """More tokens, or no thoughts."""
    return (
        "Raise evaluate.thinking_tokens in a new run. If the thoughts never end, switch them off: with many templates "
        "chat.variables.enable_thinking=false does that."
    )


def _is_odd(answer: str, format: AnswerFormat) -> bool:
    """Whether a training answer has another format than the others; a label never has, as the answers define the labels."""
    if format == "json":
        return metrics.first_object(answer) is None
    return format == "text" and (_PROMPT_MARKS.search(answer) is not None or bool(metrics.json_valid(answer, "")))


CATEGORIES: dict[str, Category] = {
    "misspelling": Category("a word one letter away from the right one", misspelling, advise_spelling),
    "too long": Category(
        "cut at the token limit, or more than twice as long as the reference and 20 words longer",
        too_long,
        advise_length,
    ),
    "repetitive": Category("repeats itself", repetitive, advise_repetition),
    "refusal": Category("refuses where the reference answers", refusal, advise_refusal),
    "wrong format": Category("not in the format of the training answers", wrong_format, advise_format),
    "no answer": Category("was still thinking when its tokens ran out", no_answer, advise_thinking),
}
"""Error categories by name, in the order of errors.json."""


OWN_REFUSALS = "refusal"


def user_categories(named: Mapping[str, str]) -> dict[str, Category]:
    """The user's categories: "module:function" as (answer, reference) → whether it is one, anything else as a regex.

    One that is called refusal adds words of the user's own to the category of that name, and makes none.
    """
    return {name: _user_category(name, text) for name, text in named.items() if name != OWN_REFUSALS}


def _user_category(name: str, text: str) -> Category:
    where = f"evaluate.errors.{name}"
    if name in CATEGORIES:
        raise UserError(f'"{name}" is a built-in category; give yours another name.', where=where)
    if is_dotted(text):
        found = import_function(text, where=where)
        return Category(f"by {text}", lambda record, profile: _called(found, record, where), _advise_user_category)
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UserError(f'not a regular expression: {error}; found "{text}".', where=where) from None
    return Category(
        f"matches {text}", lambda record, profile: _matched(pattern, record["answer"]), _advise_user_category
    )


def _called(function: Callable[[str, str], object], record: AnswerRecord, where: str) -> str | None:
    try:
        return "found" if function(record["answer"], matched_reference(record)) else None
    except Exception as error:
        shown = json.dumps(record["answer"][:60], ensure_ascii=False)
        message = f"the function failed for the answer {shown}: {type(error).__name__}: {error}."
        raise UserError(message, where=where) from error


def _matched(pattern: re.Pattern[str], answer: str) -> str | None:
    match = pattern.search(answer)
    return f'has "{match.group()[:60]}"' if match else None


def _advise_user_category(profile: TrainingProfile, occurrences: Occurrences) -> str:
    """The training rows to look at: where they show the same error, they teach it."""
    locations = [item.location for rows in occurrences.nearest for item in rows]
    return (
        f"Look at the training rows most like these answers: {_locations(list(dict.fromkeys(locations)))}."
        if locations
        else ""
    )


def _rows(count: int) -> str:
    return f"{count:,} training row" + ("" if count == 1 else "s")


def _locations(locations: Sequence[str], most: int = 4) -> str:
    shown = list(dict.fromkeys(locations))
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
