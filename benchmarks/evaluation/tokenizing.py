"""Rows tokenized per second, all at once and one at a time. Called by benchmarks/tokenize_throughput, which see.

One at a time is what Luthier did before: each text between two control tokens goes through transformers by itself, with the
offsets of its tokens, which tell what is learnt. Both give the same rows; blocks of the two take turns.
"""

import argparse
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import record
import records

from luthier.chat import Conversation, Encoded, Message, Template
from luthier.model.reference import ModelReference

HEADING = "Tokenizing rows"


def conversations(count: int, seed: int) -> list[Conversation]:
    """Two mails and an answer to the second: rows of about 200 tokens."""
    draw = random.Random(seed)
    pairs = [(records.conversation(draw), records.conversation(draw)) for _ in range(count)]
    return [
        Conversation.pair(f"{first.question}\n\n{second.question}", second.answer, system="You answer mails to a shop.")
        for first, second in pairs
    ]


def one_by_one(template: Template, asked: Sequence[Conversation]) -> list[Encoded]:
    """The rows by the method before: a template's own text is known by the roles, contents are put between."""
    hub: Any = template.tokenizer.hub  # type: ignore[attr-defined]
    control = re.compile("|".join(map(re.escape, sorted(template.tokenizer.control, key=len, reverse=True))))
    marks = [Message(role, f"\ue000{number}") for number, role in enumerate(("system", "user", "assistant"))]
    pattern = re.split("(\ue000[0-2])", template.render(marks, add_generation_prompt=False))
    rows = []
    for conversation in asked:
        ids: list[int] = []
        learn: list[bool] = []

        def add(text: str, learnt: bool, ids: list[int] = ids, learn: list[bool] = learn) -> None:
            if text:
                coded = hub(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
                ids.extend(coded["input_ids"])
                learn.extend(learnt and start >= 0 for start, _ in coded["offset_mapping"])

        run, answer = "", False
        for part in pattern:
            if part.startswith("\ue000"):
                number = int(part[1])
                if number == 2:
                    add(run, False)
                    run, answer = "", True
                run += conversation.messages[number].content
                continue
            place = 0
            for found in control.finditer(part):
                add(run + part[place : found.start()], answer)
                ids.append(template.tokenizer.control[found.group()])
                learn.append(answer)
                run, place = "", found.end()
                if answer:
                    break
            else:
                run += part[place:]
        rows.append(Encoded(ids, learn))
    return rows


def seconds(work: Callable[[], object]) -> float:
    """How long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--write", action="store_true", help="rewrite this part of benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    template = ModelReference.of(arguments.model).template()
    asked = conversations(arguments.rows, 0)
    few = asked[: max(1, arguments.rows // 8)]
    assert [[row] for row in one_by_one(template, few)] == template.rows_of(few), "both ways give the same rows"
    alone, together = [], []
    for _ in range(arguments.rounds):
        alone.append(len(few) / seconds(lambda: one_by_one(template, few)))
        together.append(len(asked) / seconds(lambda: template.rows_of(asked)))
    ratios = sorted(more / less for less, more in zip(alone, together, strict=True))
    tokens = statistics.mean(len(rows[0].ids) for rows in template.rows_of(few) if isinstance(rows, list))
    text = (
        f"Chat rows of {tokens:.0f} tokens for {arguments.model}, median of {arguments.rounds} rounds in turns.\n\n"
        "| | rows per second |\n|---|---|\n"
        f"| all at once, on all cores | {statistics.median(together):,.0f} |\n"
        f"| one at a time, as before | {statistics.median(alone):,.0f} |\n\n"
        f"**{statistics.median(ratios):.1f} times** as fast ({ratios[0]:.1f} to {ratios[-1]:.1f}).\n\n"
        + record.circumstances(("transformers", "tokenizers", "jinja2"))
    )
    print(text)
    if arguments.write:
        record.write_section(HEADING, text)


if __name__ == "__main__":
    main()
