"""One dial of pretraining, parameters or minutes or compute, and what follows from it, each value with its reason.

Of a model that is there already, only what it learns from and how fast follow.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedConfig

from luthier import recipe as recipes
from luthier.errors import UserError
from luthier.model import device, fresh, machine
from luthier.model.fresh import Shape
from luthier.pipeline.defaults import SettingsWithReasons, check_interval
from luthier.recipe import Pretrain, PretrainRecipe, Train

TOKENS_PER_PARAMETER = 20
"""Tokens to train on for each weight, where compute is what is short (Hoffmann et al. 2022)."""
PASSES = 4
"""Passes over a corpus that are worth nearly as much as new text (Muennighoff et al. 2023)."""
MINUTES = 10.0
STEPS_WANTED = 1_500
SMALLEST_STEP, LARGEST_STEP = 1_024, 524_288
USED = 0.9
"""How much of the minutes is planned for steps; the rest is for dev checks and checkpoints."""
EFFICIENCY = 0.3
"""How much of the speed of bare matrix products a small model reaches, before it is measured."""
VOCABULARIES = tuple(2**power for power in range(9, 16))
TABLE_SHARE = 0.3
"""The most of the weights that a vocabulary's table may take by default."""

OF_A_FRESH_ONE = 0.1
"""Share of the rate for random weights that a given model takes: at the whole of it, much of what it knew would go."""


@dataclass(frozen=True)
class Existing:
    """A model that is there already, and how many tokens the rows have that it learns from."""

    config: PreTrainedConfig
    parameters: int
    context: int


Measure = Callable[[Shape | Existing, Train], float]
"""A model's size and the settings of its training → tokens a second."""


@dataclass(frozen=True)
class Scaled:
    """A recipe with every value set, the reason for each, and the model's size."""

    recipe: PretrainRecipe
    reasons: dict[str, str]
    shape: Shape | Existing


def config_of(shape: Shape | Existing) -> PreTrainedConfig:
    """The model as transformers knows it."""
    return shape.config if isinstance(shape, Existing) else fresh.config_of(shape)


def check(asked: PretrainRecipe) -> None:
    """Refuses settings that have no effect on a pretraining, and dials that contradict each other, all at once."""
    dials = asked.pretrain
    if dials.compute and dials.minutes:
        raise UserError("compute and minutes say the same in two ways; set one of them.", where="pretrain.compute")
    if asked.data.path is None:
        raise UserError("no corpus: name a file or folder, or the folder of a run to continue.", where="data.path")
    if asked.train.method not in (None, "full") or asked.train.objective not in (None, "text"):
        message = "all weights are trained, and on whole texts; leave train.method and train.objective out."
        raise UserError(message, where="train.method")
    unset = type(asked)()
    idle = [
        key
        for key in recipes.keys(asked)
        if key not in asked.keys_read() and recipes.get(asked, key) != recipes.get(unset, key)
    ]
    if idle:
        they = "it" if len(idle) == 1 else "them"
        raise UserError(
            f"{', '.join(idle)} would have no effect on {_what(asked, idle)}; leave {they} out.", where=idle[0]
        )
    if dials.tokenizer is not None and dials.vocab:
        message = "the tokenizer has its vocabulary already; leave out one of pretrain.tokenizer and pretrain.vocab."
        raise UserError(message, where="pretrain.vocab")


def _what(asked: PretrainRecipe, idle: list[str]) -> str:
    """What these settings have no effect on."""
    if asked.continues and all(key.startswith("pretrain.") for key in idle):
        return "a model that is there already and has its own"
    if any(key in ("pretrain.rows", "pretrain.rows_weight") for key in idle):
        return "random weights, which cannot answer yet (name a model that can: model=…)"
    return "a pretraining"


def first_size(dials: Pretrain) -> int:
    """About how many weights the model will have, before anything is known of the corpus."""
    if dials.parameters:
        return dials.parameters
    if dials.width and dials.layers:
        return 12 * dials.width**2 * dials.layers
    where = device.pick_device()
    speed = EFFICIENCY * machine.matmul_flops_per_second(machine.precision(where)[0], where)
    compute = dials.compute or 60 * (dials.minutes or MINUTES) * speed
    return max(100_000, round(math.sqrt(compute / (6 * TOKENS_PER_PARAMETER))))


def vocabulary(dials: Pretrain) -> tuple[int, str]:
    """`pretrain.vocab` with its reason: the largest whose table takes no more than its share of the weights."""
    if dials.vocab:
        return dials.vocab, "as asked"
    size = first_size(dials)
    fitting = [each for each in VOCABULARIES if each * _width(size) <= TABLE_SHARE * size]
    return max(
        fitting, default=VOCABULARIES[0]
    ), f"its table takes at most {TABLE_SHARE:.0%} of {_millions(size)} weights"


def _width(parameters: int) -> float:
    """About how wide a model of this size is: 12 · width² · depth weights, 32 times as wide as deep or more."""
    return float((parameters / 12 * 32) ** (1 / 3))


def resolve(
    asked: PretrainRecipe, *, tokens: int, vocabulary: int, made: bool, measure: Measure
) -> Scaled:  # fmt: skip
    """The recipe for a corpus of so many training tokens with every value set; what was asked for stays.

    `made` says that the tokenizer was made of the corpus. `measure` is called only where the minutes decide.
    """
    settings, dials = SettingsWithReasons(asked), asked.pretrain
    settings.set("train.method", "full", "all weights are new")
    settings.set("train.objective", "text", "every token is learnt")
    if made:
        settings.set("pretrain.vocab", vocabulary, "the tokenizer that was made of the corpus")
    _context(settings, first_size(dials), tokens)
    settings.set("train.precision", *_precision(asked.train))
    settings.set("train.gradient_checkpointing", False, "saved activations of small models fit into memory")
    size = first_size(dials)
    shape = _shape(settings, size, vocabulary)
    speed = 0.0
    if not dials.compute and (dials.minutes or not (dials.parameters or (dials.width and dials.layers))):
        if not (dials.parameters or (dials.width and dials.layers)):
            shape, speed = _shape_of_minutes(settings, shape, measure)
        else:
            speed = measure(shape, _trial_settings(settings))
    _size(settings, shape, speed)
    optimal = TOKENS_PER_PARAMETER * shape.parameters, f"{TOKENS_PER_PARAMETER} for each weight (compute-optimal)"
    budget = _budget(settings, shape, tokens, speed, otherwise=optimal)
    rate = learning_rate(shape.parameters), f"usual for {_millions(shape.parameters)} weights that begin at random"
    _steps(settings, shape, tokens, budget, rate=rate)
    return Scaled(_recipe(settings), settings.reasons, shape)


def usual_context(size: int) -> int:
    """Tokens of a row, for so many weights."""
    return 256 if size < 20_000_000 else 512 if size < 100_000_000 else 1024


def resolve_existing(
    asked: PretrainRecipe, model: Existing, *, tokens: int, mixed: int, measure: Measure
) -> Scaled:  # fmt: skip
    """The recipe for a model that is there already, a corpus of so many training tokens, and so many of rows mixed in."""
    settings, dials = SettingsWithReasons(asked), asked.pretrain
    settings.set("train.method", "full", "text is learnt by all weights")
    if mixed:
        share = mixed / max(1, tokens + mixed)
        settings.set(
            "train.objective", "sft", f"every token of texts, and of rows ({share:.0%} of all tokens) the answers"
        )
    else:
        settings.set("train.objective", "text", "every token is learnt")
    settings.set(
        "pretrain.context", model.context, f"usual for {_millions(model.parameters)} weights, at most the model's own"
    )
    settings.set("train.precision", *_precision(asked.train))
    settings.set("train.gradient_checkpointing", False, "not needed where memory is enough")
    speed = measure(model, _trial_settings(settings)) if dials.minutes else 0.0
    if dials.compute:
        settings.set("pretrain.compute", dials.compute, "as asked")
    one_pass = float(tokens + mixed), "one pass"
    budget = _budget(settings, model, tokens + mixed, speed, otherwise=one_pass)
    rate = float(f"{OF_A_FRESH_ONE * learning_rate(model.parameters):.2g}")
    why = f"a tenth of what {_millions(model.parameters)} random weights take, so that what the model knows stays"
    _steps(settings, model, tokens + mixed, budget, rate=(rate, why))
    return Scaled(_recipe(settings), settings.reasons, model)


def _recipe(settings: SettingsWithReasons) -> PretrainRecipe:
    found = settings.recipe()
    assert isinstance(found, PretrainRecipe)
    return found


def _precision(asked: Train) -> tuple[object, str]:
    return (asked.precision, "as asked") if asked.precision else machine.precision(device.pick_device())


def _context(settings: SettingsWithReasons, size: int, tokens: int) -> None:
    usual = usual_context(size)
    most = max(8, 2 ** int(math.log2(max(8, tokens // 8))))
    why = f"usual for {_millions(size)} weights" if usual <= most else f"the corpus has {tokens:,} tokens"
    settings.set("pretrain.context", min(usual, most), why)


def _shape(settings: SettingsWithReasons, size: int, vocabulary: int) -> Shape:
    dials = settings.asked
    assert isinstance(dials, PretrainRecipe)
    one = dials.pretrain
    return fresh.shape_for(
        size, vocabulary=vocabulary, context=settings["pretrain.context"], family=one.family, width=one.width,
        layers=one.layers,
    )  # fmt: skip


def _trial_settings(settings: SettingsWithReasons) -> Train:
    """Settings to measure the speed with."""
    asked = settings.asked.train
    return asked.model_copy(
        update={
            "method": "full", "objective": "text", "epochs": 1, "learning_rate": 1e-4, "warmup_steps": 1,
            "tokens_per_step": asked.tokens_per_step or 4096, "tokens_per_batch": asked.tokens_per_batch or 4096,
            "precision": settings["train.precision"], "gradient_checkpointing": False,
        }
    )  # fmt: skip


def _shape_of_minutes(settings: SettingsWithReasons, first: Shape, measure: Measure) -> tuple[Shape, float]:
    """The shape whose compute-optimal training takes the minutes, by the speed of a first guess; and its own speed."""
    seconds = 60 * USED * (_dials(settings).minutes or MINUTES)
    speed = measure(first, _trial_settings(settings))
    compute = 6 * first.parameters * speed * seconds
    shape = _shape(settings, round(math.sqrt(compute / (6 * TOKENS_PER_PARAMETER))), first.vocabulary)
    return shape, measure(shape, _trial_settings(settings))


def _dials(settings: SettingsWithReasons) -> Pretrain:
    assert isinstance(settings.asked, PretrainRecipe)
    return settings.asked.pretrain


def _size(settings: SettingsWithReasons, shape: Shape, speed: float) -> None:
    dials = _dials(settings)
    if dials.compute:
        settings.set("pretrain.compute", dials.compute, "as asked")
        why = f"{TOKENS_PER_PARAMETER} tokens a weight spend {dials.compute:.2g} operations"
    else:
        why = f"{TOKENS_PER_PARAMETER} tokens a weight take {dials.minutes or MINUTES:g} minutes here, at {speed:,.0f} tokens/s"
        if not dials.minutes and not dials.parameters:
            settings.set("pretrain.minutes", MINUTES, "nobody said how large or how long")
    if dials.width and dials.layers:
        why = "what width and layers make"
    settings.set("pretrain.parameters", shape.parameters, why)
    near = f"{shape.parameters:,} weights in all, {shape.vocabulary * shape.width:,} of them the table of tokens"
    settings.set("pretrain.width", shape.width, near)
    settings.set(
        "pretrain.layers", shape.layers, f"the model is {shape.width / shape.layers:.0f} times as wide as deep"
    )


def _budget(
    settings: SettingsWithReasons, shape: Shape | Existing, tokens: int, speed: float, *, otherwise: tuple[float, str]
) -> int:
    """`pretrain.tokens`: what the minutes or operations allow, or what is wanted otherwise; four passes at most."""
    dials = _dials(settings)
    if dials.compute:
        wanted, why = dials.compute / (6 * shape.parameters), f"{dials.compute:.2g} operations at 6 a weight and token"
    elif speed:
        minutes = dials.minutes or MINUTES
        wanted, why = USED * 60 * minutes * speed, f"{minutes:g} minutes at {speed:,.0f} tokens/s, measured"
    else:
        wanted, why = otherwise
    if wanted > PASSES * tokens:
        wanted, why = PASSES * tokens, f"{PASSES} passes over the corpus; more text would help, {why} could be used"
    settings.set("pretrain.tokens", max(1, round(wanted)), why)
    return int(settings["pretrain.tokens"])


def learning_rate(parameters: int) -> float:
    """The highest rate by size: 5e-3 at a million weights, the best of those tried there, and less for more of them.

    The exponent is about that of published rates (GPT-3's fall from 6e-4 at 125 M weights to 2e-4 at 1.3 B). Muon's updates
    are scaled to the size of AdamW's, so that both take the same.
    """
    return float(f"{5e-3 * (max(parameters, 1_000_000) / 1e6) ** -0.3:.2g}")


def _steps(
    settings: SettingsWithReasons, shape: Shape | Existing, tokens: int, budget: int, *, rate: tuple[float, str]
) -> None:
    """How the tokens are cut into steps, and how far a step goes."""
    settings.set("train.learning_rate", *rate)
    step = min(LARGEST_STEP, max(SMALLEST_STEP, 2 ** round(math.log2(max(1, budget / STEPS_WANTED)))))
    step = max(step, shape.context)
    settings.set(
        "train.tokens_per_step", step, f"about {STEPS_WANTED:,} steps in all, at least {SMALLEST_STEP:,} tokens each"
    )
    batch = min(settings["train.tokens_per_step"], max(4096, shape.context))
    settings.set("train.tokens_per_batch", batch, "limits memory; does not change the result")
    rows = settings["train.tokens_per_step"] // shape.context or 1
    steps = max(1, round(budget / (rows * (shape.context - 1))))
    settings.set("train.max_steps", steps, f"{budget:,} tokens")
    settings.set(
        "train.epochs", max(1, math.ceil(budget / tokens)), f"{budget / tokens:.2g} passes over {tokens:,} tokens"
    )
    steps = settings["train.max_steps"]
    settings.set("train.warmup_steps", min(1_000, math.ceil(steps * 0.05)), f"5 % of {steps:,} steps")
    speed = machine.matmul_flops_per_second(settings["train.precision"], device.pick_device())
    often, _ = check_interval(settings, steps=steps, products_per_second=speed)
    apart = max(math.ceil(steps / 10), min(often, math.ceil(steps / 3)))
    settings.set(
        "train.check_every", apart, "ten times in all, but rarely enough that saving takes less than 3 % of the time"
    )


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:,.1f} M"


def shape_of(recipe: PretrainRecipe, vocabulary: int) -> Shape:
    """The shape that a settled recipe names."""
    dials = recipe.pretrain
    assert dials.width and dials.layers and dials.context
    return Shape(dials.family, dials.width, dials.layers, vocabulary, dials.context)
