"""A model's folder: whether it can be used, and what its configuration and its tokenizer say; weights are not read here."""

import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from luthier.errors import UserError, nearest
from luthier.extensions import import_optional

ADAPTER, GENERATION = "adapter_config.json", "generation_config.json"
UNKNOWN_CONTEXT = 2048  # tokens, of a model whose configuration names no limit
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
UNREADABLE = (
    OSError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip
"""What libraries raise over files that are not as they expect."""
POINTER = b"version https://git-lfs"
SUPPORTED = (
    "Luthier works with language models that write from left to right (Llama, Qwen, Gemma, Mistral, Phi, SmolLM and the "
    "other causal models of transformers), in fp32, bf16 or fp16"
)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a peft adapter, which needs its base model beside it."""
    return (folder / ADAPTER).is_file()


def check(folder: Path, name: str, *, weights: bool = True) -> Path:
    """The folder, if it holds a model of a kind that can be used, runs no code of its own and is whole; else a UserError.

    Without `weights`, neither these nor a tokenizer need be there.
    """
    for file in folder.iterdir():
        if file.suffix in (".safetensors", ".json", ".model") and _is_pointer(file):
            raise UserError(
                f"{file.name} is a Git LFS pointer, not the file itself; `git lfs pull` in that folder fetches it.",
                where=name,
            )
    settings = _settings(folder, name)
    if "auto_map" in settings:
        raise UserError(
            "the model brings its own Python code (auto_map in config.json), which would run with your rights "
            "(trust_remote_code). Luthier never runs it; use a model that transformers itself knows.",
            where=name,
        )
    if is_adapter(folder):
        _expect_adapter(settings, name)
    else:
        _expect_causal(settings, name)
        _expect_readable_numbers(settings, name)
    if weights:
        _expect_files(folder, name)
    return folder


def read_config(folder: Path, name: str) -> PreTrainedConfig:
    """The configuration of a whole model."""
    with readable("the configuration", name):
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config.get_text_config()  # raises where a model has several
    return config


def read_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, made anew from SentencePiece's file where that is all there is."""
    alone = not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json"))
    if alone and (folder / "tokenizer.model").is_file():
        lacking = [module for module in ("sentencepiece", "google.protobuf") if not _is_installed(module)]
        if lacking:
            raise UserError(
                "the tokenizer is there as SentencePiece's file only (tokenizer.model), and the packages that read it are "
                "not: pip install sentencepiece protobuf.",
                where=name,
            )
    with readable("the tokenizer", name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return tokenizer


def end_ids(folder: Path) -> frozenset[int]:
    """The tokens that end an answer by generation_config.json; none where there is no such file."""
    file = folder / GENERATION
    try:
        ends = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return frozenset()
    listed = ends if isinstance(ends, list) else [ends]
    return frozenset(end for end in listed if isinstance(end, int))


def context_of(config: PreTrainedConfig) -> int:
    """Most tokens that a model can look back on; of one that reads images too, its text model's."""
    text = config.get_text_config()
    known = getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)
    return int(known or UNKNOWN_CONTEXT)


def expect_room(tokenizer: PreTrainedTokenizerBase, template: str, config: PreTrainedConfig, name: str) -> None:
    """Refuses a tokenizer with tokens that the model has no embedding for, unless nothing here could ever write them.

    Text that spells an added token stays text, so an added token that neither ends an answer nor stands in the template
    does no harm; Gemma 3 1B has such a one, for images.
    """
    rows = int(config.get_text_config().vocab_size)
    if len(tokenizer) <= rows and max(tokenizer.added_tokens_decoder, default=0) < rows:
        return
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    used = (tokenizer.eos_token, tokenizer.bos_token)
    beyond = sorted(
        (number, token)
        for token, number in tokenizer.get_vocab().items()
        if number >= rows and (token not in added or token in used or token in template)
    )
    if beyond:
        number, token = beyond[0]
        more = f" and {len(beyond) - 1:,} more" if len(beyond) > 1 else ""
        raise UserError(
            f'the model has {rows:,} embeddings, and the tokenizer\'s token "{token}" is number {number:,}{more}: they do not '
            "belong together. Put the tokenizer that the model was made with into its folder.",
            where=name,
        )


@contextmanager
def readable(what: str, name: str, advice: str = "") -> Iterator[None]:
    """Inside, what transformers, peft and safetensors say of files that they cannot read becomes a UserError."""
    try:
        yield
    except UNREADABLE as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        message = next((line.strip() for line in lines if not line.rstrip().endswith(":")), lines[0]).rstrip(".")
        raise UserError(f"cannot load {what}: {message}.{advice}", where=name) from error


def _settings(folder: Path, name: str) -> dict[str, Any]:
    """config.json, or an adapter's adapter_config.json."""
    config = folder / (ADAPTER if is_adapter(folder) else "config.json")
    if not config.is_file():
        if (folder / "model_index.json").is_file():
            raise UserError(f"a pipeline of the library diffusers, which makes images. {SUPPORTED}.", where=name)
        message = "not a Hugging Face model: it has no config.json."
        if guff := sorted(folder.glob("*.gguf")):
            message += f" To use its GGUF file, name that: model={guff[0]}."
        raise UserError(message, where=name)
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}.", where=str(config)) from None
    if not isinstance(settings, dict):
        raise UserError("expected a JSON object.", where=str(config))
    return settings


def _expect_adapter(settings: Mapping[str, Any], name: str) -> None:
    if not settings.get("base_model_name_or_path"):
        message = f"{ADAPTER} does not name the adapter's base model (base_model_name_or_path); write its path there."
        raise UserError(message, where=name)
    kind = settings.get("peft_type")
    if kind in (
        "PROMPT_TUNING",
        "P_TUNING",
        "PREFIX_TUNING",
        "MULTITASK_PROMPT_TUNING",
        "ADAPTION_PROMPT",
        "CARTRIDGE",
    ):
        raise UserError(
            f"an adapter of the kind {kind}; Luthier uses those that change weights, such as LORA.", where=name
        )


def _expect_causal(settings: Mapping[str, Any], name: str) -> None:
    """Refuses an architecture that does not write text from left to right."""
    kind = settings.get("model_type")
    if not isinstance(kind, str) or not kind:
        message = "config.json names no architecture (model_type), so nothing can tell what the weights mean."
        raise UserError(f"{message} {SUPPORTED}.", where=name)
    if kind not in CONFIG_MAPPING:
        near = nearest(kind, list(CONFIG_MAPPING))
        guess = f', did you mean "{near}"?' if near else "."
        raise UserError(
            f'transformers {transformers.__version__} does not know the architecture "{kind}" (model_type in config.json)'
            f"{guess} A newer transformers may.",
            where=name,
        )
    if settings.get("is_encoder_decoder") or (
        kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES and not settings.get("is_decoder")
    ):
        raise UserError(f"an encoder with a decoder ({kind}). {SUPPORTED}.", where=name)
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if masked and not settings.get("is_decoder") and not settings.get("causal"):
        raise UserError(f"an encoder ({kind}), which reads text and writes none. {SUPPORTED}.", where=name)
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(f"transformers has no causal language model of the kind {kind}. {SUPPORTED}.", where=name)


def _expect_readable_numbers(settings: Mapping[str, Any], name: str) -> None:
    """Refuses weights in a format that cannot be trained or widened."""
    text = settings.get("text_config")
    inner = text if isinstance(text, dict) else {}
    for key in ("quantization_config", "compression_config"):
        found = settings.get(key) or inner.get(key)
        if not found:
            continue
        how = str(found.get("quant_method") if isinstance(found, dict) else found)
        if how == "bitsandbytes":
            import_optional("bitsandbytes", "quantised", where=name)
        else:
            raise UserError(
                f"the weights are quantised ({how}). {SUPPORTED}: take the model's original weights; train.method=qlora reads "
                "them in 4 bits.",
                where=name,
            )


def _expect_files(folder: Path, name: str) -> None:
    """Refuses a folder without weights in safetensors, with a part of them, or without a tokenizer."""
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for pattern in PICKLES for path in folder.glob(pattern)]
        if pickles:
            raise UserError(
                f"the weights are pickled ({pickles[0]}), and opening a pickle can run any code. Luthier reads safetensors "
                "only: take a safetensors version of the model, or convert it once with transformers where you trust it.",
                where=name,
            )
        raise UserError("found no weights: expected *.safetensors.", where=name)
    for index in folder.glob("*.safetensors.index.json"):
        with readable(index.name, name):
            parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if lacking := sorted(part for part in parts if not (folder / part).is_file()):
            raise UserError(
                f"{len(lacking)} of {len(parts)} files of weights are not there: {', '.join(lacking)}.", where=name
            )
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise UserError("found no tokenizer: expected tokenizer.json beside the weights.", where=name)


def _is_pointer(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(POINTER)) == POINTER


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # "google" is not there either
        return False
