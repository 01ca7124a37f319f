"""A folder or file of documents as rows: pairs by rules, each with its quote and the split of its document; or else texts."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from luthier.data.documents import reading, rules, support, wording
from luthier.data.documents.pairs import SPLITS, Dropped, Pair, is_divided, split_of
from luthier.data.documents.passages import joined
from luthier.data.documents.reading import Document
from luthier.data.readers.files import Files
from luthier.data.readers.files import find as find_files
from luthier.data.readers.kinds import BESIDE_ROWS
from luthier.data.readers.sources import Source
from luthier.data.readers.tables import READERS
from luthier.data.readers.values import Number, Record, Value
from luthier.data.words import normalised
from luthier.errors import UserError
from luthier.recipe import Data

_AS_TEXT = "rules find no questions and answers in it"
FEWEST_DOCUMENTS = 3
"""One each to train, to choose and to test; with fewer, questions are divided."""
TEST_SHARE, DEV_SHARE = 0.25, 0.125
MOST_TEST, MOST_DEV = 40, 20
"""The verdict counts documents, so test gets more of them than of rows; beyond these numbers more change little."""
FEWEST_TEST = 6
"""Of fewer documents no test can tell anything (p is 2·2⁻⁵ at least); where there are twice as many, test gets so many."""


@dataclass(frozen=True)
class DocumentFiles(Files):
    """Documents as rows: the pairs that were made of them, or where there are none, texts."""

    pairs: tuple[Pair, ...] = ()
    texts: tuple[Document, ...] = ()
    """Those that stay texts, in the order of `sources`."""
    said: str | None = None
    """What is to be said of documents that become texts though nobody asked for that."""

    def rows(self) -> Iterator[Record]:
        """Each pair, or each text."""
        seen: Counter[str] = Counter()
        for pair in self.pairs:
            seen[pair.location] += 1
            yield _record(pair, seen[pair.location])
        for document, source in zip(self.texts, self.sources if self.texts else (), strict=True):
            if source.kind == "text":
                yield from READERS["text"](source)
            else:
                yield Record(document.location(document.blocks[0]), {"text": joined(document.blocks)})

    def columns(self) -> list[str]:
        """Those of the rows."""
        return list(dict.fromkeys(name for row in self.rows() for name in row.values))

    @property
    def remarks(self) -> list[str]:
        return [*super().remarks, *([self.said] if self.said else [])]


@dataclass(frozen=True)
class DividedFiles(Files):
    """Rows made from documents, of those documents that were given one split before."""

    split: str = "train"

    def rows(self) -> Iterator[Record]:
        """The rows of the split."""
        number = 0
        for row in super().rows():
            if (split_of(row.values) or "train") == self.split:
                number += 1
                yield row
        if not number:
            raise UserError(f"no row is for {self.split}. The column split names train, dev or test.", where=self.name)


def find_rows(data: Data, path: Path) -> Files:
    """What the path leads to: documents, rows that were made of documents, or other rows."""
    return find(path, as_text=data.format not in (None, "question-answer")) or _divided(find_files(path))


def find(path: Path, *, as_text: bool = False) -> DocumentFiles | None:
    """The documents of a file or folder; None where it is no document, or the folder has none, or has files of rows.

    Unless they are to be texts, they are pairs by rules where these find any; of a single document only if it is a list of
    questions. Documents that are divided stand under `held_out` where they are for dev or test.
    """
    if path.is_file():
        files, others = ([path] if _is_document(path) else []), []
    else:
        files = [file for file in reading.files(path) if _is_document(file)] if path.is_dir() else []
        others = [file for file in reading.files(path, "") if file not in files] if files else []
    if not files or any(_holds_rows(file) for file in others):
        return None
    library = reading.read(files, path)
    library.expect_any(path)
    documents = library.documents
    asks = not as_text and (len(documents) > 1 or rules.is_faq(documents[0]))
    made = by_rules(documents)[0] if asks else []
    ignored = [*map(str, others), *(f"{name} ({reason})" for name, reason in library.unread.items())]
    sources = {document.name: _source(path if path.is_file() else path / document.name) for document in documents}
    if not made:
        said = None if as_text else f"{_AS_TEXT}; `luthier pairs {path} --with MODEL` lets a model write some"
        return DocumentFiles(str(path), list(sources.values()), ignored, texts=documents, said=said)
    parts = {
        split: DocumentFiles(
            str(path),
            [source for name, source in sources.items() if any(pair.document == name for pair in pairs)],
            pairs=tuple(pairs),
        )
        for split in SPLITS
        if (pairs := [pair for pair in made if (pair.split or "train") == split])
    }
    main = parts.pop("train")
    return replace(main, ignored=ignored, held_out=dict(parts))


def _divided(files: Files) -> Files:
    """The files; rows made from documents, in a file of JSON Lines, by the splits of these documents."""
    if len(files.sources) != 1 or files.sources[0].kind != "json" or ".jsonl" not in files.sources[0].name:
        return files
    first = next(files.rows(), None)
    if first is None or not is_divided(first.values):
        return files
    main, *held_out = (DividedFiles(files.name, files.sources, split=split) for split in SPLITS)
    return replace(main, ignored=files.ignored, held_out={part.split: part for part in held_out})


def _source(file: Path) -> Source:
    """The file as a source; PDF and the like are of no kind that holds rows."""
    if file.suffix.lower() not in reading.TEXTS:
        return Source(file, str(file), file.suffix.lower())
    try:
        return Source.of(file, str(file))
    except UserError:
        return Source(file, str(file), "text")


def _is_document(file: Path) -> bool:
    """Whether it has the ending of a document; a text may turn out to be a table."""
    if file.suffix.lower() not in reading.TEXTS:
        return reading.is_document(file)
    return _source(file).kind == "text"


def _holds_rows(file: Path) -> bool:
    try:
        return Source.of(file, str(file)).kind not in BESIDE_ROWS
    except UserError:
        return False


def by_rules(
    documents: Sequence[Document], splits: Mapping[str, str] | None = None
) -> tuple[list[Pair], list[Dropped]]:
    """The pairs that rules make of the documents and their passages support, each question once a document; and the others.

    `splits` are those of the documents; by default the documents that have pairs are divided.
    """
    kept: list[Pair] = []
    dropped: list[Dropped] = []
    for document in documents:
        asked: set[str] = set()
        for each in rules.pairs(document):
            if isinstance(each, Dropped):
                dropped.append(each)
                continue
            reason = support.fault(each, [document.title])
            if reason is None and each.question.casefold() in asked:
                reason = "the same question in the same document"
            if reason is not None:
                dropped.append(Dropped(reason, each.location, each.by))
                continue
            asked.add(each.question.casefold())
            kept.append(each)
    if splits is None:
        splits = assign_splits(list(dict.fromkeys(pair.document for pair in kept)))
    titles = {document.name: document.title for document in documents}
    named = [replace(pair, split=splits.get(pair.document)) for pair in _with_titles(kept, titles)]
    unseen, seen = unseen_questions(named)
    return unseen, dropped + seen


def _with_titles(pairs: Sequence[Pair], titles: Mapping[str, str]) -> Iterator[Pair]:
    """The pairs; those whose question other documents answer otherwise name their document in it."""
    answers: dict[str, set[str]] = {}
    for pair in pairs:
        answers.setdefault(normalised(pair.question), set()).add(normalised(pair.answer))
    for pair in pairs:
        is_clear = len(answers[normalised(pair.question)]) == 1
        yield pair if is_clear else replace(pair, question=wording.within(pair.question, titles[pair.document]))


def unseen_questions(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Dropped]]:
    """The pairs without those of test and dev documents whose question a document of an earlier split asks too.

    Manuals share tables and paragraphs; a question that was trained on, or chosen by, proves nothing when it comes again.
    """
    asked = {split: {normalised(pair.question) for pair in pairs if pair.split == split} for split in SPLITS}
    earlier = {"dev": asked["train"], "test": asked["train"] | asked["dev"]}
    kept, dropped = [], []
    for pair in pairs:
        if normalised(pair.question) in earlier.get(pair.split or "", ()):
            dropped.append(
                Dropped(f"a question for {pair.split} that is asked of an earlier split too", pair.location, pair.by)
            )
        else:
            kept.append(pair)
    return kept, dropped


def assign_splits(names: Sequence[str]) -> dict[str, str]:
    """Each document's split, by a hash of its name, before anything is made of it; empty with fewer than three documents.

    A quarter is for test and an eighth for dev, at least one each, and from twelve documents on at least six for test: what a
    verdict can show depends on the number of documents.
    """
    if len(names) < FEWEST_DOCUMENTS:
        return {}
    order = sorted(names, key=lambda name: hashlib.blake2b(name.encode("utf-8"), digest_size=16).digest())
    fewest = FEWEST_TEST if len(order) >= 2 * FEWEST_TEST else 1
    test = min(MOST_TEST, max(fewest, round(len(order) * TEST_SHARE)))
    dev = min(MOST_DEV, max(1, round(len(order) * DEV_SHARE)))
    return {
        name: "test" if number < test else "dev" if number < test + dev else "train"
        for number, name in enumerate(order)
    }


def _record(pair: Pair, number: int) -> Record:
    """The pair as a row that was read, the `number`th of those that stand in one place."""
    values: dict[str, Value] = {
        name: Number(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in pair.to_row().items()
    }
    return Record(pair.location + (f", pair {number}" if number > 1 else ""), values)
