"""A model's weights as they are read: what lacks, what is left over, what is no number; nothing is made up in silence."""

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from luthier.errors import UserError
from luthier.model.folder import readable

WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Parts of names that torch.compile, DistributedDataParallel, FSDP, activation checkpointing and Fabric put in."""
PEFTS = "base_model.model."  # what peft puts in front of a model's own names
SHOWN = 3


def read(folder: Path, name: str, **how: Any) -> tuple[PreTrainedModel, list[str]]:
    """A whole model with every weight as its file has it, and what is worth telling about that.

    Names with a known wrapper in them are repaired. Refuses a model that lacks weights, has them in other shapes, or has more
    than it uses in a place that it does use: it would compute otherwise than the one that was saved.
    """
    model, info = _read(folder, name, **how)
    wrapped = _wrappers(info["unexpected_keys"])
    if wrapped:
        model, info = _read(folder, name, key_mapping={_inside(wrapped): r"\1"}, **how)
        model.__dict__["_weight_conversions"] = None  # else transformers puts the wrapper back where it saves
    _expect_shapes(info["mismatched_keys"], name)
    missing, left = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    used = [each for each in left if _within(each, model)]
    if missing or used:
        raise _lacking(missing, left if missing else used, name, "the model")
    notes = [_repaired(wrapped, name)] if wrapped else []
    if left:
        notes.append(f"{name}: {_count(left)} that this kind of model does not use: {_some(left)}.")
    return model, notes


def read_encoder(folder: Path, name: str) -> PreTrainedModel:
    """An encoder in fp32, every weight as its file has it but the pooler's, which last hidden states do not pass."""
    model, info = _read(folder, name, AutoModel, dtype=torch.float32)
    _expect_shapes(info["mismatched_keys"], name)
    if missing := sorted(each for each in info["missing_keys"] if not each.startswith("pooler.")):
        raise _lacking(missing, sorted(info["unexpected_keys"]), name, "the model")
    expect_finite(model, name)
    return model


def adapt(model: nn.Module, folder: Path, name: str, *, adapter: str = "default") -> tuple[PeftModel, list[str]]:
    """The model with an adapter of this folder beside it, every weight as its file has it; and what is worth telling."""
    advice = " Is this the base that the adapter was trained beside?"
    with _without_peft_warnings(), readable("the adapter", name, advice):
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=adapter)
            adapted = model
        else:
            adapted = PeftModel.from_pretrained(model, str(folder), adapter_name=adapter)
    with readable("the adapter", name, advice):
        renamed = getattr(model, "_checkpoint_conversion_mapping", None)
        state = load_peft_weights(str(folder), device="cpu", key_mapping=renamed)
        missing, left = _set(adapted, state, adapter)
        notes = []
        if wrapped := _wrappers(left):
            missing, left = _set(adapted, {_unwrapped(each, wrapped): state[each] for each in state}, adapter)
            notes = [_repaired(wrapped, name)]
    if missing or left:
        raise _lacking(missing, left, name, "the adapter")
    return adapted, notes


def expect_finite(model: nn.Module, name: str) -> None:
    """Refuses weights that are not all finite numbers."""
    bad = [
        each
        for each, weight in model.named_parameters()
        if weight.is_floating_point() and weight.numel() and not _is_finite(weight)
    ]
    if bad:
        raise UserError(
            f"the weights hold NaN or infinity in {_some(bad)}: the file is damaged, or was saved from a training that had "
            "failed. Get it again, or take an earlier checkpoint.",
            where=name,
        )


@torch.no_grad()
def _is_finite(weight: torch.Tensor) -> bool:
    """Whether all are finite, in one pass without a copy: the least and the greatest are NaN where one is."""
    least, greatest = torch.aminmax(weight)
    return bool(torch.isfinite(least)) and bool(torch.isfinite(greatest))


def _read(
    folder: Path, name: str, kind: Any = AutoModelForCausalLM, **how: Any
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """What transformers makes of the folder, and what it says about names; weights of other shapes are left out and named."""
    with readable("the model", name), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You passed `quantization_config`", UserWarning)  # in 4 bits as well
        loaded: Any = kind.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, use_safetensors=True, trust_remote_code=False,
            **how,
        )  # fmt: skip
    model, info = loaded
    return model, info


def _wrappers(names: Collection[str]) -> list[str]:
    """The known wrappers that stand in these names."""
    parts = {part for each in names for part in each.split(".")}
    return [wrapper for wrapper in WRAPPERS if wrapper in parts]


def _inside(wrapped: Collection[str]) -> str:
    """A regular expression for these parts of names, one or several in a row."""
    return rf"(^|\.)((?:{'|'.join(wrapped)})\.)+"


def _unwrapped(name: str, wrapped: Collection[str]) -> str:
    """A name of an adapter's file without wrappers; peft's own beginning stays in front."""
    return PEFTS + re.sub(_inside(wrapped), r"\1", name).removeprefix(PEFTS)


def _within(name: str, model: nn.Module) -> bool:
    """Whether a weight that is left over stands in a part of the model: a block, a norm, the head.

    What stands beside all parts (a tower for images, a head for values, blocks that guess further tokens) changes nothing.
    """
    inside = {"", getattr(model, "base_model_prefix", "")}
    part = name.rpartition(".")[0]
    parts = dict(model.named_modules())
    while part and part not in parts:
        part = part.rpartition(".")[0]
    return part not in inside


def _set(model: PeftModel, state: dict[str, torch.Tensor], adapter: str) -> tuple[list[str], ...]:
    """Give an adapter these weights; gives the names that lack and those left over, without peft's name for the adapter."""
    result: Any = set_peft_model_state_dict(model, state, adapter_name=adapter)
    inside = f".{adapter}"
    missing = (each for each in result.missing_keys if inside in each)
    return tuple(sorted(each.replace(inside, "") for each in names) for names in (missing, result.unexpected_keys))


def _expect_shapes(mismatched: Collection[tuple[str, Any, Any]], name: str) -> None:
    if mismatched:
        each, found, wanted = sorted(mismatched)[0]
        more = f" and {len(mismatched) - 1:,} more" if len(mismatched) > 1 else ""
        raise UserError(
            f"the weights do not fit config.json: {each} is {_shape(found)} in the file, {_shape(wanted)} by the "
            f"configuration{more}. Put the config.json that the weights were saved with beside them.",
            where=name,
        )


def _shape(sizes: Collection[int]) -> str:
    return " × ".join(f"{size:,}" for size in sizes)


def _lacking(missing: Collection[str], left: Collection[str], name: str, what: str) -> UserError:
    """The message for names that do not match."""
    faults = []
    if missing:
        faults.append(
            f"{_count(missing)} of {what} {'is' if len(missing) == 1 else 'are'} not in its files: {_some(missing)}"
        )
    if left:
        faults.append(
            f"{_count(left)} in the files {'has' if len(left) == 1 else 'have'} no place in {what}: {_some(left)}"
        )
    advice = "Take whole files, with the configuration that they were saved with."
    return UserError(f"{'; '.join(faults)}. {advice}", where=name)


def _repaired(wrapped: Collection[str], name: str) -> str:
    return f"{name}: the weights were saved inside a wrapper; {', '.join(wrapped)} is taken out of their names."


def _count(names: Collection[str]) -> str:
    return f"{len(names):,} weight{'s' * (len(names) != 1)}"


def _some(names: Collection[str]) -> str:
    """The first few names, and how many more there are."""
    shown = list(names)[:SHOWN]
    return ", ".join(shown) + (f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else "")


@contextmanager
def _without_peft_warnings() -> Iterator[None]:
    """Inside, peft may use words that transformers calls deprecated, and warn of weights that are looked at here anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        yield
