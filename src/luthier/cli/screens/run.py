"""Draws a run's events on a terminal: progress and decisions to stderr, the result to stdout."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from luthier.cli.screens.inspection import Watch
from luthier.cli.screens.ledger import ledger_lines
from luthier.cli.screens.terminal import COLOURS, console, count, duration, print_whole
from luthier.report.json_fields import locations_by_reason
from luthier.report.score_units import metric_name

Event = Mapping[str, Any]


class RunScreen:
    """Listens to a run. On a terminal it keeps one progress line; in a pipe it prints a plain line now and then."""

    def __init__(self) -> None:
        self.err = console(stderr=True)
        self._moves = self.err.is_terminal and not self.err.is_dumb_terminal  # a line can be drawn again in its place
        columns = (TextColumn("{task.description:<9}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
        self._bar = Progress(*columns, console=self.err, transient=True)
        self._task = self._bar.add_task("", total=1, text="", visible=False)
        self._speed = 0.0
        self._dev = ""
        self._last_mark: tuple[object, ...] = ()
        self._reading = Watch("Data")
        self._draw: dict[str, Callable[[Event], None]] = {
            "reading": lambda event: self._reading.rows(event["rows"]),
            "start": self._start,
            "data": self._data,
            "corpus": self._corpus,
            "sample": lambda event: self._line("Wrote", f"{event['prompt']}{event['text']}".replace("\n", "⏎")[:100]),
            "recipe": self._recipe,
            "leakage": self._leakage,
            "model": self._model,
            "arm": self._arm,
            "judging": lambda event: self._progress(
                "Judge", event["done"], event["of"], f"pairs of answers compared {event['done']}/{event['of']}"
            ),
            "judge": lambda event: self._line("Judge", event["sentence"]),
            "choice": self._choice,
            "reflecting": self._reflecting,
            "template": lambda event: self._line(
                "Template", event["sentence"], style="bold" if event["clean"] else "yellow"
            ),
            "selftest": self._selftest,
            "reference": lambda event: self._progress(
                "Reference",
                event["done"],
                event["of"],
                f"likelihoods of {event['split']} answers before training {event['done']}/{event['of']}",
            ),
            "plan": self._plan,
            "step": self._step,
            "dev": self._dev_loss,
            "resumed": lambda event: self._line(
                "Training", f"continues from the intact checkpoint of step {event['step']}"
            ),
            "trained": self._trained,
            "warning": lambda event: self._line("Warning", str(event["message"]), style="yellow"),
            "mended": lambda event: self._line("Repaired", str(event["message"]), style="yellow"),
            "stopping": lambda event: self._line(
                "Stopping", "finishing the step and saving; press Ctrl-C again to stop at once", style="yellow"
            ),
        }

    def __call__(self, event: Event) -> None:
        if draw := self._draw.get(event["kind"]):
            draw(event)

    def close(self) -> None:
        """Take the progress line away."""
        self._reading.close()
        if self._bar.live.is_started:
            self._bar.stop()

    def _line(self, head: str, text: str, *, style: str = "bold") -> None:
        self.err.print(f"[{style}]{head:<9}[/] {escape(text)}")

    def _progress(self, head: str, done: float, of: float, text: str) -> None:
        """Move the progress line; in a pipe, print it at each tenth."""
        if self._moves:
            self._bar.update(self._task, description=head, completed=done, total=of, text=text, visible=True)
            self._bar.start()
            if done >= of:
                self._bar.update(self._task, visible=False)
            return
        mark = (head, text.split("·")[0].strip().rstrip("0123456789/ "), int(10 * done / max(1, of)))
        if mark != self._last_mark and done:
            self._last_mark = mark
            self._line(head, text)

    def _start(self, event: Event) -> None:
        self._reading.close()
        state = {"new": "new run", "complete": "complete"}.get(event["state"], "continued")
        self._line("Run", f"{event['folder']} ({state})")
        if event["kept"]:
            self._line("Kept", f"{', '.join(event['kept'])} (not repeated)")

    def _data(self, event: Event) -> None:
        self._line("Data", f"{event['sentence']}")
        dropped = locations_by_reason(event["dropped"], event.get("dropped_rows"))
        notes = locations_by_reason(event["notes"], event.get("noted_rows"))
        for line in ledger_lines(
            read=event["read"], kept=event["kept"], dropped=dropped, notes=notes, ignored=event.get("ignored") or (),
            file="data/ledger.jsonl",
        ):  # fmt: skip
            self._line("", line)
        if synthetic := event.get("synthetic"):
            self._line("", f"{synthetic:,} of the rows are synthetic: made by rules or by a model")
        documents = event.get("documents") or {}
        of = {name: f" (of {count(documents[name], 'document')})" for name in documents}
        self._line("", " · ".join(f"{name} {event[name]:,}{of.get(name, '')}" for name in ("train", "dev", "test")))

    def _corpus(self, event: Event) -> None:
        kept = event["kept"]
        self._line("Corpus", f"{event['documents']:,} documents, {event['tokens']['train']:,} tokens to train on")
        left = ", ".join(f"{event[name]:,} {name}" for name in ("duplicates", "empty") if event[name])
        split = " · ".join(f"{name} {kept[name]:,}" for name in ("train", "dev", "test"))
        self._line("", f"passages: {split}{f'; left out: {left}' if left else ''}")

    def _leakage(self, event: Event) -> None:
        if event["sentence"]:
            self._line("Leakage", event["sentence"], style="yellow")

    def _recipe(self, event: Event) -> None:
        head = "Recipe"
        for key, (value, why) in event["settings"].items():
            if not key.startswith("data."):  # the line Data says how it is read
                shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
                self._line(head, f"{key} = {_short(shown)}  ({why})")
                head = ""

    def _model(self, event: Event) -> None:
        what = (
            f"{event['name']}: {event['parameters'] / 1e6:.1f} M parameters on {event['device']}, {event['template']}"
        )
        trained = "all weights" if event["trainable"] == "all" else event["trainable"]
        self._line("Model", f"{what}; trains {trained} in {event['precision']}")

    def _arm(self, event: Event) -> None:
        arm = event["arm"]
        head = "Tuned" if arm.startswith("fine-tuned") else "Endpoint" if arm.startswith("endpoint:") else "Base"
        self._progress(
            head, event["done"], event["of"], f"{event['arm']} on {event['split']} {event['done']}/{event['of']}"
        )

    def _choice(self, event: Event) -> None:
        if event["arm"] == "few-shot":
            what = f"{count(event['shots'], 'example')} (set {event['set']})"
            candidates = count(len(event["candidates"]), "candidate")
            cost = f"{event['questions']} dev questions, about {event['tokens']:,} tokens"
            self._line("Few-shot", f"{what}, the best of {candidates} on {cost}")
        else:
            gain = f"mean score {event['start_mean']:.3f} → {event['mean']:.3f} on training questions"
            self._line("Prompt", f"instruction optimised with {event['answers']} answers: {gain}")

    def _reflecting(self, event: Event) -> None:
        """Minutes may pass until the next answer."""
        text = f"optimised: writing instruction {event['instruction']}"
        if self._moves:
            self._progress("Base", 0, 1, text)
        else:
            self._line("Base", text)

    def _plan(self, event: Event) -> None:
        compared = f"{event['sha256'][:12]}…, frozen: fine-tuned against {event['against']}"
        if event["visible_effect"] is None:
            self._line("Plan", f"{compared}, {event['n']:,} test documents")
            return
        asked = f"{event['n']:,} test questions"
        if event["visible_effect"] < 1:
            sees = f"differences above about {100 * event['visible_effect']:.0f} points can be seen"
        else:
            asked += f" in {count(event['groups'], 'group')}"
            sees = "no difference can be shown, whatever the answers: more groups are needed"
        self._line("Plan", f"{compared}; with {asked}, {sees}")

    def _selftest(self, event: Event) -> None:
        tokens, rows = count(event["learnt"], "token"), count(event["rows"], "row")
        found = [f"in the first {rows}, the loss counts the {tokens} marked and no others"]
        found.append("each row ends with an end token" if event["ends"] else "rows have no end token")
        found.append("packed rows do not mix" if event["apart"] else "packed rows mix")
        self._line("Checked", "; ".join(found))

    def _step(self, event: Event) -> None:
        speed = event["tokens_per_second"]
        self._speed = speed if not self._speed else 0.9 * self._speed + 0.1 * speed
        left = (event["steps"] - event["step"]) * event["tokens"] / max(1.0, self._speed)
        text = (
            f"step {event['step']}/{event['steps']} · loss {event['loss']:.3f}{self._dev} · "
            f"{self._speed:,.0f} tokens/s · {duration(left)} left"
        )
        self._progress("Training", event["step"], event["steps"], text)

    def _dev_loss(self, event: Event) -> None:
        self._dev = f" · dev {event['loss']:.3f}"
        if event["best"]:
            self._dev += f" (best{_unless_base(event, event['loss'])})"
        if "kl" in event:
            self._dev += f", {event['accuracy']:.0%} of answers moved as people want, margin {event['margin']:.3f}"
        elif "accuracy" in event:
            self._dev += f", chosen answer preferred in {event['accuracy']:.0%} of pairs"

    def _trained(self, event: Event) -> None:
        self._line(
            "Training",
            f"{event['step']} steps in {duration(event['seconds'])} ({event['reason']}); "
            f"best dev loss {event['best_loss']:.3f} at step {event['best_step']}{_unless_base(event, event['best_loss'])}",
        )


def read_verdict(folder: Path) -> dict[str, Any]:
    """The verdict of a run, as evaluation/verdict.json has it."""
    verdict: dict[str, Any] = json.loads((folder / "evaluation" / "verdict.json").read_text(encoding="utf-8"))
    return verdict


def show_result(verdict: Mapping[str, Any], folder: Path) -> None:
    """The table of arms, the verdict, and where to read on."""
    out = console()
    out.print()
    print_whole(out, arms_table(verdict))
    out.print(f"* the best prompt, as chosen on {verdict['chosen_on']}\n")
    word = verdict["verdict"]
    out.print(escape(verdict["sentence"]).replace(word, f"[bold {COLOURS[word]}]{word}[/]", 1))
    for note in verdict.get("notes", ()):
        out.print(escape(note))
    for excluded in verdict.get("excluded", ()):
        out.print(escape(f"Left out: {excluded['arm']}, since {excluded['why']}."))
    if plan := verdict.get("plan"):
        out.print(escape(_plan_summary(plan)))
    out.print(f"\nReport  {folder / 'report.html'}\nTalk    luthier chat {folder}")


def show_pretrained(folder: Path) -> None:
    """What a pretraining came to, and what can be done with it."""
    found = json.loads((folder / "evaluation" / "held-out.json").read_text(encoding="utf-8"))
    low, high = found["interval"]
    out = console()
    out.print(
        f"\nHeld-out text: {found['bits_per_byte']:.3f} bits per byte "
        f"[{100 * found['confidence']:g} % CI {low:.3f}, {high:.3f}], {found['documents']:,} documents.",
        markup=False,
    )
    if (checks := folder / "evaluation" / "guards.json").is_file():
        for check in json.loads(checks.read_text(encoding="utf-8"))["guards"]:
            out.print(check["sentence"], markup=False)
    out.print(f"\nReport  {folder / 'report.html'}\nTune    luthier run DATA model={folder}", markup=False)


def arms_table(verdict: Mapping[str, Any]) -> Table:
    """A row per arm: score with interval, and what an answer costs."""
    higher = verdict["higher_is_better"]
    scale, digits = (100, 1) if higher else (1, 3)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    table.add_column(metric_name(verdict["metric"]) + ("" if higher else " (lower is better)"), justify="right")
    for title in (f"{100 * verdict['confidence']:g} % interval", "tokens in", "out", "s/answer"):
        table.add_column(title, justify="right")
    for name, arm in verdict["arms"].items():
        low, high = arm["interval"]
        thoughts = arm.get("thought_tokens")
        mark = " *" if name == verdict["best_prompt_arm"] else ""
        table.add_row(
            name + mark,
            f"{arm['mean'] * scale:.{digits}f}",
            f"{low * scale:.{digits}f} – {high * scale:.{digits}f}",
            f"{arm['prompt_tokens']:,.0f}",
            f"{arm['answer_tokens']:,.0f}" + (f" ({thoughts:,.0f} thinking)" if thoughts else ""),
            f"{arm['seconds']:.2f}",
        )
    return table


def _unless_base(event: Event, loss: float) -> str:
    """What to say behind "best" where the model was better before training."""
    first = event.get("first_loss")
    return f", but {first:.3f} before training" if first is not None and first <= loss else ""


def _plan_summary(plan: Mapping[str, Any]) -> str:
    """The plan, how often test was opened, and what was done otherwise."""
    opened, departures = plan["test_opened"], plan["deviations"]
    frozen = plan["frozen"][:16].replace("T", " ")
    head = f"Plan {plan['sha256'][:12]}…, frozen {frozen} UTC; test opened {count(opened, 'time')}"
    if not departures:
        return f"{head}; done as planned."
    sentences = "".join(f"\n  {departure['sentence']}" for departure in departures)
    return f"{head}; {count(len(departures), 'departure')} from the plan:{sentences}"


def _short(value: object) -> str:
    return str(value) if len(str(value)) < 60 else str(value)[:57] + "…"
