"""From raw text to a base model, on a tiny corpus."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from luthier import pipeline
from luthier import recipe as recipes
from luthier.cli.run import resume
from luthier.data.corpora import CorpusRows
from luthier.errors import Interrupted, MachineError, UserError
from luthier.model import fresh
from luthier.model.spec import ModelSpec
from luthier.pipeline import pretrain_plan, pretraining, scaling
from luthier.recipe import PretrainRecipe
from luthier.runs import Run
from luthier.runs.durable import digest

SMALL = (
    "pretrain.width=32", "pretrain.layers=1", "pretrain.context=32", "pretrain.vocab=270", "pretrain.tokens=6000",
    "train.precision=fp32", "train.check_every=2", "train.tokens_per_step=1024", "train.warmup_steps=1",
)  # fmt: skip


def corpus(folder: Path) -> Path:
    """Sentences that a model of a thousand weights can learn something of."""
    path = folder / "corpus.jsonl"
    draw = np.random.default_rng(0)
    rows = [{"text": f"The cat sat on the mat {number} times and was happy. " * 3} for number in draw.permutation(300)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(path: Path, *words: str) -> recipes.Recipe:
    return recipes.load(None, [*SMALL, *words], data=path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("pretraining")
    return pipeline.pretrain(asked(corpus(folder), "pretrain.prompts=The cat"), folder / "run")


def test_the_result_is_an_ordinary_folder_of_transformers(run: Run) -> None:
    model = AutoModelForCausalLM.from_pretrained(run.folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    assert (model.config.model_type, model.config.hidden_size, model.config.max_position_embeddings) == (
        "llama",
        32,
        32,
    )
    ids = tokenizer("The cat sat on the mat", return_tensors="pt").input_ids
    with torch.no_grad():
        loss = model(ids, labels=ids).loss
    assert loss < 5.2 < np.log(270)
    assert "<|im_start|>user" in tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)


def test_held_out_text_is_told_in_bits_per_byte_with_an_interval(run: Run) -> None:
    found = json.loads((run.folder / "evaluation" / "held-out.json").read_text())
    low, high = found["interval"]
    assert 0 < low < found["bits_per_byte"] < high < 8
    rows = CorpusRows(run.folder / "data", "test", context=32)
    assert found["bytes"] == sum(size for _, _, size in rows.passages())
    model = AutoModelForCausalLM.from_pretrained(run.folder / "model")
    nats = 0.0
    for _, ids, _ in rows.passages():  # by hand, whole windows only: these passages fit into the context three times
        whole = [0, *ids.tolist()]
        for start in range(0, len(whole) - 1, 32):
            part = torch.tensor([whole[start : start + 33]])
            with torch.no_grad():
                scores = model(part[:, :-1]).logits
            nats += float(torch.nn.functional.cross_entropy(scores[0], part[0, 1:], reduction="sum"))
    assert found["bits_per_byte"] == pytest.approx(nats / np.log(2) / found["bytes"], rel=0.05)


def test_it_writes_as_it_learns_in_events_and_report(run: Run) -> None:
    checks = [event["step"] for event in run.events("dev")]
    assert [event["step"] for event in run.events("sample")] == checks
    report = json.loads((run.folder / "report.json").read_text())
    assert report["samples"][0]["prompt"] == "The cat"
    page = (run.folder / "report.html").read_text()
    assert "bits per byte" in page and "The cat" in page and "<svg" in page
    assert "| `pretrain.width` | 32 | as asked |" in (run.folder / "report.md").read_text()


def test_the_recipe_says_each_value_with_its_reason(run: Run) -> None:
    recipe = recipes.load(run.folder / "recipe.toml")
    assert isinstance(recipe, PretrainRecipe)
    assert recipe.model_dump(mode="json") == run.metadata["settled"]
    assert (recipe.train.optimizer, recipe.train.schedule, recipe.train.objective) == ("muon", "linear", "text")
    assert (
        recipe.pretrain.parameters
        == ModelSpec.of(AutoModelForCausalLM.from_pretrained(run.folder / "model").config).parameters
    )


def test_a_complete_run_is_not_done_again(run: Run) -> None:
    before = len(run.events())
    again = pipeline.pretrain(recipes.Recipe(), run.folder)
    assert again.state == "complete" and len(again.events()) == before


def test_resume_continues_a_pretraining_and_says_what_came_out(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    resume(run.folder)
    assert "bits per byte" in capsys.readouterr().out


def stopping_after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


def test_stopped_anywhere_and_resumed_it_ends_bit_for_bit(run: Run, tmp_path: Path) -> None:
    path, folder, stops = corpus(tmp_path), tmp_path / "run", 0
    while stops < 30:
        try:
            pipeline.pretrain(asked(path, "pretrain.prompts=The cat"), folder, stop=stopping_after(2 + stops))
        except Interrupted:
            stops += 1
            assert Run(folder).state == "interrupted"
            continue
        break
    assert stops >= 3
    weights = "model/model.safetensors"
    assert digest(folder / weights) == digest(run.folder / weights)


def test_another_corpus_or_other_settings_do_not_continue_a_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"other settings \(pretrain.width was 32, now 64\)"):
        pipeline.pretrain(
            recipes.load(
                None, [*SMALL, "pretrain.prompts=The cat", "pretrain.width=64"], data=run.folder.parent / "corpus.jsonl"
            ),
            run.folder,
        )
    path, folder = corpus(tmp_path), tmp_path / "run"
    with pytest.raises(Interrupted):
        pipeline.pretrain(asked(path), folder, stop=lambda: True)
    path.write_text('{"text": "Another."}\n' * 50)
    with pytest.raises(UserError, match=r"corpus has changed since this run began.*corpus\.jsonl was"):
        pipeline.pretrain(asked(path), folder)


def test_the_verbs_do_not_take_each_others_runs(run: Run) -> None:
    with pytest.raises(UserError, match="continue it with luthier resume"):
        pipeline.run(recipes.Recipe(), run.folder)
    with pytest.raises(UserError, match="belong to `luthier pretrain CORPUS`"):
        pipeline.run(asked(run.folder.parent / "corpus.jsonl"), run.folder.parent / "other")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate.alpha=0.01"], r"evaluate.alpha would have no effect on a pretraining"),
        (["train.method=lora"], r"all weights are trained, and on whole texts"),
        (["pretrain.compute=1e9", "pretrain.minutes=1"], r"say the same in two ways"),
        (["pretrain.tokenizer=somewhere"], r"leave out one of pretrain.tokenizer and pretrain.vocab"),
        (["pretrain.wdith=3"], r'unknown recipe key "pretrain.wdith", did you mean "pretrain.width"'),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_a_run_folder_exists(
    tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        pipeline.pretrain(asked(corpus(tmp_path), *words), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_text_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Just one sentence.\n" * 20)
    with pytest.raises(UserError, match=r"passages are too few to hold some out"):
        pipeline.pretrain(asked(tmp_path / "a.txt", "pretrain.vocab=262"), tmp_path / "run")


def test_a_size_that_does_not_fit_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining.memory, "available", lambda device: 1 << 20)
    recipe = pretraining.recipe_of(run.folder)
    scaled = scaling.Scaled(recipe, {}, scaling.shape_of(recipe, 270))
    with pytest.raises(MachineError, match=r"pretrain.parameters: a model of .* weights needs about .* are available"):
        pretraining._expect_memory(scaled)


def test_a_plan_measures_memory_and_time_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = pretrain_plan.plan(asked(corpus(tmp_path)))
    account = sum(len(row) for row in (tmp_path / "corpus.jsonl").read_text().splitlines())
    assert found.corpus_tokens < account and found.fits
    assert found.seconds and found.seconds == pytest.approx(6000 / (found.tokens_per_second or 0))
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def resolved(*words: str, tokens: int = 10**9) -> scaling.Scaled:
    """The settings for such a corpus on a machine that makes 60 GFLOPs a second."""
    recipe = recipes.load(None, ["train.precision=fp32", *words], data=Path("corpus"))
    if not isinstance(recipe, PretrainRecipe):
        recipe = PretrainRecipe.model_validate(recipe.model_dump(exclude_unset=True))
    return scaling.resolve(
        recipe, tokens=tokens, vocabulary=1024, made=True, measure=lambda shape, settings: 1e10 / shape.parameters
    )


def test_parameters_decide_tokens_and_the_rest() -> None:
    found = resolved("pretrain.parameters=5_000_000")
    dials = found.recipe.pretrain
    assert found.shape.parameters == pytest.approx(5_000_000, rel=0.1)
    assert dials.tokens == 20 * found.shape.parameters
    assert found.reasons["pretrain.tokens"] == "20 for each weight (compute-optimal)"
    settings = found.recipe.train
    assert settings.max_steps and settings.max_steps * 65_536 == pytest.approx(dials.tokens, rel=0.02)


def test_minutes_decide_the_size_at_the_speed_that_was_measured() -> None:
    dials = resolved("pretrain.minutes=10").recipe.pretrain
    assert dials.parameters and dials.tokens
    assert dials.tokens == pytest.approx(0.9 * 600 * 1e10 / dials.parameters, rel=1e-6)
    assert dials.tokens == pytest.approx(20 * dials.parameters, rel=0.25)
    both = resolved("pretrain.minutes=10", "pretrain.parameters=1_000_000")
    assert both.recipe.pretrain.tokens == pytest.approx(0.9 * 600 * 1e10 / both.shape.parameters, rel=1e-6)


def test_compute_decides_likewise() -> None:
    dials = resolved("pretrain.compute=1e14").recipe.pretrain
    assert dials.parameters and dials.tokens
    assert 6 * dials.parameters * dials.tokens == pytest.approx(1e14, rel=0.01)
    assert dials.tokens / dials.parameters == pytest.approx(20, rel=0.25)


def test_a_small_corpus_is_read_four_times_at_most() -> None:
    found = resolved("pretrain.parameters=5_000_000", tokens=100_000)
    assert found.recipe.pretrain.tokens == 400_000 and found.recipe.train.epochs == 4
    assert "4 passes over the corpus" in found.reasons["pretrain.tokens"]
    more = resolved("pretrain.parameters=5_000_000", "pretrain.tokens=1_000_000", tokens=100_000)
    assert more.recipe.train.epochs == 10


@pytest.mark.parametrize("family", ["llama", "gpt-neox"])
@pytest.mark.parametrize("parameters", [300_000, 1_000_000, 20_000_000])
def test_a_shape_has_the_weights_that_were_asked_for(family: Any, parameters: int) -> None:
    shape = fresh.shape_for(parameters, vocabulary=1024, context=64, family=family)
    assert shape.parameters == pytest.approx(parameters, rel=0.35 if parameters < 500_000 else 0.12)
    assert ModelSpec.of(fresh.config_of(shape)).parameters == shape.parameters


def test_a_vocabulary_too_large_for_the_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"10,000 weights cannot hold a vocabulary of 8,192 and a layer"):
        fresh.shape_for(10_000, vocabulary=8192, context=64, family="llama")


def test_the_same_seed_gives_the_same_weights() -> None:
    config = fresh.config_of(fresh.Shape("llama", 32, 2, 300, 16))
    one, same, other = (fresh.build(config, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["model.layers.0.mlp.up_proj.weight"], other["model.layers.0.mlp.up_proj.weight"])
    ratio = one["model.layers.1.mlp.down_proj.weight"].std() / one["model.layers.1.mlp.up_proj.weight"].std()
    assert ratio == pytest.approx(0.5, rel=0.1)
