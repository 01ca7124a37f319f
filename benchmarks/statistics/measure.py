"""Times `verdict.assemble` on made-up answers: every number of verdict.json for many arms and items."""

import argparse
import statistics
import time
from typing import Any

import numpy as np

from luthier.evaluate import verdict

TARGET_SECONDS = 5.0
LABELS = ("refund", "invoice", "delivery", "technical", "other")


def answers(arms: int, items: int, kind: str) -> list[dict[str, Any]]:
    """Lines as in answers.jsonl; the tuned arm is a little better, the others lie around each other."""
    generator = np.random.default_rng(0)
    ease = generator.beta(2, 2, items)
    wanted = generator.choice(LABELS, items)
    lines = []
    for arm in range(arms):
        skill = ease + (0.06 if arm == 0 else 0.01 * arm) + generator.normal(0, 0.15, items)
        scores = (skill > 0.5).astype(float) if kind == "labels" else np.clip(skill, 0, 1)
        given = np.where(scores == 1, wanted, generator.choice(LABELS, items))
        for item in range(items):
            score = float(given[item] == wanted[item]) if kind == "labels" else float(scores[item])
            lines.append({
                "item": f"i{item}", "place": f"data.jsonl:{item}", "arm": "fine-tuned" if arm == 0 else f"prompt-{arm}",
                "group": f"g{item // 5}" if kind == "groups" else f"g{item}", "prompt_tokens": 90, "answer_tokens": 9,
                "question": "?", "answer": str(given[item]), "reference": str(wanted[item]), "score": score,
                "scores": {"token_f1": score, "exact_match": score}, "finish": "stop", "seconds": 0.1,
            })  # fmt: skip
    return lines


def main() -> None:
    """Print the time of each kind of scores, and exit 1 if the slowest is over the target."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--arms", type=int, default=8)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.items:,} items × {options.arms} arms, median of {options.rounds} rounds")
    slowest = 0.0
    for kind, metric in (("other scores", "token_f1"), ("groups", "token_f1"), ("labels", "accuracy")):
        lines = answers(options.arms, options.items, kind)
        seconds = []
        for _ in range(options.rounds):
            start = time.perf_counter()
            found = verdict.assemble(lines, metric=metric, metric_reason="", seed=0)
            seconds.append(time.perf_counter() - start)
        middle = statistics.median(seconds)
        slowest = max(slowest, middle)
        print(f"\n{kind}: {middle:.2f} s ({min(seconds):.2f} – {max(seconds):.2f})  {found['verdict']}")
        for name, arm in found["arms"].items():
            low, high = arm["interval"]
            print(f"  {name:<12} {100 * arm['mean']:5.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        for look in found["secondary"]:
            low, high = look["interval"]
            print(
                f"  against {look['arm']:<12} {100 * look['difference']:+5.1f} [{100 * low:+.1f}, {100 * high:+.1f}]  "
                f"p {look['p_value']:.4f}, adjusted {look['adjusted_p_value']:.4f}  {look['word']}"
            )
    verdict_word = "under" if slowest < TARGET_SECONDS else "OVER"
    print(f"\nslowest {slowest:.2f} s, {verdict_word} the target of {TARGET_SECONDS:g} s")
    raise SystemExit(slowest >= TARGET_SECONDS)


if __name__ == "__main__":
    main()
