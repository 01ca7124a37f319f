"""A plain PyTorch training loop of a GPT-2 (Radford et al. 2019), as many write it: what ours is compared with.

Learnt positions, LayerNorm, GELU, a tied head; AdamW with a cosine from 1e-3 to 1e-4 after 100 steps of warm-up, betas 0.9 and
0.99, weight decay 0.1 on matrices, gradients clipped to a norm of 1; each row of a batch from a random place of the text.
"""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

HIGHEST, LOWEST, WARMUP = 1e-3, 1e-4, 100


@dataclass(frozen=True)
class Size:
    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and added to what came in."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm1, self.norm2 = (nn.LayerNorm(size.width, bias=False) for _ in range(2))
        self.qkv = nn.Linear(size.width, 3 * size.width, bias=False)
        self.out = nn.Linear(size.width, size.width, bias=False)
        self.up = nn.Linear(size.width, 4 * size.width, bias=False)
        self.down = nn.Linear(4 * size.width, size.width, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        batch, time_, width = states.shape
        parts = self.qkv(self.norm1(states)).view(batch, time_, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.out(attended.transpose(1, 2).reshape(batch, time_, width))
        return states + self.down(functional.gelu(self.up(self.norm2(states))))


class Model(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (math.sqrt(2 * size.layers) if residual else 1))

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        states = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            states = block(states)
        scores = self.norm(states) @ self.tokens.weight.T
        return functional.cross_entropy(scores.view(-1, scores.shape[-1]).float(), targets.reshape(-1))


def rate(step: int, steps: int) -> float:
    if step < WARMUP:
        return HIGHEST * (step + 1) / (WARMUP + 1)
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return LOWEST + 0.5 * (1 + math.cos(math.pi * done)) * (HIGHEST - LOWEST)


@torch.no_grad()
def dev_loss(model: nn.Module, dev: Tensor, context: int) -> float:
    """Nats a token over all of dev, in rows that follow each other."""
    rows = (len(dev) - 1) // context
    ids = dev[: rows * context].view(rows, context)
    targets = dev[1 : rows * context + 1].view(rows, context)
    parts = zip(ids.split(64), targets.split(64), strict=True)
    return sum(float(model(one, other)) * len(one) for one, other in parts) / rows


def train(
    text: Tensor, dev: Tensor, size: Size, *, steps: int, rows: int, look_every: int, bf16: bool,
    tell: Callable[[int, float, float], None],
) -> None:  # fmt: skip
    """Train, and `tell` the step, the processor seconds of all steps so far, and the loss on dev."""
    torch.manual_seed(1337)
    model = Model(size)
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=HIGHEST, betas=(0.9, 0.99), fused=True)
    seconds = 0.0
    for step in range(steps):
        start = time.process_time()
        starts = torch.randint(len(text) - size.context - 1, (rows,))
        ids = torch.stack([text[at : at + size.context] for at in starts])
        targets = torch.stack([text[at + 1 : at + size.context + 1] for at in starts])
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            loss = model(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds += time.process_time() - start
        if (step + 1) % look_every == 0 or step + 1 == steps:
            tell(step + 1, seconds, dev_loss(model, dev, size.context))
