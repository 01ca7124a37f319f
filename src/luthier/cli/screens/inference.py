"""The conversational commands' screens: chat, answers side by side, the list of runs."""

from collections.abc import Iterable, Mapping

from rich.markup import escape
from rich.text import Text

from luthier.cli import streams
from luthier.cli.screens.terminal import console, interactive
from luthier.errors import UserError
from luthier.extensions import look_up
from luthier.inference import Chat, ModelAnswer, ReplyPiece
from luthier.model.replies import THINKING


def converse(chats: Mapping[str, Chat], *, in_turn: bool = False) -> None:
    """Read questions line by line until an empty one; each chat answers as it thinks.

    With `in_turn` one chat answers, at first the first one; `/use NAME` changes to another, which remembers its own talk.
    """
    person, out = interactive(), console()
    speaking = list(chats)[:1] if in_turn else list(chats)
    if person:
        more = f"; /use NAME changes to another: {', '.join(chats)}" if in_turn else ""
        out.print(
            f"[dim]Press Enter on an empty line or Ctrl-D to end; /new starts a new conversation{escape(more)}.[/]"
        )
    while streams.is_read():
        try:
            text = input("> " if person else "").strip()
        except EOFError:
            return
        if not text:
            return
        if text == "/new":
            for chat in chats.values():
                chat.clear()
            continue
        if in_turn and text.split()[0] == "/use":
            try:
                look_up("adapter", name := text.removeprefix("/use").strip(), chats)
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


def _show_reply(pieces: Iterable[ReplyPiece], *, person: bool) -> None:
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


def show_answers(answers: Iterable[ModelAnswer]) -> None:
    """One answer below the other, each as soon as it is there."""
    out = console()
    for each in answers:
        out.print(f"[bold]{escape(each.model)}[/]  [dim]{each.seconds:.1f} s[/]")
        if each.answer.thoughts:
            out.print(Text(f"{each.answer.thoughts}\n", style="dim"))
        empty = "(no answer: still thinking)" if each.answer.finish == THINKING else "(an empty answer)"
        out.print(escape(each.answer.text or empty))
        out.print()
