"""Questions without an answer: prompts that fill the model's context, replies that end while it is still thinking.

The run warns of them on its way, and the verdict names them. Such a question counts as not answered by that arm, and by no
other. A verdict that holds only because of such questions says how long prompts or thoughts are, and not which model is
better: then nothing is shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.answers.samples import averaged
from luthier.evaluate.prompts.arms import TUNED
from luthier.evaluate.verdict.assembly import by_arm
from luthier.evaluate.verdict.decision import decide
from luthier.evaluate.verdict.wording import sentence
from luthier.model.generate import NO_ROOM
from luthier.model.replies import THINKING, UNANSWERED


def warnings(records: Sequence[AnswerRecord], arm: str, split: str, *, context_tokens: int) -> Iterator[str]:
    """Messages about an arm: prompts that fill the context, replies that are all thoughts, prompts with fewer examples."""
    total = f"{len(records):,} {split}"
    too_long = [record for record in records if record["finish"] == NO_ROOM]
    if too_long:
        longest = max(record["prompt_tokens"] for record in too_long)
        yield (
            f"{arm}: {len(too_long):,} of {total} prompts do not fit into the model's context of {context_tokens:,} tokens "
            f"and count as not answered (the first: {too_long[0]['place']}; the longest has {longest:,}). "
            "Shorten these rows, or the instruction."
        )
    if unfinished := [record for record in records if record["finish"] == THINKING]:
        yield (
            f"{arm}: {len(unfinished):,} of {total} answers ended while thinking and count as not answered "
            f"(the first: {unfinished[0]['place']}). Raise evaluate.thinking_tokens in a new run."
        )
    shots = [record.get("shots", 0) for record in records]
    if shots and (fewer := sum(count < max(shots) for count in shots)):
        yield (
            f"{arm}: {fewer:,} of {total} prompts have room for fewer than {max(shots)} examples, "
            f"the longest for {min(shots)}."
        )


def adjust_verdict(result: dict[str, Any], answers: Sequence[AnswerRecord], *, seed: int) -> dict[str, Any]:
    """The verdict with its sentence completed where questions of the planned comparison have no answer.

    BETTER and WORSE become NOT SHOWN where they do not hold on the questions that both could answer. All numbers stay those of
    all questions.
    """
    prompt = result["best_prompt_arm"]
    arms = {arm: by_arm(answers)[arm] for arm in (TUNED, prompt)}
    left_out = {record["item"] for records in arms.values() for record in records if record["finish"] in UNANSWERED}
    if not left_out:
        return result
    number = len({record["item"] for record in arms[prompt]})
    what = f"of {number:,} questions, {'; '.join(_count_by_reason(arms))}."
    word, rest = _compare_answered(result, arms, left_out, seed=seed)
    if result["verdict"] not in ("BETTER", "WORSE") or word == result["verdict"]:
        return result | {"sentence": f"{result['sentence']} Note: {what} {rest}"}
    claim = "better" if result["verdict"] == "BETTER" else "worse"
    words = f"It is NOT SHOWN that fine-tuning is {claim} than the best prompt ({prompt}): {what} {rest}"
    return result | {"verdict": "NOT SHOWN", "sentence": words}


def _count_by_reason(arms: Mapping[str, Sequence[AnswerRecord]]) -> Iterator[str]:
    """Why questions have no answer, and how many of which arm."""
    reasons = {
        NO_ROOM: ("prompts that do not fit into the model's context and count as not answered", ""),
        THINKING: (
            "answers that ended while thinking and count as none",
            " (raise evaluate.thinking_tokens in a new run)",
        ),
    }
    for finish, (what, advice) in reasons.items():
        items = {
            arm: {record["item"] for record in records if record["finish"] == finish} for arm, records in arms.items()
        }
        if counts := [f"{len(some):,} of {arm}" for arm, some in items.items() if some]:
            yield f"{what}: {' and '.join(counts)}{advice}"


def _compare_answered(
    result: Mapping[str, Any], arms: Mapping[str, Sequence[AnswerRecord]], left_out: set[str], *, seed: int
) -> tuple[str | None, str]:
    """The planned comparison on the questions that both arms answered: its word, and a sentence."""
    kept = {arm: [record for record in records if record["item"] not in left_out] for arm, records in arms.items()}
    tuned, prompt = (averaged(records)[0] for records in kept.values())
    if len(tuned) < 2:
        return None, "Too few questions are left that both could answer."
    scores = {record["item"]: record["score"] for record in prompt}
    pairs = [record["score"] for record in tuned], [scores[record["item"]] for record in tuned]
    decision = decide(
        *pairs, [record["group"] for record in tuned], alpha=result["alpha"], margin=result["margin"], seed=seed
    )
    means = {"tuned_mean": sum(pairs[0]) / len(tuned), "prompt_mean": sum(pairs[1]) / len(tuned)}
    words = sentence(decision, metric=result["metric"], best_prompt_arm=result["best_prompt_arm"], **means)
    return decision.verdict, f"On the questions that both could answer: {words}"
