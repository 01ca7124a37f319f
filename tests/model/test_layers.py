"""Layers that are computed a second time, or compiled, say the same."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from luthier.model import attention, layers, loading, recomputation
from luthier.model.causal import CausalModel
from luthier.model.head import summed_loss
from luthier.model.packed import Packed, pack
from token_rows import Row


def batches() -> Iterator[Packed]:
    """Several, since a compiled layer must also serve lengths that it was not compiled for; rows of the last begin alike."""
    for lengths in ([9, 5], [17, 3, 8]):
        rows = [Row(np.arange(length) + 7, np.ones(length, dtype=bool)) for length in lengths]
        yield pack(rows, torch.device("cpu"))
    rows = [Row(np.append(np.arange(9), end), np.ones(10, dtype=bool)) for end in (20, 30)]
    yield pack(rows, torch.device("cpu"), share_at_least=9)


def trained(
    folder: Path, *, checkpointing: bool = False, compiled: bool = False
) -> tuple[CausalModel, list[torch.Tensor]]:
    """A model after the backward passes of two batches, and its gradients."""
    model = loading.load(str(folder)).model.train()
    attention.install_attention(model)
    recomputation.replace_norms_and_mlps(model)
    if checkpointing:
        layers.enable_checkpointing(model)
    if compiled:
        layers.compile_layers(model)
    for batch in batches():
        summed_loss(model, batch).backward()
    layers.restore(model)
    return model, [weight.grad.clone() for weight in model.parameters()]


def test_layers_computed_again_give_the_same_gradients(tiny_model: Path) -> None:
    (_, plain), (_, again) = trained(tiny_model), trained(tiny_model, checkpointing=True)
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_a_model_with_adapters_computes_its_layers_again(tiny_model: Path) -> None:
    model = loading.add_adapters(loading.load(str(tiny_model)).model, rank=4, alpha=8, seed=0).train()
    layers.enable_checkpointing(model)
    summed_loss(model, next(batches())).backward()
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)
    layers.restore(model)


@pytest.mark.slow
def test_compiled_layers_give_the_same_gradients_but_for_rounding(tiny_model: Path) -> None:
    """In a process of its own: torch would compile the shape checks of the tests too."""
    code = (
        "import sys, torch, test_layers as t\n"
        "from pathlib import Path\n"
        "folder = Path(sys.argv[1])\n"
        "(_, plain), (model, compiled) = t.trained(folder), t.trained(folder, compiled=True)\n"
        "for one, other in zip(plain, compiled, strict=True):\n"
        "    assert torch.allclose(one, other, rtol=1e-4, atol=1e-6), (one - other).abs().max()\n"
        "assert not any(layer._compiled_call_impl for layer in model.modules())\n"
        "print(torch._dynamo.utils.counters['stats']['unique_graphs'])\n"
    )
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_model], env=here, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and int(done.stdout) > 0, done.stderr
