"""Every setting that nobody set, computed from the model and the data, with the reason in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from luthier import recipe as recipes
from luthier.data.dataset import Dataset
from luthier.data.splits import Splits
from luthier.errors import UserError
from luthier.evaluate import guards, metrics
from luthier.evaluate.prompts import demonstration_selection, instruction
from luthier.model import device, machine, memory
from luthier.model.replies import THINKING_TOKENS, Room, usual_thinking
from luthier.model.spec import ModelSpec
from luthier.recipe import Data, Recipe
from luthier.runs.durable import size
from luthier.train import memory_estimate, order
from luthier.train.memory_estimate import Memory
from luthier.train.throughput import SAVED_PER_SECOND

SMALL_MODEL = 1_000_000_000  # parameters up to which all weights are tuned: 16 GB of weights and optimizer state
SAVING_SHARE = 0.025  # of the training time, for checkpoints: what is aimed at, so that it stays below 3 %
TRAINING_SHARE_OF_PRODUCTS = 0.6  # how much of the speed of bare matrix products a training step reaches
SMALLER = 500_000_000  # parameters below which weights take a higher learning rate
STEPS_WANTED = 150  # updates that a small data set should give, so that the learning rate can fall gently
FEW_SHOT_TOKENS = 1024  # longest block of examples: what a prompt may cost on a processor


OF_THE_MOMENT = (
    "chat.date",
    "train.method",
    "train.precision",
    "train.tokens_per_batch",
    "train.gradient_checkpointing",
)
"""Settings that follow from day, machine and free memory: a run, and all points of a sweep, keep the first."""


@dataclass(frozen=True)
class Facts:
    """What the defaults depend on."""

    spec: ModelSpec
    context: int
    lengths: Sequence[int]
    """Tokens of each training row."""
    answer_lengths: Sequence[int]
    """Learnt tokens of each training row."""
    replies: Sequence[tuple[int, int]] = ()
    """Of each training row, the tokens of its longest thoughts and of its longest answer."""
    thinks: bool = False
    """Whether answers may begin with thoughts."""
    thinking_switch: str | None = None
    """The template's variable that lets a model think or not, if it reads one of the usual names."""
    day: date | None = None
    """The day that the chat template writes, if it writes one."""
    documents: bool = False
    pairs: bool = False
    """Whether rows carry a rejected answer besides the chosen one."""

    @property
    def parameters(self) -> int:
        return self.spec.parameters


@dataclass(frozen=True)
class Settled:
    """A recipe with every value set, the reason for each, and the memory that it needs, with what there is (bytes)."""

    recipe: Recipe
    reasons: dict[str, str]
    memory: Memory
    available: int

    @property
    def fits(self) -> bool:
        """Whether the training does; a rest is left for what no plan knows."""
        return self.memory.training <= memory_estimate.SPARE * self.available

    @property
    def of_the_moment(self) -> dict[str, tuple[Any, str]]:
        """The settings that would perhaps be others a minute later, with their reasons."""
        plain = self.recipe.model_dump(mode="json")
        return {key: (recipes.get(plain, key), self.reasons[key]) for key in OF_THE_MOMENT if key in self.reasons}


def longest_row(recipe: Recipe, context: int) -> tuple[int, str]:
    """`train.max_tokens`, needed before rows can be kept or dropped."""
    asked = recipe.train.max_tokens
    if asked and asked > context:
        return context, f"the model's context; {asked:,} were asked for"
    if asked:
        return asked, "as asked"
    return min(context, 2048), f"the model's context is {context:,} tokens; more than 2,048 would cost memory"


def settle(
    recipe: Recipe,
    dataset: Dataset,
    splits: Splits,
    facts: Facts,
    available: int,
    kept: Mapping[str, tuple[Any, str]] | None = None,
) -> Settled:
    """The recipe with every value set, and why; a value that was asked for stays, with the reason "as asked".

    Where that does not fit into the memory that is available, the smallest change among what nobody asked for that makes it
    fit is taken, if there is one. Of settings that were `kept` from an earlier time, value and reason are those.
    """
    if kept:
        kept = {key: pair for key, pair in kept.items() if recipes.get(recipe, key) is None}
        again = recipes.replace(recipe, {key: value for key, (value, _) in kept.items()})
        settled = _settled(again, dataset, splits, facts, available, {})
        return replace(settled, reasons=settled.reasons | {key: why for key, (_, why) in kept.items()})
    first = _settled(recipe, dataset, splits, facts, available, {})
    if first.fits:
        return first
    for change in memory_estimate.ways_to_fit(first.recipe.train):
        if all(getattr(recipe.train, name) is None for name in change):
            other = _settled(recipe, dataset, splits, facts, available, change)
            if other.fits:
                why = f"{size(first.memory.training)} of memory would be needed otherwise, {size(available)} are there"
                return replace(other, reasons=other.reasons | {f"train.{name}": why for name in change})
    return first


def _settled(
    recipe: Recipe, dataset: Dataset, splits: Splits, facts: Facts, available: int, change: memory_estimate.Change
) -> Settled:
    """The recipe with this change and every other value set."""
    changed = recipes.replace(recipe, {f"train.{name}": value for name, value in change.items()})
    recipe, reasons = _every_value(changed, dataset, splits, facts)
    load = memory_estimate.Load.of(facts.lengths, recipe.train)
    with memory.explain_out_of_memory("to train", memory_estimate.advice(recipe.train)):
        needed = memory_estimate.memory(facts.spec, recipe.train, load, device.pick_device())
    return Settled(recipe, reasons, needed, available)


def _every_value(recipe: Recipe, dataset: Dataset, splits: Splits, facts: Facts) -> tuple[Recipe, dict[str, str]]:
    """The recipe with every value set, and why; of a number beyond what there is, as many as there are."""
    limit = longest_row(recipe, facts.context)
    counts = {name: _item_count(recipe.data, name, len(getattr(splits, name))) for name in ("test", "dev")}
    possible = {"train.max_tokens": limit, **{f"data.{name}_items": count for name, count in counts.items()}}
    recipe = recipes.replace(
        recipe, {key: None for key, (value, _) in possible.items() if recipes.get(recipe, key) != value}
    )
    reasons: dict[str, str] = {}
    values: dict[str, Any] = {}

    def decide(key: str, value: object, reason: str) -> None:
        asked = recipes.get(recipe, key)
        if asked in (None, {}):
            values[key] = value
            reasons[key] = reason
        else:
            values[key] = asked
            reasons[key] = "as asked"

    documents = splits.train[0].conversation.is_document
    references = [item.conversation.answer for item in splits.train]
    decide("data.format", dataset.choice.format, "recognised from the columns")
    decide("data.columns", dataset.choice.columns, "recognised from the columns")
    for key, (value, reason) in possible.items():
        decide(key, value, reason)
    if facts.day:
        decide("chat.date", facts.day, "the day of this run; the chat template writes it into every prompt")
    _settle_training(recipe, facts, decide, values)
    if documents:
        decide("evaluate.metric", metrics.BITS_PER_BYTE, "documents: how well each unseen one is predicted")
    else:
        chosen = metrics.choose_metric(references, where=str(recipe.data.path))
        decide("evaluate.metric", chosen.name, chosen.reason)
    _settle_prompts(facts, splits, decide, values, asked_shots=recipe.evaluate.shots)
    words = None if documents else instruction.of_form(references)
    if words:
        decide("evaluate.instruction", words, "the form that the training answers share")
    case = guards.GuardInputs(splits.test, splits.train, recipe.evaluate, recipe.data.system, recipe.train.seed)
    decide("evaluate.guards", list(guards.active_guards(case)), "all that apply to this data")
    return recipes.replace(recipe, values), reasons


def _item_count(data: Data, name: str, count: int) -> tuple[int, str]:
    """`data.test_items` or `data.dev_items`, with its reason; `count` is how many there are."""
    path, asked = getattr(data, f"{name}_path"), getattr(data, f"{name}_items")
    if asked:
        return (
            count,
            f"whole groups of the {asked:,} asked for"
            if path is None
            else f"of {path}, where {asked:,} were asked for",
        )
    most = {"test": 300, "dev": 200}[name]
    return count, f"all usable rows of {path}" if path else f"10 % of the rows, at most {most}"


def _settle_prompts(
    facts: Facts, splits: Splits, decide: Any, values: dict[str, Any], *, asked_shots: int | None
) -> None:
    """How long answers and prompts may be, and what choosing among prompts may cost."""
    longest = _longest([answer for _, answer in facts.replies] or facts.answer_lengths)
    decide(
        "evaluate.max_new_tokens",
        min(512, max(16, _quarter_more(longest))),
        f"99 % of the answers have at most {longest} tokens; a quarter more",
    )
    decide("evaluate.thinking_tokens", *_room_for_thoughts(facts))
    room = Room(values["evaluate.max_new_tokens"], values["evaluate.thinking_tokens"])
    if room.thinking and room.tokens >= facts.context:
        told = f"{room.thinking:,} tokens for thoughts and {room.answer:,} for the answer leave no room for a question"
        raise UserError(
            f"{told}: the model looks back on {facts.context:,}. Set it lower.", where="evaluate.thinking_tokens"
        )
    costs = demonstration_selection.TokenCosts.of(facts.lengths, facts.answer_lengths, room.tokens)
    most = min(FEW_SHOT_TOKENS, facts.context / 2)
    shots = next((count for count in (8, 4, 2) if count * costs.demonstration <= most), 1)
    why = f"examples of about {costs.demonstration:.0f} tokens within {FEW_SHOT_TOKENS:,} tokens of prompt"
    decide("evaluate.shots", min(shots, len(splits.train)), why)
    fitting = [
        count
        for count in demonstration_selection.SHOT_COUNTS
        if count * costs.demonstration <= most and count <= len(splits.train)
    ]
    if asked_shots:
        decide("evaluate.shots_tried", [min(asked_shots, len(splits.train))], "evaluate.shots as asked")
    else:
        decide("evaluate.shots_tried", fitting or [1], why)
    questions = min(demonstration_selection.DEV_QUESTIONS, len(splits.dev))
    ways = [costs.tokens_to_ask(questions, values["evaluate.shots"], shared=shared) for shared in (True, False)]
    decide(
        "evaluate.dev_budget",
        sum(ways),
        f"one few-shot prompt on {questions} dev questions, and for the choice as much again as the retrieved arm costs",
    )


def _longest(lengths: Sequence[int]) -> int:
    """What 99 % are not longer than."""
    return sorted(lengths)[math.ceil(len(lengths) * 0.99) - 1]


def _quarter_more(tokens: int) -> int:
    return math.ceil(tokens * 1.25 / 8) * 8


def _room_for_thoughts(facts: Facts) -> tuple[int, str]:
    """`evaluate.thinking_tokens`, with its reason: as much as the learnt thoughts take, at least what is usual."""
    if not facts.thinks:
        return 0, "no thoughts come before the answers under this chat template"
    usual, longest = (
        usual_thinking(facts.context),
        _longest([thoughts for thoughts, _ in facts.replies] or [0]),
    )
    if (learnt := min(_quarter_more(longest), facts.context // 2)) > usual:
        return learnt, f"99 % of the learnt thoughts have at most {longest:,} tokens; a quarter more"
    why = "enough for most questions" if usual == THINKING_TOKENS else "a quarter of the model's context"
    way = f"; chat.variables.{facts.thinking_switch}=false lets it answer at once" if facts.thinking_switch else ""
    return usual, f"the chat template lets the model think before it answers; {why}{way}"


def _objective(facts: Facts) -> tuple[str, str]:
    """`train.objective`, with its reason."""
    if facts.documents:
        return "text", "the rows are texts, every token of which is learnt"
    if facts.pairs:
        return "sft", "the chosen answers are learnt; train.objective=dpo learns to prefer them to the rejected ones"
    return "sft", "the rows are questions with answers"


def _rate(method: str, objective: str, parameters: int) -> tuple[float, str]:
    """`train.learning_rate`, with its reason.

    Adapters take five to ten times the rate of full tuning (Hu et al. 2021; Biderman et al. 2024), and large models less
    than small ones. The optimizers of our table move weights by about the rate at each step, so all take the same.
    DPO takes a twentieth: it starts from a model that can answer, and rates of answering overshoot (Rafailov et al. 2023
    take 1e-6 for all weights).
    """
    small = parameters < SMALLER
    rate = (1e-4 if small else 2e-5) if method == "full" else (5e-4 if small else 2e-4)
    size = f"{'below' if small else 'from'} {SMALLER / 1e6:,.0f} M parameters"
    if objective == "dpo":
        return rate / 20, f"usual for {method} tuning {size}, divided by 20 for dpo"
    return rate, f"usual for {method} tuning {size}"


def _settle_training(recipe: Recipe, facts: Facts, decide: Any, values: dict[str, Any]) -> None:
    """The settings of `train`: later ones build on earlier ones."""
    rows, tokens = len(facts.lengths), sum(facts.lengths)
    small = facts.parameters <= SMALL_MODEL
    decide(
        "train.method",
        "full" if small else "lora",
        f"{facts.parameters / 1e6:,.0f} M parameters; all weights up to 1,000 M",
    )
    decide("train.objective", *_objective(facts))
    decide("train.epochs", 3 if rows < 2_000 else 2 if rows < 10_000 else 1, f"{rows:,} training rows")
    decide("train.learning_rate", *_rate(values["train.method"], values["train.objective"], facts.parameters))
    wanted = tokens * values["train.epochs"] / STEPS_WANTED
    step = min(16_384, max(1_024, 2 ** round(math.log2(max(1, wanted)))))
    decide(
        "train.tokens_per_step",
        step,
        f"about {STEPS_WANTED} steps from {tokens:,} training tokens an epoch, from 1,024 to 16,384",
    )
    decide(
        "train.tokens_per_batch",
        min(1_024, values["train.tokens_per_step"]),
        "bounds memory; does not change the result",
    )
    decide("train.gradient_checkpointing", False, "not needed: what a forward pass keeps fits into memory")
    if recipe.train.precision is None:
        decide("train.precision", *machine.precision(device.pick_device()))
    else:
        decide("train.precision", None, "")
    steps = len(
        order.Steps(
            facts.lengths,
            epochs=values["train.epochs"],
            max_steps=recipe.train.max_steps,
            seed=recipe.train.seed,
            tokens_per_step=values["train.tokens_per_step"],
            tokens_per_batch=values["train.tokens_per_batch"],
        )
    )
    decide("train.max_steps", steps, f"{values['train.epochs']} × {rows:,} rows")
    decide("train.warmup_steps", min(100, math.ceil(steps * 0.05)), f"5 % of {steps} steps")
    speed = machine.products_per_second(values["train.precision"], device.pick_device())
    decide("train.check_every", *check_interval(values, steps=steps, products_per_second=speed))


def check_interval(values: Mapping[str, Any], *, steps: int, products_per_second: float) -> tuple[int, str]:
    """`train.check_every`: four looks an epoch, but so far apart that saving stays below 3 % of the time.

    A checkpoint of full fine-tuning has 12 bytes for each weight (masters and two moments), and a step takes 6 operations for
    each weight and token, so the size of the model cancels out. Adapters are small; saving them costs next to nothing.
    """
    often = max(10, math.ceil(steps / values["train.epochs"] / 4))
    told = "four times an epoch, no more often than every 10 steps"
    if values["train.method"] == "full":
        step_seconds = 6 * values["train.tokens_per_step"] / (TRAINING_SHARE_OF_PRODUCTS * products_per_second)
        apart = math.ceil(12 / SAVED_PER_SECOND / (SAVING_SHARE * step_seconds))
        apart = min(apart, math.ceil(steps / 3))
        if apart > often:
            return apart, "so far apart that saving checkpoints stays below 3 % of the time, three times at least"
    return often, told
