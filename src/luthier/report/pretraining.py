"""A pretraining's folder → report.html, report.md and report.json: held-out text, curves, what the model wrote as it learnt."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from luthier.report import charts
from luthier.report.formatting import duration, moment
from luthier.report.page import fenced, inline, visible
from luthier.runs import Run
from luthier.runs.durable import write_atomic

SOURCES_SHOWN = 24


def write(folder: Path) -> Path:
    """Write the page, its Markdown and its JSON, each whole or not at all; gives the path of the page."""
    found = read(folder)
    write_atomic(folder / "report.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    write_atomic(folder / "report.md", _rendered("pretraining.md.jinja", found, escape=False))
    page = folder / "report.html"
    write_atomic(page, _rendered("pretraining.html.jinja", found, escape=True))
    return page


def read(folder: Path) -> dict[str, Any]:
    """Everything that the report says, as JSON."""
    run = Run(folder)
    events = run.events()

    def last(kind: str) -> dict[str, Any] | None:
        found = [_without_kind(event) for event in events if event["kind"] == kind]
        return found[-1] if found else None

    steps = {event["step"]: event for event in events if event["kind"] == "step"}
    dev = {event["step"]: event["loss"] for event in events if event["kind"] == "dev"}
    samples = {(event["step"], event["prompt"]): event["text"] for event in events if event["kind"] == "sample"}
    recipe = last("recipe") or {"settings": {}}
    return {
        "run": {
            "name": run.name, "state": run.state, "reason": run.metadata.get("reason"),
            "created": run.metadata["created"], "command": run.metadata["command"],
        },
        "held_out": last("held-out"),
        "held_out_before": last("held-out-before"),
        "rows": last("rows"),
        "checks": (last("guards") or {"findings": []})["findings"],
        "corpus": last("corpus"),
        "model": last("model"),
        "training": {
            "steps": max(steps, default=0),
            "planned_steps": next((event["steps"] for event in steps.values()), None),
            "seconds": (last("trained") or {}).get("seconds"),
            "loss": [[step, steps[step]["loss"]] for step in sorted(steps)],
            "dev": [[step, dev[step]] for step in sorted(dev)],
        },
        "samples": [{"step": step, "prompt": prompt, "text": text} for (step, prompt), text in sorted(samples.items())],
        "recipe": recipe["settings"],
    }  # fmt: skip


def _without_kind(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in ("kind", "time")}


def sentences(found: Mapping[str, Any]) -> list[str]:
    """What came out, in words."""
    held_out, corpus, model = found["held_out"], found["corpus"], found["model"]
    said = []
    if held_out:
        low, high = held_out["interval"]
        said.append(
            f"{held_out['bits_per_byte']:.3f} bits per byte of held-out text [{100 * held_out['confidence']:g} % CI {low:.3f}, "
            f"{high:.3f}], {held_out['bytes']:,} bytes of {held_out['documents']:,} documents that were never looked at before."
        )
        if before := found["held_out_before"]:
            low, high = before["interval"]
            said.append(f"The given model: {before['bits_per_byte']:.3f} bits per byte [{low:.3f}, {high:.3f}].")
    elif found["training"]["steps"]:
        made, of = found["training"]["steps"], found["training"]["planned_steps"]
        said.append(f"Training has made {made:,} of {of:,} steps; held-out text has not been looked at yet.")
    if model:
        said.append(
            f"{model['name']} with {model['parameters']:,} weights, trained in {model['precision']} on {model['device']}."
        )
    if corpus:
        tokens, kept = corpus["tokens"], corpus["kept"]
        said.append(
            f"{corpus['documents']:,} documents read in {corpus['passages']:,} passages = {kept['train']:,} train + "
            f"{kept['dev']:,} dev + {kept['test']:,} test + {corpus['duplicates']:,} duplicates + {corpus['empty']:,} empty; "
            f"{tokens['train']:,} tokens to train on."
        )
    if rows := found["rows"]:
        said.append(
            f"{rows['read']:,} rows read, {rows['kept']:,} kept: {rows['train']:,} to mix in, {rows['dev']:,} of dev, "
            f"{rows['test']:,} to ask."
        )
    if seconds := found["training"]["seconds"]:
        said.append(f"{found['training']['steps']:,} steps took {duration(seconds)}.")
    return said


def _rendered(name: str, found: Mapping[str, Any], *, escape: bool) -> str:
    environment = Environment(
        loader=PackageLoader("luthier.report"), autoescape=escape, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"visible": visible, "fenced": fenced, "inline": inline}
    training = found["training"]
    loss, dev = _points(training["loss"]), _points(training["dev"])
    page = environment.get_template(name).render(
        found=found,
        sentences=sentences(found),
        created=moment(found["run"]["created"]),
        drawing=charts.loss_curves(loss, dev, best_step=int(min(dev, key=lambda point: point[1])[0]) if dev else None)
        if loss or dev
        else "",
        sources=_largest(found["corpus"]["sources"] if found["corpus"] else {}),
    )  # fmt: skip
    return page.encode("utf-8", "replace").decode("utf-8")


def _points(pairs: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    return [(float(step), float(loss)) for step, loss in pairs]


def _largest(sources: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(sources.items(), key=lambda pair: -pair[1])[:SOURCES_SHOWN]
