"""Checks of the data before anything is trained on it: each finds one kind of trouble, and says where it stands.

findings         what is found: kind, severity, sentence, locations
rows             a row as checks see it, once, in file order; `each_row` makes a check of a function that looks at one row
encodings, markup, personal, answers, cut_answers, conflicts, near_duplicates, language    the checks
ledger, lengths, leaks    what the ledger, the lengths and the splits tell
actions          what the recipe says about a kind: accept it, drop its rows, keep near ones in one group

`CHECKS` are those that rows stream past: to add one, write it in a file here and name it there, and in `KINDS`.
"""

from collections.abc import Callable, Iterable, Mapping

from luthier.data.checks import answers, encodings, markup, personal
from luthier.data.checks.conflicts import Conflicts
from luthier.data.checks.cut_answers import CutAnswers
from luthier.data.checks.findings import SEVERITIES, Finding, Severity
from luthier.data.checks.language import Languages
from luthier.data.checks.near_duplicates import NearDuplicates
from luthier.data.checks.rows import Check, Row, Scope, each_row

KINDS: dict[str, str] = {
    "no-splits": "rows, or groups, too few for train, dev and test",
    "private-key": "a private key",
    "secret": "a key or token of a well-known shape, or a random password that is assigned to a name",
    "credit-card": "the number of a payment card, its check digit right",
    "iban": "a bank account, its check digits right",
    "email": "an e-mail address of a person; offices (info@) and example.org do not count",
    "phone": "a telephone number, with its country's prefix or a word such as “call” before it",
    "ip-address": "a public IP address",
    "leak": "a test or dev row that a training row resembles",
    "conflict": "the same question with another answer",
    "too-long": "with the answer a row has more tokens than fit; a run leaves it out",
    "shortened": "a conversation that fits without its oldest turns only; a run trains on the rest",
    "cut-answer": "an answer that stops in the middle of a sentence, of code or of JSON, or where many others stop",
    "placeholder": "an answer that is still to be written: N/A, TODO, [insert name]",
    "repetition": "an answer that says a sentence four times or more",
    "template-text": "headings of a prompt that was made beforehand: ### Response:",
    "control-token": "a control token of a chat template, spelled in a text",
    "mojibake": "characters that were read in another encoding than they were written in, or were lost",
    "control-character": "characters that nobody sees: control characters, zero widths, marks that turn the direction",
    "html": "entities of HTML outside code: &amp;",
    "unusable": "a row that cannot be read as what the others are; it is left out",
    "blank": "the question or the answer is empty; the row is left out",
    "duplicate": "a row that repeats an earlier one word for word; it is left out",
    "near-duplicate": "a row that asks almost the same as another",
    "random-split": "what a split by chance would leak",
    "echo": "an answer that is the question",
    "refusal": "an answer that declines to answer",
    "label-balance": "one label for nearly all rows, or labels with very few",
    "language": "rows in another language than most",
    "few-rows": "fewer than about 1,000 rows",
}
"""Every kind of finding, and what it means; of equal severity, they are shown in this order."""

_PERSONAL = "A model may repeat what it was trained on. Mask it, or leave the rows out: data.findings.{}=drop."


def _personal(kind: str, what: str) -> Callable[[Scope], Check]:
    severity: Severity = "error" if kind == "private-key" else "warning"
    return each_row(kind, personal.look(kind), severity=severity, what=what, advice=_PERSONAL.format(kind))


CHECKS: dict[str, Callable[[Scope], Check]] = {
    "private-key": _personal("private-key", "with a private key"),
    "secret": _personal("secret", "with keys, tokens or passwords"),
    "credit-card": _personal("credit-card", "with numbers of payment cards"),
    "iban": _personal("iban", "with bank accounts"),
    "email": _personal("email", "with e-mail addresses"),
    "phone": _personal("phone", "with telephone numbers"),
    "ip-address": _personal("ip-address", "with public IP addresses"),
    "conflict": Conflicts,
    "cut-answer": CutAnswers,
    "placeholder": answers.Placeholders,
    "repetition": each_row(
        "repetition", answers.circles, severity="warning", what="going in circles",
        advice="A model learns to repeat itself. Take the rows out.",
    ),
    "template-text": each_row(
        "template-text", markup.headings, severity="warning", what="with the headings of a prompt",
        advice="The model's own template parts question from answer: give both without headings.",
    ),
    "control-token": markup.ControlTokens,
    "mojibake": each_row(
        "mojibake", encodings.mojibake, severity="warning", what="with characters that a wrong encoding damaged",
        advice="Export the file again in UTF-8, or repair the texts, for example with the package ftfy.",
    ),
    "control-character": each_row(
        "control-character", encodings.control_characters, severity="warning", what="with characters that nobody sees",
        advice="They become tokens of their own. Take them out.",
    ),
    "html": each_row(
        "html", encodings.html, severity="note", what="with entities of HTML", advice="Write the characters: & for &amp;."
    ),
    "near-duplicate": NearDuplicates,
    "echo": each_row(
        "echo", answers.echo, severity="note", what="answering with the question", advice="Right where text is corrected."
    ),
    "refusal": answers.Refusals,
    "language": Languages,
}  # fmt: skip
"""Kind → the check that rows stream past."""


def examine(
    rows: Iterable[Row], scope: Scope, checks: Mapping[str, Callable[[Scope], Check]] = CHECKS
) -> list[Finding]:
    """What the checks find in these rows, which are looked at one at a time."""
    made = [make(scope) for make in checks.values()]
    for row in rows:
        for check in made:
            check.see(row)
    return in_order(finding for check in made for finding in check.findings())


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The gravest first, and of equal ones in the order of KINDS."""
    kinds = list(KINDS)
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), kinds.index(finding.kind)))


__all__ = ["CHECKS", "KINDS", "Check", "Finding", "Row", "Scope", "examine", "in_order"]
