"""lm-eval gets from our model what it gets from its own, and a file of questions is asked as lm-eval's own task would."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import thinking
from luthier.chat import Message
from luthier.errors import MachineError, UserError
from luthier.evaluate.benchmark import BenchmarkSettings, run_benchmark, shapes
from luthier.model import generate, loading
from luthier.model.loading import LanguageModel

from .questions import ARC, HELLASWAG, MMLU, TRUTHFULQA, Rows, write

pytest.importorskip("lm_eval", reason="needs the extra: pip install 'luthier[benchmark]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # of lm-eval's and its libraries' own making


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> LanguageModel:
    return loading.load(str(tiny_model))


def silent(number: int) -> Callable[[int, int], None]:
    return lambda done, of: None


@pytest.fixture
def both(lm: LanguageModel) -> tuple[Any, Any]:
    """Ours, and lm-eval's own `hf` model on the same folder."""
    from lm_eval.models.huggingface import HFLM

    from luthier.evaluate.benchmark.model import HarnessModel

    return HarnessModel(lm, lambda done, of: None), HFLM(str(lm.folder), device="cpu", batch_size=3)


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]  # type: ignore[arg-type]


TEXTS = [
    "The printer prints",
    " only blue pages",
    "",
    "since Monday. ",
    "What is the capital",
    " of France?\n",
    "Ökonomie  ",
]


def test_likelihoods_are_those_of_lm_eval_s_own_model(both: tuple[Any, Any]) -> None:
    pairs = [(context, continuation) for context in TEXTS for continuation in TEXTS if continuation.strip()]
    pairs += [("<|im_start|>user", " Hello"), ("word " * 400, "at the end")]
    ours, theirs = (model.loglikelihood(requests("loglikelihood", pairs)) for model in both)
    assert [logprob for logprob, _ in ours] == pytest.approx([logprob for logprob, _ in theirs], abs=1e-3)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_rolling_likelihoods_are_those_of_lm_eval_s_own_model(both: tuple[Any, Any]) -> None:
    texts = [("A short text.",), ("One that is longer than the model's context, by far. " * 30,)]
    ours, theirs = (model.loglikelihood_rolling(requests("loglikelihood_rolling", texts)) for model in both)
    assert ours == pytest.approx(theirs, abs=1e-2)


def test_answers_are_those_of_lm_eval_s_own_model(both: tuple[Any, Any]) -> None:
    settings: dict[str, Any] = {"until": ["e", "\n\n"], "max_gen_toks": 24}
    asked = [(text, dict(settings)) for text in TEXTS if text] + [("Longer " * 90, {"until": [], "max_gen_toks": 8})]
    ours, theirs = (model.generate_until(requests("generate_until", asked)) for model in both)
    assert ours == theirs


def test_a_task_that_asks_for_sampling_gets_greedy_answers_and_a_note(both: tuple[Any, Any]) -> None:
    ours = both[0]
    ours.generate_until(requests("generate_until", [("a", {"do_sample": True, "temperature": 0.7, "max_gen_toks": 2})]))
    assert ours.notes == ["a task asks for sampled answers; it got greedy ones"]


STOCK = {
    "ARC": "arc/arc_easy.yaml",
    "HellaSwag": "hellaswag/hellaswag.yaml",
    "MMLU": "mmlu/default/_default_template_yaml",
    "TruthfulQA": "truthfulqa/truthfulqa_mc1.yaml",
}


@pytest.mark.parametrize(
    ("shape", "rows"), [("ARC", ARC), ("HellaSwag", HELLASWAG), ("MMLU", MMLU), ("TruthfulQA", TRUTHFULQA)]
)
def test_questions_are_put_as_lm_eval_s_own_task_puts_them(tmp_path: Path, shape: str, rows: Rows) -> None:
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    from luthier.evaluate.benchmark import tasks

    page = Path(lm_eval.tasks.__file__).parent / STOCK[shape]
    text = page.read_text(encoding="utf-8").replace("!function utils.process_docs", "")
    stock = {
        key: value for key, value in yaml.safe_load(text).items() if key not in ("tag", "process_docs", "dataset_name")
    }
    stock |= {"task": "stock", "dataset_path": "json", "validation_split": "test", "test_split": "test"}
    stock |= {"fewshot_split": None, "fewshot_config": None, "training_split": None}
    stock["dataset_kwargs"] = {
        "data_files": {"test": str(write(tmp_path, "stock.jsonl", rows))},
        "cache_dir": str(tmp_path),
    }
    if shape == "HellaSwag":
        from lm_eval.tasks.hellaswag import utils

        stock["process_docs"] = utils.process_docs
    theirs = TaskManager(include_defaults=False).load([stock])["tasks"]["stock"]
    ours = next(iter(tasks.load([str(write(tmp_path, "mine.jsonl", rows))]).values()))
    put = []
    for task in (theirs, ours):
        task.build_all_requests()
        put.append([(one.doc_id, *one.args) for one in task.instances])
        put.append([task.doc_to_target(doc) for doc in task.test_docs()])
        put.append([(one["metric"], one["aggregation"]) for one in task.config.metric_list])
    theirs_put, ours_put = put[:3], put[3:]
    if shape == "HellaSwag":  # a text of digits, and the number itself
        theirs_put[1] = [int(target) for target in theirs_put[1]]
    assert ours_put == theirs_put


def test_the_second_truthfulqa_score_is_lm_eval_s_own() -> None:
    from lm_eval.tasks.truthfulqa import utils

    doc = {"mc2_targets": TRUTHFULQA[0]["mc2_targets"]}
    results = [(-3.5, False), (-9.25, False), (-2.0, True)]
    assert shapes.true_share(doc, results)["acc"] == pytest.approx(utils.process_results_mc2(doc, results)["acc"])


def test_scores_by_item_are_those_of_lm_eval_s_own_model(lm: LanguageModel, tmp_path: Path) -> None:
    draw = random.Random(3)
    words = ["printer", "kitchen", "Monday", "capital", "France", "refund", "invoice", "blue", "pages"]
    rows = [
        {
            "question": " ".join(draw.choices(words, k=draw.randint(2, 9))),
            "choices": {
                "text": [" ".join(draw.choices(words, k=draw.randint(1, 3))) for _ in "ABCD"],
                "label": [*"ABCD"],
            },
            "answerKey": draw.choice("ABCD"),
        }
        for _ in range(40)
    ]
    path = write(tmp_path, "quiz.jsonl", rows)
    ((task,),), _ = run_benchmark(BenchmarkSettings([str(path)]), [lambda: lm], silent)
    from lm_eval.evaluator import simple_evaluate

    from luthier.evaluate.benchmark import tasks

    theirs = simple_evaluate(
        "hf", {"pretrained": str(lm.folder)}, list(tasks.load([str(path)]).values()), device="cpu", bootstrap_iters=0
    )
    for metric in task.metrics:
        assert metric.items == {sample["doc_id"]: sample[metric.name] for sample in theirs["samples"]["quiz"]}
        assert metric.value == pytest.approx(theirs["results"]["quiz"][f"{metric.name},none"])


def test_a_task_file_in_a_folder_is_known_by_its_name(lm: LanguageModel, tmp_path: Path) -> None:
    data = write(tmp_path, "sums.jsonl", [{"sum": "1 + 1 =", "result": "2"}, {"sum": "2 + 3 =", "result": "5"}])
    page = {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{sum}}",
        "doc_to_target": "{{result}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
    }
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sums.yaml").write_text(yaml.safe_dump(page))
    ((task,),), _ = run_benchmark(BenchmarkSettings(["sums"], tmp_path / "tasks", limit=1), [lambda: lm], silent)
    assert (task.name, task.items) == ("sums", 1)
    assert [(metric.name, metric.items) for metric in task.metrics] == [("exact_match", {0: 0.0})]
    ((again,),), _ = run_benchmark(BenchmarkSettings([str(tmp_path / "tasks" / "sums.yaml")]), [lambda: lm], silent)
    assert again.items == 2


def test_chat_puts_questions_in_the_model_s_template(lm: LanguageModel, tmp_path: Path) -> None:
    from luthier.evaluate.benchmark.model import HarnessModel

    model = HarnessModel(lm, lambda done, of: None)
    asked = model.apply_chat_template([{"role": "user", "content": "Why?"}])
    assert asked == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    path = write(tmp_path, "quiz.jsonl", ARC)
    plain, chat = (
        run_benchmark(BenchmarkSettings([str(path)], chat=flag, system="Be brief."), [lambda: lm], silent)
        for flag in (False, True)
    )
    assert plain[0][0][0].items == chat[0][0][0].items == 2


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (
            ["arc_esy"],
            UserError,
            r'--tasks: unknown task "arc_esy", did you mean "arc_easy"\? Known are the tasks of lm-eval',
        ),
        (["nothing.yaml"], UserError, "nothing.yaml: no such task file"),
        (["nothing.jsonl"], UserError, "nothing.jsonl: no such file or folder"),
        ([], UserError, "no task is named"),
        (["arc_easy"], MachineError, r"arc_easy: cannot get the task's data .*or give a file of questions"),
    ],
)
def test_a_task_that_is_not_there_is_a_message(
    words: list[str], kind: type[UserError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from luthier.evaluate.benchmark import tasks

    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message):
        tasks.load(words)


def test_a_damaged_task_file_is_a_message(tmp_path: Path) -> None:
    from luthier.evaluate.benchmark import tasks

    (tmp_path / "bad.yaml").write_text("task: bad\noutput_type: [\n")
    with pytest.raises(UserError, match=r"bad.yaml: lm-eval cannot load this task"):
        tasks.load([str(tmp_path / "bad.yaml")])


def test_the_same_task_twice_is_a_message(tmp_path: Path) -> None:
    from luthier.evaluate.benchmark import tasks

    path = str(write(tmp_path, "quiz.jsonl", ARC))
    with pytest.raises(UserError, match='the task "quiz" is named twice'):
        tasks.load([path, path])


def test_progress_ends_with_all_of_the_requests(lm: LanguageModel, tmp_path: Path) -> None:
    reports: list[tuple[int, int, int]] = []

    def progress(number: int) -> Callable[[int, int], None]:
        return lambda done, of: reports.append((number, done, of))

    run_benchmark(BenchmarkSettings([str(write(tmp_path, "quiz.jsonl", ARC))]), [lambda: lm, lambda: lm], progress)
    assert reports[-1] == (1, 7, 7)  # four choices and three
    assert (0, 7, 7) in reports


def test_nothing_of_lm_eval_s_reaches_the_screen(
    lm: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_benchmark(BenchmarkSettings([str(write(tmp_path, "quiz.jsonl", ARC))]), [lambda: lm], silent)
    assert capsys.readouterr() == ("", "")


def test_results_can_be_written_as_json(lm: LanguageModel, tmp_path: Path) -> None:
    from luthier.evaluate import benchmark

    settings = BenchmarkSettings([str(write(tmp_path, "fish.jsonl", TRUTHFULQA))])
    (results,), notes = run_benchmark(settings, [lambda: lm], silent)
    record = benchmark.make_record({"fine-tuned": results, "base": results}, settings, notes, alpha=0.05)
    assert json.loads(json.dumps(record.summary)) == record.summary
    assert [task["task"] for task in record.summary["tasks"]] == ["fish_mc1", "fish_mc2"]


def test_answers_begin_and_stop_behind_the_thoughts_of_a_model_that_thinks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from luthier.evaluate.benchmark.model import HarnessModel

    lm = loading.load(str(thinking.make(tmp_path / "m", ["two and two is four"])))
    model = HarnessModel(lm, lambda done, of: None, thinking_tokens=24)
    said = {"four": "<think>\ntwo\n\nand two</think>\n\nfour\n\nand more", "": "<think>\ntwo and two " * 3}
    for wanted, text in said.items():
        ids = lm.tokenizer(text).input_ids[:32]
        monkeypatch.setattr(
            generate, "answer", lambda *_, on_batch, ids=ids, **__: on_batch({0: generate.Reply(ids, "length", 0.0)})
        )
        asked = requests("generate_until", [("two and two?", {"until": ["\n\n"], "max_gen_toks": 8})])
        assert [answer.strip() for answer in model.generate_until(asked)] == [wanted]
    assert model.notes == ["some replies ended while the model was thinking; they count as empty"]


def test_a_chat_is_asked_with_the_variables_of_the_run(tmp_path: Path) -> None:
    from luthier.evaluate.benchmark.model import HarnessModel

    folder = str(thinking.make(tmp_path / "m", ["two and two is four"]))
    lm = loading.load(folder, variables={"enable_thinking": False})
    text = HarnessModel(lm, lambda done, of: None).apply_chat_template([{"role": "user", "content": "two?"}])
    assert text == lm.template.render([Message("user", "two?")]) and text.endswith("</think>\n\n")
