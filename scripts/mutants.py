"""Mistakes that the tests must notice: each is put into a copy of the source, and the tests named beside it are run on that.

A mistake is an exact replacement in the code as it is now. One that no longer applies fails too, so that the table keeps up
with the code; so does one that only breaks an import, since that says nothing about the tests.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOOP, OPTIMIZER, OBJECTIVES = "train/loop.py", "train/optimizer.py", "train/objectives.py"
PROGRESS = "train/progress.py"
STATE, ORDER, PACKED = "train/optimizer_state.py", "train/order.py", "model/packed.py"
STEP = ("tests/train/test_arithmetic.py",)
RESUMED = ("tests/train/test_loop.py", "-k", "bit_for_bit")
SHARED = ("tests/train/test_prefix_sharing.py",)
UNPAIRED = ("tests/train/test_unpaired.py", "-k", "formula or divergence or weigh or every_step")
PREFERENCES = ("tests/train/test_objectives.py", "-k", "formula or texts or fresh or mixed")


@dataclass(frozen=True)
class Mutant:
    """A mistake: what stands in a file of src/luthier, what stands there instead, and the tests that must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = STEP


MUTANTS = [
    Mutant("no update at all", OPTIMIZER, "                optimizer.step()\n", "                pass\n"),
    Mutant(
        "gradients are not divided by the loss tokens",
        OPTIMIZER,
        "(norm + 1e-6)) / count if",
        "(norm + 1e-6)) if",
    ),
    Mutant(
        "the norm is not divided by the loss tokens",
        OPTIMIZER,
        "torch.stack(norms))) / count",
        "torch.stack(norms)))",
    ),
    Mutant("gradients are never clipped", OPTIMIZER, "min(1.0, limit / (norm + 1e-6))", "1.0"),
    Mutant(
        "every gradient is stretched to the limit",
        OPTIMIZER,
        "min(1.0, limit / (norm + 1e-6))",
        "limit / (norm + 1e-6)",
    ),
    Mutant("weight decay is ignored", OPTIMIZER, '"weight_decay": decay}', '"weight_decay": 0.0}'),
    Mutant(
        "weight decay on norms and biases",
        OPTIMIZER,
        '{"params": self.vectors, "weight_decay": 0.0}',
        '{"params": self.vectors, "weight_decay": decay}',
    ),
    Mutant(
        "no weight decay on embeddings",
        OPTIMIZER,
        '{"params": self.vectors, "weight_decay": 0.0}]',
        '{"params": self.vectors, "weight_decay": 0.0}]\n        groups[0]["params"] = self.hidden\n'
        '        groups.append({"params": self.tables, "weight_decay": 0.0})',
    ),
    Mutant("micro-batches are added up in bf16", OPTIMIZER, "total.float().add_(gradient)", "total.add_(gradient)"),
    Mutant(
        "only the last micro-batch counts",
        OPTIMIZER,
        "gradient if total is None else total.float().add_(gradient)",
        "gradient",
    ),
    Mutant("gradients are kept after a step", OPTIMIZER, "self.gradients.pop(name)", "self.gradients[name]"),
    Mutant(
        "the model keeps its gradient after a batch",
        OPTIMIZER,
        "master.parameter.grad = master.parameter.grad, None",
        "_ = master.parameter.grad, None",
    ),
    Mutant(
        "only the first group gets the rate",
        OPTIMIZER,
        "for group in optimizer.param_groups:\n                group",
        "for group in optimizer.param_groups[:1]:\n                group",
    ),
    Mutant("warm-up is ignored by the loop", LOOP, "warmup=settings.warmup_steps", "warmup=0"),
    Mutant("the schedule is ignored by the loop", LOOP, "schedule=settings.schedule", 'schedule="constant"'),
    Mutant("the first step has a rate of 0", OPTIMIZER, "highest * step / warmup", "highest * (step - 1) / warmup"),
    Mutant("the rate is a step late after the warm-up", OPTIMIZER, "(step - warmup - 1)", "(step - warmup)"),
    Mutant("the schedule ends at the warm-up's share", OPTIMIZER, "max(1, steps - warmup)", "max(1, steps)"),
    Mutant(
        "a step has the rate of the one before",
        LOOP,
        "            number, highest=settings.learning_rate",
        "            max(1, number - 1), highest=settings.learning_rate",
    ),
    Mutant(
        "the loss told is that of the last batch",
        LOOP,
        "sum(part.total.double() for part in found)",
        "found[-1].total.double()",
    ),
    Mutant(
        "the count is that of the last batch",
        LOOP,
        "float(sum(part.count for part in found))",
        "float(sum(part.count for part in found[-1:]))",
    ),
    Mutant("dev is evaluated with dropout", LOOP, "    model.eval()\n    objective =", "    objective ="),
    Mutant(
        "training goes on without dropout after a validation",
        LOOP,
        "    model.train(was_training)\n    return _means",
        "    return _means",
    ),
    Mutant("dropout is alike at every step", LOOP, "else (seed, step)", "else (seed, 0)"),
    Mutant("dropout is alike with every seed", LOOP, "else (seed, step)", "else (0, step)"),
    Mutant(
        "one check more than patience",
        LOOP,
        "progress.checks_without_best >= self.settings.patience",
        "progress.checks_without_best > self.settings.patience",
    ),
    Mutant(
        "patience is never reset",
        PROGRESS,
        "self.best_step, self.checks_without_best = loss, self.step, 0",
        "self.best_step = loss, self.step",
    ),
    Mutant(
        "the best loss is the highest",
        PROGRESS,
        "if loss < self.best_loss:",
        "if self.best_step == 0 or loss > self.best_loss:",
    ),
    Mutant("the best loss is the last", PROGRESS, "if loss < self.best_loss:", "if True:"),
    Mutant(
        "the last weights are taken for the best",
        LOOP,
        "manifest.path(checkpoints, progress.best_step)",
        "manifest.path(checkpoints, progress.step)",
    ),
    Mutant(
        "no dev check after the last step",
        LOOP,
        "settings.check_every == 0 or self.progress.step == len(self.steps)",
        "settings.check_every == 0",
    ),
    Mutant(
        "the validation before the first step is forgotten",
        LOOP,
        'progress.first_loss = False, {}, found["loss"]',
        "progress.first_loss = False, {}, 0.0",
    ),
    Mutant(
        "a schedule-free optimizer is judged where it learns",
        LOOP,
        "        with self.optimizer.evaluating():\n            found = evaluate",
        "        if True:\n            found = evaluate",
    ),
    Mutant(
        "a schedule-free optimizer is saved where it learns",
        OPTIMIZER,
        "        if not self.schedule_free:\n            return {name",
        "        if True:\n            return {name",
    ),
    Mutant(
        "lora_alpha is ignored",
        "model/methods.py",
        "alpha=settings.lora_alpha, seed=settings.seed)",
        "alpha=32, seed=settings.seed)",
    ),
    Mutant(
        "dora ignores lora_alpha",
        "model/methods.py",
        "alpha=settings.lora_alpha, seed=settings.seed, dora=True)",
        "alpha=32, seed=settings.seed, dora=True)",
    ),
    Mutant(
        "lora_rank is ignored",
        "model/methods.py",
        "rank=settings.lora_rank, alpha=settings.lora_alpha, seed=settings.seed)",
        "rank=16, alpha=settings.lora_alpha, seed=settings.seed)",
    ),
    Mutant(
        "large seeds have their lower half's adapters",
        "model/loading.py",
        "SeedSequence(seed)",
        "SeedSequence(seed % 2**32)",
    ),
    Mutant(
        "questions are learnt as well",
        PACKED,
        "np.flatnonzero(np.asarray(row.loss_mask, dtype=bool)[1:])",
        "np.flatnonzero(np.ones(len(row.loss_mask) - 1))",
    ),
    Mutant("targets are scored by their own position", PACKED, "[path[before] for", "[path[before + 1] for"),
    Mutant(
        "a branch is predicted from what stands before it in the batch",
        PACKED,
        "[path[before] for",
        "[np.maximum(path[before + 1] - 1, 0) for",
        SHARED,
    ),
    Mutant(
        "a branch counts its positions from 0",
        PACKED,
        "[np.arange(start, end) for start",
        "[np.arange(end - start) for start",
        SHARED,
    ),
    Mutant(
        "a row shares one token more than it does",
        PACKED,
        "common_prefix(rows[before].ids, rows[row].ids), before",
        "min(common_prefix(rows[before].ids, rows[row].ids) + 1, len(rows[row].ids), len(rows[before].ids)), before",
        SHARED,
    ),
    Mutant(
        "keys of a shared beginning learn from one row only",
        "model/attention.py",
        "gradient_layouts=None if segments.shares else keys",
        "gradient_layouts=keys",
        SHARED,
    ),
    Mutant(
        "a shared token's gradient is that of the last one",
        "model/padding.py",
        "total.index_add_(0, indices",
        "total.index_copy_(0, indices",
        SHARED,
    ),
    Mutant(
        "queries of a branch see what is behind them",
        "model/attention.py",
        "None if same else causal_lower_right(query.shape[2], key.shape[2])",
        "None",
        SHARED,
    ),
    Mutant(
        "in bf16 queries of a branch do not see its end",
        "model/attention.py",
        "keys - time + end) for start, end in ends]",
        "end) for start, end in ends]",
        SHARED,
    ),
    Mutant(
        "a window is held against the rows at hand only",
        "model/prefix_sharing.py",
        "share_at_least=1), longest)",
        "share_at_least=1), 0)",
        SHARED,
    ),
    Mutant(
        "a conversation's rows are shuffled apart",
        ORDER,
        "Pieces.cut(self._lengths, inside, tokens_per_step, read_again=None)",
        "Pieces.cut(self._lengths, 0 * inside, tokens_per_step, read_again=None)",
        ("tests/train/test_order.py",),
    ),
    Mutant(
        "a beginning that a batch has not counts as shared",
        ORDER,
        "            tokens[firsts] = lengths[firsts]\n",
        "",
        ("tests/train/test_order.py",),
    ),
    Mutant(
        "the loss is a mean over the batch",
        OBJECTIVES,
        "Measured(self.loss(batch), batch.loss_tokens, batch.loss_tokens,",
        "Measured(self.loss(batch) / batch.loss_tokens, batch.loss_tokens, batch.loss_tokens,",
    ),
    Mutant(
        "the loss is divided by all tokens",
        OBJECTIVES,
        "Measured(self.loss(batch), batch.loss_tokens, batch.loss_tokens,",
        "Measured(self.loss(batch), len(batch.tokens), batch.loss_tokens,",
    ),
    Mutant(
        "every epoch has the same order",
        ORDER,
        "Philox(key=[seed, number])",
        "Philox(key=[seed, 0])",
        ("tests/train/test_order.py",),
    ),
    Mutant(
        "every seed has the same order",
        ORDER,
        "Philox(key=[seed, number])",
        "Philox(key=[0, number])",
        ("tests/train/test_order.py",),
    ),
    Mutant(
        "moments are forgotten on resuming",
        STATE,
        'content["state"] = {numbers.get(name, name): value for name, value in found.items()}',
        'content["state"] = {}',
        RESUMED,
    ),
    Mutant(
        "param groups are forgotten on resuming",
        STATE,
        "                group |= {key",
        "                _ = {key",
        ("tests/train/test_optimizer.py", "-k", "own"),
    ),
    Mutant(
        "a user's optimizer steps once per block",
        OPTIMIZER,
        "if settings.optimizer in OPTIMIZERS else [list(self.masters)]",
        "",
        ("tests/train/test_optimizer.py", "-k", "own"),
    ),
    Mutant(
        "masters are rounded on resuming",
        OPTIMIZER,
        'master.load(tensors[f"weight/{name}"])',
        'master.load(tensors[f"weight/{name}"].bfloat16().float())',
        RESUMED,
    ),
    Mutant(
        "a resumed run does the last step again",
        LOOP,
        '    progress = Progress(**found.state["progress"])\n',
        '    progress = Progress(**found.state["progress"])\n    progress.step -= 1\n',
        RESUMED,
    ),
    Mutant(
        "bf16 is cut off instead of rounded",
        "train/master_weights.py",
        "torch.add(bits, HALF)",
        "torch.add(bits, 0)",
        ("tests/train/test_master_weights.py",),
    ),
    Mutant(
        "DPO prefers the rejected answer",
        OBJECTIVES,
        "rewards[:, 0] - rewards[:, 1]",
        "rewards[:, 1] - rewards[:, 0]",
        PREFERENCES,
    ),
    Mutant(
        "DPO ignores beta",
        OBJECTIVES,
        "rewards = self.beta * (likelihoods - rows.reference[list",
        "rewards = 0.1 * (likelihoods - rows.reference[list",
        PREFERENCES,
    ),
    Mutant(
        "DPO ignores the reference",
        OBJECTIVES,
        "(likelihoods - rows.reference[list(numbers)].to(model.device))",
        "likelihoods",
        PREFERENCES,
    ),
    Mutant(
        "DPO's loss lacks its logarithm",
        OBJECTIVES,
        "-torch.nn.functional.logsigmoid(margins).sum()",
        "-torch.sigmoid(margins).sum()",
        PREFERENCES,
    ),
    Mutant(
        "DPO's reference is computed with dropout",
        "train/reference.py",
        "        self.model.eval()\n        for numbers",
        "        for numbers",
        ("tests/train/test_objectives.py", "-k", "dropout"),
    ),
    Mutant(
        "DPO divides by tokens, not by pairs",
        OBJECTIVES,
        "Measured(total, len(numbers), loss_tokens,",
        "Measured(total, loss_tokens, loss_tokens,",
        PREFERENCES,
    ),
    Mutant(
        "KTO wants what people did not like",
        OBJECTIVES,
        "signs = 2.0 * liked - 1",
        "signs = 1 - 2.0 * liked",
        UNPAIRED,
    ),
    Mutant(
        "KTO's KL may be negative", OBJECTIVES, "max(0.0, gain / max(1, len(numbers)))", "gain / len(numbers)", UNPAIRED
    ),
    Mutant(
        "KTO ignores beta",
        OBJECTIVES,
        "rewards = self.beta * (likelihoods - rows.reference[chosen",
        "rewards = 0.1 * (likelihoods - rows.reference[chosen",
        UNPAIRED,
    ),
    Mutant("KTO ignores KL", OBJECTIVES, "(rewards - self.beta * self.divergence)", "rewards", UNPAIRED),
    Mutant(
        "KTO's KL is that of the answers themselves",
        OBJECTIVES,
        "[rows.mismatched(number) for",
        "[rows[number] for",
        UNPAIRED,
    ),
    Mutant("KTO's KL is of the first micro-batch", OBJECTIVES, "gain += float(", "gain = gain or float(", UNPAIRED),
    Mutant(
        "KTO's sides weigh what they count",
        OBJECTIVES,
        "(weights * torch.sigmoid(-above))",
        "torch.sigmoid(-above)",
        UNPAIRED,
    ),
    Mutant(
        "a step of KTO has no KL",
        LOOP,
        "objective = objectives.of_step(self.objective,",
        "objective = self.objective\n        objectives.of_step(self.objective,",
        UNPAIRED,
    ),
    Mutant(
        "texts are learnt from their answers only",
        OBJECTIVES,
        "np.ones(len(ids), dtype=bool)",
        "self.rows[number].loss_mask",
        PREFERENCES,
    ),
]


class Failures:
    """Hears from pytest which tests fail."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.names.append(report.nodeid.rpartition("::")[2])


def main(words: Sequence[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    if not chosen:
        print(f"no mistake has {' or '.join(words)} in its name.", file=sys.stderr)
        return 2
    os.chdir(ROOT)
    _prepare()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        for tests in dict.fromkeys(mutant.tests for mutant in chosen):
            if (found := _tried(source, tests)) != (0, ""):
                print(f"{' '.join(tests)} fails without any mistake: {found[1]}", file=sys.stderr)
                return 1
        bad = sum(_judged(mutant, source) for mutant in chosen)
    print(f"\n{len(chosen) - bad} of {len(chosen)} mistakes are noticed.")
    return 1 if bad else 0


def _judged(mutant: Mutant, source: Path) -> bool:
    """Print what became of a mistake; whether that is bad."""
    file = source / "luthier" / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        word, told = "DOES NOT APPLY", f"found {text.count(mutant.old)} times in {mutant.file}"
    else:
        file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        code, told = _tried(source, mutant.tests)
        file.write_text(text, encoding="utf-8")
        word = {0: "SURVIVES", 1: "noticed"}.get(code, "DOES NOT RUN")
    print(f"{word:<14}  {mutant.name:<52}  {told}", flush=True)
    return word != "noticed"


def _tried(source: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Pytest's exit code and the first test that failed, in a process that takes Luthier from this folder."""
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=_run, args=(source, tests, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()  # type: ignore[no-any-return]
    except EOFError:
        return -1, "the process died"
    finally:
        process.join()


def _run(source: Path, tests: tuple[str, ...], answer: Connection) -> None:
    import pytest

    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    sys.path.insert(0, str(source))
    sys.dont_write_bytecode = True
    failures = Failures()
    options = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "timeout=600",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]
    code = pytest.main([*options, *tests], plugins=[failures])
    import luthier

    assert luthier.__file__ and Path(luthier.__file__).is_relative_to(source)
    answer.send((int(code), failures.names[0] if failures.names else ""))


def _prepare() -> None:
    """What tests/conftest.py asks for before torch comes, and then what takes long to import, once for all."""
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "NO_COLOR": "1",
    }
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes that are forked may not share threads
    import peft
    import torch
    import transformers

    assert peft and torch and transformers


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
