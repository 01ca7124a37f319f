"""Tokens a second of processor time, of 32 streams of mixed length: our engine, one stream, mixed adapters, others' batches.

    engine.py --streams 32 --rounds 1

All in one process, one after the other, greedy, in fp32, on the same token ids, each answer to its full length.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from record import circumstances, write_section
from transformers.generation import ContinuousBatchingConfig

sys.path.insert(0, str(Path(__file__).resolve().parent))
from gguf_file import write_fp32

from luthier.engine.engine import Engine
from luthier.engine.requests import GenerationRequest
from luthier.model import loading, products
from luthier.model.loading import LanguageModel

HEADING = "Serving: the engine"
PROMPTS, NEW = (16, 256), (64, 192)  # tokens: the shortest and the longest
ADAPTERS, RANK = 4, 8
TARGETS = {"one stream": 8.0, "transformers, continuous batching": 1.2, "llama.cpp server, fp32": 1.0}

PRODUCTS = "the products alone, {rows} rows"
PAGE = 32  # tokens that transformers' cache keeps together
STEPS = 8  # whose products are timed alone

Asked = tuple[tuple[int, ...], int]


def workload(count: int, vocabulary: int, prompts: Sequence[int] = PROMPTS, new: Sequence[int] = NEW) -> list[Asked]:
    """Prompts and lengths of answers: as many short ones as long ones, in a fixed disorder, no two beginning alike."""
    generator = torch.Generator().manual_seed(7)
    shares = torch.rand(count, 2, generator=generator).tolist()
    sizes = [
        (round(prompts[0] + one * (prompts[1] - prompts[0])), round(new[0] + other * (new[1] - new[0])))
        for one, other in shares
    ]
    return [
        (tuple(torch.randint(100, vocabulary - 100, (length,), generator=generator).tolist()), most)
        for length, most in sizes
    ]


def ours(engine: Engine, asked: Sequence[Asked], adapters: Sequence[str | None] = (None,)) -> list[tuple[int, ...]]:
    streams = [
        engine.submit(GenerationRequest(prompt, new, ignore_end=True, adapter=adapters[number % len(adapters)]))
        for number, (prompt, new) in enumerate(asked)
    ]
    return [stream.result().ids for stream in streams]


def one_by_one(engine: Engine, asked: Sequence[Asked]) -> list[tuple[int, ...]]:
    return [ours(engine, [each])[0] for each in asked]


def transformers_memory(tokens: int) -> Any:
    """Room for so many tokens' keys and values: by itself the manager takes most of the machine's memory."""
    return ContinuousBatchingConfig(page_size=PAGE, num_blocks=4 * tokens // PAGE, max_batch_tokens=512)


def transformers_batches(manager: Any, asked: Sequence[Asked]) -> list[tuple[int, ...]]:
    """transformers' manager of continuous batches, which is what `transformers serve` runs."""
    found: dict[str, tuple[int, ...]] = {}
    names = [manager.add_request(list(prompt), max_new_tokens=new, eos_token_id=-1) for prompt, new in asked]
    while len(found) < len(asked):
        result = manager.get_result(timeout=300)
        assert result is not None and result.error is None, result and result.error
        found[result.request_id] = tuple(result.generated_tokens)
    return [found[name] for name in names]


def llama_server(
    path: Path, streams: int, longest: int, threads: int
) -> Callable[[Sequence[Asked]], list[tuple[int, ...]]]:
    """llama.cpp's server in this process, with as many slots as there are streams."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_parallel, settings.n_ctx = streams, streams * (longest + 16)
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.verbosity = 0
    server = xllamacpp.Server(settings)

    def ask(asked: Sequence[Asked]) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = [()] * len(asked)

        def one(number: int) -> None:
            prompt, new = asked[number]
            body = {"prompt": list(prompt), "max_tokens": new, "n_predict": new, "temperature": 0, "ignore_eos": True,
                    "return_tokens": True, "cache_prompt": False}  # fmt: skip
            reply = server.handle_completions(body)
            reply = json.loads(reply) if isinstance(reply, str) else reply
            found[number] = (0,) * int(reply["usage"]["completion_tokens"])

        workers = [threading.Thread(target=one, args=(number,)) for number in range(len(asked))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return found

    return ask


@torch.inference_mode()
def products_alone(lm: LanguageModel, rows: int) -> int:
    """The matrix products of so many steps of this many rows, and nothing else: what no engine can be faster than."""
    layers = [module for module in lm.model.modules() if isinstance(module, torch.nn.Linear)]
    states = {layer.in_features: torch.ones(rows, 1, layer.in_features) for layer in layers}
    for _ in range(STEPS):
        for layer in layers:
            products.linear(states[layer.in_features], layer.weight, layer.bias)
    return rows * STEPS


def write_adapters(lm: LanguageModel, folder: Path) -> list[Path]:
    """LoRA adapters of random weights on every linear layer."""
    found = []
    for number in range(ADAPTERS):
        fresh = loading.load(lm.name)
        adapted = loading.add_adapters(fresh.model, rank=RANK, alpha=RANK, seed=number)
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, 0.01)
        found.append(folder / f"adapter{number}")
        loading.save(adapted, fresh.tokenizer, fresh.template, found[-1], {})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="serve_load", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument(
        "--prompts", type=int, nargs=2, default=PROMPTS, help="tokens of the shortest and the longest prompt"
    )
    parser.add_argument("--new", type=int, nargs=2, default=NEW, help="the same of answers")
    parser.add_argument("--alone", type=int, default=3, help="how many of the requests are asked one by one")
    parser.add_argument("--threads", type=int, default=None, help="by default as many as cores are free")
    parser.add_argument("--skip", default="", help="parts that are left out: transformers, llama, adapters")
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    given = parser.parse_args()
    lm = loading.load(given.model)
    asked = workload(given.streams, int(lm.model.config.vocab_size), given.prompts, given.new)
    rates: dict[str, float] = {}
    wall: dict[str, float] = {}

    def measure(name: str, work: Callable[[], list[tuple[int, ...]] | int]) -> None:
        start, used = time.perf_counter(), time.process_time()
        done = work()
        used, spent = time.process_time() - used, time.perf_counter() - start
        tokens = done if isinstance(done, int) else sum(map(len, done))
        rates[name], wall[name] = tokens / used, tokens / spent
        print(f"{name:36} {rates[name]:7.1f} tokens per CPU second, {wall[name]:7.1f} per second", flush=True)

    with Engine(lm, threads=given.threads) as engine:
        threads = engine.threads or 1
        ours(engine, [(asked[0][0], 2)])  # what is made at the first call
        measure("one stream", lambda: one_by_one(engine, asked[: given.alone]))
        measure("engine", lambda: ours(engine, asked))
    torch.set_num_threads(threads)
    for rows in (1, given.streams):
        products_alone(lm, rows)  # makes the kernels
        measure(PRODUCTS.format(rows=rows), lambda rows=rows: products_alone(lm, rows))  # type: ignore[misc]
    if "llama" not in given.skip:
        with tempfile.TemporaryDirectory() as folder:
            ask = llama_server(
                write_fp32(Path(folder) / "model.gguf"), given.streams, given.prompts[1] + given.new[1], threads
            )
            measure("llama.cpp server, fp32", lambda: ask(asked))
    if "transformers" not in given.skip:
        model: Any = loading.load(given.model).model
        memory = transformers_memory(sum(len(prompt) + new for prompt, new in asked))
        with model.continuous_batching_context_manager(timeout=10, continuous_batching_config=memory) as manager:
            transformers_batches(manager, [(asked[0][0], 2)])
            measure("transformers, continuous batching", lambda: transformers_batches(manager, asked))
    if "adapters" not in given.skip:
        with Engine(lm, threads=threads) as engine, tempfile.TemporaryDirectory() as folder:
            names = [path.name for path in write_adapters(lm, Path(folder))]
            for name in names:
                engine.add_adapter(name, Path(folder) / name)
            measure("engine, one adapter", lambda: ours(engine, asked, names[:1]))
            measure(f"engine, {ADAPTERS} adapters mixed", lambda: ours(engine, asked, names))
    text = report(rates, wall, asked, threads)
    print("\n" + text)
    if given.write:
        write_section(HEADING, text)


def report(rates: dict[str, float], wall: dict[str, float], asked: Sequence[Asked], threads: int) -> str:
    """The table, with each target reached or missed."""
    prompts, new = ([len(prompt) for prompt, _ in asked], [most for _, most in asked])
    lines = [
        f"`benchmarks/serve_load`, {circumstances(('torch', 'transformers', 'xllamacpp'))}",
        "",
        f"SmolLM2-135M-Instruct, fp32, greedy, {threads} thread(s). {len(asked)} streams at once: prompts of {min(prompts)} to "
        f"{max(prompts)} tokens, answers of {min(new)} to {max(new)}, {sum(new):,} tokens in all. transformers' manager of "
        "continuous batches runs in process, as `transformers serve` runs it behind HTTP; so does llama.cpp's server. "
        "Ratios are of processor time, which other programs on the machine disturb less.",
        "",
        "| | tokens per CPU second | tokens/s | the engine is faster by | |",
        "|---|--:|--:|--:|---|",
    ]
    for name, rate in rates.items():
        ratio = rates["engine"] / rate
        target = TARGETS.get(name)
        verdict = f"{'reached' if ratio >= target else 'missed'}: {target}" if target else ""
        lines.append(f"| {name} | {rate:.1f} | {wall[name]:.1f} | {ratio:.2f} × | {verdict} |")
    mixed, single = rates.get(f"engine, {ADAPTERS} adapters mixed"), rates.get("engine, one adapter")
    if mixed and single:
        ratio = mixed / single
        lines += [
            "",
            f"Mixed adapters have {ratio:.2f} × the speed of one ({'reached' if ratio >= 0.8 else 'missed'}: 0.8).",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
