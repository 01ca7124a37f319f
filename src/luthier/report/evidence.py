"""What a run folder proves, as typed values: `read(folder)` is the only place of the report that opens files.

A run may have stopped anywhere. What is not there yet is None or empty; the story says so. Steps that a continued run
repeated are counted once: the later line holds.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.report import estimates, fields, proof, training
from luthier.report.estimates import Foresight
from luthier.report.fields import Fields
from luthier.report.proof import Proof
from luthier.report.training import DevCheck, SelfTest, Step, Trained
from luthier.runs import Run
from luthier.runs.durable import read_json_lines

TUNED = "fine-tuned"
"""The arm that the verdict is about; all the others are prompts on the base weights."""

WHOLE_TEXT = "bits_per_byte"
"""The metric of documents: arms are scored on the text itself, so there are no answers to show."""

PROGRESS = ("data", "model", "arm", "step", "dev", "trained")
"""The kinds of events that tell how far a run has come."""


@dataclass(frozen=True)
class Data:
    """The row ledger, what the columns mean, and how many items each split got."""

    format: str
    columns: dict[str, str]
    alternatives: tuple[str, ...]
    read: int
    kept: int
    dropped: dict[str, tuple[str, ...]]
    notes: dict[str, tuple[str, ...]]
    """Remarks on rows that were kept, or on files."""
    train: int
    dev: int
    test: int
    files: tuple[str, ...]

    @property
    def dropped_rows(self) -> int:
        return sum(len(places) for places in self.dropped.values())

    @property
    def adds_up(self) -> bool:
        return self.read == self.kept + self.dropped_rows


@dataclass(frozen=True)
class Model:
    """The base model and how its weights were trained."""

    name: str
    parameters: int | None
    trainable: str
    """What of it learns: "all", or "adapters of rank 16"."""
    method: str
    precision: str
    device: str
    template: str


@dataclass(frozen=True)
class Arm:
    """What one arm scored and cost on the test items; times and token counts are means per answer."""

    name: str
    mean: float
    interval: tuple[float, float] | None
    scores: dict[str, float]
    prompt_tokens: float | None
    answer_tokens: float | None
    seconds: float | None
    thought_tokens: float | None
    """Of the answer's tokens, those of its thoughts."""
    cut: int | None
    no_room: int
    """Questions whose prompt did not fit into the context."""
    shots: float | None
    """Examples before a question, on average."""
    still_thinking: int | None
    """Answers that never came, because the model was still thinking when its tokens ran out."""
    n: int
    dev_mean: float | None
    planned: Fields
    """What the plan says of it: "who" answers ("base", "tuned", "endpoint") and its settings, such as "shots"."""

    @property
    def prompts_base(self) -> bool:
        """Is it a prompt on the base model, so a rival of fine-tuning?"""
        who = fields.text(self.planned, "who") or ("tuned" if self.name == TUNED else "base")
        return who == "base"


@dataclass(frozen=True)
class Verdict:
    """The planned comparison: the fine-tuned model against the best prompt arm as chosen on dev."""

    verdict: str
    sentence: str
    metric: str
    metric_reason: str
    higher_is_better: bool
    n: int
    groups: int | None
    best_prompt_arm: str | None
    chosen_on: str
    difference: float | None
    """What fine-tuning gains: above 0 it helped, also where lower scores are better."""
    interval: tuple[float, float] | None
    confidence: float
    p_value: float | None
    test: str
    alpha: float
    margin: float | None
    smallest_visible_effect: float | None
    fixed: int | None
    broken: int | None
    same: int | None
    arms: tuple[Arm, ...]

    def arm(self, name: str | None) -> Arm | None:
        return next((arm for arm in self.arms if arm.name == name), None)


@dataclass(frozen=True)
class Answer:
    """One arm's answer to one test item; every answer's score is higher-is-better."""

    item: str
    place: str
    arm: str
    question: str
    reference: str
    text: str
    thoughts: str
    score: float
    cut: bool
    still_thinking: bool


@dataclass(frozen=True)
class Pair:
    """One question, answered by the best prompt arm and by the fine-tuned model; `change` > 0: the tuned is better."""

    prompt: Answer
    tuned: Answer
    change: float


@dataclass(frozen=True)
class Evidence:
    """Everything that the report tells, and nothing else."""

    folder: Path
    state: str
    reason: str | None
    version: str
    created: str
    command: str
    versions: dict[str, str]
    hashes: dict[str, str]
    recipe_text: str
    recipe: dict[str, Any]
    data: Data | None
    model: Model | None
    steps: tuple[Step, ...]
    dev: tuple[DevCheck, ...]
    trained: Trained | None
    selftest: SelfTest | None
    conformance: str
    """Whether rows and prompts are those that others make of the model's chat template, in one line."""
    foresight: tuple[Foresight, ...]
    last_event: Fields
    """The latest event that tells how far the run has come."""
    warnings: tuple[str, ...]
    verdict: Verdict | None
    verdict_file: Fields = field(repr=False)
    pairs: tuple[Pair, ...]
    answered: dict[str, int]
    """How many test answers each arm has given."""
    proof: Proof

    @property
    def best_step(self) -> int | None:
        """The step whose weights were kept, or are the best so far."""
        if self.trained and self.trained.best_step is not None:
            return self.trained.best_step
        return next((check.step for check in reversed(self.dev) if check.best), None)

    @property
    def kept_check(self) -> DevCheck | None:
        """The look at dev with those weights."""
        return next((check for check in self.dev if check.step == self.best_step), None)

    @property
    def all_versions(self) -> dict[str, str]:
        """Luthier's version and those of what it stands on."""
        return {"luthier": self.version, **self.versions}


def read(folder: Path) -> Evidence:
    """The evidence in a run folder; a UserError where there is no run, CorruptedState where a file is damaged."""
    run = Run(folder)
    record = run.record_file
    events = run.events()
    recipe_file = folder / "recipe.toml"
    recipe_text = recipe_file.read_text(encoding="utf-8", errors="replace") if recipe_file.exists() else ""
    verdict_file = fields.json_object(folder / "evaluation" / "verdict.json")
    plan = fields.json_object(folder / "evaluation" / "plan.json").get("plan") or {}
    verdict = _verdict(verdict_file, plan.get("arms") or {}) if verdict_file else None
    answers = [_answer(line) for line in read_json_lines(folder / "evaluation" / "answers.jsonl")]
    unique = {(answer.arm, answer.item): answer for answer in answers}
    return Evidence(
        folder=folder,
        state=run.state,
        reason=record.get("reason"),
        version=fields.text(record, "luthier"),
        created=fields.text(record, "created"),
        command=fields.text(record, "command"),
        versions=fields.texts(record.get("versions")),
        hashes=fields.texts(record.get("hashes")),
        recipe_text=recipe_text,
        recipe=fields.toml(recipe_text),
        data=training.last(events, "data", _data),
        model=training.last(events, "model", _model),
        steps=training.by_step(training.step(event) for event in events if event.get("kind") == "step"),
        dev=training.by_step(training.look(event) for event in events if event.get("kind") == "dev"),
        trained=training.last(events, "trained", training.end),
        selftest=training.last(events, "selftest", training.selftest),
        conformance=training.last(events, "template", lambda event: fields.text(event, "sentence")) or "",
        foresight=estimates.read(events),
        last_event=next((event for event in reversed(events) if event.get("kind") in PROGRESS), {}),
        warnings=tuple(
            dict.fromkeys(fields.text(event, "message") for event in events if event.get("kind") == "warning")
        ),
        verdict=verdict,
        verdict_file=verdict_file,
        pairs=_pairs(list(unique.values()), verdict),
        answered=dict(Counter(arm for arm, _ in unique)),
        proof=proof.read(folder, verdict_file),
    )


def worse(pairs: Sequence[Pair], most: int = 10) -> list[Pair]:
    """The answers that lost most by fine-tuning, the greatest loss first."""
    return sorted((pair for pair in pairs if pair.change < 0), key=lambda pair: pair.change)[:most]


def better(pairs: Sequence[Pair], most: int = 10) -> list[Pair]:
    """The answers that gained most by fine-tuning, the greatest gain first."""
    return sorted((pair for pair in pairs if pair.change > 0), key=lambda pair: -pair.change)[:most]


def _pairs(answers: Sequence[Answer], verdict: Verdict | None) -> tuple[Pair, ...]:
    """Best prompt arm and tuned model side by side, in the order of the file; empty where answers have no text."""
    if verdict is None or verdict.metric == WHOLE_TEXT:
        return ()
    prompts = {answer.item: answer for answer in answers if answer.arm == verdict.best_prompt_arm}
    return tuple(
        Pair(prompts[tuned.item], tuned, tuned.score - prompts[tuned.item].score)
        for tuned in answers
        if tuned.arm == TUNED and tuned.item in prompts
    )


def _verdict(values: Fields, planned: Fields) -> Verdict:
    dev_means = values.get("dev_means") or {}
    arms = [
        _arm(name, arm, fields.number(dev_means, name), planned.get(name))
        for name, arm in (values.get("arms") or {}).items()
    ]
    return Verdict(
        verdict=fields.text(values, "verdict"),
        sentence=fields.text(values, "sentence"),
        metric=fields.text(values, "metric"),
        metric_reason=fields.text(values, "metric_reason"),
        higher_is_better=bool(values.get("higher_is_better", True)),
        n=fields.count(values, "n") or 0,
        groups=fields.count(values, "groups"),
        best_prompt_arm=fields.text(values, "best_prompt_arm") or None,
        chosen_on=fields.text(values, "chosen_on") or "dev",
        difference=fields.number(values, "difference"),
        interval=fields.interval(values.get("interval")),
        confidence=fields.number(values, "confidence") or 0.95,
        p_value=fields.number(values, "p_value"),
        test=fields.text(values, "test"),
        alpha=fields.number(values, "alpha") or 0.05,
        margin=fields.number(values, "margin"),
        smallest_visible_effect=fields.number(values, "smallest_visible_effect"),
        fixed=fields.count(values, "fixed"),
        broken=fields.count(values, "broken"),
        same=fields.count(values, "same"),
        arms=tuple(sorted((arm for arm in arms if arm), key=lambda arm: arm.name == TUNED)),
    )


def _arm(name: str, values: Fields, dev_mean: float | None, planned: object) -> Arm | None:
    mean = fields.number(values, "mean")
    if mean is None:
        return None
    scores = values.get("scores") or {}
    return Arm(
        name=name,
        mean=mean,
        interval=fields.interval(values.get("interval")),
        scores={metric: score for metric in scores if (score := fields.number(scores, metric)) is not None},
        prompt_tokens=fields.number(values, "prompt_tokens"),
        answer_tokens=fields.number(values, "answer_tokens"),
        seconds=fields.number(values, "seconds"),
        thought_tokens=fields.number(values, "thought_tokens"),
        cut=fields.count(values, "cut"),
        no_room=fields.count(values, "no_room") or 0,
        shots=fields.number(values, "shots"),
        still_thinking=fields.count(values, "still_thinking"),
        n=fields.count(values, "n") or 0,
        dev_mean=dev_mean,
        planned=planned if isinstance(planned, dict) else {},
    )


def _answer(values: Fields) -> Answer:
    return Answer(
        item=fields.text(values, "item"),
        place=fields.text(values, "place"),
        arm=fields.text(values, "arm"),
        question=fields.text(values, "question"),
        reference=fields.text(values, "reference"),
        text=fields.text(values, "answer"),
        thoughts=fields.text(values, "thoughts"),
        score=fields.number(values, "score") or 0.0,
        cut=values.get("finish") == "length",
        still_thinking=values.get("finish") == "thinking",
    )


def _data(values: Fields) -> Data:
    return Data(
        format=fields.text(values, "format"),
        columns=fields.texts(values.get("columns")),
        alternatives=tuple(str(name) for name in values.get("alternatives") or ()),
        read=fields.count(values, "read") or 0,
        kept=fields.count(values, "kept") or 0,
        dropped=fields.places(values.get("dropped")),
        notes=fields.places(values.get("notes")),
        train=fields.count(values, "train") or 0,
        dev=fields.count(values, "dev") or 0,
        test=fields.count(values, "test") or 0,
        files=tuple(str(name) for name in values.get("files") or ()),
    )


def _model(values: Fields) -> Model:
    return Model(
        name=fields.text(values, "name"),
        parameters=fields.count(values, "parameters"),
        trainable=fields.text(values, "trainable"),
        method=fields.text(values, "method"),
        precision=fields.text(values, "precision"),
        device=fields.text(values, "device"),
        template=fields.text(values, "template"),
    )
