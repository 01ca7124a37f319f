"""See ../pretrain_speed."""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import plain_loop
import pyarrow as pa
import torch

from luthier.data import corpora
from luthier.data.corpora import CorpusRows, Plan
from luthier.model import fresh, new_tokenizer
from luthier.model.fresh import Shape
from luthier.model.tokenizer import HubTokenizer
from luthier.recipe import Train
from luthier.runs.durable import make_folders
from luthier.train import loop
from luthier.train.rows import RowView

SIZE, HELD_OUT = 1_115_394, 0.1
WANTED = 1.88  # nats a character on held-out text


def made_up() -> str:
    """A text of the same size, of words that a seed decides."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 8))) for _ in range(2000)]
    lines = []
    while sum(map(len, lines)) < SIZE:
        lines.append(" ".join(draw.choices(words, k=draw.randint(3, 12))).capitalize() + ".\n")
    return "".join(lines)[:SIZE]


def prepared(text: str, folder: Path, context: int) -> tuple[CorpusRows, CorpusRows]:
    """Its characters as tokens: the first nine tenths to train on, the rest as dev."""
    cut = int(len(text) * (1 - HELD_OUT))
    make_folders(folder / "corpus" / "dev")
    make_folders(folder / "data")
    (folder / "corpus" / "text.txt").write_text(text[:cut])
    (folder / "corpus" / "dev" / "rest.txt").write_text(text[cut:])
    (folder / "corpus" / "test.txt").write_text("nothing\n")
    tokenizer = new_tokenizer.train([text], new_tokenizer.SMALLEST, where="text")
    plan = Plan(HubTokenizer(tokenizer).encode_texts, "bytes", int(tokenizer.eos_token_id), len(tokenizer), 0.0)
    corpora.tokenize(corpora.find(folder / "corpus"), plan, folder / "data")
    rows, dev = (CorpusRows(folder / "data", split, context=context + 1) for split in ("train", "dev"))
    return rows, dev


def flat(rows: CorpusRows) -> torch.Tensor:
    """All of its tokens in their order."""
    return torch.from_numpy(np.concatenate([rows[number].ids[:-1] for number in range(len(rows))]).astype(np.int64))


class Clock:
    """Takes a training's events, and counts the processor time of its steps alone."""

    def __init__(self) -> None:
        self.seconds, self.tokens, self.last = 0.0, 0, time.process_time()
        self.checks: list[tuple[int, float, float]] = []
        self.steps: list[tuple[int, float]] = []

    def __call__(self, kind: str, **fields: Any) -> None:
        now = time.process_time()
        if kind == "step":
            self.seconds += now - self.last
            self.steps.append((fields["tokens"], now - self.last))
        if kind == "dev":
            self.checks.append((fields["step"], self.seconds, fields["loss"]))
            print(f"  ours: step {fields['step']}, {self.seconds:.1f} s, loss {fields['loss']:.4f}", file=sys.stderr)
        self.last = time.process_time()


def ours(rows: CorpusRows, dev: CorpusRows, shape: Shape, **settings: Any) -> Clock:
    """Our own training loop."""
    clock = Clock()
    chosen = Train(
        method="full", objective="text", epochs=99, schedule="linear", weight_decay=0.1, patience=10**6,
        gradient_checkpointing=False, **settings,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        loop.train(fresh.build(fresh.config_of(shape), 0), rows, dev, chosen, checkpoints=Path(folder), record=clock)
    return clock


def compare_loss(text: str) -> None:
    """Processor seconds until held-out loss is 1.88: the plain loop's 2,000 steps of 12 × 64 characters, and ours."""
    with tempfile.TemporaryDirectory() as folder:
        rows, dev = prepared(text, Path(folder), 64)
        size = plain_loop.Size(new_tokenizer.SMALLEST, 64, 128, 4, 4)
        theirs: list[tuple[int, float, float]] = []

        def tell(step: int, seconds: float, loss: float) -> None:
            theirs.append((step, seconds, loss))
            print(f"  plain: step {step}, {seconds:.1f} s, loss {loss:.4f}", file=sys.stderr)

        plain_loop.train(flat(rows), flat(dev), size, steps=2000, rows=12, look_every=250, bf16=False, tell=tell)
        shape = Shape("llama", 128, 4, new_tokenizer.SMALLEST, 65)
        clock = ours(
            rows, dev, shape, optimizer="muon", learning_rate=5e-3, max_steps=400, warmup_steps=20, tokens_per_step=780,
            tokens_per_batch=780, check_every=40, precision="bf16",
        )  # fmt: skip
    print("| loop | weights | steps | processor seconds | held-out loss |\n|---|--:|--:|--:|--:|")
    weights = sum(weight.numel() for weight in plain_loop.Model(size).parameters())
    for name, count, checks in (("plain PyTorch", weights, theirs), ("ours", shape.parameters, clock.checks)):
        reached = next((check for check in checks if check[2] <= WANTED), None)
        for what, check in (("", checks[-1]), (f", at {WANTED}", reached)):
            if check:
                print(f"| {name}{what} | {count:,} | {check[0]:,} | {check[1]:.1f} | {check[2]:.4f} |")
    reached = next((check for check in clock.checks if check[2] <= WANTED), None)
    if reached:
        print(f"\n{reached[1] / theirs[-1][1]:.2f} × the plain loop's time for its {theirs[-1][0]:,} steps.")


def compare_speed(text: str, steps: int) -> None:
    """Tokens a processor second of 5 M weights, 16 × 256 characters a step, and the loss after as many."""
    with tempfile.TemporaryDirectory() as folder:
        rows, dev = prepared(text[:SIZE], Path(folder), 256)
        shape = fresh.shape_for(5_000_000, vocabulary=new_tokenizer.SMALLEST, context=257, family="llama")
        size = plain_loop.Size(new_tokenizer.SMALLEST, 256, shape.width, shape.layers, shape.heads)
        found: list[tuple[str, float, float]] = []
        for bf16 in (False, True):
            told: list[tuple[int, float, float]] = []
            plain_loop.train(
                flat(rows), flat(dev)[:16_385], size, steps=steps, rows=16, look_every=steps, bf16=bf16,
                tell=lambda *check, told=told: told.append(check),
            )  # fmt: skip
            found.append((f"plain PyTorch, {'bf16' if bf16 else 'fp32'}", steps * 4096 / told[-1][1], told[-1][2]))
        few = range(64)
        for optimizer, precision in (("adamw", "fp32"), ("adamw", "bf16"), ("muon", "bf16")):
            clock = ours(
                rows, RowView(dev, few), shape, optimizer=optimizer, learning_rate=3e-3, max_steps=steps, warmup_steps=5,
                tokens_per_step=16 * 257, tokens_per_batch=16 * 257, check_every=steps, precision=precision,
            )  # fmt: skip
            later = clock.steps[3:]
            speed = sum(tokens * 256 / 257 for tokens, _ in later) / sum(seconds for _, seconds in later)
            found.append((f"ours, {optimizer}, {precision}", speed, clock.checks[-1][2]))
    print(
        f"| loop, {shape.parameters:,} weights | tokens a second | × plain fp32 | loss after {steps} steps |\n|---|--:|--:|--:|"
    )
    for name, speed, loss in found:
        print(f"| {name} | {speed:,.0f} | {speed / found[0][1]:.2f} | {loss:.3f} |")


def stream(gigabytes: float) -> None:
    """Tokenize a packed corpus of several frames in a process of its own: megabytes a processor second, and memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus.jsonl.zst")
        size = _write_corpus(path, gigabytes)
        command = [sys.executable, __file__, "--part", "streaming-child", "--text", str(path)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"| {size / 1e9:.2f} GB | {size / 1e6 / found['seconds']:.2f} MB/s | {found['batch']:.2f} MB/s | "
        f"{size / 1e6 / found['seconds'] / found['batch']:.2f} | {found['peak'] / 1e6:,.0f} MB |"
    )


def _write_corpus(path: Path, gigabytes: float) -> int:
    """Documents of words that a seed decides, in frames of a few megabytes; their bytes."""
    draw = np.random.default_rng(0)
    words = np.array([
        "".join(chr(97 + letter) for letter in draw.integers(0, 26, draw.integers(2, 9))) for _ in range(20_000)
    ])  # fmt: skip
    codec, total = pa.Codec("zstd"), 0
    with path.open("wb") as file:
        while total < gigabytes * 1e9:
            lines = []
            for _ in range(1000):
                text = " ".join(words[np.minimum(draw.zipf(1.3, 600) - 1, len(words) - 1)])
                total += len(text)
                lines.append(json.dumps({"text": text, "meta": {"pile_set_name": "Words"}}) + "\n")
            file.write(codec.compress("".join(lines).encode(), asbytes=True))
    return total


def _streaming_child(path: Path) -> None:
    corpus = corpora.find(path)
    texts = [passage.text for passage, _ in zip(corpus.passages(corpus.train[0]), range(4000), strict=False)]
    tokenizer = new_tokenizer.train(texts, 8192, where="corpus")
    backend = tokenizer.backend_tokenizer
    backend.encode_batch_fast(texts, add_special_tokens=False)
    start = time.process_time()
    backend.encode_batch_fast(texts, add_special_tokens=False)
    batch = sum(len(text.encode()) for text in texts) / 1e6 / (time.process_time() - start)
    del texts
    plan = Plan(HubTokenizer(tokenizer).encode_texts, "x", int(tokenizer.eos_token_id), len(tokenizer), 0.001)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        corpora.tokenize(corpus, plan, Path(folder))
        seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "batch": batch, "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--part", choices=["loss", "speed", "stream", "streaming-child"])
    parser.add_argument("--gb", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=40)
    asked = parser.parse_args()
    if asked.part == "streaming-child":
        return _streaming_child(asked.text)
    text = asked.text.read_text(encoding="utf-8") if asked.text else made_up()
    if asked.part != "stream":
        torch.set_num_threads(1)
    if asked.part in (None, "loss"):
        compare_loss(text)
    if asked.part in (None, "speed"):
        compare_speed(text, asked.steps)
    if asked.part in (None, "stream"):
        print("| corpus | streamed | encode_batch | ratio | peak memory |\n|--:|--:|--:|--:|--:|")
        stream(asked.gb)


if __name__ == "__main__":
    main()
