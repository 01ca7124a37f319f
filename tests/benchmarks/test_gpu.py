"""The GPU benchmark, as far as a processor can show that it works."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest
import torch

Load = Callable[[str], ModuleType]  # a module of the benchmark by its name
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "throughput" / "gpu.py"


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_training_of_the_gpu_benchmark_runs_on_a_processor(
    module: Load, tiny_model: Path, tmp_path: Path, method: str
) -> None:
    gpu, models, task = module("gpu"), module("random_model"), module("task")
    folder, file = tmp_path / "model", tmp_path / "rows.json"
    parameters = models.make_model(models.TINY, folder, tokenizer=tiny_model, seed=0)
    models.make_rows(file, folder, rows=16, length=32, seed=0)
    asked = task.Task(str(file), method=method, max_steps=2, warmup=1, tokens_per_step=256)
    found = module("run_luthier").run(asked)
    assert (found.arm, found.steps, found.tokens) == (f"luthier {method}", 2, 512)
    assert found.tokens_per_second > 0 and found.peak > 0.1
    assert 10 < found.heldout_loss < 12  # nothing is to be learnt from random tokens: ln 49,152 = 10.8
    assert gpu.operations_per_token(parameters, models.TINY, 32) == 6 * parameters + 12 * 2 * 64 * 32
    assert task.Task(**json.loads(json.dumps(asdict(asked)))) == asked


def test_the_models_of_the_gpu_benchmark_have_the_sizes_that_they_are_named_for(module: Load) -> None:
    models = module("random_model")
    for name, shape in models.SHAPES.items():
        with torch.device("meta"):
            model = models.LlamaForCausalLM(shape.config(models.VOCABULARY))
        parameters = sum(weight.numel() for weight in model.parameters())
        assert parameters / 1e9 == pytest.approx(float(name.removesuffix("b")), rel=0.1), name


def test_random_rows_are_the_same_for_a_seed(module: Load, tmp_path: Path) -> None:
    models = module("random_model")
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        models.make_rows(tmp_path / name, tmp_path, rows=4, length=16, seed=seed)
    one, again, other = ((tmp_path / name).read_text() for name in ("one", "again", "other"))
    assert one == again != other
    content = json.loads(one)
    assert [len(row["ids"]) for row in content["train"]] == [16] * 4
    assert sorted(content["orders"][31]) == [0, 1, 2, 3]


def test_without_a_gpu_the_benchmark_says_so_and_exits_with_4(
    module: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    with pytest.raises(SystemExit) as end:
        module("gpu").main()
    assert end.value.code == 4 and "there is no CUDA GPU here" in capsys.readouterr().err
