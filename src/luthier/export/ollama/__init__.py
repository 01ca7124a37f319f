"""For Ollama (github.com/ollama/ollama): a GGUF file, and the Modelfile that makes a model of it. File by file:

deriving     a chat template → Go's text/template
go_template  such a template, rendered as Go does: only what we write, strictly
modelfile    the Modelfile, written and read
proof        whether it renders the very prompts that the model was trained with

Ollama was not at hand: what it does with a Modelfile is taken from its documentation and its source.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from luthier.errors import UserError
from luthier.export.gguf import file as files
from luthier.export.gguf.model import vocabulary_of
from luthier.export.gguf.vocabulary import PREFIX
from luthier.export.ollama import modelfile
from luthier.export.ollama.deriving import WAY_OUT, Turns
from luthier.export.ollama.go_template import GoTemplate
from luthier.export.ollama.modelfile import NAME as NAME
from luthier.export.ollama.modelfile import Modelfile
from luthier.export.ollama.proof import Proof, prove
from luthier.export.source import Source
from luthier.runs.durable import write_atomic

MOST_CONTEXT = 8192  # tokens that a conversation gets memory for, where the model looks back further
DOCUMENTS = "{{ .Prompt }}"
"""For a model of documents, which goes on from a text."""


@dataclass(frozen=True)
class Plan:
    """A proven template, and what a user should know of it."""

    template: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Source) -> "Plan":
        """The run's chat template for Ollama; refuses one that Ollama's templates cannot express."""
        _ = Modelfile("", "", tuple(("stop", stop) for stop in stops(source)), _system(source)).render("")
        if source.documents:
            return cls(DOCUMENTS)
        if any(item.conversation.tools for item in source.items()):
            raise UserError(
                "the run's rows offer functions, and how a chat template writes these is not expressed in one of Ollama's. "
                f"{WAY_OUT}.",
                where=source.name,
            )
        bos = _bos(source)
        template = Turns.of(source.template, bos=bos).to_go()
        found = prove(source, GoTemplate(template, source.name), bos=bos)
        if found.differences:
            raise UserError(
                f"the chat template cannot be expressed as one of Ollama's: {found.differences[0]} "
                f"({len(found.differences)} such). {WAY_OUT}.",
                where=source.name,
            )
        return cls(template, tuple(_notes(found)))


def write(source: Source, gguf: Path, plan: Plan) -> None:
    """Put the Modelfile beside the file; answers are chosen as the run was evaluated, the most likely token each time."""
    file = files.read(gguf)
    context = int(file.metadata[f"{file.arch}.context_length"])
    parameters = (
        ("temperature", "0"), ("repeat_penalty", "1"), ("num_ctx", str(min(context, MOST_CONTEXT))),
        *(("stop", stop) for stop in stops(source)),
    )  # fmt: skip
    made = Modelfile(gguf.name, plan.template, parameters, _system(source))
    comment = f"{' '.join(source.run.name.split())}, fine-tuned with Luthier: ollama create NAME -f {NAME}"
    path = gguf.with_name(NAME)
    write_atomic(path, made.render(comment))
    assert modelfile.read(path) == made, "a Modelfile is read back as it was written"


def check(source: Source, folder: Path) -> tuple[Proof, list[str]]:
    """Hold a folder's Modelfile against the run: what its template renders, and faults, each with its layer first."""
    found = modelfile.read(folder / NAME)
    faults = []
    if source.documents:
        proof = Proof(same=int(found.template == DOCUMENTS))
        faults += [] if proof.same else [f"modelfile: the template is another than {DOCUMENTS}"]
    else:
        proof = prove(source, GoTemplate(found.template, str(folder / NAME)), bos=_bos(source))
        faults += [f"modelfile: {each}" for each in proof.differences]
    system = _system(source)
    if found.system != system:
        faults.append(f"modelfile: SYSTEM is {found.system!r}, and the run's system message {system!r}")
    stated = [value for name, value in found.parameters if name == "stop"]
    faults += [f"modelfile: there is no PARAMETER stop {each}" for each in stops(source) if each not in stated]
    file = files.read(folder / found.file)
    if (found_bos := bool(file.metadata.get(f"{PREFIX}add_bos_token"))) != bool(_begins(source)):
        faults.append(f"modelfile: the template has no BOS, and add_bos_token of {found.file} is {found_bos}")
    return proof, faults


def model_file(folder: Path) -> Path:
    """The GGUF file that a folder's Modelfile names."""
    return folder / modelfile.read(folder / NAME).file


def stops(source: Source) -> list[str]:
    """The tokens that end an answer, as they are spelled."""
    spelled = {number: token for token, number in source.template.tokenizer.control.items()}
    return sorted(spelled[number] for number in source.template.stop_ids if number in spelled)


def serve_line(source: Source, folder: Path) -> str:
    """The commands that make Ollama's model of the folder and talk to it."""
    name = re.sub(r"[^a-z0-9._-]+", "-", source.run.name.lower()).strip("-._") or "tuned"
    return f"ollama create {name} -f {shlex.quote(str(folder / NAME))} && ollama run {name}"


def _system(source: Source) -> str | None:
    """What the run's conversations begin with."""
    return source.recipe.data.system or None


def _begins(source: Source) -> list[int]:
    return vocabulary_of(source, source.reference.config.get_text_config().vocab_size).begin


def _bos(source: Source) -> str:
    """What the engine puts before a prompt by itself, so that the template leaves it out."""
    return source.template.tokenizer.bos if _begins(source) else ""


def _notes(found: Proof) -> list[str]:
    if not found.trimmed:
        return []
    return [
        "The chat template takes blanks around a message away, and Ollama's templates cannot: "
        f"{found.trimmed} of {found.trimmed + found.same} prompts differ by these blanks alone."
    ]
