"""Which of two answers a language model prefers: asked in both orders, read strictly, compared with human labels.

A judge sees each pair twice, once with either answer first. Only a preference that is the same in both orders counts; any
other is a tie. A reply without a clear verdict is counted as unread, never guessed. Without enough human labels for the same
pairs, the result is called uncalibrated. It is reported beside the verdict and never changes it.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from scipy import stats

from luthier.errors import UserError
from luthier.evaluate import statistics
from luthier.evaluate.answers import all_references
from luthier.evaluate.judge.agreement import cohen
from luthier.runs.durable import append_json_lines, read_json_lines

Winner = Literal["tuned", "prompt", "tie"]

HUMAN_LABELS = 50  # with fewer, agreement with people is too rough
PAIRS_AT_ONCE = 16  # asked between two writes to disk
_EXPECTED = "expected a last line such as VERDICT: A, VERDICT: B or VERDICT: TIE"
_VERDICT = re.compile(r"^\W*verdict\W*[:=]\W*(A|B|tie)\W*$", re.IGNORECASE | re.MULTILINE)

PROMPT = """\
Two answers were given to the same question. Decide which one is better.

What counts: whether what an answer says is right, whether it answers what was asked, whether something needed is missing \
or something is made up. What does not count: its length, its style, and which of the two comes first.

Question:
{question}
{reference}
Answer A:
{a}

Answer B:
{b}

Write one sentence that says why. Then end with a line of its own that is exactly one of these:
VERDICT: A
VERDICT: B
VERDICT: TIE
"""


@dataclass(frozen=True)
class Judge:
    """A name, and a function from prompts to replies in the same order."""

    name: str
    ask: Callable[[Sequence[str]], Sequence[str]]

    @classmethod
    def of(cls, function: Callable[[str], str], name: str = "function") -> "Judge":
        """A judge that answers one prompt at a time."""
        return cls(name, lambda prompts: [function(prompt) for prompt in prompts])


class AnswerPair(NamedTuple):
    """Two answers to one question; `reference` is the right one, where the data has it."""

    item: str
    location: str
    group: str
    question: str
    reference: str
    tuned: str
    prompt: str

    def asked(self, *, tuned_first: bool) -> str:
        """The judge's prompt with the answers in this order."""
        a, b = (self.tuned, self.prompt) if tuned_first else (self.prompt, self.tuned)
        reference = f"\nA right answer, for comparison:\n{self.reference}\n" if self.reference else ""
        return PROMPT.format(question=self.question, reference=reference, a=a, b=b)


@dataclass(frozen=True)
class Judgement:
    """The judge's winner of a pair with the tuned answer first, and with it second; None where a reply could not be read."""

    item: str
    group: str
    tuned_first: Winner | None
    tuned_second: Winner | None
    longer_by: int
    """Characters that the tuned answer has more than the other."""

    @property
    def outcome(self) -> Winner | None:
        """The winner in both orders; a tie where they differ; None unless both replies could be read."""
        if self.tuned_first is None or self.tuned_second is None:
            return None
        return self.tuned_first if self.tuned_first == self.tuned_second else "tie"

    @property
    def consistent(self) -> bool:
        return self.outcome is not None and self.tuned_first == self.tuned_second


def pairs(answers: Sequence[Mapping[str, Any]], *, tuned: str, prompt: str) -> list[AnswerPair]:
    """The pairs of two arms' lines in answers.jsonl, for the items that both have answered."""
    second = {record["item"]: record for record in answers if record["arm"] == prompt}
    return [
        AnswerPair(
            record["item"], record["place"], record["group"], record["question"], all_references(record), record["answer"],
            second[record["item"]]["answer"],
        )
        for record in answers
        if record["arm"] == tuned and record["item"] in second
    ]  # fmt: skip


def parse_verdict(reply: str) -> Literal["A", "B", "TIE"] | None:
    """The verdict that a reply states; None if it states none, or two that differ."""
    stated = {match.upper() for match in _VERDICT.findall(reply)}
    if len(stated) != 1:
        return None
    return "A" if stated == {"A"} else "B" if stated == {"B"} else "TIE"


def compare(
    judge: Judge,
    items: Sequence[AnswerPair],
    *,
    file: Path,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Judgement]:
    """Ask the judge about each pair in both orders, in the order given.

    Every reply is appended to `file`; pairs whose very prompts this judge has answered there are not asked again.
    """
    known = {record["pair"]: record for record in read_json_lines(file) if record["judge"] == judge.name}
    names = {pair.item: _fingerprint(pair) for pair in items}
    missing = [pair for pair in items if names[pair.item] not in known]
    progress(len(items) - len(missing), len(items))
    for start in range(0, len(missing), PAIRS_AT_ONCE):
        batch = missing[start : start + PAIRS_AT_ONCE]
        replies = _ask(judge, batch)
        records = [_record(judge, pair, names[pair.item], *both) for pair, both in zip(batch, replies, strict=True)]
        append_json_lines(file, records)
        known.update((record["pair"], record) for record in records)
        progress(len(items) - len(missing) + start + len(batch), len(items))
    return [_judgement(known[names[pair.item]], pair) for pair in items]


def _ask(judge: Judge, batch: Sequence[AnswerPair]) -> list[tuple[str, str]]:
    """Both replies for each pair; an error in the judge names the pair's location."""
    prompts = [pair.asked(tuned_first=first) for pair in batch for first in (True, False)]
    locations = batch[0].location if len(batch) == 1 else f"{batch[0].location} … {batch[-1].location}"
    try:
        replies = list(judge.ask(prompts))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f'the judge "{judge.name}" failed: {type(error).__name__}: {error}.', where=locations
        ) from error
    if len(replies) != len(prompts) or not all(isinstance(reply, str) for reply in replies):
        kinds = sorted({type(reply).__name__ for reply in replies})
        found = f'the judge "{judge.name}" gave {len(replies)} replies ({", ".join(kinds)}) to {len(prompts)} prompts'
        raise UserError(f"{found}; expected a text for each.", where=locations)
    return list(zip(replies[::2], replies[1::2], strict=True))


def _record(judge: Judge, pair: AnswerPair, name: str, first: str, second: str) -> dict[str, Any]:
    return {
        "pair": name, "item": pair.item, "place": pair.location, "group": pair.group, "judge": judge.name,
        "tuned_first": _winner(first, "tuned", "prompt"), "tuned_second": _winner(second, "prompt", "tuned"),
        "replies": [first, second],
    }  # fmt: skip


def _winner(reply: str, a: Winner, b: Winner) -> Winner | None:
    stated = parse_verdict(reply)
    return None if stated is None else {"A": a, "B": b, "TIE": "tie"}[stated]


def _judgement(record: Mapping[str, Any], pair: AnswerPair) -> Judgement:
    longer = len(pair.tuned) - len(pair.prompt)
    return Judgement(pair.item, pair.group, record["tuned_first"], record["tuned_second"], longer)


def _fingerprint(pair: AnswerPair) -> str:
    return hashlib.sha256(pair.asked(tuned_first=True).encode()).hexdigest()[:16]


def summary(
    judgements: Sequence[Judgement],
    *,
    judge: str,
    human: Mapping[str, str] | None = None,
    confidence: float = 0.95,
    seed: int,
) -> dict[str, Any]:
    """The judgements in numbers, with what limits their value.

    `human` has people's winners by item ("tuned", "prompt" or "tie"). Position consistency is the share of pairs whose
    two orders agree; the length correlation is Spearman's, between how much longer the tuned answer is and whether it
    won. Raises UserError where no reply could be read, or a human label is none.
    """
    if not judgements:
        raise UserError("no pairs to judge; the two arms have no answered question in common.", where="evaluate.judge")
    read = [judgement for judgement in judgements if judgement.outcome is not None]
    if not read:
        message = f'none of the replies of the judge "{judge}" to {len(judgements)} pairs could be read; {_EXPECTED}'
        raise UserError(f"{message}. Look into judgements.jsonl, and name a larger model.", where="evaluate.judge")
    won = Counter(judgement.outcome for judgement in read)
    points = {"tuned": (1.0, 0.0), "prompt": (0.0, 1.0), "tie": (0.5, 0.5)}
    tuned, prompt = zip(*(points[str(judgement.outcome)] for judgement in read), strict=True)
    groups = [judgement.group for judgement in read]
    found: dict[str, Any] = {
        "judge": judge,
        "n": len(judgements),
        "unread": len(judgements) - len(read),
        "tuned_wins": won["tuned"],
        "prompt_wins": won["prompt"],
        "ties": won["tie"],
        "inconsistent": sum(not judgement.consistent for judgement in read),
        "position_consistency": sum(judgement.consistent for judgement in read) / len(read),
        "preferred_first": sum((one.tuned_first, one.tuned_second) == ("tuned", "prompt") for one in read),
        "preferred_second": sum((one.tuned_first, one.tuned_second) == ("prompt", "tuned") for one in read),
        "length_correlation": length_correlation(read),
        "difference": math.fsum(tuned) / len(read) - math.fsum(prompt) / len(read),
        "interval": list(statistics.paired_interval(tuned, prompt, groups, confidence=confidence, seed=seed)),
        "p_value": statistics.paired_test(tuned, prompt, groups, seed=seed).p_value,
        "confidence": confidence,
        "human": _agreement(read, human or {}),
    }
    found["calibrated"] = found["human"]["labels"] >= HUMAN_LABELS
    return found | {"sentence": _sentence(found)}


def length_correlation(judgements: Sequence[Judgement]) -> float | None:
    """Spearman's rank correlation of the tuned answer's extra length with its winning; None where one does not vary."""
    lengths = [judgement.longer_by for judgement in judgements]
    wins = [{"tuned": 1, "prompt": -1}.get(str(judgement.outcome), 0) for judgement in judgements]
    if len(set(lengths)) < 2 or len(set(wins)) < 2:
        return None
    return float(stats.spearmanr(lengths, wins).statistic)


def _agreement(read: Sequence[Judgement], human: Mapping[str, str]) -> dict[str, Any]:
    """How far people and the judge agree on the pairs that both have judged."""
    for item, label in human.items():
        if label not in ("tuned", "prompt", "tie"):
            message = f'the human label of item {item} is "{label}"; expected "tuned", "prompt" or "tie".'
            raise UserError(message, where="evaluate.judge")
    both = [(str(judgement.outcome), human[judgement.item]) for judgement in read if judgement.item in human]
    if not both:
        return {"labels": 0, "agreement": None, "kappa": None}
    same = sum(one == other for one, other in both) / len(both)
    return {"labels": len(both), "agreement": same, "kappa": cohen(both)}


def _sentence(found: Mapping[str, Any]) -> str:
    human = found["human"]
    kappa = "not defined" if human["kappa"] is None else f"{human['kappa']:.2f}"
    if found["calibrated"]:
        standing = f"calibrated on {human['labels']} human labels, Cohen's kappa {kappa}"
    else:
        standing = f"uncalibrated: {human['labels']} of {HUMAN_LABELS} human labels"
    low, high = (statistics.signed(100 * end) for end in found["interval"])
    sentences = [
        f"The judge {found['judge']} ({standing}) preferred the fine-tuned answer in {found['tuned_wins']}, the prompt's in "
        f"{found['prompt_wins']} and neither in {found['ties']} of {found['n'] - found['unread']} pairs: "
        f"{statistics.signed(100 * found['difference'])} points [{100 * found['confidence']:g} % CI {low}, {high}].",
        f"With the two answers swapped it judged the same in {found['position_consistency']:.0%} of the pairs.",
    ]
    if found["unread"]:
        many = f"{found['unread']} of {found['n']} pairs are left out because a reply had no clear verdict"
        sentences.append(f"{many}; {_EXPECTED}.")
    correlation = found["length_correlation"]
    if correlation is not None and abs(correlation) >= 0.3:
        which = "longer" if correlation > 0 else "shorter"
        sentences.append(f"It tends to prefer the {which} answer (rank correlation {correlation:+.2f}).")
    return " ".join(sentences)
