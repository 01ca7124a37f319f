"""The command line. Commands import what they need when they run, so that help and errors in a recipe appear at once."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from luthier.cli import plan, resume, review, streams, sweep, template
from luthier.errors import MachineError, UserError

app = typer.Typer(
    name="luthier",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tune a language model on your data, and see with evidence whether it beats the best prompt.",
)

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="DATA|KEY=VALUE", help="Data file or folder, then settings such as train.epochs=2."),
]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="TOML file with settings.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the result only.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
Adapter = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter", metavar="NAME=RUN", help="Put a run's adapter beside the base model RUN; may be repeated."
    ),
]
NewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")]

Thinking = Annotated[
    int | None,
    typer.Option(
        "--thinking-tokens",
        min=0,
        help="Room for thoughts besides, in tokens.  [default: what the run had; else 2048, if the model thinks]",
    ),
]


class Required(StrEnum):
    """What a verdict can be required to be."""

    better = "better"


@app.command()
def run(
    words: Words = None,
    recipe: RecipeFile = None,
    folder: Annotated[
        Path | None, typer.Option("--run", help="The run's folder; an unfinished run in it is continued.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Prepare the data, ask the base model, fine-tune, ask the tuned model, and give a verdict."""
    asked = load_recipe(words or [], recipe)
    from luthier.cli.run import carry_out

    carry_out(asked, folder, quiet=quiet, command=command_line())


@app.command()
def recipe(
    words: Words = None,
    recipe: RecipeFile = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the recipe's JSON Schema instead.")] = False,
) -> None:
    """Print the recipe that a run on this data would use, each value with its reason."""
    from luthier import recipe as recipes

    if schema:
        print(recipes.schema())
        return
    asked = load_recipe(words or [], recipe)
    from luthier import pipeline

    planned = pipeline.plan(asked)
    print(f"# {planned.dataset.choice.sentence()}", file=sys.stderr)
    print(recipes.render(planned.recipe, planned.reasons), end="")


@app.command()
def evaluate(
    run: RunFolder,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Settings of evaluate, such as evaluate.arms=zero-shot,rag,fine-tuned."
        ),
    ] = None,
    require: Annotated[
        Required | None, typer.Option("--require", help="Exit with code 1 unless the verdict is this.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Judge a run again, asking what is missing; what differs from the frozen plan is told."""
    from luthier import pipeline
    from luthier.cli.run import stops
    from luthier.cli.screen import Screen

    screen = Screen()
    try:
        with stops(lambda: "The same command goes on where it stopped."):
            current = pipeline.evaluate(run, settings or [], listen=None if quiet else screen)
    finally:
        screen.close()
    verdict = _json(current.folder / "evaluation" / "verdict.json")
    screen.result(verdict, current.folder / "report.html", current.folder)
    if require and verdict["verdict"] != require.value.upper():
        _fail(f"required {require.value.upper()}, found {verdict['verdict']}.", 1)


@app.command()
def chat(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or a model.")],
    base: Annotated[bool, typer.Option("--base", help="Let the run's base model answer beside it.")] = False,
    adapter: Adapter = None,
    max_new_tokens: NewTokens = 512,
    thinking_tokens: Thinking = None,
) -> None:
    """Talk to a run's model. An empty line or Ctrl-D ends, /new starts afresh, /use NAME switches between adapters."""
    from luthier import inference, pipeline
    from luthier.cli.inference import adapters_of, converse, on_the_side
    from luthier.runs import Run

    if adapter:
        if base:
            raise UserError("not with --adapter, where the base is there already: /use its name.", where="--base")
        converse(inference.shared_chats(run, adapters_of(adapter), max_new_tokens, thinking_tokens), in_turn=True)
        return
    chats = {Path(run).name: inference.Chat(inference.load_model(run, thinking_tokens, on_the_side), max_new_tokens)}
    if base:
        current = Run(Path(run))
        speaker = inference.load_base(current, thinking_tokens, on_the_side)
        chats[pipeline.base_of(current)] = inference.Chat(speaker, max_new_tokens)
    converse(chats)


@app.command()
def compare(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    models: Annotated[list[str], typer.Argument(metavar="RUN|MODEL", help="Run folders and model names.")],
    max_new_tokens: NewTokens = 512,
    thinking_tokens: Thinking = None,
) -> None:
    """Put one question to several models and see the answers one below the other."""
    from luthier import inference
    from luthier.cli.inference import on_the_side, show_answers

    answers = inference.compare(
        question, models, max_new_tokens=max_new_tokens, thinking=thinking_tokens, tell=on_the_side
    )
    show_answers(answers)


@app.command()
def ask(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or a model.")],
    questions: Annotated[
        Path, typer.Argument(help="File of questions, in any of the data formats; answers are not needed.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="JSONL file to write: each row with its answer.")],
    adapter: Adapter = None,
    max_new_tokens: NewTokens = 512,
    thinking_tokens: Thinking = None,
) -> None:
    """Answer a file of questions; with adapters, a column `adapter` names the one that answers a row."""
    from luthier import inference
    from luthier.cli.inference import adapters_of, on_the_side

    count, open_ended = inference.ask_file(
        run,
        questions,
        output,
        max_new_tokens=max_new_tokens,
        thinking=thinking_tokens,
        adapters=adapters_of(adapter or []),
        tell=on_the_side,
    )
    print(f"{count:,} answers in {output}")
    if open_ended:
        print(
            f"{open_ended:,} of them are empty: the model was still thinking when its tokens ran out.", file=sys.stderr
        )


@app.command()
def merge(
    run: RunFolder,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder for the whole model.")],
) -> None:
    """Make one whole model of a run's adapter and its base, for programs that know no adapters."""
    from luthier.model import tuned
    from luthier.runs import Run

    tuned.merge(Run(run), folder)
    print(f"Model  {folder}")


@app.command()
def benchmark(
    run: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run's folder, or a model.")],
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
    from luthier.cli.benchmark import measure
    from luthier.evaluate.benchmark import Exam

    words = [word.strip() for word in tasks.split(",") if word.strip()]
    measure(run, Exam(words, task_folder, limit, chat), base=base, quiet=quiet)


@app.command()
def runs(root: Annotated[Path, typer.Argument(help="Folder of runs.")] = Path("runs")) -> None:
    """List the runs in a folder with their state and verdict."""
    from luthier.cli.inference import show_runs
    from luthier.runs import find

    show_runs(*find(root), root)


@app.command()
def report(run: RunFolder) -> None:
    """Write a run's report again and print the verdict."""
    from luthier import report as reports
    from luthier.cli.screen import Screen
    from luthier.runs import Run

    current = Run(run)
    with current.held():
        path = reports.write(current.folder)
    verdict = current.folder / "evaluation" / "verdict.json"
    if verdict.exists():
        Screen().result(_json(verdict), path, run)
    else:
        print(f"No verdict yet: the run is {current.state}.\nReport  {path}")


app.command()(plan.plan)
app.command()(template.template)
app.command()(resume.resume)
app.command()(resume.verify)
review.register(app)
sweep.register(app)


def main() -> None:
    """The entry point: what a user can mend is said in a line and an exit code; anything else is a defect of ours."""
    sys.path.append(str(Path.cwd()))  # so that "my_metrics:score" in a recipe finds my_metrics.py here
    with streams.steady():
        try:
            _carry_out()
        except UserError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("stopped at once; whatever was complete before is kept.", 130)
        except MemoryError:
            _fail(
                "not enough memory. Lower train.tokens_per_batch, or name a smaller model.",
                MachineError.exit_code,
            )


def _carry_out() -> None:
    """The command that was asked for; it has not succeeded where its output did not arrive."""
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


def load_recipe(words: list[str], file: Path | None) -> Any:
    """The recipe from the command line's words: at most one path, and settings."""
    from luthier import recipe as recipes

    settings = [word for word in words if "=" in word and not Path(word).exists()]
    paths = [word for word in words if word not in settings]
    if len(paths) > 1:
        raise UserError(
            f"one data file or folder at a time, found {' and '.join(paths)}. A folder may hold several files.",
            where="command line",
        )
    return recipes.load(file, settings, data=Path(paths[0]) if paths else None)


def command_line() -> str:
    """What was typed."""
    import shlex

    return "luthier " + shlex.join(sys.argv[1:])


def _json(path: Path) -> Any:
    import json

    return json.loads(path.read_text(encoding="utf-8"))
