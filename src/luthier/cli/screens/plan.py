"""The plan on the terminal: what a training needs, whether it fits, how long it will take."""

from rich.table import Table

from luthier.cli.screens.ledger import ledger_lines
from luthier.cli.screens.terminal import console, duration, print_whole
from luthier.data import Dataset
from luthier.pipeline.estimate import Estimate
from luthier.runs.durable import format_bytes

SHOWN = (
    "method",
    "learning_rate",
    "tokens_per_step",
    "tokens_per_batch",
    "precision",
    "gradient_checkpointing",
    "max_steps",
)


def show_plan(found: Estimate, *, probe: bool) -> None:
    """The model, the settings, memory, disk and time; then each way to train and what it takes."""
    out = console()
    for part in (_model(found), _plan(found), _memory(found), _disk(found), _time(found, probe=probe)):
        for line in part:
            out.print(line, markup=False)
    out.print()
    print_whole(out, _ways(found))


def data_lines(dataset: Dataset) -> list[str]:
    """How the data is read, and what became of every row."""
    ledger = dataset.ledger
    account = ledger_lines(
        read=ledger.read, kept=ledger.kept, dropped=ledger.dropped, notes=ledger.notes, ignored=ledger.ignored
    )
    return [dataset.sentence(), *account]


def _model(found: Estimate) -> list[str]:
    spec, step = found.spec, found.train.tokens_per_step or 0
    flops = spec.flops_per_token(trains="full")
    embedded = spec.embedding_parameters
    without = f"; the other {embedded:,} are embeddings that are only looked up" if embedded else ""
    return [
        f"Model    {found.model}: {spec.parameters:,} parameters, {spec.num_layers} layers, hidden size {spec.hidden_size:,}",
        f"         {spec.matmul_parameters:,} of them are used in matrix products for each token{without}",
        f"FLOPs    6 × {spec.matmul_parameters:,} = {flops:,} a token where all weights are trained",
        f"         {_exact(flops * step)} GFLOPs for a step of {step:,} tokens",
    ]


def _exact(operations: int) -> str:
    """Billions, to the last digit."""
    whole, rest = divmod(operations, 10**9)
    return f"{whole:,}.{rest:09}".rstrip("0").rstrip(".")


def _plan(found: Estimate) -> list[str]:
    """The settings that the plan chose, with their reasons."""
    if found.preparation is None:
        return ["Data     none: rows of 128 tokens are assumed"]
    reasons, rows = found.preparation.reasons, found.preparation.rows["train"]
    tokens = rows.number("length").sum()
    first, *others = data_lines(found.preparation.dataset)
    lines = [f"Data     {first}", *(f"         {line}" for line in others)]
    lines.append(f"         {len(rows):,} training rows, {tokens:,} tokens")
    for head, name in zip(["Plan", *[""] * len(SHOWN)], SHOWN, strict=False):
        lines.append(
            f"{head:<8} train.{name} = {getattr(found.train, name)}  ({reasons.get(f'train.{name}', 'as asked')})"
        )
    batches = f"{found.batch.batches_per_step} micro-batches" if found.batch.batches_per_step > 1 else "one micro-batch"
    return [*lines, f"         {batches} per step; their number does not change the result"]


def _memory(found: Estimate) -> list[str]:
    available, several = found.available, len(found.ranks) > 1
    fits = "fits" if found.fits else "DOES NOT FIT"
    lines = [f"Memory   {format_bytes(found.needed)} to train, {format_bytes(available)} available: {fits}"]
    if several:
        lines[0] = lines[0].replace(" to train", f" to train in {len(found.ranks)} processes, {_shared(found)}")
        lines += [f"         {line}" for line in _by_rank(found)]
    lines += [f"         {format_bytes(part):>9}  {name}" for name, part in found.memory.parts.items()]
    if found.in_shards is not None:
        lines.append(
            f"         --shard: {format_bytes(found.in_shards)}{', fits' if found.in_shards <= available else ''}"
        )
    for change, saved in found.remedies:
        settings = " ".join(f"train.{name}={value}".replace("True", "true") for name, value in change.items())
        lines.append(f"         {settings}: {format_bytes(saved)}{', fits' if saved <= available else ''}")
    if found.answering > available:
        answering = format_bytes(found.answering)
        less = "" if found.train.method == "qlora" else " train.method=qlora needs less."
        lines.append(
            f"         Answering questions before and after training needs {answering} in fp32: DOES NOT FIT.{less}"
        )
    if not found.fits and (not found.remedies or found.remedies[-1][1] > available):
        lines.append("         To make it fit, use a smaller model, or shorter rows (train.max_tokens).")
    return lines


def _shared(found: Estimate) -> str:
    """Whose memory that is."""
    return "all together" if found.needed > found.memory.training else "each on a GPU"


def _by_rank(found: Estimate) -> list[str]:
    """The memory of each process; those of the same size in one line, before the parts of the first."""
    sizes = [rank.training for rank in found.ranks]
    last = len(sizes) - 1
    if len(set(sizes)) == 1:
        return [f"{format_bytes(sizes[0])} by each of the ranks 0 to {last}:"]
    others = f"ranks 1 to {last}" if last > 1 else "rank 1"
    return [f"{format_bytes(sizes[-1])} by {others}, {format_bytes(sizes[0])} by rank 0:"]


def _disk(found: Estimate) -> list[str]:
    if found.preparation is None:
        return []
    needed = sum(found.disk.values())
    fits = "fits" if needed <= found.free else "DOES NOT FIT"
    parts = "; ".join(
        f"{name}, {format_bytes(part)} in all" if ":" in name else f"{name} {format_bytes(part)}"
        for name, part in found.disk.items()
    )
    return [f"Disk     {format_bytes(needed)} at most, {format_bytes(found.free)} free: {fits} ({parts})"]


def _time(found: Estimate, *, probe: bool) -> list[str]:
    if found.trial is None:
        why = "no steps were made on this machine"
        if found.preparation is None or len(found.ranks) > 1:
            why = "no data" if found.preparation is None else "steps are tried in one process only"
        return [f"Time     not measured ({why if probe else '--no-probe'})"]
    time, peak = found.trial.forecast, found.trial.peak
    memory = f"; peak memory {format_bytes(peak)}" if peak else ""
    speed = f"{found.train.max_steps:,} steps at {found.trial.tokens_per_second:,.0f} tokens/s"
    return [
        f"Time     about {duration(time.seconds)} to train, estimated from three steps{memory}",
        f"         {duration(time.steps)} for {speed}, {duration(time.validation)} for dev checks, "
        f"{duration(time.checkpoints)} for checkpoints",
        "         Answering questions before and after training takes more time, which is not included.",
    ]


def _ways(found: Estimate) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("this model with")
    table.add_column("memory", justify="right")
    table.add_column(f"fits into {format_bytes(found.available)}")
    for way in found.alternatives:
        table.add_row(way.name, format_bytes(way.needed), "yes" if way.needed <= found.available else "no")
    return table
