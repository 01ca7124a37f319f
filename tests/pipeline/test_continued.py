"""A given model that learns more text, with rows among it, and what is told of what it could do before."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from luthier import pipeline
from luthier import recipe as recipes
from luthier.data.corpora import CorpusRows
from luthier.data.prepared import Prepared
from luthier.errors import Interrupted, UserError
from luthier.evaluate.guards.forgetting import choices, passages
from luthier.pipeline import continued, pretrain_plan, pretraining, scaling
from luthier.recipe import PretrainRecipe
from luthier.runs import Run
from luthier.runs.durable import digest
from luthier.train.rows import MixedRows
from peft_folders import write_adapter

SMALL = (
    "pretrain.context=128", "pretrain.rows_weight=3", "train.precision=fp32", "train.check_every=4", "train.max_steps=12",
    "train.tokens_per_step=1024", "train.learning_rate=3e-3", "train.warmup_steps=1", "pretrain.prompts=The cat",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def few_tasks() -> Iterator[None]:
    """Six of the guard's texts and six of its questions."""
    of_all = {"passages": passages(), "choices": choices()}
    with pytest.MonkeyPatch.context() as patch:
        for name, tasks in of_all.items():
            patch.setattr(f"luthier.evaluate.guards.forgetting.{name}", lambda tasks=tasks: tasks[:6])
        yield


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and beside it questions with answers."""
    folder, draw = tmp_path_factory.mktemp("continued"), np.random.default_rng(0)
    rows = [{"text": f"The cat sat on the mat {number} times and was happy. " * 3} for number in draw.permutation(300)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [
        {"question": f"How often does cat {number} sit?", "answer": f"It sits {number} times."} for number in range(60)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return folder


def asked(texts: Path, model: Path, *words: str) -> recipes.Recipe:
    return recipes.load(
        None, [f"model={model}", f"pretrain.rows={texts / 'rows.jsonl'}", *SMALL, *words], data=texts / "corpus.jsonl"
    )


@pytest.fixture(scope="module")
def run(texts: Path, tiny_model: Path) -> Run:
    return pipeline.pretrain(asked(texts, tiny_model), texts / "run")


def test_the_given_weights_learn_on_with_their_own_tokenizer_and_chat_template(run: Run, tiny_model: Path) -> None:
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (tiny_model, run.folder / "model"))
    assert before.config.hidden_size == after.config.hidden_size
    assert before.config.num_key_value_heads == after.config.num_key_value_heads
    moved = [
        float((new - old).detach().abs().max())
        for old, new in zip(before.parameters(), after.parameters(), strict=True)
        if old.ndim == 2
    ]
    assert all(0 < change < 0.1 for change in moved)
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (tiny_model, run.folder / "model")]
    messages = [{"role": "user", "content": "Where is the cat?"}]
    one, other = (each.apply_chat_template(messages, add_generation_prompt=True, tokenize=True) for each in tokenizers)
    assert one == other and tokenizers[1].chat_template


def test_held_out_text_is_predicted_better_than_before(run: Run) -> None:
    before, after = (
        json.loads((run.folder / "evaluation" / name).read_text()) for name in ("held-out-before.json", "held-out.json")
    )
    assert after["bytes"] == before["bytes"]
    assert after["interval"][1] < before["interval"][0]


def test_what_it_could_do_before_is_asked_before_and_after(run: Run) -> None:
    found = {one["check"]: one for one in json.loads((run.folder / "evaluation" / "guards.json").read_text())["guards"]}
    assert set(found) == {"general text", "common knowledge", "ends", "answers"}
    questions = len(Prepared(run.folder / "data" / "test.arrow"))
    assert found["ends"]["n"] == found["answers"]["n"] == questions >= 2
    answers = [json.loads(line) for line in (run.folder / "evaluation" / "answers.jsonl").read_text().splitlines()]
    for arm, share in (("base", found["ends"]["base"]), ("fine-tuned", found["ends"]["fine_tuned"])):
        ended = [record["finish"] == "stop" for record in answers if record["arm"] == arm]
        assert len(ended) == questions and share == pytest.approx(100 * sum(ended) / questions)
    page = (run.folder / "report.md").read_text()
    assert all(one["sentence"] in page for one in found.values())
    assert (
        f"{json.loads((run.folder / 'evaluation' / 'held-out-before.json').read_text())['bits_per_byte']:.3f}" in page
    )


def test_rows_come_as_often_as_their_weight_says_and_teach_their_answers_alone(run: Run) -> None:
    recipe = pretraining.recipe_of(run.folder)
    plain = CorpusRows(run.folder / "data", "train", context=128)
    rows = Prepared(run.folder / "data" / "train.arrow")
    found = continued.mixed(plain, run, recipe, "train")
    assert len(found) == len(plain) + 3 * len(rows)
    assert found[0].loss_mask.all() and list(found.lengths)[: len(plain)] == plain.lengths
    for number in (len(plain), len(plain) + len(rows), len(found) - 1):
        asked_row, own = found[number], rows[(number - len(plain)) % len(rows)]
        assert asked_row.ids.tolist() == own.ids.tolist() and asked_row.loss_mask.tolist() == own.loss_mask.tolist()
        assert 0 < asked_row.loss_mask.sum() < len(own.ids)
        assert "rows.jsonl:" in found.location(number)
    dev = continued.mixed(CorpusRows(run.folder / "data", "dev", context=128), run, recipe, "dev")
    assert any("rows.jsonl:" in dev.location(number) for number in range(len(dev)))


class Numbers:
    """Rows that are their numbers."""

    def __init__(self, count: int) -> None:
        self.lengths = [1] * count

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> int:
        return number

    def location(self, number: int) -> str:
        return str(number)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (1.0, [0, 1, 2, 3]),
        (0.5, [0, 2]),
        (1.5, [0, 1, 2, 3, 0, 2]),
        (2.25, [0, 1, 2, 3, 0, 1, 2, 3, 0]),
        (0.1, []),
        (0.0, []),
    ],
)
def test_a_weight_takes_rows_from_all_over(weight: float, expected: list[int]) -> None:
    found = MixedRows(Numbers(3), Numbers(4), weight)  # type: ignore[arg-type]
    assert [found[number] for number in range(3, len(found))] == expected and len(found) == 3 + len(expected)
    assert sum(found.lengths) == len(found) and [found[number] for number in range(3)] == [0, 1, 2]


def test_the_recipe_says_how_a_given_model_learns(run: Run) -> None:
    recipe = pretraining.recipe_of(run.folder)
    assert (recipe.train.optimizer, recipe.train.objective, recipe.pretrain.width) == ("adamw", "sft", None)
    text = (run.folder / "recipe.toml").read_text()
    assert "every token of texts, and of rows" in text


def settled(texts: Path, model: Path, *words: str) -> scaling.Scaled:
    recipe = pretraining.whole_recipe(recipes.load(None, [f"model={model}", *words], data=texts / "corpus.jsonl"))
    return scaling.resolve_existing(
        recipe, continued.existing(recipe), tokens=50_000, mixed=0, measure=lambda shape, settings: 1000.0
    )


def test_one_pass_at_a_tenth_of_the_rate_for_random_weights(texts: Path, tiny_model: Path) -> None:
    found = settled(texts, tiny_model)
    assert found.recipe.pretrain.tokens == 50_000 and found.reasons["pretrain.tokens"] == "one pass"
    assert found.recipe.train.learning_rate == pytest.approx(0.1 * scaling.learning_rate(30_000))
    assert found.recipe.pretrain.context == 256 and found.recipe.train.objective == "text"
    assert settled(texts, tiny_model, "pretrain.minutes=0.5").recipe.pretrain.tokens == 27_000


def stopping_after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


def test_stopped_anywhere_and_resumed_it_ends_bit_for_bit(
    run: Run, texts: Path, tiny_model: Path, tmp_path: Path
) -> None:
    for calls in (1, 3, 6, 12, 20, 200):
        try:
            pipeline.pretrain(asked(texts, tiny_model), tmp_path / "run", stop=stopping_after(calls))
        except Interrupted:
            continue
    again = pipeline.pretrain(recipes.Recipe(), tmp_path / "run")
    assert again.state == "complete"
    for name in ("model/model.safetensors", "evaluation/guards.json", "data/train.arrow"):
        assert digest(tmp_path / "run" / name) == digest(run.folder / name), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretrain.width=64"], r"pretrain.width would have no effect on a model that is there already"),
        (["pretrain.context=1024"], r"pretrain.context: the model can look back on 512 tokens"),
        (["model=nowhere"], r"nowhere"),
        (["model=scratch"], r"pretrain.rows_weight would have no effect on random weights, which cannot answer yet"),
        (["pretrain.rows=nowhere.jsonl"], r"nowhere.jsonl"),
        (["pretrain.rows=corpus.jsonl"], r"pretrain.rows: these are texts and no questions with answers"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_run_folder_exists(
    texts: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(texts)
    with pytest.raises(UserError, match=message):
        pipeline.pretrain(asked(texts, tiny_model, *words), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_few_rows_to_ask_are_refused(texts: Path, tiny_model: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join((texts / "rows.jsonl").read_text().splitlines(keepends=True)[:4]))
    with pytest.raises(UserError, match=r"few.jsonl: found 1 test question, expected at least 2"):
        pipeline.pretrain(asked(texts, tiny_model, f"pretrain.rows={few}"), tmp_path / "run")


def test_an_adapter_is_merged_and_without_rows_only_forgetting_is_asked(
    texts: Path, tiny_model: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_model, tmp_path / "adapter", seed=1)
    words = [
        "pretrain.rows_weight=1",
        "pretrain.context=64",
        "train.max_steps=1",
        "train.check_every=1",
        "pretrain.prompts=[]",
    ]
    recipe = recipes.load(None, [f"model={adapter}", *words, "train.precision=fp32"], data=texts / "corpus.jsonl")
    run = pipeline.pretrain(recipe, tmp_path / "run")
    merged, after = (AutoModelForCausalLM.from_pretrained(run.folder / name) for name in ("base", "model"))
    given = AutoModelForCausalLM.from_pretrained(tiny_model)
    key = "model.layers.0.mlp.up_proj.weight"
    assert not np.allclose(merged.state_dict()[key], given.state_dict()[key], atol=1e-3)
    assert np.allclose(merged.state_dict()[key], after.state_dict()[key], atol=1e-2)
    found = json.loads((run.folder / "evaluation" / "guards.json").read_text())["guards"]
    assert [one["check"] for one in found] == ["general text", "common knowledge"]


def test_a_plan_counts_the_rows_and_leaves_nothing(
    texts: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = asked(texts, tiny_model, "pretrain.tokens=5000")
    assert isinstance(recipe, PretrainRecipe)
    found = pretrain_plan.plan(recipe, try_steps=False)
    assert isinstance(found.scaled.shape, scaling.Existing) and found.fits and not list(tmp_path.iterdir())
    plain = pretrain_plan.plan(recipes.replace(recipe, {"pretrain.rows": None}), try_steps=False)
    assert "rows (" in found.scaled.reasons["train.objective"] and plain.scaled.recipe.train.objective == "text"
