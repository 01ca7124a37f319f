"""Error analysis: which kinds of errors the answers have before and after, examples, and what to change in the data.

The base model's errors come first, since the data should be made to mend those. A kind of error is a `Category`; an answer
may have several. Nearest training rows are found by retrieval over question and answer: what taught an error, or was missing,
usually stands there.

    categories.py   recognise an error, advise on the data
    spelling.py     dictionary and the data's own words
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from luthier.data.dataset import Item
from luthier.evaluate.error_analysis.categories import CATEGORIES, Category, Data, Line, Tally, own_categories
from luthier.evaluate.prompts.retrieval import Index
from luthier.recipe import Evaluate

__all__ = ["CATEGORIES", "Category", "analyse", "own_categories"]

EXAMPLES = 5
NEAREST = 3
TUNED = "fine-tuned"


def analyse(
    train: Sequence[Item], answers: Sequence[Line], settings: Evaluate, *, base_arm: str = "zero-shot"
) -> dict[str, Any]:
    """The whole of errors.json; `fine_tuned` counts are None as long as the tuned model has not answered."""
    data = Data.of(train, refusal=settings.refusal)
    sides = {"base": base_arm, "fine_tuned": TUNED}
    lines = {side: [line for line in answers if line["arm"] == arm] for side, arm in sides.items()}
    nearest = _nearest(train)
    table = CATEGORIES | own_categories(settings.errors)
    categories = [_category(name, category, data, lines, nearest) for name, category in table.items()]
    return {
        "base_arm": base_arm,
        "answers": {side: len(found) for side, found in lines.items()},
        "form": data.form,
        "spelling": data.spelling.language if data.spelling else None,
        "sentence": _sentence(categories, lines),
        "categories": categories,
    }


def _category(
    name: str,
    category: Category,
    data: Data,
    lines: Mapping[str, Sequence[Line]],
    nearest: Callable[[Line], list[Item]],
) -> dict[str, Any]:
    """One kind of error: counts of both models, examples (of the tuned model where it has any), advice."""
    found = {
        side: [(line, why) for line in of_side if (why := category.detect(line, data)) is not None]
        for side, of_side in lines.items()
    }
    side = "fine_tuned" if lines["fine_tuned"] else "base"
    tally = Tally(found[side], [nearest(line) for line, _ in found[side]])
    before, after = ({line["item"] for line, _ in found[of]} for of in ("base", "fine_tuned"))
    return {
        "category": name,
        "meaning": category.meaning,
        **{of: _count(found[of], lines[of]) for of in lines},
        "mended": len(before - after) if lines["fine_tuned"] else None,
        "new": len(after - before) if lines["fine_tuned"] else None,
        "examples": {of: [_example(line, why, nearest(line)) for line, why in found[of][:EXAMPLES]] for of in lines},
        "advice": category.advise(data, tally) if found[side] else "",
    }


def _count(found: Sequence[tuple[Line, str]], lines: Sequence[Line]) -> dict[str, Any] | None:
    return {"count": len(found), "share": len(found) / len(lines)} if lines else None


def _example(line: Line, why: str, rows: Sequence[Item]) -> dict[str, Any]:
    return {
        **{name: line[name] for name in ("item", "place", "question", "reference", "answer")},
        "why": why,
        "nearest": [
            {"place": row.place, "question": row.conversation.question, "answer": row.conversation.answer}
            for row in rows
        ],
    }


def _sentence(categories: Sequence[Mapping[str, Any]], lines: Mapping[str, Sequence[Line]]) -> str:
    """The frequent kinds in one line."""
    side = "fine_tuned" if lines["fine_tuned"] else "base"
    parts = []
    for one in sorted(categories, key=lambda one: -(one[side] or {"count": 0})["count"]):
        counts = [one[of]["count"] for of in ("base", "fine_tuned") if one[of]]
        if any(counts):
            parts.append(f"{one['category']} {' → '.join(map(str, counts))}")
    n = len(lines[side])
    whose = "before → after tuning" if side == "fine_tuned" else "of the base model"
    return f"Errors in {n} answer{'' if n == 1 else 's'}, {whose}: {', '.join(parts) or 'none of the known kinds'}."


def _nearest(train: Sequence[Item]) -> Callable[[Line], list[Item]]:
    """Gives the training rows most like an answered question, the most similar first."""
    index = Index([f"{item.conversation.question} {item.conversation.answer}" for item in train])

    def nearest(line: Line) -> list[Item]:
        return [train[number] for number in index.most_like(f"{line['question']} {line['answer']}", NEAREST)]

    return nearest
