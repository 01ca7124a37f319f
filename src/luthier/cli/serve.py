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
            help="A model to serve and tune: a known name, a folder, a run; or NAME=URL, where another server answers. "
            "May be repeated.  [default: smollm2-135m]",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name by which this server is asked; may be repeated."),
    ] = None,
    key_disk: Annotated[
        float | None,
        typer.Option("--key-disk", metavar="GIB", min=0.001, help="Disk that the files and runs of one key may take."),
    ] = None,
    disk: Annotated[
        float | None,
        typer.Option("--disk", metavar="GIB", min=0.001, help="Disk that the files and runs of all keys may take."),
    ] = None,
    keep_runs: Annotated[
        float | None,
        typer.Option(
            "--keep-runs",
            metavar="DAYS",
            min=0,
            help="Remove runs without a model so long after their end.  [default: never]",
        ),
    ] = None,
) -> None:
    """Serve models and fine-tuning: OpenAI's clients and lm-eval work unchanged. The key: LUTHIER_API_KEY, or made once."""
    from luthier.extensions import import_optional

    for module in ("fastapi", "granian", "httpx2", "python_multipart", "prometheus_client", "sqlalchemy"):
        import_optional(module, "serve", where="luthier serve")
    import logging

    from luthier.jobs.limits import Limits
    from luthier.serve import opening
    from luthier.serve.backends import addresses
    from luthier.serve.backends.backend import Backend
    from luthier.serve.catalogue import parse_named

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("luthier").setLevel(logging.INFO)
    named = parse_named(model or ["smollm2-135m"])
    elsewhere = addresses.parse(named, os.environ)
    models = {name: reference for name, reference in named.items() if not addresses.is_address(reference)}
    opening.serve(
        opening.Opening(
            home, host, port, models, key=os.environ.get("LUTHIER_API_KEY"),
            names=[name.lower() for name in allow_host or ()], backends=[Backend(each) for each in elsewhere],
            limits=Limits(bytes_per_key=_bytes(key_disk), bytes_in_all=_bytes(disk)), keep_days=keep_runs,
        ),
        lambda line: print(line, flush=True),
    )  # fmt: skip


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else round(gib * (1 << 30))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)
