"""What pretraining gave and what tuning changed, as Markdown: python measure.py FOLDER

FOLDER holds what generate.py wrote, the runs base/ and chat/, and answers.jsonl, which `luthier ask` wrote. Of each country
that was kept from tuning, "What is the capital of …?" is given to both models as plain text; answers.jsonl has what the tuned
one answers in chat. With a second folder, how many of that one's answers are right is told beside.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from luthier.evaluate.statistics import wilson_interval

TOKENS = 24
SHOWN = 3


def rows(path: Path) -> list[dict[str, Any]]:
    """The records of a file with one JSON object a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def continuations(model: Path, texts: Sequence[str]) -> list[str]:
    """What a model writes behind each text, by plain transformers: the most likely token each time."""
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    lm = AutoModelForCausalLM.from_pretrained(model)
    batch = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.inference_mode():
        out = lm.generate(**batch, max_new_tokens=TOKENS, do_sample=False)
    return list(tokenizer.batch_decode(out[:, batch.input_ids.shape[1] :], skip_special_tokens=True))


def asks(text: str) -> bool:
    """Whether the first line that is written is a question."""
    return text.strip().split("\n")[0].endswith("?")


def share(hits: Sequence[bool]) -> dict[str, Any]:
    """How many, of how many, and the 95 % interval."""
    low, high = wilson_interval(sum(hits) / len(hits), len(hits), confidence=0.95)
    return {"hits": sum(hits), "of": len(hits), "share": sum(hits) / len(hits), "interval": [low, high]}


def answered(folder: Path) -> list[str]:
    """What `luthier ask` wrote down."""
    return [row["answer"].strip() for row in rows(folder / "answers.jsonl")]


def right(folder: Path) -> dict[str, Any]:
    """How many answers are those of held-out.jsonl."""
    pairs = zip(answered(folder), rows(folder / "held-out.jsonl"), strict=True)
    return share([said == row["answer"] for said, row in pairs])


def measure(folder: Path) -> dict[str, Any]:
    """Shares of the held-out questions, and what was written."""
    wanted = rows(folder / "held-out.jsonl")
    questions = [row["question"] for row in wanted]
    texts = [f"{question}\n" for question in questions]
    begun = [row["answer"].rpartition(" is ")[0] + " is" for row in wanted]
    written = continuations(folder / "base" / "model", texts + begun)
    base, knows = written[: len(texts)], written[len(texts) :]
    tuned = continuations(folder / "chat" / "model", texts)
    answers = answered(folder)
    capitals = [row["answer"].rpartition(" is ")[2].removesuffix(".") for row in wanted]
    return {
        "base continues with a question": share([asks(text) for text in base]),
        "tuned continues with a question": share([asks(text) for text in tuned]),
        "base completes the sentence": share([
            text.strip().startswith(capital) for text, capital in zip(knows, capitals, strict=True)
        ]),
        "tuned answers right": right(folder),
        "one capital for all": share([capital == capitals[0] for capital in capitals]),
        "samples": list(zip(questions, base, tuned, answers, strict=True))[:SHOWN],
    }  # fmt: skip


def curve(run: Path) -> list[tuple[int, float]]:
    """The loss on dev by step."""
    return [(event["step"], event["loss"]) for event in rows(run / "events.jsonl") if event["kind"] == "dev"]


def _percent(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['hits']} of {found['of']}: {found['share']:.1%} [{low:.1%}, {high:.1%}]"


def _chart(title: str, points: Sequence[tuple[int, float]]) -> list[str]:
    steps, losses = (
        ", ".join(map(str, values)) for values in zip(*[(at, round(loss, 3)) for at, loss in points], strict=True)
    )
    return [
        "```mermaid", "xychart-beta", f'  title "{title}"', f'  x-axis "step" [{steps}]', '  y-axis "dev loss, nats a token"',
        f"  line [{losses}]", "```", "",
    ]  # fmt: skip


def page(folder: Path, control: Path | None = None) -> str:
    """All of it as Markdown."""
    found = measure(folder)
    names = {
        "base continues with a question": "base model, given the question as text, writes another question",
        "tuned continues with a question": "tuned model, given the same text, writes another question",
        "base completes the sentence": 'base model completes "The capital of … is"',
        "tuned answers right": "tuned model, asked in chat, answers right to the letter",
        "one capital for all": "the same capital for every country would be right for",
    }
    lines = ["| of the countries kept from tuning | share [95 % CI] |", "|---|---|"]
    lines += [f"| {name} | {_percent(found[key])} |" for key, name in names.items()]
    if control:
        lines.append(f"| the same tuning of a model that read almost nothing | {_percent(right(control))} |")
    lines += ["", *_chart("Pretraining", curve(folder / "base")), *_chart("Tuning", curve(folder / "chat"))]
    for step, wrote in sorted({
        event["step"]: (event["prompt"] + event["text"])
        for event in rows(folder / "base" / "events.jsonl")
        if event["kind"] == "sample" and event["prompt"].startswith("The capital")
    }.items()):  # fmt: skip
        lines.append(f"    step {step:>5}  {' '.join(wrote.split())[:90]}")
    for question, base, tuned, answer in found["samples"]:
        lines += ["", f"    {question}"]
        for name, text in (("base, text", base), ("tuned, text", tuned), ("tuned, chat", answer)):
            lines.append(f"      {name:<12} {' / '.join(text.strip().split(chr(10)))}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(*map(Path, sys.argv[1:3])))
