"""The contents of a run folder as typed values; only `read` and what it calls open files.

A run may have stopped anywhere: what does not exist yet is None or empty. A step that a continued run repeated counts once,
as its later event says.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.report import estimates, evaluation_details, exports, json_fields, training_events
from luthier.report.estimates import Estimate
from luthier.report.evaluation_details import EvaluationDetails
from luthier.report.exports import Exported
from luthier.report.json_fields import JsonObject
from luthier.report.training_events import DevCheck, SanityCheck, Step, Trained
from luthier.runs import Run
from luthier.runs.durable import read_json_lines

TUNED = "fine-tuned"
"""The arm that the verdict is about; all the others are prompts on the base weights."""

WHOLE_TEXT = "bits_per_byte"
"""The metric of documents: arms are scored on the text itself, so there are no answers to show."""

PROGRESS = ("data", "model", "arm", "step", "dev", "trained")
"""The kinds of events that show how far a run has come."""


@dataclass(frozen=True)
class Data:
    """The data report (ledger): which rows were kept, what the columns mean, how many items each split got."""

    format: str
    columns: dict[str, str]
    alternatives: tuple[str, ...]
    read: int
    kept: int
    dropped: dict[str, json_fields.Locations]
    notes: dict[str, json_fields.Locations]
    """Remarks on rows that were kept."""
    ignored: tuple[str, ...]
    """Files that are not data files and were not read."""
    synthetic: int
    """Rows that a rule or a model made."""
    train: int
    dev: int
    test: int
    files: tuple[str, ...]

    @property
    def dropped_rows(self) -> int:
        return sum(len(locations) for locations in self.dropped.values())

    @property
    def adds_up(self) -> bool:
        return self.read == self.kept + self.dropped_rows


@dataclass(frozen=True)
class Model:
    """The base model and how its weights were trained."""

    name: str
    parameters: int | None
    trainable: str
    """Which weights are trained: "all", or "adapters of rank 16"."""
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
    """How many of the answer's tokens are thoughts before it."""
    cut: int | None
    no_room: int
    """Questions whose prompt did not fit into the context."""
    shots: float | None
    """Examples before a question, a mean."""
    still_thinking: int | None
    """Questions without an answer, because the model was still thinking when its tokens ran out."""
    n: int
    dev_mean: float | None
    plan: JsonObject
    """Its entry in the plan: "who" answers ("base", "tuned", "endpoint") and settings such as "shots"."""

    @property
    def prompts_base(self) -> bool:
        """Whether it is a prompt for the base model, with which fine-tuning is compared."""
        who = json_fields.text(self.plan, "who") or ("tuned" if self.name == TUNED else "base")
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
    """What fine-tuning gains: above 0 it helped, even where lower scores are better."""
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
    """One arm's answer to one test item; the higher its score, the better."""

    item: str
    location: str
    """Where the item stands in the data, as tickets.jsonl:118."""
    arm: str
    question: str
    reference: str
    text: str
    thoughts: str
    score: float
    cut: bool
    still_thinking: bool


@dataclass(frozen=True)
class AnswerPair:
    """The answers of the best prompt arm and of the fine-tuned model to one question; `change` > 0: tuned is better."""

    prompt: Answer
    tuned: Answer
    change: float


@dataclass(frozen=True)
class RunContents:
    """Everything that a report is made from."""

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
    sanity_check: SanityCheck | None
    conformance: str
    """Whether rows and prompts are what transformers makes of the model's chat template, in a sentence."""
    estimates: tuple[Estimate, ...]
    last_event: JsonObject
    """The latest event that shows how far the run has come."""
    warnings: tuple[str, ...]
    verdict: Verdict | None
    verdict_file: JsonObject = field(repr=False)
    pairs: tuple[AnswerPair, ...]
    answered: dict[str, int]
    """How many test answers each arm has given."""
    evaluation: EvaluationDetails
    exports: tuple[Exported, ...] = ()
    """What has left, each as it was last checked."""

    @property
    def best_step(self) -> int | None:
        """The step with the best weights so far, which are kept."""
        if self.trained and self.trained.best_step is not None:
            return self.trained.best_step
        return next((check.step for check in reversed(self.dev) if check.best), None)

    @property
    def best_check(self) -> DevCheck | None:
        """The dev check with those weights."""
        return next((check for check in self.dev if check.step == self.best_step), None)

    @property
    def all_versions(self) -> dict[str, str]:
        """Versions of Luthier and of the libraries it uses."""
        return {"luthier": self.version, **self.versions}


def read(folder: Path) -> RunContents:
    """A run folder's contents; a UserError where there is no run, CorruptedState where a file is damaged."""
    run = Run(folder)
    record = run.metadata
    events = run.events()
    recipe_file = folder / "recipe.toml"
    recipe_text = recipe_file.read_text(encoding="utf-8", errors="replace") if recipe_file.exists() else ""
    verdict_file = json_fields.read_json_object(folder / "evaluation" / "verdict.json")
    plan = json_fields.read_json_object(folder / "evaluation" / "plan.json").get("plan") or {}
    verdict = _verdict(verdict_file, plan.get("arms") or {}) if verdict_file else None
    answers = [_answer(line) for line in read_json_lines(folder / "evaluation" / "answers.jsonl")]
    unique = {(answer.arm, answer.item): answer for answer in answers}
    return RunContents(
        folder=folder,
        state=run.state,
        reason=record.get("reason"),
        version=json_fields.text(record, "luthier"),
        created=json_fields.text(record, "created"),
        command=json_fields.text(record, "command"),
        versions=json_fields.texts(record.get("versions")),
        hashes=json_fields.texts(record.get("hashes")),
        recipe_text=recipe_text,
        recipe=json_fields.toml(recipe_text),
        data=training_events.last(events, "data", _data),
        model=training_events.last(events, "model", _model),
        steps=training_events.by_step(training_events.step(event) for event in events if event.get("kind") == "step"),
        dev=training_events.by_step(training_events.dev_check(event) for event in events if event.get("kind") == "dev"),
        trained=training_events.last(events, "trained", training_events.training_end),
        sanity_check=training_events.last(events, "selftest", training_events.sanity_check),
        conformance=training_events.last(events, "template", lambda event: json_fields.text(event, "sentence")) or "",
        estimates=estimates.read(events),
        last_event=next((event for event in reversed(events) if event.get("kind") in PROGRESS), {}),
        warnings=tuple(
            dict.fromkeys(json_fields.text(event, "message") for event in events if event.get("kind") == "warning")
        ),
        verdict=verdict,
        verdict_file=verdict_file,
        pairs=_pairs(list(unique.values()), verdict),
        answered=dict(Counter(arm for arm, _ in unique)),
        evaluation=evaluation_details.read(folder, verdict_file),
        exports=exports.read(events),
    )


def largest_losses(pairs: Sequence[AnswerPair], most: int = 10) -> list[AnswerPair]:
    """The answers that got worse by fine-tuning, the worst first."""
    return sorted((pair for pair in pairs if pair.change < 0), key=lambda pair: pair.change)[:most]


def largest_gains(pairs: Sequence[AnswerPair], most: int = 10) -> list[AnswerPair]:
    """The answers that got better by fine-tuning, the best first."""
    return sorted((pair for pair in pairs if pair.change > 0), key=lambda pair: -pair.change)[:most]


def _pairs(answers: Sequence[Answer], verdict: Verdict | None) -> tuple[AnswerPair, ...]:
    """Best prompt arm and tuned model side by side, in the order of the file; empty where answers have no text."""
    if verdict is None or verdict.metric == WHOLE_TEXT:
        return ()
    prompts = {answer.item: answer for answer in answers if answer.arm == verdict.best_prompt_arm}
    return tuple(
        AnswerPair(prompts[tuned.item], tuned, tuned.score - prompts[tuned.item].score)
        for tuned in answers
        if tuned.arm == TUNED and tuned.item in prompts
    )


def _verdict(values: JsonObject, arm_plans: JsonObject) -> Verdict:
    dev_means = values.get("dev_means") or {}
    arms = [
        _arm(name, arm, json_fields.number(dev_means, name), arm_plans.get(name))
        for name, arm in (values.get("arms") or {}).items()
    ]
    return Verdict(
        verdict=json_fields.text(values, "verdict"),
        sentence=json_fields.text(values, "sentence"),
        metric=json_fields.text(values, "metric"),
        metric_reason=json_fields.text(values, "metric_reason"),
        higher_is_better=bool(values.get("higher_is_better", True)),
        n=json_fields.count(values, "n") or 0,
        groups=json_fields.count(values, "groups"),
        best_prompt_arm=json_fields.text(values, "best_prompt_arm") or None,
        chosen_on=json_fields.text(values, "chosen_on") or "dev",
        difference=json_fields.number(values, "difference"),
        interval=json_fields.interval(values.get("interval")),
        confidence=json_fields.number(values, "confidence") or 0.95,
        p_value=json_fields.number(values, "p_value"),
        test=json_fields.text(values, "test"),
        alpha=json_fields.number(values, "alpha") or 0.05,
        margin=json_fields.number(values, "margin"),
        smallest_visible_effect=json_fields.number(values, "smallest_visible_effect"),
        fixed=json_fields.count(values, "fixed"),
        broken=json_fields.count(values, "broken"),
        same=json_fields.count(values, "same"),
        arms=tuple(sorted((arm for arm in arms if arm), key=lambda arm: arm.name == TUNED)),
    )


def _arm(name: str, values: JsonObject, dev_mean: float | None, plan: object) -> Arm | None:
    mean = json_fields.number(values, "mean")
    if mean is None:
        return None
    scores = values.get("scores") or {}
    return Arm(
        name=name,
        mean=mean,
        interval=json_fields.interval(values.get("interval")),
        scores={metric: score for metric in scores if (score := json_fields.number(scores, metric)) is not None},
        prompt_tokens=json_fields.number(values, "prompt_tokens"),
        answer_tokens=json_fields.number(values, "answer_tokens"),
        seconds=json_fields.number(values, "seconds"),
        thought_tokens=json_fields.number(values, "thought_tokens"),
        cut=json_fields.count(values, "cut"),
        no_room=json_fields.count(values, "no_room") or 0,
        shots=json_fields.number(values, "shots"),
        still_thinking=json_fields.count(values, "still_thinking"),
        n=json_fields.count(values, "n") or 0,
        dev_mean=dev_mean,
        plan=plan if isinstance(plan, dict) else {},
    )


def _answer(values: JsonObject) -> Answer:
    return Answer(
        item=json_fields.text(values, "item"),
        location=json_fields.text(values, "place"),
        arm=json_fields.text(values, "arm"),
        question=json_fields.text(values, "question"),
        reference="\n\nor\n\n".join(map(str, values.get("references") or ())) or json_fields.text(values, "reference"),
        text=json_fields.text(values, "answer"),
        thoughts=json_fields.text(values, "thoughts"),
        score=json_fields.number(values, "score") or 0.0,
        cut=values.get("finish") == "length",
        still_thinking=values.get("finish") == "thinking",
    )


def _data(values: JsonObject) -> Data:
    return Data(
        format=json_fields.text(values, "format"),
        columns=json_fields.texts(values.get("columns")),
        alternatives=tuple(str(name) for name in values.get("alternatives") or ()),
        read=json_fields.count(values, "read") or 0,
        kept=json_fields.count(values, "kept") or 0,
        dropped=json_fields.locations_by_reason(values.get("dropped"), values.get("dropped_rows")),
        notes=json_fields.locations_by_reason(values.get("notes"), values.get("noted_rows")),
        ignored=tuple(str(name) for name in values.get("ignored") or ()),
        synthetic=json_fields.count(values, "synthetic") or 0,
        train=json_fields.count(values, "train") or 0,
        dev=json_fields.count(values, "dev") or 0,
        test=json_fields.count(values, "test") or 0,
        files=tuple(str(name) for name in values.get("files") or ()),
    )


def _model(values: JsonObject) -> Model:
    return Model(
        name=json_fields.text(values, "name"),
        parameters=json_fields.count(values, "parameters"),
        trainable=json_fields.text(values, "trainable"),
        method=json_fields.text(values, "method"),
        precision=json_fields.text(values, "precision"),
        device=json_fields.text(values, "device"),
        template=json_fields.text(values, "template"),
    )
