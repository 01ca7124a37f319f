"""What every test may use: a tiny real model, real data beside the repository, an environment without surprises."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

    from serving import Running

ROOT = Path(__file__).resolve().parent.parent

# Before anything imports torch or transformers: no network, no colours, and threads that add up to the cores.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["NO_COLOR"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads that spin cost 40 times on shared cores
os.environ.setdefault(
    "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SENTENCES = [
    "How do I reset my password? Open the settings and choose a new one.",
    "The printer in the kitchen prints only blue pages since Monday.",
    "What is the capital of France? The capital of France is Paris.",
    "Answer with one word: refund, invoice, delivery or other.",
    'system user assistant {"name": "Anna", "amount": 12.50, "urgent": true}',
]


def pytest_configure(config: pytest.Config) -> None:
    """Without `-m gpu` everything runs on the processor, so that a test means the same on every machine."""
    if "not gpu" in config.option.markexpr or "gpu" not in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


class _LibrariesFirst(MetaPathFinder):
    """Loads torch and transformers before the first of our modules whose shapes are checked.

    While jaxtyping loads such a module, Python looks for the compiled files of everything that this one imports under
    jaxtyping's own names: thousands of modules of the libraries would be compiled anew, which takes longer than importing them.
    """

    LIBRARIES = ("torch", "transformers.generation.utils", "transformers.models.auto.modeling_auto", "peft")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "luthier.train" or fullname.startswith("luthier.model."):
            sys.meta_path.remove(self)
            for name in ("luthier.model", *self.LIBRARIES):  # ours sets what torch reads when it is loaded
                importlib.import_module(name)
        return None


sys.meta_path.insert(0, _LibrariesFirst())


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a 2-layer Llama of about 30,000 weights, a byte-level tokenizer and a ChatML template.

    It has everything that a real one has and knows nothing: its answers are noise, always the same noise.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("models") / "tiny"
    coder = Tokenizer(models.BPE())
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    coder.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=coder,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        chat_template=CHATML,
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Running"]:
    """A server with the tiny model, which all tests of a session share."""
    from serving import start, stop

    folder = tmp_path_factory.mktemp("serve")
    running = start(folder / "home", folder, tiny_model)
    yield running
    assert stop(running) == 0, running.log.read_text()
    assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """A folder with real data sets, which is not part of the repository; a test that needs it is skipped without it."""
    folder = Path(os.environ.get("LUTHIER_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no shared data: set LUTHIER_SHARED_DATA to its folder, or put it in ../shared/data")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB, to be filled; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"cannot mount a small file system here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def mamba() -> "torch.nn.Module":
    """A tiny model without attention: its layer carries a state from token to token."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 384, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: torch.nn.Module = AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **sizes))
        for weight in model.parameters():
            if weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.3)
    return model
