"""lm-eval, unmodified, measures over HTTP what it measures in one process with the model."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from luthier.model import loading
from serving import KEY, Running

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs the extra: pip install 'luthier[benchmark]'"
)
CHOICES = """
task: choices
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
ANSWERS = """
task: answers
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[label]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 12}
metric_list: [{metric: exact_match}]
"""


@pytest.mark.filterwarnings("ignore")
def test_lm_eval_finds_over_http_what_it_finds_in_process(
    server: Running, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from luthier.evaluate.benchmark.model import HarnessModel

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    words = ["red", "blue and green", "a door", "seven", "yes"]
    rows = [
        {"question": f"Which one is number {number}?", "choices": words[number % 3 :], "label": number % 2}
        for number in range(12)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, task in (("choices", CHOICES), ("answers", ANSWERS)):
        (tmp_path / f"{name}.yaml").write_text(task.replace("ROWS", str(tmp_path / "rows.jsonl")))

    def measured(model: Any, **more: Any) -> dict[str, Any]:
        found = simple_evaluate(
            model, tasks=["choices", "answers"], task_manager=TaskManager(include_path=str(tmp_path)),
            bootstrap_iters=0, **more,
        )  # fmt: skip
        assert found is not None
        return found

    arguments = f"model=tiny,base_url={server.url}/v1/completions,max_length=512,auth_token={KEY}"
    over_http = measured("local-completions", model_args=arguments, batch_size=4)
    in_process = measured(HarnessModel(loading.load(str(tiny_model)), lambda *_: None))
    for task in ("choices", "answers"):
        ours, theirs = ({key: value for key, value in found["results"][task].items() if isinstance(value, float)}
                        for found in (over_http, in_process))  # fmt: skip
        assert ours == theirs
    for ours, theirs in zip(over_http["samples"]["choices"], in_process["samples"]["choices"], strict=True):
        for one, other in zip(ours["filtered_resps"], theirs["filtered_resps"], strict=True):
            assert float(one[0]) == pytest.approx(float(other[0]), abs=1e-4)
    texts = [[sample["filtered_resps"] for sample in found["samples"]["answers"]] for found in (over_http, in_process)]
    assert texts[0] == texts[1]
