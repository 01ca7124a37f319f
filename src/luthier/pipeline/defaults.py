"""Every setting that nobody set, computed from the model and the data, with the reason in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np

from luthier import recipe as recipes
from luthier.data.dataset import Dataset
from luthier.data.row_store import Answers
from luthier.data.splits import Splits
from luthier.errors import UserError
from luthier.evaluate import guards, metrics
from luthier.evaluate.prompts import demonstration_selection, instruction
from luthier.model import device, machine, memory
from luthier.model.replies import THINKING_TOKENS, TokenBudget, usual_thinking
from luthier.model.spec import ModelSpec
from luthier.recipe import Data, Recipe
from luthier.runs.durable import format_bytes
from luthier.train import memory_estimate, order
from luthier.train.memory_estimate import MemoryEstimate
from luthier.train.throughput import SAVE_BYTES_PER_SECOND

FULL_TUNING_UP_TO = 1_000_000_000  # parameters up to which all weights are tuned: 16 GB of weights and optimizer state
SAVING_SHARE = 0.025  # of the training time, for checkpoints: what is aimed at, so that it stays below 3 %
STEP_SHARE_OF_MATMUL_SPEED = 0.6  # how much of the speed of bare matrix products a training step reaches
HIGHER_RATE_BELOW = 500_000_000  # parameters below which weights take a higher learning rate
STEPS_WANTED = 150  # updates that a small data set should give, so that the learning rate can fall gently
FEW_SHOT_TOKENS = 1024  # longest block of examples: what a prompt may cost on a processor

FirstChoices = Mapping[str, tuple[Any, str]]
"""Settings that an earlier preparation of the same run took from day, machine and memory: value and reason."""

MACHINE_DEPENDENT = (
    "chat.date",
    "train.max_tokens",
    "train.method",
    "train.precision",
    "train.tokens_per_batch",
    "train.gradient_checkpointing",
)
"""Settings that depend on day, machine and free memory, with their reasons: a run and all points of a sweep keep the first."""


@dataclass(frozen=True)
class Facts:
    """What the defaults depend on."""

    spec: ModelSpec
    context: int
    lengths: np.ndarray
    """Tokens of each training row."""
    shared: np.ndarray
    """With how many tokens each training row begins like the one before it, where both are of one conversation; else 0."""
    answer_lengths: np.ndarray
    """Loss tokens of each training row."""
    longest_answers: np.ndarray
    longest_thoughts: np.ndarray
    """Of each training row, the tokens of its longest answer, and of its longest thoughts."""
    thinks: bool = False
    """Whether answers may begin with thoughts."""
    thinking_switch: str | None = None
    """The template's variable that lets a model think or not, if it reads one of the usual names."""
    day: date | None = None
    """The day that the chat template writes, if it writes one."""
    documents: bool = False
    labels: bool = False
    """Whether the data says that its answers are labels."""
    definition_tokens: float = 0.0
    """How many tokens of a row define functions, on average."""
    pairs: bool = False
    """Whether rows carry a rejected answer besides the chosen one."""
    longest_row: tuple[int, str] | None = None
    """`train.max_tokens` where nobody set it, with its reason; None: the context."""
    disliked: bool = False
    """Whether rows were dropped because people did not like their answer."""

    @property
    def parameters(self) -> int:
        return self.spec.parameters


@dataclass(frozen=True)
class Resolved:
    """A recipe with every value set, the reason for each, and the memory that it needs, with what is available (bytes)."""

    recipe: Recipe
    reasons: dict[str, str]
    memory: MemoryEstimate
    available: int

    @property
    def fits(self) -> bool:
        """Whether the training needs no more memory than is available."""
        return self.memory.fits(self.available)

    @property
    def has_headroom(self) -> bool:
        """Whether it also leaves what no estimate knows of; defaults are chosen so."""
        return self.memory.fits(memory_estimate.SPARE * self.available)

    @property
    def first_choices(self) -> dict[str, tuple[Any, str]]:
        """The settings that would perhaps be others a minute later, with their reasons."""
        plain = self.recipe.model_dump(mode="json")
        return {key: (recipes.get(plain, key), self.reasons[key]) for key in MACHINE_DEPENDENT if key in self.reasons}


class SettingsWithReasons:
    """The settings of a recipe by their dotted names, each with its reason: what was asked for, else what is `set`."""

    def __init__(self, asked: Recipe) -> None:
        self.asked = asked
        self.reasons: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def set(self, key: str, value: object, reason: str) -> None:
        """The value of a setting that nobody asked for; one that was asked for stays, with the reason "as asked"."""
        asked = recipes.get(self.asked, key)
        is_open = asked in (None, {})
        self._values[key], self.reasons[key] = (value, reason) if is_open else (asked, "as asked")

    def __getitem__(self, key: str) -> Any:
        """The value of a setting that has one by now."""
        return self._values[key]

    def recipe(self) -> Recipe:
        """The recipe with these values."""
        return recipes.replace(self.asked, self._values)


def longest_row(recipe: Recipe, context: int, by_default: tuple[int, str] | None = None) -> tuple[int, str]:
    """`train.max_tokens` with its reason, needed before rows can be kept or dropped."""
    asked = recipe.train.max_tokens
    if asked and asked > context:
        return context, f"the model's context; {asked:,} were asked for"
    if asked:
        return asked, "as asked"
    return by_default or (context, "the model's context")


def resolve(
    recipe: Recipe,
    dataset: Dataset,
    splits: Splits,
    facts: Facts,
    available: int,
    first: FirstChoices | None = None,
) -> Resolved:
    """The recipe with every value set, and why; a value that was asked for stays, with the reason "as asked".

    Where that does not fit into the memory that is available, the smallest change among what nobody asked for that makes it
    fit is taken, if there is one. The `first` choices of an earlier time stay, with their reasons.
    """
    if first:
        first = {key: pair for key, pair in first.items() if recipes.get(recipe, key) is None}
        again = recipes.replace(recipe, {key: value for key, (value, _) in first.items()})
        resolved = _resolve_with(again, dataset, splits, facts, available, {})
        return replace(resolved, reasons=resolved.reasons | {key: why for key, (_, why) in first.items()})
    plain = _resolve_with(recipe, dataset, splits, facts, available, {})
    if plain.has_headroom:
        return plain
    for change in memory_estimate.ways_to_fit(plain.recipe.train):
        if all(getattr(recipe.train, name) is None for name in change):
            other = _resolve_with(recipe, dataset, splits, facts, available, change)
            if other.has_headroom:
                needed, free = format_bytes(plain.memory.training), format_bytes(available)
                why = f"{needed} of memory would be needed otherwise, but only {free} is available"
                return replace(other, reasons=other.reasons | {f"train.{name}": why for name in change})
    return plain


def _resolve_with(
    recipe: Recipe, dataset: Dataset, splits: Splits, facts: Facts, available: int, change: memory_estimate.Change
) -> Resolved:
    """The recipe with this change and every other value set."""
    changed = recipes.replace(recipe, {f"train.{name}": value for name, value in change.items()})
    recipe, reasons = _every_value(changed, dataset, splits, facts)
    batch = memory_estimate.LargestBatch.of(facts.lengths, recipe.train)
    with memory.explain_out_of_memory("to train", memory_estimate.advice(recipe.train)):
        needed = memory_estimate.estimate_memory(facts.spec, recipe.train, batch, device.pick_device())
    return Resolved(recipe, reasons, needed, available)


def _every_value(recipe: Recipe, dataset: Dataset, splits: Splits, facts: Facts) -> tuple[Recipe, dict[str, str]]:
    """The recipe with every value set, and why; of a number beyond what the data has, as many as it has."""
    limit = longest_row(recipe, facts.context, facts.longest_row)
    counts = {
        name: _item_count(recipe.data, name, len(getattr(splits, name)), by_document=dataset.ledger.is_divided)
        for name in ("test", "dev")
    }
    possible = {"train.max_tokens": limit, **{f"data.{name}_items": count for name, count in counts.items()}}
    beyond = {key: None for key, (value, _) in possible.items() if recipes.get(recipe, key) != value}
    settings = SettingsWithReasons(recipes.replace(recipe, beyond))

    if not dataset.choice.others:  # rows of several formats are recognised again
        settings.set("data.format", dataset.choice.format, "recognised from the columns")
        settings.set("data.columns", dataset.choice.columns, "recognised from the columns")
    for key, (value, reason) in possible.items():
        settings.set(key, value, reason)
    if facts.day:
        settings.set("chat.date", facts.day, "the day of this run; the chat template writes it into every prompt")
    _resolve_training(settings, facts)
    _resolve_evaluation(settings, facts, splits)
    return settings.recipe(), settings.reasons


def _item_count(data: Data, name: str, count: int, *, by_document: bool) -> tuple[int, str]:
    """`data.test_items` or `data.dev_items`, with its reason; `count` is how many there are."""
    path, asked = getattr(data, f"{name}_path"), getattr(data, f"{name}_items")
    if asked:
        return (
            count,
            f"{asked:,} were asked for; only whole groups are taken"
            if path is None
            else f"of {path}, where {asked:,} were asked for",
        )
    if by_document and path is None:
        return (
            count,
            f"those of {'a quarter' if name == 'test' else 'an eighth'} of the documents, by a hash of their names",
        )
    most = {"test": 300, "dev": 200}[name]
    return count, f"all usable rows of {path}" if path else f"10 % of the rows, at most {most}"


def _resolve_evaluation(settings: SettingsWithReasons, facts: Facts, splits: Splits) -> None:
    """The settings of `evaluate`: how answers are scored, what prompts say and cost, what is watched besides."""
    asked = settings.asked
    references = Answers.of(splits.train)
    if facts.documents:
        settings.set("evaluate.metric", metrics.BITS_PER_BYTE, "documents: how well each unseen one is predicted")
    else:
        chosen = metrics.choose_metric(references, are_labels=facts.labels, where=str(asked.data.path))
        settings.set("evaluate.metric", chosen.name, chosen.reason)
    _resolve_prompts(settings, facts, splits)
    words = None if facts.documents else instruction.from_answers(references, are_labels=facts.labels)
    if words:
        settings.set("evaluate.instruction", words, "the form that the training answers share")
    case = guards.GuardInputs(splits.test, splits.train, asked.evaluate, asked.data.system, asked.train.seed)
    settings.set("evaluate.guards", list(guards.active_guards(case)), "all that apply to this data")


def _resolve_prompts(settings: SettingsWithReasons, facts: Facts, splits: Splits) -> None:
    """How long answers and prompts may be, and what choosing among prompts may cost."""
    longest = _percentile_99(facts.longest_answers)
    settings.set(
        "evaluate.max_new_tokens",
        min(512, max(16, _quarter_more(longest))),
        f"99 % of the answers have at most {longest} tokens; a quarter more",
    )
    settings.set("evaluate.thinking_tokens", *_room_for_thoughts(facts))
    room = TokenBudget(settings["evaluate.max_new_tokens"], settings["evaluate.thinking_tokens"])
    if room.thinking and room.tokens >= facts.context:
        sizes = f"{room.thinking:,} tokens for thoughts and {room.answer:,} for the answer leave no room for a question"
        raise UserError(
            f"{sizes}: the model's context holds {facts.context:,}. Set it lower.", where="evaluate.thinking_tokens"
        )
    costs = demonstration_selection.TokenCosts.of(
        facts.lengths, facts.answer_lengths, room.tokens, facts.definition_tokens
    )
    most = min(FEW_SHOT_TOKENS, facts.context / 2)
    shots = next((count for count in (8, 4, 2) if count * costs.demonstration <= most), 1)
    why = f"examples of about {costs.demonstration:.0f} tokens within {FEW_SHOT_TOKENS:,} tokens of prompt"
    settings.set("evaluate.shots", min(shots, len(splits.train)), why)
    fitting = [
        count
        for count in demonstration_selection.SHOT_COUNTS
        if count * costs.demonstration <= most and count <= len(splits.train)
    ]
    if asked_shots := settings.asked.evaluate.shots:
        settings.set("evaluate.shots_tried", [min(asked_shots, len(splits.train))], "evaluate.shots as asked")
    else:
        settings.set("evaluate.shots_tried", fitting or [1], why)
    questions = min(demonstration_selection.DEV_QUESTIONS, len(splits.dev))
    ways = [costs.tokens_to_ask(questions, settings["evaluate.shots"], shared=shared) for shared in (True, False)]
    settings.set(
        "evaluate.dev_budget",
        sum(ways),
        f"tokens that one few-shot prompt and the retrieved arm together need on {questions} dev questions",
    )


def _percentile_99(lengths: np.ndarray) -> int:
    return int(np.sort(lengths)[math.ceil(len(lengths) * 0.99) - 1])


def _quarter_more(tokens: int) -> int:
    """A quarter more, rounded up to a multiple of 8."""
    return math.ceil(tokens * 1.25 / 8) * 8


def _room_for_thoughts(facts: Facts) -> tuple[int, str]:
    """`evaluate.thinking_tokens`, with its reason: as much as the thoughts in training answers take, at least what is usual."""
    if not facts.thinks:
        return 0, "the chat template has no thinking"
    usual = usual_thinking(facts.context)
    longest = _percentile_99(facts.longest_thoughts)
    if (trained := min(_quarter_more(longest), facts.context // 2)) > usual:
        return trained, f"99 % of the thoughts in the training answers have at most {longest:,} tokens; a quarter more"
    why = "enough for most questions" if usual == THINKING_TOKENS else "a quarter of the model's context"
    way = f"; chat.variables.{facts.thinking_switch}=false lets it answer at once" if facts.thinking_switch else ""
    return usual, f"the chat template lets the model think before it answers; {why}{way}"


def _objective(facts: Facts) -> tuple[str, str]:
    """`train.objective`, with its reason."""
    if facts.documents:
        return "text", "the rows are texts: every token counts in the loss"
    if facts.pairs:
        return "sft", "trains on the chosen answers; train.objective=dpo trains to prefer them to the rejected ones"
    if facts.disliked:
        return "sft", "trains on the answers that people liked; train.objective=kto learns from the disliked ones too"
    return "sft", "the rows are questions with answers"


def _rate(method: str, objective: str, parameters: int) -> tuple[float, str]:
    """`train.learning_rate`, with its reason.

    Adapters take five to ten times the rate of full tuning (Hu et al. 2021; Biderman et al. 2024), and large models less
    than small ones. The optimizers of our table move weights by about the rate at each step, so all take the same.
    DPO and KTO take a twentieth: they start from a model that can answer, and rates of answering overshoot (Rafailov et al.
    2023 take 1e-6 for all weights).
    """
    small = parameters < HIGHER_RATE_BELOW
    rate = (1e-4 if small else 2e-5) if method == "full" else (5e-4 if small else 2e-4)
    size = f"{'below' if small else 'from'} {HIGHER_RATE_BELOW / 1e6:,.0f} M parameters"
    if objective in ("dpo", "kto"):
        return rate / 20, f"usual for {method} tuning {size}, divided by 20 for {objective}"
    return rate, f"usual for {method} tuning {size}"


def default_method(parameters: int) -> str:
    """`train.method` by default."""
    return "full" if parameters <= FULL_TUNING_UP_TO else "lora"


def _resolve_training(settings: SettingsWithReasons, facts: Facts) -> None:
    """The settings of `train`: later ones build on earlier ones."""
    rows, tokens = len(facts.lengths), int(facts.lengths.sum())
    settings.set(
        "train.method",
        default_method(facts.parameters),
        f"{facts.parameters / 1e6:,.0f} M parameters; all weights up to 1,000 M",
    )
    settings.set("train.objective", *_objective(facts))
    settings.set("train.epochs", 3 if rows < 2_000 else 2 if rows < 10_000 else 1, f"{rows:,} training rows")
    settings.set("train.learning_rate", *_rate(settings["train.method"], settings["train.objective"], facts.parameters))
    wanted = tokens * settings["train.epochs"] / STEPS_WANTED
    step = min(16_384, max(1_024, 2 ** round(math.log2(max(1, wanted)))))
    settings.set(
        "train.tokens_per_step",
        step,
        f"about {STEPS_WANTED} steps in all; {tokens:,} training tokens an epoch; at least 1,024, at most 16,384",
    )
    settings.set(
        "train.tokens_per_batch",
        min(1_024, settings["train.tokens_per_step"]),
        "limits memory; does not change the result",
    )
    settings.set("train.gradient_checkpointing", False, "not needed: saved activations fit into memory")
    if settings.asked.train.precision is None:
        settings.set("train.precision", *machine.precision(device.pick_device()))
    else:
        settings.set("train.precision", None, "")
    steps = len(
        order.Steps(
            facts.lengths,
            epochs=settings["train.epochs"],
            max_steps=settings.asked.train.max_steps,
            seed=settings.asked.train.seed,
            tokens_per_step=settings["train.tokens_per_step"],
            tokens_per_batch=settings["train.tokens_per_batch"],
            shared=facts.shared,
        )
    )
    settings.set("train.max_steps", steps, f"{settings['train.epochs']} × {rows:,} rows")
    settings.set("train.warmup_steps", min(100, math.ceil(steps * 0.05)), f"5 % of {steps} steps")
    speed = machine.matmul_flops_per_second(settings["train.precision"], device.pick_device())
    settings.set("train.check_every", *check_interval(settings, steps=steps, products_per_second=speed))


def check_interval(settings: SettingsWithReasons, *, steps: int, products_per_second: float) -> tuple[int, str]:
    """`train.check_every`: four looks an epoch, but so far apart that saving stays below 3 % of the time.

    A checkpoint of full fine-tuning has 12 bytes for each weight (masters and two moments), and a step takes 6 operations for
    each weight and token, so the size of the model cancels out. Adapters are small; saving them costs next to nothing.
    """
    often = max(10, math.ceil(steps / settings["train.epochs"] / 4))
    why = "four times an epoch, no more often than every 10 steps"
    if settings["train.method"] == "full":
        step_seconds = 6 * settings["train.tokens_per_step"] / (STEP_SHARE_OF_MATMUL_SPEED * products_per_second)
        apart = math.ceil(12 / SAVE_BYTES_PER_SECOND / (SAVING_SHARE * step_seconds))
        apart = min(apart, math.ceil(steps / 3))
        if apart > often:
            return apart, "rarely enough that saving takes less than 3 % of the time, but at least three times"
    return often, why
