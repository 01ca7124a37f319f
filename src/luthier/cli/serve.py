"""The command that serves models and fine-tuning to the clients that people already use."""

import os
from pathlib import Path
from typing import Annotated

import typer


def serve(
    home: Annotated[Path, typer.Option("--home", help="Folder for files, jobs, models and keys; made if missing.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen on; others than this machine need a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 for any.")] = 8000,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="[NAME=]MODEL",
            help="A model to serve and tune: a known name, a folder, a run; may be repeated.  [default: smollm2-135m]",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name by which this server is asked; may be repeated."),
    ] = None,
) -> None:
    """Serve models and fine-tuning: OpenAI's clients and lm-eval work unchanged. The key: LUTHIER_API_KEY, or made once."""
    from luthier.extensions import import_optional

    for module in ("fastapi", "granian", "python_multipart", "prometheus_client", "sqlalchemy"):
        import_optional(module, "serve", where="luthier serve")
    import logging

    from luthier.serve import opening
    from luthier.serve.catalogue import parse_named

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("luthier").setLevel(logging.INFO)
    opening.serve(
        opening.Opening(
            home, host, port, parse_named(model or ["smollm2-135m"]), key=os.environ.get("LUTHIER_API_KEY"),
            names=[name.lower() for name in allow_host or ()],
        ),
        lambda line: print(line, flush=True),
    )  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)
