"""As what a model leaves: a table from the word after `--to` to the function that writes it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from luthier import extensions
from luthier.errors import UserError
from luthier.export import card, ollama, vllm
from luthier.export.gguf import adapter as gguf_adapters
from luthier.export.gguf import model as gguf_model
from luthier.export.gguf import types
from luthier.export.source import Source, expect_new
from luthier.model import folder as folders
from luthier.model import tuned
from luthier.runs.durable import system_errors, whole_folder, write_atomic


@dataclass(frozen=True)
class Options:
    """What the user asks of an export."""

    type: str | None = None
    """Word of the number format of a GGUF file; without one the exporter's own choice."""
    out: Path | None = None
    unchecked: bool = False


@dataclass(frozen=True)
class Artefact:
    """What an exporter has written."""

    path: Path
    gguf: Path | None = None
    """The file that llama.cpp can run, which is held against the run."""
    modelfile: Path | None = None
    """What makes a model of it in Ollama, which is held against the run as well."""
    serve: str | None = None
    """The command that serves it elsewhere."""
    notes: tuple[str, ...] = ()
    """What a user should know of it."""


Exporter = Callable[[Source, Options], Artefact]
DEFAULT_TYPE = "f16"  # same answers as fp32 but for one in thirty, at half the size


def adapter(source: Source, options: Options) -> Artefact:
    """The run's adapter as a folder of peft's, which finds its base from anywhere on this machine."""
    _expect_no_type(options, "adapter")
    return Artefact(_write_adapter(source, options, form="adapter"))


def _write_adapter(source: Source, options: Options, *, form: str) -> Path:
    if not source.reference.is_adapter:
        raise UserError(
            "the run's model is a whole one, not an adapter; export it with --to merged or --to gguf.",
            where=source.name,
        )
    out = expect_new(options.out or Path(f"{source.run.name}-{form}"))
    with whole_folder(out) as temporary, system_errors():
        shutil.copytree(source.reference.folder, temporary, dirs_exist_ok=True)
        path = temporary / folders.ADAPTER
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["base_model_name_or_path"] = str(source.reference.base.folder)
        write_atomic(path, json.dumps(settings, indent=2, sort_keys=True) + "\n")
        card.write(source.run.folder, temporary, form="adapter")
    return out


def merged(source: Source, options: Options) -> Artefact:
    """The whole model as a plain Hugging Face folder; an adapter is merged into its base."""
    _expect_no_type(options, "merged")
    return Artefact(_write_merged(source, options, form="merged"))


def _write_merged(source: Source, options: Options, *, form: str, notes: tuple[str, ...] = ()) -> Path:
    out = expect_new(options.out or Path(f"{source.run.name}-{form}"))
    if source.reference.is_adapter:
        tuned.merge(source.run, out)
    else:
        with whole_folder(out) as temporary, system_errors():
            shutil.copytree(source.reference.folder, temporary, dirs_exist_ok=True)
    card.write(source.run.folder, out, form="merged", notes=notes)
    return out


def for_vllm(source: Source, options: Options) -> Artefact:
    """A folder that vLLM serves: the adapter where it takes such a one, else the whole model; and the line to serve it."""
    _expect_no_type(options, "vllm")
    fit = vllm.Fit.of(source)
    if not fit.as_adapter:
        reasons = "; ".join(fit.reasons)
        notes = (f"Merged into its base, because vLLM does not serve this adapter: {reasons}.",) if reasons else ()
        out = _write_merged(source, options, form="vllm", notes=notes)
        return Artefact(out, serve=vllm.serve_line(source, fit, out), notes=notes)
    vllm.expect_template(source.reference.folder)
    out = _write_adapter(source, options, form="vllm")
    return Artefact(out, serve=vllm.serve_line(source, fit, out))


def gguf(source: Source, options: Options) -> Artefact:
    """The whole model in one file for llama.cpp and what is built on it."""
    word = types.check(options.type or DEFAULT_TYPE)
    out = expect_new(options.out or Path(f"{source.run.name}-{word}.gguf"))
    gguf_model.write(source, out, number_format=word, unchecked=options.unchecked)
    return Artefact(out, gguf=out)


def for_ollama(source: Source, options: Options) -> Artefact:
    """A folder with one GGUF file and the Modelfile that Ollama makes a model of it by."""
    word = types.check(options.type or DEFAULT_TYPE)
    out = expect_new(options.out or Path(f"{source.run.name}-ollama"))
    plan = ollama.Plan.of(source)
    name = f"{source.run.name}-{word}.gguf"
    with whole_folder(out) as temporary, system_errors():
        gguf_model.write(source, temporary / name, number_format=word, unchecked=options.unchecked)
        ollama.write(source, temporary / name, plan)
        card.write(source.run.folder, temporary, form="ollama", notes=plan.notes)
    return Artefact(
        out, gguf=out / name, modelfile=out / ollama.NAME, serve=ollama.serve_line(source, out), notes=plan.notes
    )


def gguf_adapter(source: Source, options: Options) -> Artefact:
    """A LoRA adapter in one file, which llama.cpp puts beside a GGUF file of the base."""
    word = types.check(options.type or "f32")
    if not source.reference.is_adapter:
        raise UserError("the run's model is a whole one, not an adapter; export it with --to gguf.", where=source.name)
    out = expect_new(options.out or Path(f"{source.run.name}-adapter-{word}.gguf"))
    gguf_adapters.write(source, out, number_format=word)
    return Artefact(out, gguf=out)


EXPORTERS: dict[str, Exporter] = {
    "adapter": adapter, "merged": merged, "gguf": gguf, "gguf-adapter": gguf_adapter, "ollama": for_ollama,
    "vllm": for_vllm,
}  # fmt: skip
"""By the word after `--to`; a dotted name "package.module:function" reaches your own."""


def resolve(word: str) -> Exporter:
    """The exporter of this name."""
    return extensions.resolve("export", word, EXPORTERS, where="--to")


def _expect_no_type(options: Options, word: str) -> None:
    if options.type:
        raise UserError(
            f"has no meaning with --to {word}, whose weights are in fp32; it goes with --to gguf and --to ollama.",
            where="--type",
        )
