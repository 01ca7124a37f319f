"""The Python interface: three lines from a data file to a model that answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from luthier import inference, pipeline
from luthier import recipe as recipes
from luthier.errors import UserError
from luthier.model import tuned
from luthier.runs import Run


@dataclass(frozen=True)
class Verdict:
    """What the evaluation found; prints as its sentence. `numbers` is the whole of evaluation/verdict.json."""

    word: str
    """BETTER, WORSE, EQUIVALENT, NOT SHOWN or, where test rows were trained on, WITHHELD."""
    sentence: str
    numbers: Mapping[str, Any]

    def __str__(self) -> str:
        return self.sentence


class Tuned:
    """A finished run: its verdict, its report, its model."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._run = Run(self.folder)

    def __repr__(self) -> str:
        return f"Tuned({str(self.folder)!r})"

    @property
    def verdict(self) -> Verdict:
        """Better, worse, or not shown; with the evidence."""
        path = self.folder / "evaluation" / "verdict.json"
        if not path.exists():
            raise UserError(f"no verdict yet: the run is {self._run.state}.", where=str(self.folder))
        numbers = json.loads(path.read_text(encoding="utf-8"))
        return Verdict(numbers["verdict"], numbers["sentence"], numbers)

    def evaluate(self, settings: Mapping[str, object] | None = None) -> Verdict:
        """The verdict given anew: missing answers are asked for, changed settings are noted as departures from the plan.

        `settings` are recipe keys of `evaluate`: `{"evaluate.arms": ["zero-shot", "rag", "fine-tuned"]}`.
        """
        pipeline.evaluate(self.folder, settings=settings)
        return self.verdict

    @property
    def report(self) -> Path:
        """The page of evidence."""
        return self.folder / "report.html"

    @cached_property
    def _model(self) -> inference.ChatModel:
        return inference.load_model(str(self.folder))

    @overload
    def ask(self, question: str, *, max_new_tokens: int = 512) -> str: ...
    @overload
    def ask(self, question: list[str] | tuple[str, ...], *, max_new_tokens: int = 512) -> list[str]: ...
    def ask(self, question: str | list[str] | tuple[str, ...], *, max_new_tokens: int = 512) -> str | list[str]:
        """The tuned model's answer to a question, or its answers to several, in their order."""
        return _ask(self._model, question, max_new_tokens)


class Adapters:
    """One base model in memory with the adapters of several runs: one per customer, say, switched per question."""

    def __init__(self, base: str | Path, adapters: Mapping[str, str | Path]) -> None:
        self._shared = tuned.load_shared(str(base), {name: Path(run) for name, run in adapters.items()})

    @overload
    def ask(self, question: str, *, adapter: str | None = None, max_new_tokens: int = 512) -> str: ...
    @overload
    def ask(
        self, question: list[str] | tuple[str, ...], *, adapter: str | None = None, max_new_tokens: int = 512
    ) -> list[str]: ...
    def ask(
        self, question: str | list[str] | tuple[str, ...], *, adapter: str | None = None, max_new_tokens: int = 512
    ) -> str | list[str]:
        """The answer with this adapter on, or without one, the base model's; of several questions, all of theirs."""
        with self._shared.using(adapter) as system:
            return _ask(inference.ChatModel(self._shared.lm, system, self._shared.thinking), question, max_new_tokens)


def finetune(
    data: str | Path | None = None,
    *,
    model: str | None = None,
    recipe: str | Path | None = None,
    run: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
) -> Tuned:
    """Fine-tune a model on a data file and compare it with prompting; continues an unfinished run in the folder `run`.

    `settings` are recipe keys: `{"train.epochs": 2}`. Raises `luthier.UserError` for errors that you can correct.
    """
    asked = recipes.load(Path(recipe) if recipe else None, data=Path(data) if data is not None else None)
    values = dict(settings or {}) | ({"model": model} if model else {})
    asked = recipes.replace(asked, values)
    return Tuned(pipeline.run(asked, Path(run) if run else None).folder)


@overload
def load(run: str | Path) -> Tuned: ...
@overload
def load(run: str | Path, *, adapters: Mapping[str, str | Path]) -> Adapters: ...
def load(run: str | Path, *, adapters: Mapping[str, str | Path] | None = None) -> Tuned | Adapters:
    """A run that was made before; or with `adapters` a base model with the runs that were tuned beside it:

    `luthier.load("smollm2-135m", adapters={"acme": "runs/acme"}).ask("Where is my order?", adapter="acme")`.
    """
    return Tuned(run) if adapters is None else Adapters(run, adapters)


def _ask(
    model: inference.ChatModel, question: str | list[str] | tuple[str, ...], max_new_tokens: int
) -> str | list[str]:
    questions = [question] if isinstance(question, str) else list(question)
    prompts = [inference.prompt(text, model.system) for text in questions]
    answers = [answer.text for answer in inference.ask(model, prompts, max_new_tokens=max_new_tokens)]
    return answers[0] if isinstance(question, str) else answers
