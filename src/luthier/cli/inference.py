"""The conversational commands' screens: chat, answers side by side, the list of runs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from luthier.cli import streams
from luthier.cli.screen import COLOURS, console, interactive
from luthier.errors import UserError, choose
from luthier.inference import Answer, Chat, Piece
from luthier.runs import Run


def adapters_of(words: Sequence[str]) -> dict[str, Path]:
    """NAME=RUN words as a name → the run's folder."""
    found: dict[str, Path] = {}
    for word in words:
        name, separator, folder = word.partition("=")
        if not (name and separator and folder):
            raise UserError(f'found "{word}", expected NAME=RUN, such as acme=runs/acme.', where="--adapter")
        if name in found:
            raise UserError(f'"{name}" is named twice; give each adapter a name of its own.', where="--adapter")
        found[name] = Path(folder)
    return found


def on_the_side(note: str) -> None:
    """Tell something beside the answers."""
    print(f"luthier: {note}", file=sys.stderr)


def converse(chats: Mapping[str, Chat], *, in_turn: bool = False) -> None:
    """Read questions line by line until an empty one; each chat answers as it thinks.

    With `in_turn` one chat answers, at first the first one; `/use NAME` changes to another, which remembers its own talk.
    """
    person, out = interactive(), console()
    speaking = list(chats)[:1] if in_turn else list(chats)
    if person:
        more = f", /use NAME changes to another: {', '.join(chats)}" if in_turn else ""
        out.print(f"[dim]An empty line or Ctrl-D ends, /new starts afresh{escape(more)}.[/]")
    while streams.is_read():
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
            except UserError as error:
                out.print(escape(error.message))
            continue
        for name in speaking:
            if len(chats) > 1:
                out.print(f"[bold]{escape(name)}[/]")
            try:
                _show_reply(chats[name].say(text), person=person)
            except UserError as error:  # a message that is too long: the conversation goes on without it
                out.print(escape(error.message))


def _show_reply(pieces: Iterable[Piece], *, person: bool) -> None:
    """A reply as it comes; its thoughts, dimmed, only where a person looks on."""
    thinking = False
    for piece in pieces:
        if piece.thought and not person:
            continue
        if thinking and not piece.thought:
            print("\n")
        thinking = piece.thought
        if piece.thought:
            console().print(Text(piece.text, style="dim"), end="", soft_wrap=True)
        else:
            print(piece.text, end="", flush=True)
    if thinking:
        print("\n(no answer: still thinking)", end="")
    print("\n" if person else "", flush=True)


def show_answers(answers: Iterable[Answer]) -> None:
    """One answer below the other, each as soon as it is there."""
    out = console()
    for answer in answers:
        out.print(f"[bold]{escape(answer.model)}[/]  [dim]{answer.seconds:.1f} s[/]")
        if answer.said.thoughts:
            out.print(Text(f"{answer.said.thoughts}\n", style="dim"))
        empty = "(no answer: still thinking)" if answer.said.finish == "thinking" else "(an empty answer)"
        out.print(escape(answer.said.text or empty))
        out.print()


def show_runs(runs: Sequence[Run], unreadable: Sequence[UserError], root: Path) -> None:
    """A line per run: name, state, model, verdict; below, those that cannot be read and why."""
    if not runs and not unreadable:
        print(f"No runs in {root}. Start one with: luthier run DATA")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("run", "state", "model", "verdict", "difference"):
        table.add_column(title, overflow="fold")
    for run in runs:
        model = str(run.record_file.get("asked", {}).get("model", "–"))
        table.add_row(escape(str(run.folder)), run.state, escape(model), *_verdict(run))
    if runs:
        console().print(table)
    for error in unreadable:
        print(f"{error}")


def _verdict(run: Run) -> tuple[str, str]:
    """The run's verdict and difference, as the table shows them."""
    try:
        found = json.loads((run.folder / "evaluation" / "verdict.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "–", "–"
    except (OSError, ValueError):
        return "[red]damaged[/]", "–"
    difference = _difference(found["difference"], higher_is_better=found["higher_is_better"])
    return f"[{COLOURS[found['verdict']]}]{found['verdict']}[/]", difference


def _difference(value: float, *, higher_is_better: bool) -> str:
    return f"{value * 100:+.1f} points" if higher_is_better else f"{value:+.3f} bits per byte better"
