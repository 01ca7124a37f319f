"""A model whose weights, gradients and optimizer state are spread over several processes (FSDP2), and its checkpoints.

Each process keeps its rows of every weight in fp32, and puts a layer's weights together only while it computes with them. A
checkpoint has a file of each process, in the format of torch.distributed.checkpoint, inside the folder and manifest of every
other checkpoint. That format's index is a pickle, so nothing of it is read before the manifest's hashes are found to hold.
"""

import errno
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from luthier.errors import MachineError, UserError
from luthier.model import head, layers
from luthier.model.causal import CausalModel
from luthier.model.device import DTYPES
from luthier.recipe import Train
from luthier.runs import durable, manifest
from luthier.train.checkpoint import Checkpoint, Stored, as_tensor, bytes_of
from luthier.train.world import World

FULL = 1 << 20
"""Bytes: a disk with less room than this has refused a write for that reason."""
REFUSED = "unexpected pos"
"""What torch's writer says of a file that it could not write to its end, whatever the system's reason was."""
INDEX = ".metadata"
"""The file that tells which tensors are where; its name is that of torch.distributed.checkpoint."""


def check(settings: Train) -> None:
    """Refuses what cannot be trained in shards."""
    if wrong := _wrong(settings):
        raise UserError(
            f"{', '.join(wrong)} cannot be trained in shards, only all weights with adamw on answers or texts. Leave --shard "
            "out: each process then holds the whole model.",
            where="--shard",
        )


def is_possible(settings: Train) -> bool:
    """Whether these settings can be trained in shards."""
    return not _wrong(settings)


def _wrong(settings: Train) -> list[str]:
    return [
        f"train.{key}={value}"
        for key, value, possible in (
            ("method", settings.method or "full", ("full",)),
            ("optimizer", settings.optimizer, ("adamw",)),
            ("objective", settings.objective or "sft", ("sft", "text")),
            ("compile", settings.compile, (False,)),
        )
        if value not in possible
    ]


def shard(model: CausalModel, settings: Train, world: World) -> None:
    """Leave this process its share of the model's weights, in fp32; they compute in the precision of the settings."""
    mesh = init_device_mesh(model.device.type, (world.size,))
    policy = MixedPrecisionPolicy(param_dtype=DTYPES[settings.precision or "fp32"], reduce_dtype=torch.float32)
    for module in (*layers.blocks(model), head.loss_of(model)):
        sharded: Any = fully_shard(module, mesh=mesh, mp_policy=policy)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo multiplies nothing before it adds
        sharded.set_gradient_divide_factor(1.0)


def is_sharded(model: CausalModel) -> bool:
    """Whether the weights are spread over several processes."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, in the same memory; of a whole one all."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def with_shards(tensors: Mapping[str, Stored], weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """An optimizer's named tensors, each that is part of a weight's as the shard that it is; `weights` by their names."""
    found: dict[str, Tensor] = {}
    for key, stored in tensors.items():
        tensor, weight = as_tensor(stored), weights.get(key.partition("/")[2])
        if isinstance(weight, DTensor) and tensor.shape == weight.to_local().shape:
            tensor = DTensor.from_local(
                tensor,
                weight.device_mesh,
                weight.placements,
                run_check=False,
                shape=weight.shape,
                stride=weight.stride(),
            )
        found[key] = tensor
    return found


def save(root: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, object], world: World) -> None:
    """Write the checkpoint of a step, each process its shards; complete on return, or not there, in all of them."""
    target = manifest.path(root, step)
    if not world.is_first:
        temporary = Path(world.exchange(None)[0])
        _write_shards(temporary, tensors)
        world.exchange(_digests(temporary, world.rank))
        world.wait()
        return
    here = bytes_of({name: local(tensor) for name, tensor in tensors.items()})
    durable.require_space(root, world.size * here, "a checkpoint needs")
    durable.make_folders(root)
    with durable.whole_folder(target) as temporary:
        world.exchange(str(temporary))
        _write_shards(temporary, tensors)
        digests = world.exchange(_digests(temporary, world.rank))
        hashes = {name: digest for each in digests for name, digest in each.items()}
        hashes[INDEX] = durable.digest(temporary / INDEX)
        hashes["state.json"] = manifest.write_json(temporary / "state.json", state)
        manifest.write(temporary, step, hashes)
    world.wait()


def load(found: Checkpoint, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fill these tensors with what a verified checkpoint of shards has of each; gives each process's own part."""
    reader = dcp.FileSystemReader(found.folder)  # type: ignore[attr-defined]
    dcp.load(tensors, storage_reader=reader)  # type: ignore[attr-defined]
    return {name: local(tensor) for name, tensor in tensors.items()}


def _write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write this process's part, flushed to the disk. Where one cannot, all raise the MachineError that names it."""
    try:
        writer = dcp.FileSystemWriter(folder, sync_files=True)  # type: ignore[attr-defined]
        dcp.save(dict(tensors), storage_writer=writer)  # type: ignore[attr-defined]
    except dcp.api.CheckpointException as error:
        failures: Mapping[int, Any] = error.failures
        rank, (reason, _) = next(iter(sorted(failures.items())))
        if isinstance(reason, OSError):
            why = durable.REASONS.get(reason.errno or 0, str(reason))
        elif shutil.disk_usage(folder).free < FULL:
            why = durable.REASONS[errno.ENOSPC]
        elif REFUSED in str(reason):
            why = "the system refused a write"
        else:
            raise RuntimeError(f"rank {rank}: {reason}") from error
        message = f"rank {rank} cannot write its part of the checkpoint: {why}. What was complete before is kept."
        raise MachineError(message, where=str(folder.parent)) from error


def _digests(folder: Path, rank: int) -> dict[str, str]:
    """SHA-256 of the files that a process has written."""
    return {file.name: durable.digest(file) for file in sorted(folder.glob(f"__{rank}_*"))}
