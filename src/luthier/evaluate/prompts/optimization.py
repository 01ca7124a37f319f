"""Searches for a better instruction with GEPA (Agrawal et al. 2025, arXiv 2507.19457), the optional extra `optimise`.

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
LEARN, CHECK = 24, 24  # training rows to reflect on, and to keep the better instruction by

Reflect = Callable[[str], str]
Answers = Callable[[str, Sequence[Item]], Sequence[Mapping[str, Any]]]
"""(instruction, items) → a line per item, as in the answers' file."""


@dataclass(frozen=True)
class Optimised:
    """The instruction that was found, the mean scores of both on the rows it was kept by, and what it cost."""

    instruction: str
    start: str
    mean: float
    start_mean: float
    answers: int
    reflections: int

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def installed() -> None:
    """Raises the message that says how to get GEPA, where it is not installed."""
    try:
        import gepa  # noqa: F401
    except ImportError:
        raise MachineError(
            'the arm "optimised" needs the package gepa: pip install "luthier[optimise]". Or leave the arm out.',
            where="evaluate.arms",
        ) from None


def search(
    train: Sequence[Item],
    *,
    start: str | None,
    answers: Answers,
    reflect: Reflect,
    budget: int,
    seed: int,
    folder: Path,
) -> Optimised:
    """The best instruction that about `budget` answers can find. Leaves optimised.json in `folder`."""
    result = folder / "optimised.json"
    if result.exists():
        return Optimised(**json.loads(result.read_text(encoding="utf-8")))
    installed()
    import gepa

    rows = sorted(train, key=lambda item: hashlib.sha256(f"optimise:{item.id}".encode()).digest())
    check = rows[: max(1, min(CHECK, len(rows) // 2))]
    learn = rows[len(check) : len(check) + LEARN] or check
    notes = _Notes(folder / "reflections.jsonl", reflect)
    found = gepa.optimize(
        seed_candidate={COMPONENT: start or START},
        trainset=list(learn),
        valset=list(check),
        adapter=_Adapter(answers),
        reflection_lm=notes,
        max_metric_calls=budget,
        seed=seed,
        logger=_Silent(),
        raise_on_exception=True,
    )
    best = found.best_candidate
    assert isinstance(best, dict)
    optimised = Optimised(
        instruction=best[COMPONENT],
        start=start or START,
        mean=float(found.val_aggregate_scores[found.best_idx]),
        start_mean=float(found.val_aggregate_scores[0]),
        answers=int(found.total_metric_calls or 0),
        reflections=notes.count,
    )
    write_atomic(result, json.dumps(optimised.to_json(), indent=2, ensure_ascii=False) + "\n")
    return optimised


class _Adapter:
    """What GEPA needs to know of our task: scores of an instruction, and what to say about wrong answers."""

    propose_new_texts = None

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def evaluate(self, batch: list[Item], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        """The answers to these items under the candidate's instruction, with their scores."""
        from gepa.core.adapter import EvaluationBatch

        lines = list(self._answers(candidate[COMPONENT], batch))
        scores = [float(line["score"]) for line in lines]
        outputs = [line["answer"] for line in lines]
        return EvaluationBatch(outputs, scores, lines if capture_traces else None)

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> dict[str, list[dict[str, str]]]:
        """Questions, answers, and for each what would have been right."""
        records = [
            {"Question": line["question"], "Answer given": line["answer"], "Feedback": _feedback(line)}
            for line in eval_batch.trajectories
        ]
        return dict.fromkeys(components_to_update, records)


class _Notes:
    """The reflecting model with a memory on the disk."""

    def __init__(self, path: Path, reflect: Reflect) -> None:
        self._path = path
        self._reflect = reflect
        self._known = {line["prompt_sha256"]: line["text"] for line in read_json_lines(path)}
        self.count = 0

    def __call__(self, prompt: str | list[dict[str, Any]]) -> str:
        assert isinstance(prompt, str), "our records hold no pictures"
        key = hashlib.sha256(prompt.encode()).hexdigest()
        self.count += 1
        if key not in self._known:
            self._known[key] = self._reflect(prompt)
            append_json_lines(self._path, [{"prompt_sha256": key, "prompt": prompt, "text": self._known[key]}])
        return str(self._known[key])


class _Silent:
    def log(self, message: str) -> None:
        """GEPA's progress; ours is told by the answers."""


def _feedback(line: Mapping[str, Any]) -> str:
    verdict = "Right." if line["score"] >= 1 else f"Score {line['score']:.2f} of 1."
    return f"{verdict} The answer in the data is: {line['reference']}"
