"""Error analysis: kinds of errors in the answers before and after training, examples, and what to change in the data.

A kind of error is a `Category`; an answer may have several. The training rows most like a wrong answer are found by retrieval
over question and answer: they usually show what taught the error, or what is missing.

    categories.py   recognise an error, advise on the data
    spelling.py     misspelt words, from a dictionary and the data's own words

To add a category, write its `detect` and `advise` in categories.py and give it a line in `CATEGORIES`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from luthier.data.dataset import Item
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.error_analysis.categories import (
    CATEGORIES,
    Category,
    Occurrences,
    TrainingProfile,
    user_categories,
)
from luthier.evaluate.prompts.retrieval import Index
from luthier.recipe import Evaluate

__all__ = ["CATEGORIES", "Category", "analyse", "user_categories"]

EXAMPLES = 5
NEAREST = 3
TUNED = "fine-tuned"


def analyse(
    train: Sequence[Item], answers: Sequence[AnswerRecord], settings: Evaluate, *, base_arm: str = "zero-shot"
) -> dict[str, Any]:
    """The content of errors.json; `fine_tuned` counts are None as long as the tuned model has not answered."""
    profile = TrainingProfile.of(train, refusal=settings.errors.get("refusal"))
    arms = {"base": base_arm, "fine_tuned": TUNED}
    records = {side: [record for record in answers if record["arm"] == arm] for side, arm in arms.items()}
    nearest = _nearest(train)
    table = CATEGORIES | user_categories(settings.errors)
    categories = [_category(name, category, profile, records, nearest) for name, category in table.items()]
    return {
        "base_arm": base_arm,
        "answers": {side: len(found) for side, found in records.items()},
        "form": profile.format,
        "spelling": profile.spelling.language if profile.spelling else None,
        "sentence": _sentence(categories, records),
        "categories": categories,
    }


def _category(
    name: str,
    category: Category,
    profile: TrainingProfile,
    records: Mapping[str, Sequence[AnswerRecord]],
    nearest: Callable[[AnswerRecord], list[Item]],
) -> dict[str, Any]:
    """One kind of error: counts and examples of both models, and advice."""
    found = {
        side: [(record, why) for record in of_side if (why := category.detect(record, profile)) is not None]
        for side, of_side in records.items()
    }
    side = "fine_tuned" if records["fine_tuned"] else "base"
    occurrences = Occurrences(found[side], [nearest(record) for record, _ in found[side]])
    before, after = ({record["item"] for record, _ in found[of]} for of in ("base", "fine_tuned"))
    return {
        "category": name,
        "meaning": category.meaning,
        **{of: _count(found[of], records[of]) for of in records},
        "mended": len(before - after) if records["fine_tuned"] else None,
        "new": len(after - before) if records["fine_tuned"] else None,
        "examples": {
            of: [_example(record, why, nearest(record)) for record, why in found[of][:EXAMPLES]] for of in records
        },
        "advice": category.advise(profile, occurrences) if found[side] else "",
    }


def _count(found: Sequence[tuple[AnswerRecord, str]], records: Sequence[AnswerRecord]) -> dict[str, Any] | None:
    return {"count": len(found), "share": len(found) / len(records)} if records else None


def _example(record: AnswerRecord, why: str, rows: Sequence[Item]) -> dict[str, Any]:
    return {
        **{name: record[name] for name in ("item", "place", "question", "reference", "answer")},
        "why": why,
        "nearest": [
            {"place": row.location, "question": row.conversation.question, "answer": row.conversation.answer}
            for row in rows
        ],
    }


def _sentence(categories: Sequence[Mapping[str, Any]], records: Mapping[str, Sequence[AnswerRecord]]) -> str:
    """All counts in one sentence, the most frequent kind first."""
    side = "fine_tuned" if records["fine_tuned"] else "base"
    parts = []
    for one in sorted(categories, key=lambda one: -(one[side] or {"count": 0})["count"]):
        counts = [one[of]["count"] for of in ("base", "fine_tuned") if one[of]]
        if any(counts):
            parts.append(f"{one['category']} {' → '.join(map(str, counts))}")
    n = len(records[side])
    whose = "before → after tuning" if side == "fine_tuned" else "of the base model"
    return f"Errors in {n} answer{'' if n == 1 else 's'}, {whose}: {', '.join(parts) or 'none of the known kinds'}."


def _nearest(train: Sequence[Item]) -> Callable[[AnswerRecord], list[Item]]:
    """A function from an answer to the training rows most like its question and text, the most similar first."""
    index = Index([f"{item.conversation.question} {item.conversation.answer}" for item in train])

    def nearest(record: AnswerRecord) -> list[Item]:
        return [train[number] for number in index.most_like(f"{record['question']} {record['answer']}", NEAREST)]

    return nearest
