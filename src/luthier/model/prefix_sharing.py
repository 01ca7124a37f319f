"""Batches in which a prefix that rows share is computed once, for models that compute it so: tried, not trusted.

A model whose attention is not plain (a window shorter than a row, scores that are bent, a state from token to token) gets its
rows whole.
"""

import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from luthier.data.prefixes import SHARED_AT_LEAST
from luthier.model import attention, probes
from luthier.model.causal import CausalModel, base_model
from luthier.model.head import row_likelihoods
from luthier.model.packed import Packed, TokenRow, expect_rows_of, pack

NATS_APART = 1e-3  # by how much a row's fp32 sum may differ and still say the same

_supported: "weakref.WeakKeyDictionary[nn.Module, tuple[int, bool]]" = weakref.WeakKeyDictionary()


class _Row:
    def __init__(self, *ids: int) -> None:
        self.ids = np.array(ids)
        self.loss_mask = np.ones(len(ids), dtype=bool)


PROBE_ROWS = (
    _Row(3, 4, 5, 6, 7, 8, 9, 10, 11),
    _Row(12, 11, 10, 9),
    _Row(3, 4, 5, 6, 7, 8, 13, 14),
    _Row(3, 4, 5, 6, 7, 8, 13, 9, 4, 15, 5),
    _Row(3, 4, 5, 6),
    _Row(3, 4, 15, 11, 5),
    _Row(3, 4, 15, 11, 5),
)
"""Prefixes on three levels, a row that is a prefix of others, one that is there twice, and one that shares nothing."""


def pack_batch(model: CausalModel, rows: Sequence[TokenRow]) -> Packed:
    """These rows on the model's device; what they share is in there once, if the model takes that."""
    longest = max(len(row.ids) for row in rows)
    least = SHARED_AT_LEAST if len(rows) > 1 and supported(model, longest) else None
    return pack(rows, model.device, share_at_least=least)


def supported(model: CausalModel, longest: int) -> bool:
    """Whether rows of at most so many tokens are computed alike, whether they share prefixes or stand alone."""
    inner = base_model(model)
    if model.config._attn_implementation != attention.NAME:
        return False
    known, takes = _supported.get(inner, (0, True))
    if takes and longest > known:
        takes = _alike(model, longest)
    _supported[inner] = (max(known, longest), takes)
    return takes


@torch.no_grad()
def _alike(model: CausalModel, longest: int) -> bool:
    was_training = model.training
    model.eval()
    try:
        shared = row_likelihoods(model, expect_rows_of(pack(PROBE_ROWS, model.device, share_at_least=1), longest))
        alone = torch.cat([row_likelihoods(model, pack([row], model.device)) for row in PROBE_ROWS])
    except probes.FAILURES:  # such as `attention.PrefixSharingUnsupported`
        return False
    finally:
        model.train(was_training)
    allowed = NATS_APART if model.dtype in probes.ROUNDING else probes.COARSE * alone.abs().max()
    return bool((shared - alone).abs().max() <= allowed)
