"""The conversational commands' screens: chat, answers side by side, the list of runs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from luthier.cli.screen import COLOURS, console, interactive
from luthier.errors import Mistake, choose
from luthier.runs import Run
from luthier.talking import Answer, Chat


def adapters_of(words: Sequence[str]) -> dict[str, Path]:
    """NAME=RUN words as a name → the run's folder."""
    found: dict[str, Path] = {}
    for word in words:
        name, separator, folder = word.partition("=")
        if not (name and separator and folder):
            raise Mistake(f'found "{word}", expected NAME=RUN, such as acme=runs/acme.', where="--adapter")
        if name in found:
            raise Mistake(f'"{name}" is named twice; give each adapter a name of its own.', where="--adapter")
        found[name] = Path(folder)
    return found


def converse(chats: Mapping[str, Chat], *, in_turn: bool = False) -> None:
    """Read questions line by line until an empty one; each chat answers as it thinks.

    With `in_turn` one chat answers, at first the first one; `/use NAME` changes to another, which remembers its own talk.
    """
    person, out = interactive(), console()
    speaking = list(chats)[:1] if in_turn else list(chats)
    if person:
        more = f", /use NAME changes to another: {', '.join(chats)}" if in_turn else ""
        out.print(f"[dim]An empty line or Ctrl-D ends, /new starts afresh{escape(more)}.[/]")
    while True:
        try:
            text = input("> " if person else "").strip()
        except EOFError:
            return
        if not text:
            return
        if text == "/new":
            for chat in chats.values():
                chat.forget()
            continue
        if in_turn and text.split()[0] == "/use":
            try:
                choose("adapter", name := text.removeprefix("/use").strip(), chats)
                speaking = [name]
            except Mistake as mistake:
                out.print(escape(mistake.message))
            continue
        for name in speaking:
            if len(chats) > 1:
                out.print(f"[bold]{escape(name)}[/]")
            try:
                for piece in chats[name].say(text):
                    print(piece, end="", flush=True)
            except Mistake as mistake:  # a message that is too long: the conversation goes on without it
                out.print(escape(mistake.message))
            print("\n" if person else "", flush=True)


def show_answers(answers: Iterable[Answer]) -> None:
    """One answer below the other, each as soon as it is there."""
    out = console()
    for answer in answers:
        out.print(f"[bold]{escape(answer.model)}[/]  [dim]{answer.seconds:.1f} s[/]")
        out.print(escape(answer.text or "(an empty answer)"))
        out.print()


def show_runs(runs: Sequence[Run], root: Path) -> None:
    """A line per run: name, state, model, verdict."""
    if not runs:
        print(f"No runs in {root}. Start one with: luthier run DATA")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("run", "state", "model", "verdict", "difference"):
        table.add_column(title, overflow="fold")
    for run in runs:
        path = run.folder / "evaluation" / "verdict.json"
        verdict = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        word = f"[{COLOURS[verdict['verdict']]}]{verdict['verdict']}[/]" if verdict else "–"
        points = (
            "–" if not verdict else _difference(verdict["difference"], higher_is_better=verdict["higher_is_better"])
        )
        table.add_row(escape(str(run.folder)), run.state, escape(run.record_file["asked"]["model"]), word, points)
    console().print(table)


def _difference(value: float, *, higher_is_better: bool) -> str:
    return f"{value * 100:+.1f} points" if higher_is_better else f"{value:+.3f} bits per byte better"
