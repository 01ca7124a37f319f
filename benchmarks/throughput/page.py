"""This benchmark's section of RESULTS.md, made anew from the figures of all parts, whenever each was measured."""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import targets
from bench import Search
from targets import Target
from task import Result

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "RESULTS.md"
MEASURED = HERE / "measured.json"
HEADING = "## Training throughput"
FLAGS = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile"]
LIMITS = ["ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS"]
"""Variables that let a processor pass for a lesser one."""
Found = dict[str, list[Result]]


def circumstances(load: float) -> str:
    """When and on what; nothing that tells whose machine it is."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = dict(part.split(":", 1) for part in facts.split("\n\n")[0].replace("\t", "").splitlines() if ":" in part)
    flags = set(fields.get("flags", "").split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    seen = " ".join(flag for flag in FLAGS if flag in flags)
    if limits := " ".join(f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ):
        seen += f"; told to be less: {limits}"
    return (
        f"{time.strftime('%Y-%m-%d')}, load before the start {load:.1f}; {fields.get('model name', 'unknown').strip()}, "
        f"{os.cpu_count()} cores, {memory:.0f} GB ({seen}); Linux, Python {platform.python_version()}"
    )


def plain(found: Any) -> Any:
    """Figures as JSON has them."""
    if isinstance(found, (Result, Search)):
        return asdict(found)
    if isinstance(found, dict):
        return {str(key): plain(value) for key, value in found.items()}
    return [plain(one) for one in found] if isinstance(found, list) else found


def load(file: Path = MEASURED) -> dict[str, Any]:
    """All parts' figures as they were last measured."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def save(measured: dict[str, Any]) -> None:
    """Keep all parts' figures, and write the section that they make."""
    MEASURED.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    write_section(RESULTS, section(measured))


def results(found: dict[str, list[dict[str, Any]]]) -> Found:
    return {arm: [Result(**one) for one in many] for arm, many in found.items()}


def compared(title: str, part: dict[str, Any], aim: float) -> tuple[list[Target], list[str]]:
    """Targets and table of a part that trains in alternation with TRL."""
    found, best, order = results(part["found"]), part["search"]["best"], part.get("order", "trl our-order")
    tried = [Result(**one) for one in part["search"]["tried"]]
    fair = [one for one in tried if one.heldout_loss <= tried[0].heldout_loss * part["loss_noise"]]
    ours = found[next(iter(found))]
    theirs = found[best]
    reached = [
        targets.faster(title, ours, theirs, aim),
        targets.smaller(title, ours, theirs, min(one.peak for one in fair)),
        targets.equal_loss(title, ours, found[order]),
    ]
    if "luthier lora" in found:
        reached.insert(1, targets.faster_than_full(ours, found["luthier full"]))
    lines = [
        f"Ours takes {ours[0].tokens:,} tokens without padding in {ours[0].steps} steps, TRL's best {theirs[0].tokens:,} in "
        f"{theirs[0].steps}; learning rate {part['rate']:g}. `{order}` is TRL without gradient checkpointing and with "
        "the rows in our order, to compare losses with.",
        "",
        *arms_table(found, best),
        "",
        f"TRL's settings, once each; its best is `{best}`:",
        "",
        *settings_table(tried),
        *(f"\n`{name}` gave no result: {reason}" for name, reason in part["search"]["failed"].items()),
    ]
    return reached, lines


def arms_table(found: Found, best: str) -> list[str]:
    """Medians over the repeats, with the range of the speeds, and ratios to the best of the others."""
    lines = [
        f"| arm | tokens/s | range | × {best} | peak GB | peak GB while training | held-out loss, range |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for arm, many in found.items():
        speeds = sorted(one.tokens_per_second for one in many)
        losses = [one.heldout_loss for one in many]
        lines.append(
            f"| {arm} | {targets.speed(many):.0f} | {speeds[0]:.0f}–{speeds[-1]:.0f} "
            f"| {targets.speed(many) / targets.speed(found[best]):.2f} | {targets.memory(many):.2f} "
            f"| {max(one.peak_training for one in many):.2f} "
            f"| {fmean(losses):.4f}, {min(losses):.4f}–{max(losses):.4f} |"
        )
    return lines


def settings_table(tried: Sequence[Result]) -> list[str]:
    lines = [
        "| setting | tokens/s | peak GB | held-out loss | differs from the defaults in |",
        "|---|--:|--:|--:|---|",
    ]
    for one in tried:
        setting = ", ".join(f"{key}={value}" for key, value in one.setting.items()) or "–"
        lines.append(
            f"| {one.arm} | {one.tokens_per_second:.0f} | {one.peak:.2f} | {one.heldout_loss:.4f} | {setting} |"
        )
    return lines


def memory(part: dict[str, Any]) -> tuple[list[Target], list[str]]:
    budgets = {int(tokens): Result(**one) for tokens, one in part["budgets"].items()}
    sizes = {int(records): Result(**one) for records, one in part["records"].items()}
    lines = ["| full fine-tuning | peak GB | peak GB while training |", "|---|--:|--:|"]
    for tokens, one in budgets.items():
        lines.append(f"| batches of {tokens:,} tokens, 96 records | {one.peak:.2f} | {one.peak_training:.2f} |")
    for records, one in list(sizes.items())[1:]:
        lines.append(
            f"| batches of {part['tokens']:,} tokens, {records} records | {one.peak:.2f} | {one.peak_training:.2f} |"
        )
    few, many = (sizes[records] for records in sorted(sizes))
    return [targets.linear(budgets), targets.flat(few, many)], lines


def limit(part: dict[str, Any]) -> tuple[list[Target], list[str]]:
    """Share of the limit for each length of rows, and where a step's time goes."""
    reached: list[Target] = []
    lengths: dict[str, dict[str, Any]] = part["lengths"]
    lines = [
        "| rows of | training, tokens/s | large bf16 products, GFLOP/s | products of the model's shapes | of the former | of "
        "the latter |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for length, one in lengths.items():
        what = f"rows of {length} tokens"
        reached.append(targets.near_limit(what, one["share_of_squares"], "large bf16 products"))
        reached.append(targets.near_limit(what, one["share_of_shapes"], "bf16 products of the model's shapes"))
        squares = ", ".join(f"{size}²: {speed / 1e9:.0f}" for size, speed in one["squares"].items())
        lines.append(
            f"| {length} | {one['tokens_per_second']:.0f} | {squares} | {one['shapes'] / 1e9:.0f} "
            f"| {100 * one['share_of_squares']:.0f} % | {100 * one['share_of_shapes']:.0f} % |"
        )
    lines += [
        "",
        "Products were measured in the pauses between the training's steps, medians. `1024²` is a product of squares.",
    ]
    lines += ["", "Share of a step's time by torch's profiler, and the products' speed meanwhile:", ""]
    lines += ["| | " + " | ".join(f"rows of {length}" for length in lengths) + " |", "|---|" + "--:|" * len(lengths)]
    lines.append("| **products with the weights** | " + " | ".join(map(product_cell, lengths.values())) + " |")
    for kind in next(iter(lengths.values()))["seconds"]["shares"]:
        cells = [f"{100 * one['seconds']['shares'][kind]:.1f} %" for one in lengths.values()]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    length, one = next(iter(lengths.items()))
    top = ", ".join(f"`{name}` {100 * share:.1f} % ({kind})" for name, kind, share in one["seconds"]["largest"])
    return reached, [*lines, "", f"The largest operators with rows of {length}: {top}."]


def with_weights(seconds: dict[str, Any]) -> tuple[float, float]:
    """Share of a step in products of the layers and of the head, and their operations per second together."""
    shares = {kind: seconds["shares"][kind] for kind in ("products of the layers", "products of the head")}
    work = sum(share * seconds["products_per_second"].get(kind, 0.0) for kind, share in shares.items())
    together = sum(shares.values())
    return together, work / together if together else 0.0


def product_cell(one: dict[str, Any]) -> str:
    share, speed = with_weights(one["seconds"])
    return f"{100 * share:.1f} %, {speed / 1e9:.0f} GFLOP/s, {100 * speed / one['shapes']:.0f} % of these shapes alone"


def bound(measured: dict[str, Any]) -> list[str]:
    """What would be left if all but the matrix products of the weights were free, where both parts were measured."""
    if not {"full", "limit"} <= measured.keys():
        return []
    found = results(measured["full"]["found"])
    best = targets.speed(found[measured["full"]["search"]["best"]])
    ratio = targets.speed(found["luthier full"]) / best
    length, one = next(iter(measured["limit"]["lengths"].items()))
    share, _ = with_weights(one["seconds"])
    needed = targets.FULL * best * 6 * one["parameters"]
    return [
        "",
        f"Products with the weights take {100 * share:.0f} % of a step with rows of {length}. If everything else cost nothing, "
        f"{ratio:.2f} × TRL's best would become {ratio / share:.2f} ×; beyond that these products themselves would have to "
        f"come faster. {targets.FULL:g} × TRL's best needs {needed / 1e9:.0f} GFLOP/s in products alone (6 × parameters a "
        f"token); the largest products reach {max(one['squares'].values()) / 1e9:.0f} here.",
    ]


def peers(part: dict[str, Any]) -> tuple[list[Target], list[str]]:
    found = results(part["found"])
    lines = [
        "Full fine-tuning, every token learnt, beside other trainers than TRL, once each; no target. LitGPT's held-out loss is "
        "that of its own forward pass in fp32; all take 8 records a step and let the rate fall as ours does. Unsloth's backend "
        "for processors keeps weights in bf16 without fp32 masters unless it is asked for fp32.",
        "",
        *arms_table(found, "luthier full"),
    ]
    for arm, (one, *_) in found.items():
        lines.append(f"\n`{arm}`: " + ", ".join(f"{name} {version}" for name, version in one.versions.items()) + ".")
    for side, search in part["searches"].items():
        lines += [f"\n`{side} {name}` gave no result: {reason}" for name, reason in search["failed"].items()]
    return [], [*lines, *(f"\n{reason}" for reason in part["missing"].values())]


def section(measured: dict[str, Any]) -> str:
    """The whole section, of those parts that were measured."""
    reached: list[Target] = []
    bodies: list[str] = []
    for name, title in TITLES.items():
        if name not in measured:
            continue
        part = measured[name]
        found, lines = WRITERS[name](part)
        reached += found
        bodies += ["", f"### {title}", "", f"Measured {part['when']}{part['versions']}.", "", *lines]
        bodies += bound(measured) if name == "limit" else []
    lines = [HEADING, "", f"`benchmarks/train_throughput`. {INTRODUCTION}", ""]
    lines += [f"Targets reached: {sum(target.reached for target in reached)} of {len(reached)}.", ""]
    lines += ["| target | measured | |", "|---|---|---|", *(target.line() for target in reached)]
    return "\n".join(lines + bodies) + "\n"


def write_section(file: Path, text: str) -> None:
    """Replace this benchmark's part of the file, or add it."""
    content = file.read_text(encoding="utf-8") if file.exists() else "# Benchmark results\n"
    before, found, rest = content.partition(HEADING + "\n")
    _, other, after = rest.partition("\n## ")
    file.write_text(before.rstrip() + "\n\n" + text + (other + after if found else ""), encoding="utf-8")


INTRODUCTION = (
    "SmolLM2-135M on the same token rows, each training in a process of its own, sides in alternation, a seed a round. TRL "
    "takes 8 records per step, ours a token budget that gives as many steps. AdamW, the learning rate falling linearly to 0 "
    "from the first step; full fine-tuning keeps its own rate beside LoRA. Tokens per second leave out padding and each "
    "process's first steps; medians. Peak memory is the "
    "kernel's high-water mark of the training process; the largest. Held-out loss: 32 other records, one fp32 function for "
    "all; means. With nothing changed but the order of the rows, one training's held-out loss differs from another's by up to "
    "4 %, so losses are compared in pairs that took the rows in the same order, with the 95 % interval of their mean "
    "difference; equal within 1 % means that the whole interval is. Figures: `throughput/measured.json`."
)
TITLES = {
    "full": "Every token learnt",
    "answers": "Answers learnt",
    "lora": "LoRA of rank 16 beside all linear layers, every token learnt",
    "full-fp32": "Every token learnt, without fast bf16",
    "lora-fp32": "LoRA without fast bf16, every token learnt",
    "memory": "Memory",
    "limit": "The limit, and where the time goes",
    "peers": "Other trainers",
}
WRITERS = {
    "full": lambda part: compared("full", part, targets.FULL),
    "answers": lambda part: compared("answers", part, targets.ANSWERS),
    "lora": lambda part: compared("LoRA", part, targets.LORA),
    "full-fp32": lambda part: compared("full without fast bf16", part, targets.FULL_FP32),
    "lora-fp32": lambda part: compared("LoRA without fast bf16", part, targets.LORA_FP32),
    "memory": memory,
    "limit": limit,
    "peers": peers,
}
