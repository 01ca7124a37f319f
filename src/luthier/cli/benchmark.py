"""The command that measures a model on public benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from luthier.cli.arguments import Quiet, RunOrModel, comma_separated


def benchmark(
    run: RunOrModel,
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            metavar="A,B",
            help="Names of lm-eval's tasks, its task files (.yaml), or files of questions (.jsonl, .csv).",
        ),
    ],
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first items of each task.")] = None,
    task_folder: Annotated[
        Path | None, typer.Option("--task-folder", help="Folder with task files of your own, to be named by --tasks.")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Ask with the model's chat template instead of plain text.")
    ] = False,
    base: Annotated[
        bool | None,
        typer.Option("--base/--no-base", help="Measure the base model too, and compare.  [default: for a run]"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure a run's model on benchmarks with EleutherAI's lm-eval, beside its base model."""
    from luthier import pipeline
    from luthier.cli.screens.benchmark import show_scores
    from luthier.cli.screens.run import RunScreen
    from luthier.evaluate.benchmark import BenchmarkSettings

    asked = BenchmarkSettings(comma_separated(tasks, "--tasks"), task_folder, limit, chat)
    screen = RunScreen()
    try:
        results = pipeline.benchmark(run, asked, base=base, listen=None if quiet else screen)
    finally:
        screen.close()
    show_scores(results)
    if (Path(run) / "run.json").is_file():
        print(f"Written to {Path(run) / 'evaluation' / 'benchmarks.json'}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(benchmark)
