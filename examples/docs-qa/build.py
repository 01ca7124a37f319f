"""Writes docs-qa.jsonl from facts.toml: one row per question, with the name of the fact that it asks for.

python examples/docs-qa/build.py
"""

import json
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent


def rows() -> list[dict[str, str]]:
    """Every question with its answer; the answers of a fact are taken in turn."""
    facts = tomllib.loads((FOLDER / "facts.toml").read_text(encoding="utf-8"))["fact"]
    return [
        {"fact": fact["name"], "question": question, "answer": fact["answers"][number % len(fact["answers"])]}
        for fact in facts
        for number, question in enumerate(fact["questions"])
    ]


if __name__ == "__main__":
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows()]
    (FOLDER / "docs-qa.jsonl").write_bytes("".join(lines).encode())
    print(f"{len(lines)} questions written to {FOLDER / 'docs-qa.jsonl'}")
