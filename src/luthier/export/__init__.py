"""A fine-tuned model leaves as what other programs run, and is shown to be the same model. File by file:

exporters   the table `EXPORTERS`: add an exporter there
source      what leaves: a run's model with its template and its rows
running     what is asked of an exported model, whichever program runs it
texts       texts and conversations that tokenizers and templates are held against each other on
gguf        one file for llama.cpp, tensor by tensor
ollama      a GGUF file with the Modelfile that Ollama makes a model of it by
vllm        whether vLLM serves an adapter, and the line for it
card        README.md of every folder
parity      whether that file is the same model, in llama.cpp itself
"""

from collections.abc import Callable
from pathlib import Path

from luthier import report as reports
from luthier.engine import llama_cpp
from luthier.errors import UserError
from luthier.export import ollama, parity
from luthier.export.exporters import EXPORTERS, Artefact, Options, resolve
from luthier.export.parity import folders
from luthier.export.parity.report import Report
from luthier.export.source import Source
from luthier.report import exports
from luthier.runs import Run

OnNote = Callable[[str], None]
SAID = 3  # differences that a report names

__all__ = ["EXPORTERS", "Artefact", "Options", "Report", "export", "verify"]


def export(
    run: Path,
    *,
    to: str,
    type: str | None = None,
    out: Path | None = None,
    unchecked: bool = False,
    on_note: OnNote = lambda note: None,
) -> tuple[Artefact, Report | None]:
    """Write a run's model as `to` says, and hold what llama.cpp can run against the run."""
    source = Source.of(Run(run))
    options = Options(type, out, unchecked)
    artefact = resolve(to)(source, options)
    on_note(f"written: {artefact.path}")
    for note in artefact.notes:
        on_note(note)
    if artefact.gguf is None or not (llama_cpp.is_installed() or not unchecked):
        return artefact, None
    report = parity.check(source, artefact.gguf, unchecked=unchecked, on_note=on_note)
    if artefact.modelfile is not None:
        _check_modelfile(source, artefact.modelfile, report)
    _note(source, report, on_note)
    return artefact, report


def verify(run: Path, file: Path, *, on_note: OnNote = lambda note: None) -> Report:
    """Hold an exported file, or a folder, against its run again."""
    source = Source.of(Run(run))
    if not file.is_dir():
        report = parity.check(source, file, on_note=on_note)
    elif (file / ollama.NAME).is_file():
        report = parity.check(source, ollama.model_file(file), on_note=on_note)
        _check_modelfile(source, file / ollama.NAME, report)
    else:
        report = folders.check(source, file, on_note=on_note)
    _note(source, report, on_note)
    return report


def _check_modelfile(source: Source, path: Path, report: Report) -> None:
    """Add to a report what a Modelfile makes of conversations."""
    proof, faults = ollama.check(source, path.parent)
    of = proof.same + proof.trimmed + len(proof.differences)
    report.modelfile = {"same": proof.same, "of": of, "trimmed": proof.trimmed, "differences": proof.differences[:SAID]}
    report.faults[:0] = faults[:SAID]
    report.write(report.path)


def _note(source: Source, report: Report, on_note: OnNote) -> None:
    """Note in the run what was found, and write its page again; a run that is at work, or cannot be written, stays as it is."""
    try:
        with source.run.lock():
            source.run.record(exports.KIND, parity=report.to_json())
            reports.write(source.run.folder)
    except UserError as problem:
        on_note(f"the run's page does not show this: {problem.message}")
