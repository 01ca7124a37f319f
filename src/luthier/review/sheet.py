"""The blind sheet: questions with two answers each; only the run's key says whose answer is whose.

A keyed hash of each item decides which questions are on the sheet, in which order, and whose answer is A. The key is drawn at
random when the first sheet is made and stays in the run. A larger sheet made later continues a smaller one, so marks on
both can be combined.
"""

import csv
import hashlib
import hmac
import io
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import CorruptedState, UserError
from luthier.runs import Run
from luthier.runs.durable import make_folders, read_json_lines, write_atomic

TUNED_ARM = "fine-tuned"
COLUMNS = ("sheet", "number", "question", "answer_a", "answer_b", "reference", "mark", "comment", "reviewer")
KEY = "review/key.json"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Entry:
    """One question with its two answers; `first` is the arm whose answer is A."""

    number: int
    item: str
    group: str
    question: str
    answer_a: str
    answer_b: str
    reference: str
    first: str


@dataclass(frozen=True)
class Sheet:
    """The questions for reviewers, and what they do not see: the arms, and how many pairs of answers were the same text."""

    id: str
    entries: list[Entry]
    prompt_arm: str
    same: int
    items: int
    """All test items: those on the sheet, those left for a larger one, and those with the same answer twice."""

    def owner(self, entry: Entry, mark: str) -> str:
        """Whose answer a mark of A or B chooses."""
        other = self.prompt_arm if entry.first == TUNED_ARM else TUNED_ARM
        return entry.first if mark == "A" else other


def make_sheet(run: Run, items: int) -> Sheet:
    """The run's blind sheet with at most so many questions; the key is made, or extended, in the run's folder."""
    verdict_file = run.folder / "evaluation" / "verdict.json"
    if not verdict_file.exists():
        raise UserError(f"no verdict yet: the run is {run.state}. Finish it first.", where=str(run.folder))
    prompt_arm = str(json.loads(verdict_file.read_text(encoding="utf-8"))["best_prompt_arm"])
    pairs = _pairs(run, prompt_arm)
    different = {item: pair for item, pair in pairs.items() if pair[0]["answer"].strip() != pair[1]["answer"].strip()}
    if not different:
        why = "both arms gave the same answer to every test question" if pairs else "the run has no answers in words"
        raise UserError(f"nothing to review: {why}.", where=str(run.folder))
    digest = hashlib.sha256(
        json.dumps([[item, *(line["answer"] for line in pair)] for item, pair in sorted(pairs.items())]).encode()
    ).hexdigest()
    key = _key(run, prompt_arm, digest)
    secret = str(key["secret"])
    chosen = sorted(different, key=lambda item: _keyed_hash(secret, "order", item))[: max(items, key["items"])]
    if len(chosen) > key["items"]:
        _write_key(run, key | {"items": len(chosen)})
    entries = [_entry(secret, number, *different[item], prompt_arm) for number, item in enumerate(chosen, start=1)]
    return Sheet(str(key["sheet"]), entries, prompt_arm, len(pairs) - len(different), len(pairs))


def current(run: Run) -> Sheet:
    """The run's sheet as last made; a UserError where there is none."""
    if not (run.folder / KEY).exists():
        raise UserError(
            f"this run has no sheet yet; `luthier review {run.folder} --export sheet.csv` makes one.",
            where=str(run.folder),
        )
    return make_sheet(run, 0)


def write_csv(sheet: Sheet, path: Path, *, items: int) -> None:
    """Write the first `items` questions as a CSV for spreadsheets: UTF-8 with a byte order mark, and no cell is a formula."""
    if path.suffix.lower() != ".csv":
        raise UserError(f'expected a name that ends in .csv, found "{path.name}".', where="--export")
    if not path.absolute().parent.is_dir():
        raise UserError("no such folder; create it first.", where=str(path.absolute().parent))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for entry in sheet.entries[:items]:
        texts = (entry.question, entry.answer_a, entry.answer_b, entry.reference)
        writer.writerow([sheet.id, entry.number, *map(_plain, texts), "", "", ""])
    write_atomic(path, b"\xef\xbb\xbf" + text.getvalue().encode("utf-8", "replace"))


def _pairs(run: Run, prompt_arm: str) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Item → its answers by the prompt arm and by the tuned model; documents have none, as they are not asked."""
    lines = read_json_lines(run.folder / "evaluation" / "answers.jsonl")
    by_arm = {arm: {line["item"]: line for line in lines if line["arm"] == arm} for arm in (prompt_arm, TUNED_ARM)}
    return {
        item: (line, by_arm[TUNED_ARM][item])
        for item, line in by_arm[prompt_arm].items()
        if item in by_arm[TUNED_ARM] and line["question"]
    }


def _key(run: Run, prompt_arm: str, digest: str) -> dict[str, Any]:
    """The run's key, or a new one; a UserError where the key belongs to other answers."""
    path = run.folder / KEY
    if not path.exists():
        secret = secrets.token_hex(16)
        sheet = _keyed_hash(secret, "sheet", digest)[:12]
        return {"sheet": sheet, "secret": secret, "prompt_arm": prompt_arm, "answers": digest, "items": 0}
    try:
        key: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise CorruptedState("not valid JSON; restore it, or move review/ away.", where=str(path)) from None
    if (key["prompt_arm"], key["answers"]) != (prompt_arm, digest):
        raise UserError(
            "the answers have changed since the sheet was made, so its marks are about other texts. "
            "Move the folder away to start a new review.",
            where=str(path.parent),
        )
    return key


def _write_key(run: Run, key: Mapping[str, Any]) -> None:
    path = run.folder / KEY
    make_folders(path.parent)
    write_atomic(path, json.dumps(key, indent=2) + "\n")


def _entry(secret: str, number: int, prompt: Mapping[str, Any], tuned: Mapping[str, Any], prompt_arm: str) -> Entry:
    tuned_first = int(_keyed_hash(secret, "first", tuned["item"])[0], 16) % 2 == 0
    answers: Sequence[str] = [prompt["answer"], tuned["answer"]]
    first, second = reversed(answers) if tuned_first else answers
    shared = (tuned["item"], tuned["group"], tuned["question"], first, second, _references(tuned))
    return Entry(number, *shared, TUNED_ARM if tuned_first else prompt_arm)


def _references(record: Mapping[str, Any]) -> str:
    """All right answers as one text."""
    return "\n\nor\n\n".join(record.get("references") or [record["reference"]])


def _keyed_hash(secret: str, purpose: str, text: str) -> str:
    return hmac.new(bytes.fromhex(secret), f"{purpose}\n{text}".encode(), hashlib.sha256).hexdigest()


def _plain(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
