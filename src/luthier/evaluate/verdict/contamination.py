"""Test rows that training has seen: found before it, counted in the verdict, and where they matter the verdict is withheld.

What a model was trained on is not held out, so a score on it proves nothing. Every verdict therefore also gives the
comparison without such rows, the clean one. It is WITHHELD

- if test rows come from a file of the user's own and one of them has its question in train or dev, or more than 1 % of
  them have a near copy or a member of their group there: two files that should have nothing in common have;
- if they are Luthier's own split of the data, which keeps equal questions together, and more than 1 % (or any whole copy,
  which a column for groups can part) have such relatives, only where BETTER or WORSE does not hold without them.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from luthier.data import leakage
from luthier.data.dataset import Item
from luthier.data.leakage import KINDS, Overlap
from luthier.data.prepared import Prepared
from luthier.evaluate import statistics
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.prompts.arms import TUNED
from luthier.evaluate.verdict.assembly import by_arm
from luthier.evaluate.verdict.decision import decide
from luthier.runs import Run
from luthier.runs.durable import write_atomic

MOST_NEAR = 0.01
"""Share of the test rows that may have a relative in training before the verdict is in doubt."""

PAIRS = {"test in train": ("test", "train"), "test in dev": ("test", "dev"), "dev in train": ("dev", "train")}
PAIRS_SHOWN = 3
FILE = "leakage.json"


def compare_splits(
    run: Run, *, own_test_file: bool, earlier: Callable[[str], Iterable[Item]] = lambda split: ()
) -> None:
    """Compare the run's splits, once: evaluation/leakage.json and an event.

    `earlier` gives the train or dev rows of runs that the model comes from, where it was tuned already; they count like
    this run's. Training rows are read one by one, so that only the few held-out rows are in memory.
    """
    path = run.folder / "evaluation" / FILE
    if path.exists():
        return
    rows = {name: Prepared(run.folder / "data" / f"{name}.arrow") for name in ("train", "dev", "test")}
    found = {
        title: leakage.compare(rows[held_out].stream(), chain(rows[seen].stream(), earlier(seen)))
        for title, (held_out, seen) in PAIRS.items()
    }
    content = {"own_test_file": own_test_file, "kinds": KINDS} | {
        title: overlap.to_json() for title, overlap in found.items()
    }
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    counts = {title: overlap.counts() for title, overlap in found.items()}
    run.record("leakage", own_test_file=own_test_file, sentence=summary(found), **counts)


def read(run: Run) -> dict[str, Any] | None:
    """leakage.json; None for a run that was prepared before there was one."""
    path = run.folder / "evaluation" / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def summary(found: Mapping[str, Overlap]) -> str:
    """What was found between each two splits, in a line; empty where it is nothing."""
    parts = []
    for title, overlap in found.items():
        if overlap.findings:
            held_out, _, seen = title.partition(" in ")
            listed = ", ".join(f"{count} {_KIND_WORDS[kind]}" for kind, count in overlap.counts().items() if count)
            first = overlap.findings[0]
            parts.append(
                f"of {overlap.items} {held_out} rows in {seen}: {listed}; the first: {first.location} as {first.other_location}"
            )
    return ". ".join(parts)


def adjust_verdict(
    result: dict[str, Any], answers: Sequence[AnswerRecord], found: dict[str, Any] | None, *, seed: int
) -> dict[str, Any]:
    """A verdict with its `leakage`, its sentence completed; the word becomes WITHHELD where the rule says so.

    All other numbers of the verdict stay those of all the test rows.
    """
    if found is None:
        return result
    findings = [*found["test in train"]["findings"], *found["test in dev"]["findings"]]
    worst: dict[str, dict[str, Any]] = {}
    for finding in sorted(findings, key=lambda each: list(KINDS).index(each["kind"])):
        worst.setdefault(finding["place"], finding)
    of = found["test in train"]["items"]
    counts: dict[str, int] = {kind: sum(each["kind"] == kind for each in worst.values()) for kind in KINDS}
    clean = _clean_comparison(result, answers, worst, seed=seed)
    reason = _reason_to_withhold(result, counts, of, list(worst.values()), clean, own_file=found["own_test_file"])
    content = {
        **counts,
        "of": of,
        **clean,
        "held_out": not counts["exact"] and not counts["question"],
        "withheld": reason is not None,
        "reason": reason,
    }
    changed = result | {"leakage": content}
    if reason is not None:
        return changed | {
            "verdict": "WITHHELD",
            "sentence": f"The verdict is WITHHELD: {reason} {_clean_sentence(result, clean)}",
        }
    if worst:
        seen = (
            f"{len(worst):,} of {of:,} test rows resemble rows used for training or choosing ({_list_counts(counts)})."
        )
        return changed | {"sentence": f"{result['sentence']} {seen} {_clean_sentence(result, clean)}"}
    return changed


_KIND_WORDS = {
    "exact": "exact",
    "question": "with the same question",
    "near": "nearly the same",
    "group": "of the same group",
}


def _clean_comparison(
    result: Mapping[str, Any], answers: Sequence[AnswerRecord], excluded: Mapping[str, Any], *, seed: int
) -> dict[str, Any]:
    """The planned comparison on the test rows that nothing in train or dev resembles; None where too few are left."""
    arms = by_arm([record for record in answers if record["place"] not in excluded])
    tuned = arms.get(TUNED, [])
    prompt = {record["item"]: record for record in arms.get(result["best_prompt_arm"], [])}
    numbers: dict[str, Any] = dict.fromkeys(("difference", "interval", "tuned", "prompt"))
    if len(tuned) > 1:
        scores = [record["score"] for record in tuned], [prompt[record["item"]]["score"] for record in tuned]
        decision = decide(
            *scores, [record["group"] for record in tuned], alpha=result["alpha"], margin=result["margin"], seed=seed
        )
        sign = 1 if result["higher_is_better"] else -1
        numbers = {
            "difference": decision.difference,
            "interval": list(decision.interval),
            "tuned": sign * sum(scores[0]) / len(tuned),
            "prompt": sign * sum(scores[1]) / len(tuned),
        }
    return {"clean_n": len(tuned)} | {f"clean_{name}": value for name, value in numbers.items()}


def _reason_to_withhold(
    result: Mapping[str, Any],
    counts: Mapping[str, int],
    of: int,
    findings: Sequence[Mapping[str, Any]],
    clean: Mapping[str, Any],
    *,
    own_file: bool,
) -> str | None:
    """Why the verdict is withheld, or None where it is not."""
    related = sum(counts.values())
    many = related > MOST_NEAR * of
    same = counts["exact"] + counts["question"]
    if own_file and not (same or many):
        return None
    if not own_file and not ((counts["exact"] or many) and _claim_fails(result, clean)):
        return None
    pairs = [f"{each['place']} as {each['other_place']}" for each in findings[:PAIRS_SHOWN]]
    more = f" and {len(findings) - PAIRS_SHOWN:,} more" if len(findings) > PAIRS_SHOWN else ""
    listed = f"{_list_counts(counts)} ({'; '.join(pairs)}{more})"
    found = f"of {of:,} test rows, these resemble rows used for training or choosing: {listed}."
    if own_file:
        return f"{found} Take them out of one of the files, as evaluation/{FILE} lists them, and run again."
    return (
        f"{found} Without them {result['verdict']} does not hold. Set data.group to a column that keeps related rows "
        "together, or give test rows of their own with data.test_path."
    )


def _claim_fails(result: Mapping[str, Any], clean: Mapping[str, Any]) -> bool:
    """Whether BETTER or WORSE was claimed and the clean interval does not lie on that side of 0."""
    if result["verdict"] not in ("BETTER", "WORSE"):
        return False
    if clean["clean_interval"] is None:
        return True
    low, high = clean["clean_interval"]
    return not (low > 0 if result["verdict"] == "BETTER" else high < 0)


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {_KIND_WORDS[kind]}" for kind, count in counts.items() if count)


def _clean_sentence(result: Mapping[str, Any], clean: Mapping[str, Any]) -> str:
    """The clean comparison in a sentence."""
    if clean["clean_difference"] is None:
        return "Too few clean rows are left for a comparison."
    points = result["higher_is_better"]
    scale, digits, unit = (100, 1, " points") if points else (1, 2, " bits per byte")
    change, low, high = (
        statistics.signed(scale * value, digits) for value in (clean["clean_difference"], *clean["clean_interval"])
    )
    means = " vs ".join(f"{scale * clean[name]:.{digits}f}" for name in ("clean_tuned", "clean_prompt"))
    return (
        f"On the {clean['clean_n']:,} clean rows: {means}, {'' if points else 'gain '}"
        f"{change}{unit} [{100 * result['confidence']:g} % CI {low}, {high}]."
    )
