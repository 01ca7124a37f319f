"""What a model is made of, told by its configuration alone: no weights are read, and none of its size are made."""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from luthier.model import attention, probes, recomputation
from luthier.model.causal import CausalModel, states
from luthier.model.device import DTYPES, Precision
from luthier.model.head import scores
from luthier.model.packed import pack

FORWARD, BACKWARD_INPUTS, BACKWARD_WEIGHTS = 2, 2, 2  # operations for each weight and token
MEASURED = 4096  # tokens that are run at most: a larger batch of like rows saves more in proportion
SMALL_VOCABULARY = 64  # of the shallow copies that are measured: the tables hold nothing that a layer saves


@dataclass(frozen=True)
class ModelSpec:
    """A model's weights by what they are; counts are of numbers, not bytes."""

    config: PretrainedConfig = field(repr=False, compare=False)
    parameters: int
    """All weights; tied ones once."""
    embedding_parameters: int
    """Weights of tables that are looked up and never multiplied: the input embeddings, unless they are the head as well."""
    matrix_shapes: tuple[tuple[int, ...], ...]
    """Shapes of all weights with two dimensions and more."""
    adapted_shapes: tuple[tuple[int, int], ...]
    """Shapes of the linear layers that adapters stand beside: all but the head."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> "ModelSpec":
        """The spec of a causal language model with this configuration."""
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        head = model.get_output_embeddings()
        shared = {id(head.weight)} if head is not None else set()
        tables = {id(part.weight): part.weight for part in model.modules() if isinstance(part, nn.Embedding)}
        weights = list(model.parameters())
        return cls(
            config=config,
            parameters=sum(weight.numel() for weight in weights),
            embedding_parameters=sum(table.numel() for number, table in tables.items() if number not in shared),
            matrix_shapes=tuple(tuple(weight.shape) for weight in weights if weight.ndim > 1),
            adapted_shapes=tuple(
                (part.weight.shape[0], part.weight.shape[1])
                for part in model.modules()
                if part is not head and not isinstance(part, nn.Embedding) and _is_matrix(part)
            ),
        )

    @property
    def vocab_size(self) -> int:
        """Rows of the head."""
        return int(self.config.get_text_config().vocab_size)

    @property
    def hidden_size(self) -> int:
        return int(self.config.get_text_config().hidden_size)

    @property
    def num_layers(self) -> int:
        return int(self.config.get_text_config().num_hidden_layers)

    @property
    def matmul_parameters(self) -> int:
        """Weights that every token is multiplied with; Kaplan et al. 2020 count like this (their N, with the head)."""
        return self.parameters - self.embedding_parameters

    @cached_property
    def plain_head(self) -> bool:
        """Whether scores can be computed for a few tokens at a time; see `probes.has_plain_head`."""
        return probes.has_plain_head(_shallow(self.config, 1, "fp32"))

    def flops_per_token(self, *, trains: str = "full") -> int:
        """Floating-point operations for each token, attention's scores left out.

        Six for each multiplied weight where all learn ("full"); four where gradients only pass through frozen weights
        ("adapters"); two where nothing learns ("nothing").
        """
        backward = {"full": BACKWARD_INPUTS + BACKWARD_WEIGHTS, "adapters": BACKWARD_INPUTS, "nothing": 0}
        return (FORWARD + backward[trains]) * self.matmul_parameters

    def adapter_parameters(self, rank: int, *, magnitudes: bool = False) -> int:
        """Weights of adapters of this rank beside every linear layer; with `magnitudes` (DoRA) one more for each row."""
        return sum(rank * (rows + columns) + (rows if magnitudes else 0) for rows, columns in self.adapted_shapes)

    def model_to_try(self) -> PreTrainedModel:
        """Two layers of this kind and width in fp32, with weights at random and hardly a vocabulary: what it does with rows
        of a batch, the whole model does too."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(_shallow_config(self.config, 2), dtype=torch.float32)
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(std=weight.shape[-1] ** -0.5)  # else a small model hardly says anything
            model.eval()
        assert isinstance(model, PreTrainedModel)
        return model

    def saved_activations(
        self,
        lengths: Sequence[int],
        precision: Precision,
        *,
        checkpointing: bool = False,
        prepare: Callable[[CausalModel], CausalModel] = lambda model: model,
    ) -> int:
        """Bytes that a forward pass over packed rows of these lengths saves for the backward pass, the head left out.

        Measured on copies of one and of two layers: every further layer saves as much as the second one. `prepare` makes of
        such a copy what is trained. With `checkpointing` a layer saves its input only, and the activations of one layer come
        back at a time.
        """
        measured = first_rows(lengths, MEASURED)
        one, two = (_saved_bytes(prepare(_shallow(self.config, layers, precision)), measured) for layers in (1, 2))
        further = sum(measured) * self.hidden_size * DTYPES[precision].itemsize if checkpointing else two - one
        return round((one + (self.num_layers - 1) * further) * sum(lengths) / sum(measured))


def _saved_bytes(model: CausalModel, lengths: Sequence[int]) -> int:
    """Bytes of the tensors that a forward pass saves, weights left out, while the model trains."""
    attention.install_attention(model)
    recomputation.replace_norms_and_mlps(model)
    weights = {weight.data_ptr() for weight in model.parameters()}
    saved: dict[int, Tensor] = {}

    def save(tensor: Tensor) -> Tensor:
        alone = tensor.detach()  # what a step saves of its own result would hold the step, and that the model, for ever
        if (address := tensor.untyped_storage().data_ptr()) not in weights:
            saved[address] = alone  # kept alive, so that no other tensor gets its address meanwhile
        return alone

    batch = pack([_Row(length) for length in lengths], torch.device("cpu"))
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        if probes.has_plain_head(model):
            states(model, batch)
        else:
            scores(model, batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def first_rows(lengths: Sequence[int], tokens: int) -> tuple[int, ...]:
    """The lengths of the first rows that have at most so many tokens together; of one row at least."""
    ends = [end for end in itertools.accumulate(lengths) if end <= tokens]
    return tuple(lengths[: max(1, len(ends))])


class _Row:
    """A row of some length; what its tokens are makes no difference to what is saved."""

    def __init__(self, length: int) -> None:
        self.ids = np.ones(length, dtype=np.int32)
        self.loss_mask = np.ones(length, dtype=bool)


def _shallow(config: PretrainedConfig, layers: int, precision: Precision) -> PreTrainedModel:
    """A model of the same hidden size with few layers and hardly a vocabulary; its weights mean nothing."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(_shallow_config(config, layers), dtype=DTYPES[precision])
    model.to_empty(device="cpu").requires_grad_(True).train()
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(0.01)
    assert isinstance(model, PreTrainedModel)
    return model


def _shallow_config(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    config = copy.deepcopy(config)
    text: Any = config.get_text_config()
    text.num_hidden_layers = layers
    text.vocab_size = SMALL_VOCABULARY
    text.pad_token_id = text.bos_token_id = text.eos_token_id = None
    for name in ("layer_types", "mlp_layer_types", "no_rope_layers"):
        computed = isinstance(getattr(type(text), name, None), property)  # from the number of layers, as Mamba's
        if isinstance(kinds := getattr(text, name, None), list) and not computed:
            setattr(text, name, kinds[:layers])
    return config


def _is_matrix(part: nn.Module) -> bool:
    """A linear layer, or GPT-2's, which holds its weights the other way round."""
    return isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"
