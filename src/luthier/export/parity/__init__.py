"""Whether an exported file is the same model as its run, in the engine that people run it with. File by file:

limits      how far a number format may be from the original, told beforehand
templates   the rendered prompt, byte for byte
outputs     the most likely tokens and the distributions on held-out rows
answers     the test questions again, and the run's own metric
diagnosis   which setting or tensor of the file is another than the run's
folders     the same of a folder, in transformers
report      all of it as FILE.parity.json
"""

import importlib.metadata
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from luthier.engine.llama_cpp import SLOTS, Ended, LlamaCpp, Refused
from luthier.errors import UserError
from luthier.export import texts
from luthier.export.gguf import file as files
from luthier.export.gguf import model as gguf_model
from luthier.export.gguf.file import GGUF
from luthier.export.gguf.model import vocabulary_of
from luthier.export.gguf.types import TYPES
from luthier.export.parity import answers, diagnosis, outputs, templates
from luthier.export.parity.limits import EXACT, LIMITS, fewest_same
from luthier.export.parity.report import Report
from luthier.export.running import Running
from luthier.export.source import Source
from luthier.runs.durable import scratch_folder

OnNote = Callable[[str], None]
SAID = 3  # differences of a kind that the report names
BLOCK = 256  # llama.cpp rounds a context up to whole blocks of so many tokens


def check(source: Source, path: Path, *, unchecked: bool = False, on_note: OnNote = lambda note: None) -> Report:
    """Hold an exported file against its run, and leave the report beside it."""
    begin = time.perf_counter()
    file = files.read(path)
    word = _format_of(file)
    report = Report(source.name, str(path), word, _engine(), LIMITS[word], unchecked)
    on_note(f"{word}: {report.limits.words()}.")
    try:
        with _runnable(source, file, on_note) as subject:
            compare(source, subject, report, on_note)
    except (Refused, Ended) as refusal:
        report.stop(refusal.message)
        if not (causes := diagnosis.causes(source, file)):
            raise
        report.faults[:0] = causes
    else:
        report.faults[:0] = diagnosis.causes(source, file) if report.faults else []
    report.seconds = time.perf_counter() - begin
    report.write(path)
    return report


class Subject(Protocol):
    """What is compared with its run."""

    def context(self, needed: int) -> int:
        """A context for so many tokens, and no longer than the export's."""
        ...

    def open(self, context: int, **how: Any) -> AbstractContextManager[Running]:
        """The export, running."""
        ...


def compare(source: Source, subject: Subject, report: Report, on_note: OnNote) -> None:
    """The five comparisons, into the report."""
    _check_text(source, subject, report, on_note)
    _check_outputs(source, subject, report, on_note)
    _check_answers(source, subject, report, on_note)


@dataclass(frozen=True)
class _LlamaCppSubject:
    """What llama.cpp runs: a file, or that of a base with an adapter beside it."""

    file: GGUF
    adapter: Path | None = None

    def context(self, needed: int) -> int:
        """A context for so many tokens, and no longer than the file's."""
        most = int(self.file.setting(f"{self.file.arch}.context_length", needed))
        return min(-needed // BLOCK * -BLOCK, max(most, 1))

    def open(self, context: int, **how: Any) -> LlamaCpp:
        return LlamaCpp(self.file.path, adapter=self.adapter, context=context, **how)


@contextmanager
def _runnable(source: Source, file: GGUF, on_note: OnNote) -> Iterator[Subject]:
    """The file; of an adapter, one of its base in fp32 with it, which goes again."""
    if file.metadata.get("general.type") != "adapter":
        yield _LlamaCppSubject(file)
        return
    if not source.reference.is_adapter:
        raise UserError("this file is an adapter, and the run's model is a whole one.", where=str(file.path))
    on_note("the base is written in f32, to put the adapter beside it")
    with scratch_folder(file.path.absolute().parent) as scratch:
        gguf_model.write(source, scratch / "base.gguf", number_format=EXACT, base=True)
        yield _LlamaCppSubject(files.read(scratch / "base.gguf"), file.path)


def _format_of(file: GGUF) -> str:
    """The word of a file's number format."""
    number = file.metadata.get("general.file_type")
    for word, (_, known) in TYPES.items():
        if number == int(known):
            return word
    raise UserError(
        f"its number format ({number}, general.file_type) is none that Luthier writes: {', '.join(TYPES)}.",
        where=str(file.path),
    )


def _engine() -> str:
    return f"llama.cpp of xllamacpp {importlib.metadata.version('xllamacpp')}"


def _check_text(source: Source, subject: Subject, report: Report, on_note: OnNote) -> None:
    """Template and tokenizer."""
    template = source.template
    vocabulary = vocabulary_of(source, source.reference.config.get_text_config().vocab_size)
    cases = texts.cases(template, source.items(), begin=vocabulary.begin)
    on_note(f"{len(cases):,} texts and 20 conversations")
    with subject.open(BLOCK, slots=1) as llama:
        found = texts.differences(llama, cases)
        system = any(message.role == "system" for item in source.items() for message in item.conversation.messages)
        rendered = None if source.documents else templates.compare(template, llama, system_trained=system)
    known = [each for each in found if vocabulary.normalises and texts.normalised(each)]
    real = [each for each in found if each not in known]
    if rendered is None:
        report.template = {"skipped": "the run was trained on documents"}
    else:
        report.template = {
            "same": rendered.same, "of": rendered.same + len(rendered.differences),
            "differences": rendered.differences[:SAID], "refused": rendered.refused, "merged": rendered.merged,
        }  # fmt: skip
        report.faults += rendered.differences[:SAID]
        real += rendered.ids
        if rendered.merged:
            report.notes.append(
                "the template has no place for a system message: llama.cpp sets it before the first question with one line "
                "break, Luthier with two. The run's rows have none."
            )
    words = [each.words(vocabulary.hub) for each in real]
    report.ids = {"texts": len(cases), "different": len(real), "normalised": len(known), "differences": words[:SAID]}
    report.faults += words[:SAID]
    if known:
        report.notes.append(f"{len(known)} texts are not in Unicode's NFC form, to which llama.cpp brings none.")
    report.notes.append(
        "a control token that a user spells is a control token in llama.cpp's chat; sent as ids it stays text."
    )


def _check_outputs(source: Source, subject: Subject, report: Report, on_note: OnNote) -> None:
    """Logits on held-out rows."""
    context = subject.context(outputs.LONGEST)
    rows = outputs.rows_to_compare(source.held_out(), context)
    if not rows:
        report.top1 = report.kl = {"skipped": "the run has no test rows"}
        return
    on_note(f"{sum(map(len, rows)):,} tokens of {len(rows)} test rows")
    lm = source.load()
    with subject.open(context, slots=1) as llama:
        found = outputs.compare(lm, llama, rows)
    limits = report.limits
    report.top1 = {"positions": found.positions, "agreement": found.top1, "limit": limits.top1, "first": found.first}
    report.kl = {"positions": found.positions, "mean": found.kl, "limit": limits.kl}
    if not found.top1 >= limits.top1:
        report.faults.append(
            f"top1: {found.top1:.2%} of {found.positions:,} tokens, at least {limits.top1:.1%} expected; {found.first}"
        )
    if not found.kl <= limits.kl:
        report.faults.append(f"kl: {found.kl:.3g} nats a token, at most {limits.kl:g} expected")


def _check_answers(source: Source, subject: Subject, report: Report, on_note: OnNote) -> None:
    """Test questions and the verdict's metric."""
    stored, why = answers.stored_answers(source)
    if why:
        report.answers = report.score = {"skipped": why}
        return
    on_note(f"{len(stored):,} test questions")
    context = subject.context(answers.longest_prompt(source, stored))
    with subject.open(context, slots=SLOTS, exact=report.type == EXACT) as llama:
        answered = answers.ask_again(source, llama, stored)
    same, limits = answered.same, report.limits
    report.answers = {"same": sum(same), "of": len(same), "limit": limits.answers, "first": answered.first_difference}
    if not same:
        report.score = {"skipped": "no question has an answer"}
        return
    if sum(same) < fewest_same(limits, len(same), exact=report.type == EXACT):
        report.faults.append(
            f"answers: {sum(same)} of {len(same)} are the same, at least {limits.answers:.0%} expected; "
            f"{answered.first_difference}"
        )
    report.score = answers.score(source, answered)
    if report.score["verdict"] == "WORSE":
        low, high = report.score["interval"]
        report.faults.append(
            f"score: {report.score['metric']} is {report.score['exported']:.3f}, and was {report.score['original']:.3f}; the "
            f"difference lies in [{low:+.3f}, {high:+.3f}]"
        )
