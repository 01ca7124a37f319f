"""The state of optimizers as named tensors and back: of each weight, in their param groups, and besides.

Each is asked for it by torch's own contract, `state_dict`. What are no tensors (counts, estimates, nested lists) goes into one
more tensor, whose bytes are JSON; Python's JSON gives floats back to the last bit.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from luthier.errors import UserError
from luthier.model import allocator
from luthier.train.checkpoint import DTYPES

NON_TENSORS = "rest/optimizers"  # the name of the tensor that holds all that is no tensor
PLAIN = (bool, int, float, str, type(None))


class OptimizerState:
    """Reads and restores the state of these optimizers; `names` are those of their weights by the weights' ids."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], names: Mapping[int, str]) -> None:
        self.optimizers = optimizers
        self.names = names
        self.initial_groups = [[dict(group) for group in optimizer.param_groups] for optimizer in optimizers]
        """The param groups as they were made: objects that are still the same there are not saved but made again."""

    def read(self) -> dict[str, Tensor]:
        """All of it, no two tensors sharing memory."""
        tensors: dict[str, Tensor] = {}
        non_tensors: list[Any] = []
        for number, (optimizer, initial) in enumerate(zip(self.optimizers, self.initial_groups, strict=True)):
            writer = _Writer(type(optimizer).__name__, tensors)
            state = []
            for key, name in [
                *self._weights(optimizer),
                *((key, key) for key in optimizer.state if not _is_weight(key)),
            ]:
                value = optimizer.state.get(key, {})
                parts = value if isinstance(value, dict) else {"": value}
                table = [[field, writer.value(part, str(field), name)] for field, part in parts.items()]
                if table:
                    state.append([name, {"table": table} if isinstance(value, dict) else table[0][1]])
            groups = [
                {"table": [
                    [key, writer.value(value, key, f"{number}.group.{at}")]
                    for key, value in group.items()
                    if key not in ("params", "lr") and (_is_writable(value) or value is not before.get(key))
                ]}
                for at, (group, before) in enumerate(zip(optimizer.param_groups, initial, strict=True))
            ]  # fmt: skip
            further = {
                key: value for key, value in optimizer.state_dict().items() if key not in ("state", "param_groups")
            }
            non_tensors.append([state, groups, writer.value(further, "beside", number)])
        tensors[NON_TENSORS] = torch.frombuffer(bytearray(json.dumps(non_tensors).encode()), dtype=torch.uint8)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `read` gave."""
        non_tensors = json.loads(bytes(tensors[NON_TENSORS].tolist()))
        for optimizer, (state, groups, further) in zip(self.optimizers, non_tensors, strict=True):
            weights = {name: weight for weight, name in self._weights(optimizer)}
            numbers = {name: number for number, name in enumerate(weights)}
            with allocator.long_lived():
                found = {name: _read(value, tensors) for name, value in state}
                saved_groups = [_read(group, tensors) for group in groups]
            content = optimizer.state_dict()
            content["state"] = {numbers.get(name, name): value for name, value in found.items()}
            for group, values in zip(content["param_groups"], saved_groups, strict=True):
                group |= {key: _on_device_of(value, group.get(key)) for key, value in values.items()}
            optimizer.load_state_dict(content | _read(further, tensors))
            for name, weight in weights.items():  # torch has cast what has another dtype to the weight's
                for key, value in found.get(name, {}).items():
                    now = optimizer.state[weight].get(key)
                    if isinstance(value, Tensor) and isinstance(now, Tensor) and now.dtype != value.dtype:
                        optimizer.state[weight][key] = value.to(now.device)

    def _weights(self, optimizer: torch.optim.Optimizer) -> list[tuple[Tensor, str]]:
        """An optimizer's weights in its own order, with their names."""
        return [(weight, self.names[id(weight)]) for group in optimizer.param_groups for weight in group["params"]]


class _Writer:
    """Turns values into JSON, and collects the tensors in them under names of their own."""

    def __init__(self, optimizer: str, tensors: dict[str, Tensor]) -> None:
        self.optimizer = optimizer
        self.tensors = tensors
        self.seen = {tensor.data_ptr() for tensor in tensors.values()}

    def value(self, value: Any, key: str, of: object) -> Any:
        """A value in JSON, where a table stands for what JSON does not know; `key` and `of` name its tensors."""
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, Tensor) and value.dtype in DTYPES:
            shared = value.data_ptr() in self.seen  # a table that it shares between weights
            self.seen.add(value.data_ptr())
            self.tensors[f"{key}/{of}"] = value.clone() if shared else value
            return {"tensor": f"{key}/{of}"}
        if isinstance(value, list | tuple):
            parts = [self.value(part, f"{key}.{at}", of) for at, part in enumerate(value)]
            return parts if isinstance(value, list) else {"tuple": parts}
        if isinstance(value, dict) and all(isinstance(name, str | int) for name in value):
            return {"table": [[name, self.value(part, f"{key}.{name}", of)] for name, part in value.items()]}
        raise UserError(
            f"{self.optimizer} keeps {key} as a {type(value).__name__}, which a checkpoint cannot hold, so a stopped run could "
            "not go on. Expected tensors, numbers, texts, and lists or tables of them.",
            where="train.optimizer",
        )


def _read(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that `_Writer.value` turned into this."""
    match value:
        case list():
            return [_read(part, tensors) for part in value]
        case {"tensor": name}:
            return tensors[name].clone()
        case {"tuple": parts}:
            return tuple(_read(part, tensors) for part in parts)
        case {"table": pairs}:
            return {name: _read(part, tensors) for name, part in pairs}
    return value


def _is_weight(key: object) -> bool:
    return isinstance(key, Tensor)


def _is_writable(value: Any) -> bool:
    """Whether a value can stand in a checkpoint, whatever is in it."""
    if isinstance(value, list | tuple):
        return all(map(_is_writable, value))
    if isinstance(value, dict):
        return all(map(_is_writable, value.values()))
    return isinstance(value, PLAIN) or (isinstance(value, Tensor) and value.dtype in DTYPES)


def _on_device_of(value: Any, replaced: Any) -> Any:
    """A value on the device of the one that it replaces."""
    return value.to(replaced.device) if isinstance(value, Tensor) and isinstance(replaced, Tensor) else value
