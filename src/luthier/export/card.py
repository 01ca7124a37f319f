"""The model card of an exported folder: what the model is, what it learnt from, how good it is, where it comes from.

It is Markdown with the front matter that the Hugging Face hub reads. Everything in it comes from the run folder; whatever
a user or a model wrote is escaped as in the report.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from luthier.model.reference import ModelReference
from luthier.report import run_contents
from luthier.report.page import inline, table
from luthier.report.run_contents import RunContents
from luthier.report.text import ReportText, compose
from luthier.runs.durable import write_atomic

NAME = "README.md"
EMBEDDED = {"smollm2-135m": ("apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct")}
"""Licence and name on the hub of models that come in a package, without a card."""
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "USE_POLICY.md", "NOTICE")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
HASH = 16  # characters of a hash that a person compares


@dataclass(frozen=True)
class Licence:
    """What the base model's files say of its licence."""

    word: str | None
    """As the hub writes it, such as apache-2.0; None where its card says nothing."""
    files: tuple[str, ...]
    """Its files of that kind, which have to travel with the model."""

    @classmethod
    def of(cls, base: ModelReference, name: str = "") -> "Licence":
        """Of a base model; `name` is how the run named it, of which an adapter only knows a folder."""
        files = tuple(name for name in LICENCE_FILES if (base.folder / name).is_file())
        word = _front_matter(base.folder / NAME).get("license")
        if not isinstance(word, str):
            word = (EMBEDDED.get(base.name) or EMBEDDED.get(name) or (None,))[0]
        return cls(word, files)


def write(run: Path, folder: Path, *, form: str, notes: tuple[str, ...] = ()) -> None:
    """Put the card of a run's model into a folder that holds it; `form` says what it is there as.

    `notes` are sentences about this form: its number format, what was measured of it. The base's licence files are copied.
    """
    base = ModelReference.of(str(run)).base
    model = run_contents.read(run).model
    licence = Licence.of(base, model.name if model else "")
    write_atomic(folder / NAME, render(run, base, licence, form=form, notes=notes))
    for name in licence.files:
        if not (folder / name).exists():
            write_atomic(folder / name, (base.folder / name).read_bytes())


def render(
    run: Path, base: ModelReference, licence: Licence, *, form: str = "merged", notes: tuple[str, ...] = ()
) -> str:
    """The card as Markdown."""
    contents = run_contents.read(run)
    text = compose(contents)
    environment = Environment(
        loader=PackageLoader("luthier.export"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"inline": inline, "table": table}
    hub = _hub_name(contents, base)
    return environment.get_template("card.md.jinja").render(
        front_matter=_dump(_fields(licence, hub, form)),
        run=contents,
        text=text,
        form=form,
        licence=licence,
        base=hub or Path(contents.model.name if contents.model else base.name).name,
        notes=notes,
        lineage=list(_lineage(contents, text)),
    )


def _fields(licence: Licence, hub: str | None, form: str) -> dict[str, object]:
    """The front matter; a base that has no name on the hub is not named there, since it would be a broken link."""
    fields: dict[str, object] = {"tags": ["luthier", "fine-tuned"], "pipeline_tag": "text-generation"}
    if licence.word:
        fields["license"] = licence.word
    if hub:
        fields["base_model"] = hub
    library = {"adapter": "peft", "vllm": "peft", "merged": "transformers"}.get(form)
    return fields | ({"library_name": library} if library else {})


def _hub_name(run: RunContents, base: ModelReference) -> str | None:
    """The base's name on the hub, where it was named so."""
    for name in (run.model.name if run.model else "", base.name):
        if name in EMBEDDED:
            return EMBEDDED[name][1]
        if HUB_NAME.fullmatch(name) and not Path(name).exists():
            return name
    return None


def _lineage(run: RunContents, text: ReportText) -> Iterator[tuple[str, str]]:
    """What this model was made from, so that somebody can tell whether two are the same."""
    yield "run", f"{text.title}, {text.created}"
    for name, what in (
        ("data", "data (SHA-256)"),
        ("base_model", "base weights and configuration (SHA-256)"),
        ("template", "chat template (SHA-256)"),
        ("plan", "evaluation plan, frozen before test was opened (SHA-256)"),
        ("model", "weights of the run (SHA-256)"),
    ):
        if name in run.hashes:
            yield what, f"`{run.hashes[name][:HASH]}…`"
    yield "versions", ", ".join(f"{name} {version}" for name, version in run.all_versions.items())


def _front_matter(path: Path) -> dict[str, object]:
    """The fields at the head of a card; nothing where there is no card, or none that can be read."""
    try:
        found = re.match(r"\ufeff?---\r?\n(.*?)^---\s*$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        fields = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _dump(fields: dict[str, object]) -> str:
    return str(yaml.safe_dump(fields, sort_keys=True, allow_unicode=True))
