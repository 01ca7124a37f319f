"""Questions of ours in the four shapes, as users have them in files."""

import json
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

ARC: Rows = [
    {
        "id": "1",
        "question": "Which of these melts on a warm day?",
        "choices": {"text": ["a stone", "an ice cube", "a spoon", "a brick"], "label": ["A", "B", "C", "D"]},
        "answerKey": "B",
    },
    {
        "id": "2",
        "question": "What does a plant take in through its roots?",
        "choices": {"text": ["water", "light", "noise"], "label": ["1", "2", "3"]},
        "answerKey": "1",
    },
]
HELLASWAG: Rows = [
    {
        "activity_label": "Baking bread",
        "ctx_a": "A man puts flour and water into a bowl.",
        "ctx_b": "he",
        "ctx": "A man puts flour and water into a bowl. he",
        "endings": [
            "stirs until there is a dough. [substeps] He lets it rest.",
            "throws the bowl [title] out of the window.",
            "paints the kitchen  door.",
            "sings to the flour.",
        ],
        "label": "0",
    },
]
MMLU: Rows = [
    {"question": "How many legs has a spider? ", "choices": ["six", "eight", "ten", "twelve"], "answer": 1},
    {"question": "Which is a prime number?", "choices": ["nine", "fifteen", "seventeen", "one"], "answer": 2},
]
TRUTHFULQA: Rows = [
    {
        "question": "Do goldfish forget everything within seconds?",
        "mc1_targets": {"choices": ["No, they remember for months.", "Yes, within seconds."], "labels": [1, 0]},
        "mc2_targets": {
            "choices": ["No, they remember for months.", "No.", "Yes, within seconds."],
            "labels": [1, 1, 0],
        },
    },
]


def write(folder: Path, name: str, rows: Rows) -> Path:
    """The rows as a JSONL file."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
