"""Questions without an answer: prompts that fill the model's context, replies that end while it is still thinking.

They are told while the run goes on, and in the verdict. Such a question counts as not answered by that arm, and by no other.
A verdict that holds only because of such questions says how long prompts or thoughts are, and not which model is better:
then nothing is shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from luthier.evaluate import verdict
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.answers.samples import averaged
from luthier.evaluate.verdict import TUNED_ARM
from luthier.model.generate import NO_ROOM
from luthier.model.replies import THINKING, UNANSWERED


def told(lines: Sequence[AnswerRecord], arm: str, split: str, context: int) -> Iterator[str]:
    """Warnings about an arm: prompts that fill the context, replies that are all thoughts, prompts with fewer examples."""
    full = [line for line in lines if line["finish"] == NO_ROOM]
    if full:
        longest = max(line["prompt_tokens"] for line in full)
        yield (
            f"{arm}: {len(full):,} of {len(lines):,} {split} prompts do not fit into the model's context of {context:,} tokens "
            f"and count as not answered (the first: {full[0]['place']}; the longest has {longest:,}). Shorten these rows, or "
            "the instruction."
        )
    if open_ended := [line for line in lines if line["finish"] == THINKING]:
        yield (
            f"{arm}: {len(open_ended):,} of {len(lines):,} {split} answers ended while thinking and count as not answered "
            f"(the first: {open_ended[0]['place']}). Raise evaluate.thinking_tokens in a new run."
        )
    shown = [line.get("shots", 0) for line in lines]
    if shown and (fewer := sum(count < max(shown) for count in shown)):
        yield (
            f"{arm}: {fewer:,} of {len(lines):,} {split} prompts have room for fewer than {max(shown)} examples, "
            f"the longest for {min(shown)}."
        )


def weigh(result: dict[str, Any], answers: Sequence[AnswerRecord], *, seed: int) -> dict[str, Any]:
    """The verdict with its sentence completed where questions of the planned comparison have no answer.

    BETTER and WORSE become NOT SHOWN where they do not hold on the questions that both could answer. All numbers stay those of
    all questions.
    """
    prompt = result["best_prompt_arm"]
    arms = {arm: verdict.by_arm(answers)[arm] for arm in (TUNED_ARM, prompt)}
    left_out = {line["item"] for lines in arms.values() for line in lines if line["finish"] in UNANSWERED}
    if not left_out:
        return result
    number = len({line["item"] for line in arms[prompt]})
    what = f"of {number:,} questions, {'; '.join(_reasons(arms))}."
    word, rest = _without(result, arms, left_out, seed=seed)
    if result["verdict"] not in ("BETTER", "WORSE") or word == result["verdict"]:
        return result | {"sentence": f"{result['sentence']} Note: {what} {rest}"}
    claim = "better" if result["verdict"] == "BETTER" else "worse"
    sentence = f"That fine-tuning is {claim} than the best prompt ({prompt}) is NOT SHOWN: {what} {rest}"
    return result | {"verdict": "NOT SHOWN", "sentence": sentence}


def _reasons(arms: Mapping[str, Sequence[AnswerRecord]]) -> Iterator[str]:
    """Why questions have no answer, and how many of which arm."""
    reasons = {
        NO_ROOM: ("prompts that do not fit into the model's context and count as not answered", ""),
        THINKING: (
            "answers that ended while thinking and count as none",
            " (raise evaluate.thinking_tokens in a new run)",
        ),
    }
    for finish, (what, way) in reasons.items():
        items = {arm: {line["item"] for line in lines if line["finish"] == finish} for arm, lines in arms.items()}
        if counts := [f"{len(some):,} of {arm}" for arm, some in items.items() if some]:
            yield f"{what}: {' and '.join(counts)}{way}"


def _without(
    result: Mapping[str, Any], arms: Mapping[str, Sequence[AnswerRecord]], left_out: set[str], *, seed: int
) -> tuple[str | None, str]:
    """The planned comparison on the questions that both arms could read: its word, and a sentence."""
    kept = {arm: [line for line in lines if line["item"] not in left_out] for arm, lines in arms.items()}
    tuned, prompt = (averaged(lines)[0] for lines in kept.values())
    if len(tuned) < 2:
        return None, "Too few questions are left that both could answer."
    scores = {line["item"]: line["score"] for line in prompt}
    pairs = [line["score"] for line in tuned], [scores[line["item"]] for line in tuned]
    decision = verdict.decide(
        *pairs, [line["group"] for line in tuned], alpha=result["alpha"], margin=result["margin"], seed=seed
    )
    means = {"tuned_mean": sum(pairs[0]) / len(tuned), "prompt_mean": sum(pairs[1]) / len(tuned)}
    words = verdict.sentence(decision, metric=result["metric"], best_prompt_arm=result["best_prompt_arm"], **means)
    return decision.verdict, f"On the questions that both could answer: {words}"
