"""Batched answers per second: ours, transformers' generate one by one, and in plain left-padded batches in file order.

    generation.py --items 100 --max-new-tokens 96

All give greedy fp32 answers; the tokens are compared.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import torch
from prompts import mails
from record import circumstances, write_section

from luthier.model import generate, loading
from luthier.model.loading import LanguageModel

HEADING = "Generation throughput"
ONE_BY_ONE, IN_BATCHES = 5.0, 1.5
"""How many times as many answers a second as each of the others we promise."""

Prompts = Sequence[Sequence[int]]


def ours(lm: LanguageModel, prompts: Prompts, limit: int) -> list[list[int]]:
    return [reply.ids for reply in generate.answer(lm, prompts, max_new_tokens=limit)]


def plain(lm: LanguageModel, prompts: Prompts, limit: int, *, size: int) -> list[list[int]]:
    """transformers' own generate over the prompts in their order, `size` at a time, padded on the left."""
    stops = sorted(lm.template.stop_ids)
    found: list[list[int]] = []
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        longest = max(map(len, batch))
        ids = torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids in batch])
        mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in batch])
        output = lm.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=0,
        )
        for row in output[:, longest:].tolist():
            end = next((place + 1 for place, token in enumerate(row) if token in stops), len(row))
            found.append(row[:end])
    return found


def timed(work: Callable[[], list[list[int]]]) -> tuple[list[list[int]], float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="generate_throughput", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--sizes", default="8,16,32,100", help="batch sizes of the plain batches; the fastest counts")
    parser.add_argument("--rounds", type=int, default=1, help="the fastest of so many is taken, for every way")
    parser.add_argument("--skip-one-by-one", action="store_true", help="leave out the slowest way")
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    given = parser.parse_args()
    lm = loading.load(given.model)
    prompts = [lm.template.prompt(messages) for messages in mails(given.items)]
    limit = given.max_new_tokens
    ways: dict[str, Callable[[], list[list[int]]]] = {"Luthier": lambda: ours(lm, prompts, limit)}
    for size in map(int, given.sizes.split(",")):
        ways[f"generate, batches of {size}"] = lambda size=size: plain(lm, prompts, limit, size=size)  # type: ignore[misc]
    if not given.skip_one_by_one:
        ways["generate, one by one"] = lambda: plain(lm, prompts, limit, size=1)
    plain(lm, prompts[:2], 4, size=2)  # what is loaded or compiled at the first call
    ours(lm, prompts[:2], 4)
    seconds, answers = dict.fromkeys(ways, float("inf")), {}
    for _ in range(given.rounds):
        for name, work in ways.items():
            answers[name], spent = timed(work)
            seconds[name] = min(seconds[name], spent)
            print(f"{name:26} {given.items / spent:6.2f} answers/s", flush=True)
    lengths = [len(ids) for ids in answers["Luthier"]]
    same = {
        name: sum(a == b for a, b in zip(answers["Luthier"], found, strict=True)) for name, found in answers.items()
    }
    text = report(given.items, seconds, same, prompts, lengths, limit)
    print("\n" + text)
    if given.write:
        write_section(HEADING, text)


def report(
    items: int, seconds: dict[str, float], same: dict[str, int], prompts: Prompts, lengths: Sequence[int], limit: int
) -> str:
    """The table, with the two targets reached or missed."""
    lines = [
        f"`benchmarks/generate_throughput`, {circumstances(('torch', 'transformers'))}",
        "",
        f"SmolLM2-135M-Instruct, fp32, greedy. {items} prompts of {min(map(len, prompts))} to {max(map(len, prompts))} "
        f"tokens; answers of {min(lengths)} to {max(lengths)} tokens (at most {limit}), {sum(lengths) / items:.0f} on average.",
        "",
        "| | answers/s | Luthier is faster by | same tokens as Luthier's |",
        "|---|--:|--:|--:|",
    ]
    for name, spent in seconds.items():
        lines.append(f"| {name} | {items / spent:.2f} | {spent / seconds['Luthier']:.2f} × | {same[name]} of {items} |")
    batches = min(spent for name, spent in seconds.items() if "batches" in name) / seconds["Luthier"]
    said = [
        f"against the best plain batches {batches:.2f} × ({'reached' if batches >= IN_BATCHES else 'missed'}: {IN_BATCHES})"
    ]
    if "generate, one by one" in seconds:
        one = seconds["generate, one by one"] / seconds["Luthier"]
        said.append(f"against one by one {one:.2f} × ({'reached' if one >= ONE_BY_ONE else 'missed'}: {ONE_BY_ONE})")
    return "\n".join([*lines, "", "; ".join(said).capitalize() + "."])


if __name__ == "__main__":
    sys.exit(main())
