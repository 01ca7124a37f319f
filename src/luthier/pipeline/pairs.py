"""Pairs from documents: by rules, and by a model where one is named; checked twice, marked as synthetic, with an account.

What a model replies is kept as it comes (`NAME.replies.jsonl`), so that the same command goes on where it was killed.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from luthier.data.documents import generation, paraphrases, reading, records
from luthier.data.documents.pairs import SPLITS, Dropped, Pair
from luthier.data.documents.passages import Passage, passages
from luthier.data.documents.reading import Document, Library
from luthier.errors import UserError
from luthier.evaluate.answers.endpoint import CONCURRENT_REQUESTS
from luthier.evaluate.judge import sources
from luthier.evaluate.judge.pairwise import Judge
from luthier.runs.durable import append_json_lines, read_json_lines, write_atomic

WITH = "--with"
MAX_NEW_TOKENS = 768
AT_ONCE = 16  # prompts between two writes to disk
AT_ONCE_HERE = 4  # the same of a model on this machine, which may take a minute for each
SHORT_FACT = 8
"""Words of an answer that a fact may have: the guard `knowledge` looks for them in a row."""

Listener = Callable[[str, int, int], None]
"""Hears what is being asked for, how many replies are there, and of how many."""


@dataclass
class Account:
    """What became of the documents: passages, pairs by who made them, what was dropped and why, and the files written."""

    documents: int = 0
    passages: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    """Each file with the number of its rows."""

    def drop(self, dropped: Dropped) -> None:
        """Count out what is no pair."""
        self.dropped.setdefault(f"{dropped.by}: {dropped.reason}", []).append(dropped.location)

    def to_json(self) -> dict[str, Any]:
        """The account for the file beside the pairs."""
        return {
            "documents": self.documents, "passages": self.passages, "kept": dict(self.kept), "dropped": self.dropped,
            "unread": self.unread, "files": self.files,
        }  # fmt: skip


class Writer:
    """A model whose replies are kept in a file: what was asked before, in these very words, is not asked again."""

    def __init__(self, name: str, file: Path, listen: Listener) -> None:
        self.judge = sources.resolve(name, max_new_tokens=MAX_NEW_TOKENS, where=WITH, what="model")
        self.file, self._listen, self._remote = file, listen, name.startswith(("http://", "https://"))
        self._known = {line["prompt"]: line["reply"] for line in read_json_lines(file) if line["by"] == self.name}

    @property
    def name(self) -> str:
        return self.judge.name

    def ask(self, prompts: Sequence[str], what: str) -> list[str]:
        """The replies, in order."""
        keys = [hashlib.sha256(prompt.encode("utf-8")).hexdigest()[:32] for prompt in prompts]
        open_ones = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._known}
        waiting = list(open_ones.items())
        at_once = AT_ONCE if self._remote else AT_ONCE_HERE
        for start in range(0, len(waiting), at_once):
            self._listen(what, len(prompts) - len(waiting) + start, len(prompts))
            block = waiting[start : start + at_once]
            replies = self._replies([prompt for _, prompt in block])
            lines = [
                {"prompt": key, "by": self.name, "reply": reply} for (key, _), reply in zip(block, replies, strict=True)
            ]
            append_json_lines(self.file, lines)
            self._known |= {line["prompt"]: line["reply"] for line in lines}
        self._listen(what, len(prompts), len(prompts))
        return [self._known[key] for key in keys]

    def _replies(self, prompts: list[str]) -> Sequence[str]:
        if not self._remote:
            return self.judge.ask(prompts)
        with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
            return list(pool.map(lambda prompt: _one(self.judge, prompt), prompts))


def _one(judge: Judge, prompt: str) -> str:
    return judge.ask([prompt])[0]


def make(
    path: Path, out: Path, *, model: str | None = None, others: Path | None = None,
    listen: Listener = lambda what, done, of: None,
) -> Account:  # fmt: skip
    """Write the pairs of the documents at `path` as JSON Lines, and beside them what else comes of these.

    `NAME.facts.jsonl` has training pairs with short answers in other words, for `evaluate.facts`; `NAME.out-of-scope.jsonl`
    questions of `others` that these documents do not answer, for `evaluate.out_of_scope`; `NAME.account.json` the account.
    """
    library = _read(path)
    account = Account(len(library.documents), unread=dict(library.unread))
    splits = records.assign_splits([document.name for document in library.documents]) if model else None
    made, dropped = records.by_rules(library.documents, splits)
    for each in dropped:
        account.drop(each)
    of_documents = {document.name: list(passages(document)) for document in library.documents}
    account.passages = sum(map(len, of_documents.values()))
    writer = Writer(model, beside(out, "replies.jsonl"), listen) if model else None
    if writer:
        made += _by_model(writer, library.documents, of_documents, splits or {}, made, account)
        made, seen = records.unseen_questions(made)
        for each in seen:
            account.drop(each)
    if not made:
        raise UserError(_nothing(account, model), where=str(path))
    if {pair.split for pair in made} != set(SPLITS):  # too few documents, or one part of them without a pair
        made = [replace(pair, split=None) for pair in made]
    worded = list(_in_other_words(made, writer))
    rows = made + [pair for pair in worded if pair.split == "test"]
    account.kept.update(pair.by for pair in rows)
    facts = [pair for pair in worded if pair.split == "train" and len(pair.answer.split()) <= SHORT_FACT]
    write_rows(out, [pair.to_row() for pair in rows], account)
    write_rows(beside(out, "facts.jsonl"), [_fact(pair) for pair in facts], account)
    if others is not None:
        foreign = records.by_rules(_read(others).documents, {})[0]
        here = [passage for found in of_documents.values() for passage in found]
        strange = paraphrases.out_of_scope(foreign, here)
        write_rows(beside(out, "out-of-scope.jsonl"), [_question(pair) for pair in strange], account)
    write_account(out, account)
    return account


def _read(path: Path) -> Library:
    """The documents of a path; raises a UserError where there are none."""
    if not path.exists():
        raise UserError(f"no such file or folder. Expected documents ({reading.KNOWN}).", where=str(path))
    files = reading.files(path)
    if not files or not all(map(reading.is_document, files)):
        raise UserError(f"no document in it. Expected {reading.KNOWN}, or a folder of them.", where=str(path))
    library = reading.read(files, path)
    library.expect_any(path)
    return library


def _by_model(
    writer: Writer, documents: Sequence[Document], of_documents: dict[str, list[Passage]], splits: dict[str, str],
    made: Sequence[Pair], account: Account,
) -> list[Pair]:  # fmt: skip
    """The pairs that the model writes, whose quotes stand in their passages, and that it gives again when asked."""
    by = f"model: {writer.name}"
    asked = [(document, passage) for document in documents for passage in of_documents[document.name]]
    replies = writer.ask(
        [generation.ask_for_pairs(passage, document) for document, passage in asked], "pairs of passages"
    )
    known = {(pair.document, pair.question.casefold()) for pair in made}
    candidates: list[Pair] = []
    for (document, passage), reply in zip(asked, replies, strict=True):
        for each in generation.read_pairs(reply, passage, document, by=by, split=splits.get(document.name)):
            if isinstance(each, Dropped):
                account.drop(each)
            elif (key := (each.document, each.question.casefold())) in known:
                account.drop(Dropped("the same question in the same document", each.location, by))
            else:
                known.add(key)
                candidates.append(each)
    replies = writer.ask([generation.ask_whether_answered(pair) for pair in candidates], "answers checked")
    kept = []
    for pair, reply in zip(candidates, replies, strict=True):
        if reason := generation.answer_fault(reply, pair):
            account.drop(Dropped(reason, pair.location, by))
        else:
            kept.append(pair)
    return kept


def _in_other_words(made: Sequence[Pair], writer: Writer | None) -> Iterator[Pair]:
    """Pairs of test and train, whose documents are divided, with their questions in other words."""
    wanted = [pair for pair in made if pair.split == "test" or (pair.split == "train" and _is_short(pair))]
    if writer:
        replies = writer.ask(
            [generation.ask_for_paraphrase(pair.question) for pair in wanted], "questions in other words"
        )
        for pair, reply in zip(wanted, replies, strict=True):
            if worded := generation.read_paraphrase(reply, pair.question):
                yield pair.worded(worded, by=f"{pair.by}; other words by {writer.name}")
        return
    for pair in wanted:
        if worded := paraphrases.by_rule(pair.question):
            yield pair.worded(worded, by=f"{pair.by}; other words by rule")


def _is_short(pair: Pair) -> bool:
    return len(pair.answer.split()) <= SHORT_FACT


def _fact(pair: Pair) -> dict[str, Any]:
    return {
        "question": pair.question,
        "answer": pair.answer,
        "synthetic": True,
        "by": pair.by,
        "document": pair.document,
    }


def _question(pair: Pair) -> dict[str, Any]:
    return {
        "question": pair.question,
        "synthetic": True,
        "by": f"{pair.by}, of other documents",
        "document": pair.document,
    }


def write_account(out: Path, account: Account) -> None:
    """Write the account beside the rows."""
    write_atomic(beside(out, "account.json"), json.dumps(account.to_json(), indent=2, ensure_ascii=False) + "\n")


def beside(out: Path, ending: str) -> Path:
    """`pairs.jsonl` → `pairs.facts.jsonl`."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.{ending}")


def write_rows(file: Path, rows: Sequence[dict[str, Any]], account: Account) -> None:
    """Write rows as JSON Lines, where there are any, and note them in the account."""
    if rows:
        write_atomic(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        account.files[str(file)] = len(rows)


def _nothing(account: Account, model: str | None) -> str:
    found = f"no pair could be made of {account.documents} documents"
    if account.dropped:
        reasons = (f"{len(where)} × {reason}" for reason, where in account.dropped.items())
        found += f" ({'; '.join(reasons)})"
    way = "Name another model." if model else "--with MODEL lets a model write pairs where rules find none."
    return f"{found}. {way}"
