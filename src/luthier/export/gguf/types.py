"""Number formats of the tensors in a GGUF file, and which tensor gets which: llama.cpp's own rules."""

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, LlamaFileType, quants
from torch import Tensor

from luthier.engine import llama_cpp
from luthier.errors import UserError, unknown
from luthier.model.gguf_file import Bytes as Bytes
from luthier.model.gguf_file import Type as Type
from luthier.model.gguf_file import decode as decode
from luthier.model.gguf_file import size as size

TYPES: dict[str, tuple[Type, LlamaFileType]] = {
    "f32": (Type.F32, LlamaFileType.ALL_F32),
    "f16": (Type.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (Type.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (Type.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_k_m": (Type.Q4_K, LlamaFileType.MOSTLY_Q4_K_M),
}
"""A file's number format by its word: that of most of its tensors, and the number that stands in the file."""
INSTEAD = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}
"""What llama.cpp takes for rows that are no whole number of blocks."""
OWN_QUANTISER = (Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.Q5_0, Type.Q5_1)


def check(word: str) -> str:
    """The word of a number format, if there is such."""
    if word not in TYPES:
        raise unknown("number format", word, TYPES, where="--type")
    return word


def type_of(word: str, name: str, shape: tuple[int, ...], *, blocks: int, tied: bool) -> Type:
    """The number format of a tensor by its name in the file: norms and biases in fp32, matrices as the file's format says."""
    if len(shape) < 2 or not name.endswith(".weight"):
        return Type.F32
    wanted = _k_type(name, shape[-1], blocks=blocks, tied=tied) if word == "q4_k_m" else TYPES[word][0]
    if shape[-1] % GGML_QUANT_SIZES[wanted][0]:
        wanted = INSTEAD.get(wanted, Type.F16)
    return wanted if shape[-1] % GGML_QUANT_SIZES[wanted][0] == 0 else Type.F16


def _k_type(name: str, row: int, *, blocks: int, tied: bool) -> Type:
    """Q4_K_M: more bits for the head, for fused projections, and for values and down projections of some blocks."""
    if name == ("token_embd.weight" if tied else "output.weight"):
        return Type.Q6_K if row % GGML_QUANT_SIZES[Type.Q6_K][0] == 0 else Type.Q8_0
    if ".attn_qkv." in name:
        return Type.Q5_K
    if (".attn_v." in name or ".ffn_down." in name) and _has_more_bits(int(name.split(".")[1]), blocks):
        return Type.Q6_K
    return Type.Q4_K


def _has_more_bits(block: int, blocks: int) -> bool:
    """The first and the last eighth of the blocks, and every third between (llama.cpp's `use_more_bits`)."""
    eighth = blocks // 8
    return block < eighth or block >= 7 * blocks // 8 or (block - eighth) % 3 == 2


def encode(rows: Tensor, kind: Type, name: str) -> Bytes:
    """Rows of numbers in a format; refuses numbers that it cannot hold."""
    if kind is Type.F32:
        return rows.float().contiguous().numpy().view(np.uint8)
    if kind is Type.F16:
        halves = rows.to(torch.float16)
        if torch.isinf(halves).any():
            largest = float(rows.float().abs().max())
            raise UserError(
                f"{name} holds numbers up to {largest:.3g}, and f16 ends at 65,504; choose --type bf16.", where="--type"
            )
        return halves.contiguous().numpy().view(np.uint8)
    if kind is Type.BF16:
        return rows.to(torch.bfloat16).contiguous().view(torch.int16).numpy().view(np.uint8)
    numbers = rows.float().contiguous().numpy()
    if kind in OWN_QUANTISER:
        return llama_cpp.quantise(numbers, int(kind))
    found: Bytes = quants.quantize(numbers, kind).view(np.uint8)
    return found
