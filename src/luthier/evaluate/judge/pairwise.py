"""Which of two answers is better, in the opinion of a language model: asked in both orders, read strictly, weighed by people.

A judge sees each pair twice, once with either answer first. Only a preference that survives the swap counts; one that does
not is a tie. A reply without a clear verdict is counted as unread, never guessed. Until enough human labels stand beside
its own, its result is called uncalibrated. A judge's opinion never enters the verdict; it is reported beside it.
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
from luthier.runs.durable import append_json_lines, read_json_lines

Winner = Literal["tuned", "prompt", "tie"]

HUMAN_LABELS = 50  # below this, agreement with people is too rough to lean on
PAIRS_AT_ONCE = 16  # asked between two writes to disk
_NEEDED = "expected a last line such as VERDICT: A, VERDICT: B or VERDICT: TIE"
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
    """Who is asked: a name, and a function from prompts to replies in their order."""

    name: str
    ask: Callable[[Sequence[str]], Sequence[str]]

    @classmethod
    def of(cls, function: Callable[[str], str], name: str = "function") -> "Judge":
        """A judge that answers one prompt at a time."""
        return cls(name, lambda prompts: [function(prompt) for prompt in prompts])


class Pair(NamedTuple):
    """Two answers to one question; `reference` is the right one, where the data has it."""

    item: str
    place: str
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
class Ruling:
    """What the judge said of a pair: with the tuned answer first, and with it second. None where it could not be read."""

    item: str
    group: str
    tuned_first: Winner | None
    tuned_second: Winner | None
    longer_by: int
    """Characters that the tuned answer has more than the other."""

    @property
    def outcome(self) -> Winner | None:
        """The winner in both orders, else a tie; None unless both replies could be read."""
        if self.tuned_first is None or self.tuned_second is None:
            return None
        return self.tuned_first if self.tuned_first == self.tuned_second else "tie"

    @property
    def consistent(self) -> bool:
        return self.outcome is not None and self.tuned_first == self.tuned_second


def pairs(answers: Sequence[Mapping[str, Any]], *, tuned: str, prompt: str) -> list[Pair]:
    """The pairs of two arms' lines in answers.jsonl, for the items that both have answered."""
    second = {line["item"]: line for line in answers if line["arm"] == prompt}
    return [
        Pair(
            line["item"], line["place"], line["group"], line["question"], line["reference"], line["answer"],
            second[line["item"]]["answer"],
        )
        for line in answers
        if line["arm"] == tuned and line["item"] in second
    ]  # fmt: skip


def verdict_of(reply: str) -> Literal["A", "B", "TIE"] | None:
    """The verdict that a reply states; None if it states none, or two that differ."""
    stated = {match.upper() for match in _VERDICT.findall(reply)}
    if len(stated) != 1:
        return None
    return "A" if stated == {"A"} else "B" if stated == {"B"} else "TIE"


def compare(
    judge: Judge, items: Sequence[Pair], *, file: Path, progress: Callable[[int, int], None] = lambda done, of: None
) -> list[Ruling]:
    """Ask the judge about each pair in both orders, in the order given.

    Every reply is appended to `file`; pairs whose very prompts this judge has answered there are not asked again.
    """
    known = {line["pair"]: line for line in read_json_lines(file) if line["judge"] == judge.name}
    names = {pair.item: _fingerprint(pair) for pair in items}
    missing = [pair for pair in items if names[pair.item] not in known]
    progress(len(items) - len(missing), len(items))
    for start in range(0, len(missing), PAIRS_AT_ONCE):
        batch = missing[start : start + PAIRS_AT_ONCE]
        replies = _ask(judge, batch)
        lines = [_line(judge, pair, names[pair.item], *both) for pair, both in zip(batch, replies, strict=True)]
        append_json_lines(file, lines)
        known.update((line["pair"], line) for line in lines)
        progress(len(items) - len(missing) + start + len(batch), len(items))
    return [_ruling(known[names[pair.item]], pair) for pair in items]


def _ask(judge: Judge, batch: Sequence[Pair]) -> list[tuple[str, str]]:
    """Both replies for each pair; what goes wrong in a judge is told with the pair's place."""
    prompts = [pair.asked(tuned_first=first) for pair in batch for first in (True, False)]
    places = batch[0].place if len(batch) == 1 else f"{batch[0].place} … {batch[-1].place}"
    try:
        replies = list(judge.ask(prompts))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'the judge "{judge.name}" failed: {type(error).__name__}: {error}.', where=places) from error
    if len(replies) != len(prompts) or not all(isinstance(reply, str) for reply in replies):
        kinds = sorted({type(reply).__name__ for reply in replies})
        found = f'the judge "{judge.name}" gave {len(replies)} replies ({", ".join(kinds)}) to {len(prompts)} prompts'
        raise UserError(f"{found}; expected a text for each.", where=places)
    return list(zip(replies[::2], replies[1::2], strict=True))


def _line(judge: Judge, pair: Pair, name: str, first: str, second: str) -> dict[str, Any]:
    return {
        "pair": name, "item": pair.item, "place": pair.place, "group": pair.group, "judge": judge.name,
        "tuned_first": _winner(first, "tuned", "prompt"), "tuned_second": _winner(second, "prompt", "tuned"),
        "replies": [first, second],
    }  # fmt: skip


def _winner(reply: str, a: Winner, b: Winner) -> Winner | None:
    stated = verdict_of(reply)
    return None if stated is None else {"A": a, "B": b, "TIE": "tie"}[stated]


def _ruling(line: Mapping[str, Any], pair: Pair) -> Ruling:
    longer = len(pair.tuned) - len(pair.prompt)
    return Ruling(pair.item, pair.group, line["tuned_first"], line["tuned_second"], longer)


def _fingerprint(pair: Pair) -> str:
    return hashlib.sha256(pair.asked(tuned_first=True).encode()).hexdigest()[:16]


def summary(
    rulings: Sequence[Ruling],
    *,
    judge: str,
    human: Mapping[str, str] | None = None,
    confidence: float = 0.95,
    seed: int,
) -> dict[str, Any]:
    """A judge's opinion in numbers, with what speaks against trusting it.

    `human` has people's winners by item ("tuned", "prompt" or "tie"). Position consistency is the share of pairs whose
    two orders agree; the length correlation is Spearman's, between how much longer the tuned answer is and whether it
    won. Raises UserError where no reply could be read, or a human label is none.
    """
    if not rulings:
        raise UserError("no pairs to judge; the two arms have no answered question in common.", where="evaluate.judge")
    read = [ruling for ruling in rulings if ruling.outcome is not None]
    if not read:
        told = f'none of the replies of the judge "{judge}" to {len(rulings)} pairs could be read; {_NEEDED}'
        raise UserError(f"{told}. Look into judgements.jsonl, and name a larger model.", where="evaluate.judge")
    won = Counter(ruling.outcome for ruling in read)
    points = {"tuned": (1.0, 0.0), "prompt": (0.0, 1.0), "tie": (0.5, 0.5)}
    tuned, prompt = zip(*(points[str(ruling.outcome)] for ruling in read), strict=True)
    groups = [ruling.group for ruling in read]
    found: dict[str, Any] = {
        "judge": judge,
        "n": len(rulings),
        "unread": len(rulings) - len(read),
        "tuned_wins": won["tuned"],
        "prompt_wins": won["prompt"],
        "ties": won["tie"],
        "inconsistent": sum(not ruling.consistent for ruling in read),
        "position_consistency": sum(ruling.consistent for ruling in read) / len(read),
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


def length_correlation(rulings: Sequence[Ruling]) -> float | None:
    """Spearman's rank correlation of the tuned answer's extra length with its winning; None where one does not vary."""
    lengths = [ruling.longer_by for ruling in rulings]
    wins = [{"tuned": 1, "prompt": -1}.get(str(ruling.outcome), 0) for ruling in rulings]
    if len(set(lengths)) < 2 or len(set(wins)) < 2:
        return None
    return float(stats.spearmanr(lengths, wins).statistic)


def _agreement(read: Sequence[Ruling], human: Mapping[str, str]) -> dict[str, Any]:
    """How far people and the judge agree on the pairs that both have looked at."""
    for item, label in human.items():
        if label not in ("tuned", "prompt", "tie"):
            told = f'the human label of item {item} is "{label}"; expected "tuned", "prompt" or "tie".'
            raise UserError(told, where="evaluate.judge")
    both = [(str(ruling.outcome), human[ruling.item]) for ruling in read if ruling.item in human]
    if not both:
        return {"labels": 0, "agreement": None, "kappa": None}
    judged, labelled = zip(*both, strict=True)
    same = sum(one == other for one, other in both) / len(both)
    return {"labels": len(both), "agreement": same, "kappa": cohen_kappa(judged, labelled)}


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Agreement beyond chance (Cohen 1960): (p - c)/(1 - c), c what the two raters' habits alone would give.

    None where both always say the same one word, since chance then explains everything.
    """
    count = len(first)
    same = sum(one == other for one, other in zip(first, second, strict=True)) / count
    habits, others = Counter(first), Counter(second)
    chance = sum(habits[word] * others[word] for word in habits) / count**2
    return (same - chance) / (1 - chance) if chance < 1 else None


def _sentence(found: Mapping[str, Any]) -> str:
    human = found["human"]
    kappa = "not defined" if human["kappa"] is None else f"{human['kappa']:.2f}"
    if found["calibrated"]:
        standing = f"calibrated on {human['labels']} human labels, Cohen's kappa {kappa}"
    else:
        standing = f"uncalibrated: {human['labels']} of the {HUMAN_LABELS} human labels that it takes"
    low, high = (statistics.signed(100 * end) for end in found["interval"])
    lines = [
        f"The judge {found['judge']} ({standing}) preferred the fine-tuned answer in {found['tuned_wins']}, the prompt's in "
        f"{found['prompt_wins']} and neither in {found['ties']} of {found['n'] - found['unread']} pairs: "
        f"{statistics.signed(100 * found['difference'])} points [{100 * found['confidence']:g} % CI {low}, {high}].",
        f"Its opinion survived a swap of the two answers in {found['position_consistency']:.0%} of the pairs.",
    ]
    if found["unread"]:
        many = f"{found['unread']} of {found['n']} pairs are left out because a reply had no clear verdict"
        lines.append(f"{many}; {_NEEDED}.")
    correlation = found["length_correlation"]
    if correlation is not None and abs(correlation) >= 0.3:
        which = "longer" if correlation > 0 else "shorter"
        lines.append(f"It tends to prefer the {which} answer (rank correlation {correlation:+.2f}).")
    return " ".join(lines)
