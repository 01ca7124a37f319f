"""The entry point: all commands in one program, and what it says and which code it leaves when one does not succeed.

Commands import what they need when they run, so that help and errors in a recipe appear at once.
"""

import sys
from pathlib import Path

import typer

from luthier.cli import (
    benchmark,
    corpora,
    export,
    inference,
    inspect,
    pairs,
    plan,
    review,
    run,
    runs,
    serve,
    streams,
    sweep,
    template,
    worker,
)
from luthier.errors import MachineError, UserError

app = typer.Typer(
    name="luthier",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tune a language model on your data, and see with evidence whether it beats the best prompt.",
)
for commands in (
    run,
    pairs,
    inspect,
    plan,
    template,
    corpora,
    inference,
    benchmark,
    sweep,
    review,
    runs,
    export,
    serve,
    worker,
):
    commands.register(app)


def main() -> None:
    """Run the command that was typed. A user's error is a line and an exit code; anything else is a defect of ours."""
    sys.path.append(str(Path.cwd()))  # so that "my_metrics:score" in a recipe finds my_metrics.py here
    with streams.steady():
        try:
            _run_command()
        except UserError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("stopped at once; whatever was complete before is kept.", 130)
        except MemoryError:
            _fail("not enough memory. Lower train.tokens_per_batch, or name a smaller model.", MachineError.exit_code)


def _run_command() -> None:
    """The command that was typed; it has not succeeded where its output did not arrive."""
    try:
        app()
    except SystemExit as end:
        if end.code == 130:  # what typer makes of it
            raise KeyboardInterrupt from end
        if not end.code:
            streams.expect_written()
        raise


def _fail(text: str, code: int) -> None:
    sys.stdout.flush()
    print("\n".join(f"luthier: {line}" for line in text.splitlines()), file=sys.stderr)
    raise SystemExit(code)
