"""Commands that put questions to models: in a conversation, one question to several models, a file of questions."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from luthier.cli.arguments import AdapterRuns, NewTokens, RunOrModel, ThinkingTokens, adapter_folders
from luthier.errors import UserError


def chat(
    run: RunOrModel,
    base: Annotated[bool, typer.Option("--base", help="Let the run's base model answer beside it.")] = False,
    adapter: AdapterRuns = None,
    max_new_tokens: NewTokens = 512,
    thinking_tokens: ThinkingTokens = None,
) -> None:
    """Talk to a run's model. An empty line or Ctrl-D ends it, /new starts a new one, /use NAME switches adapters."""
    from luthier import inference, pipeline
    from luthier.cli.screens.inference import converse
    from luthier.runs import Run

    if adapter:
        if base:
            raise UserError(
                "cannot be used with --adapter: the base model is already among the names; switch to it with /use.",
                where="--base",
            )
        chats = inference.shared_chats(run, adapter_folders(adapter), max_new_tokens, thinking_tokens)
        converse(chats, in_turn=True)
        return
    with closing(inference.asked_model(run, thinking_tokens=thinking_tokens, on_note=_print_note)) as model:
        chats = {Path(run).name: inference.Chat(model, max_new_tokens)}
        if base:
            current = Run(Path(run))
            before = inference.load_base(current, thinking_tokens=thinking_tokens, on_note=_print_note)
            chats[pipeline.base_of(current)] = inference.Chat(before, max_new_tokens)
        converse(chats)


def compare(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    models: Annotated[list[str], typer.Argument(metavar="RUN|MODEL", help="Run folders and model names.")],
    max_new_tokens: NewTokens = 512,
    thinking_tokens: ThinkingTokens = None,
) -> None:
    """Put one question to several models and see the answers one below the other."""
    from luthier import inference
    from luthier.cli.screens.inference import show_answers

    answers = inference.compare(
        question, models, max_new_tokens=max_new_tokens, thinking_tokens=thinking_tokens, on_note=_print_note
    )
    show_answers(answers)


def ask(
    run: RunOrModel,
    questions: Annotated[
        Path, typer.Argument(help="File of questions, in any of the data formats; answers are not needed.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="JSONL file to write: each row with its answer.")],
    adapter: AdapterRuns = None,
    max_new_tokens: NewTokens = 512,
    thinking_tokens: ThinkingTokens = None,
) -> None:
    """Answer a file of questions; with adapters, a column `adapter` names the one that answers a row."""
    from luthier import inference

    count, unfinished = inference.ask_file(
        run,
        questions,
        output,
        max_new_tokens=max_new_tokens,
        thinking_tokens=thinking_tokens,
        adapters=adapter_folders(adapter),
        on_note=_print_note,
    )
    print(f"{count:,} answers in {output}")
    if unfinished:
        _print_note(f"{unfinished:,} of them are empty: the model was still thinking when its tokens ran out.")


def _print_note(note: str) -> None:
    """Print something beside the answers."""
    print(f"luthier: {note}", file=sys.stderr)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (chat, compare, ask):
        app.command()(command)
