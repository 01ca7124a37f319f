"""Prompt optimization: a better instruction by GEPA (Agrawal et al. 2025, arXiv 2507.19457), the optional extra `optimise`.

A reflecting model reads answers with what was wrong about them and writes a new instruction; what scores better is kept. Only
training rows are used, so that the dev questions stay fit to compare the prompts with each other. Answers and reflections are
written down and GEPA draws from a seed, so an interrupted search goes through the same steps again without asking twice.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.data.dataset import Item
from luthier.errors import MachineError
from luthier.runs.durable import append_json_lines, read_json_lines, write_atomic

COMPONENT = "instruction"
START = "Answer the question."
REFLECTION_ROWS, VALIDATION_ROWS = 24, 24
"""Training rows to reflect on, and to keep the better instruction by."""

Reflect = Callable[[str], str]
AskInstruction = Callable[[str, Sequence[Item]], Sequence[Mapping[str, Any]]]
"""(instruction, items) → a record per item, as in the answers file."""


@dataclass(frozen=True)
class OptimizedPrompt:
    """The instruction that was found, the mean scores of both on the validation rows, and what the search cost."""

    instruction: str
    start: str
    mean: float
    start_mean: float
    answers: int
    reflections: int

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def require_gepa() -> None:
    """Raises a MachineError that says how to get GEPA, where it is not installed."""
    try:
        import gepa  # noqa: F401
    except ImportError:
        raise MachineError(
            'the arm "optimised" needs the package gepa: pip install "luthier[optimise]". Or leave the arm out.',
            where="evaluate.arms",
        ) from None


def optimize_prompt(
    train: Sequence[Item],
    *,
    start: str | None,
    ask: AskInstruction,
    reflect: Reflect,
    budget: int,
    seed: int,
    folder: Path,
) -> OptimizedPrompt:
    """The best instruction that about `budget` answers can find. Leaves optimised.json in `folder`, and takes it from there."""
    result = folder / "optimised.json"
    if result.exists():
        return OptimizedPrompt(**json.loads(result.read_text(encoding="utf-8")))
    require_gepa()
    import gepa

    rows = sorted(train, key=lambda item: hashlib.sha256(f"optimise:{item.id}".encode()).digest())
    validation = rows[: max(1, min(VALIDATION_ROWS, len(rows) // 2))]
    reflection = rows[len(validation) : len(validation) + REFLECTION_ROWS] or validation
    cached_reflect = _CachedReflection(folder / "reflections.jsonl", reflect)
    found = gepa.optimize(
        seed_candidate={COMPONENT: start or START},
        trainset=list(reflection),
        valset=list(validation),
        adapter=_Adapter(ask),
        reflection_lm=cached_reflect,
        max_metric_calls=budget,
        seed=seed,
        logger=_SilentLogger(),
        raise_on_exception=True,
    )
    best = found.best_candidate
    assert isinstance(best, dict)
    optimised = OptimizedPrompt(
        instruction=best[COMPONENT],
        start=start or START,
        mean=float(found.val_aggregate_scores[found.best_idx]),
        start_mean=float(found.val_aggregate_scores[0]),
        answers=int(found.total_metric_calls or 0),
        reflections=cached_reflect.count,
    )
    write_atomic(result, json.dumps(optimised.to_json(), indent=2, ensure_ascii=False) + "\n")
    return optimised


class _Adapter:
    """What GEPA needs to know of our task: scores of an instruction, and what to say about wrong answers."""

    propose_new_texts = None

    def __init__(self, ask: AskInstruction) -> None:
        self._ask = ask

    def evaluate(self, batch: list[Item], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        """The answers to these items under the candidate's instruction, with their scores."""
        from gepa.core.adapter import EvaluationBatch

        records = list(self._ask(candidate[COMPONENT], batch))
        scores = [float(record["score"]) for record in records]
        outputs = [record["answer"] for record in records]
        return EvaluationBatch(outputs, scores, records if capture_traces else None)

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> dict[str, list[dict[str, str]]]:
        """Questions, answers, and for each what would have been right."""
        records = [
            {"Question": record["question"], "Answer given": record["answer"], "Feedback": _feedback(record)}
            for record in eval_batch.trajectories
        ]
        return dict.fromkeys(components_to_update, records)


class _CachedReflection:
    """The reflecting model with its replies kept on the disk, so that no prompt is put to it twice."""

    def __init__(self, path: Path, reflect: Reflect) -> None:
        self._path = path
        self._reflect = reflect
        self._known = {record["prompt_sha256"]: record["text"] for record in read_json_lines(path)}
        self.count = 0

    def __call__(self, prompt: str | list[dict[str, Any]]) -> str:
        assert isinstance(prompt, str), "our records hold no pictures"
        key = hashlib.sha256(prompt.encode()).hexdigest()
        self.count += 1
        if key not in self._known:
            self._known[key] = self._reflect(prompt)
            append_json_lines(self._path, [{"prompt_sha256": key, "prompt": prompt, "text": self._known[key]}])
        return str(self._known[key])


class _SilentLogger:
    def log(self, message: str) -> None:
        """Drops GEPA's progress; the answers record ours."""


def _feedback(record: Mapping[str, Any]) -> str:
    verdict = "Right." if record["score"] >= 1 else f"Score {record['score']:.2f} of 1."
    references = record.get("references") or [record["reference"]]
    return f"{verdict} The answer in the data is: {' or: '.join(references)}"
