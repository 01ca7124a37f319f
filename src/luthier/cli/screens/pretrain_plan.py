"""The plan of a pretraining on the terminal."""

from luthier import recipe as recipes
from luthier.cli.screens.terminal import console, duration
from luthier.model.fresh import Shape
from luthier.pipeline.pretrain_plan import PretrainPlan
from luthier.pipeline.scaling import Existing
from luthier.runs.durable import format_bytes


def _named(shape: Shape | Existing, model: str) -> str:
    if isinstance(shape, Existing):
        return f"{model}, which learns on: {shape.parameters:,} weights"
    return (
        f"a new {shape.family}: {shape.parameters:,} weights, {shape.layers} layers, hidden size {shape.width:,}, "
        f"vocabulary {shape.vocabulary:,}"
    )


def show_pretrain_plan(found: PretrainPlan) -> None:
    """The model, the settings with their reasons, memory, disk and time."""
    out, shape, plain = console(), found.scaled.shape, found.scaled.recipe.model_dump(mode="json")
    lines = [
        f"Model    {_named(shape, found.scaled.recipe.model)}",
        f"Corpus   about {found.corpus_tokens:,} tokens",
    ]
    for number, (key, reason) in enumerate(found.scaled.reasons.items()):
        lines.append(f"{'' if number else 'Plan':<8} {key} = {recipes.get(plain, key)}  ({reason})")
    fits = "fits" if found.fits else "DOES NOT FIT"
    lines.append(
        f"Memory   {format_bytes(found.memory.training)} to train, {format_bytes(found.available)} available: {fits}"
    )
    lines += [f"         {format_bytes(part):>9}  {name}" for name, part in found.memory.parts.items()]
    needed = sum(found.disk.values())
    parts = "; ".join(f"{name} {format_bytes(part)}" for name, part in found.disk.items())
    enough = "fits" if needed <= found.free else "DOES NOT FIT"
    lines.append(f"Disk     {format_bytes(needed)} at most, {format_bytes(found.free)} free: {enough} ({parts})")
    if found.seconds is None or found.tokens_per_second is None:
        lines.append("Time     not measured")
    else:
        tokens = found.scaled.recipe.pretrain.tokens or 0
        lines.append(
            f"Time     about {duration(found.seconds)} for {tokens:,} tokens at {found.tokens_per_second:,.0f} tokens/s, "
            "by three steps; dev checks and checkpoints come on top"
        )
    for line in lines:
        out.print(line, markup=False)
