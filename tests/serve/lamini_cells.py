"""The course's cells with Lamini's own client of 2.0, as a program: `python lamini_cells.py URL KEY ROWS.jsonl EXAMPLES`.

Only the wait between two looks at a job is shortened; the client is as its package brings it. Prints one JSON object.
"""

import json
import sys
import time

import lamini

url, key, rows, examples = sys.argv[1:5]
steps = {"finetune_args": {"max_steps": int(sys.argv[5])}} if len(sys.argv) > 5 else {}
lamini.api_url, lamini.api_key = url, key
sys.path.insert(0, examples)
wait = time.sleep
time.sleep = lambda seconds: wait(min(seconds, 1.0))

from llama import BasicModelRunner  # noqa: E402  # the client reads its settings when it is imported
from old_names import QuestionAnswerModel  # noqa: E402

# Lesson 2: a base model beside one that was tuned
base = BasicModelRunner("meta-llama/Llama-2-7b-hf")
said = base("Tell me how to train my dog to sit", max_tokens=8)
many = base([f"Question {number}" for number in range(23)], max_tokens=4)  # more than one batch of the client's

# Lesson 5: training in three lines
model = BasicModelRunner("EleutherAI/pythia-410m")
model.load_data_from_jsonlines(rows, input_key="question", output_key="answer")
model.train(is_public=True, **steps)
out = model.evaluate()
tuned = model("What is a lute?", max_tokens=8)
typed = model("Is a lute made of wood?", output_type={"wood": "bool"}, max_tokens=250)
old = QuestionAnswerModel(model.model_name).get_answer("What is a lute?")


def failure(run: object) -> str:
    """What a call says that goes wrong."""
    try:
        run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def with_two_rows() -> None:
    few = BasicModelRunner("EleutherAI/pythia-410m")
    few.load_data([{"input": "a", "output": "b"}] * 2)
    few.train()


print(
    json.dumps(
        {
            "said": said, "many": many, "job": model.job_id, "tuned_name": model.model_name, "eval": out, "tuned": tuned,
            "typed": typed, "old": old, "jobs": model.lamini_api.get_jobs(),
            "unknown": failure(lambda: BasicModelRunner("no/such-model")("Hello")),
            "wrong_key": failure(lambda: BasicModelRunner("EleutherAI/pythia-410m", api_key="sk-wrong-key")("Hello")),
            "two_rows": failure(with_two_rows),
            "embedding": failure(lambda: lamini.Embedding().generate("Hello")),
        }
    )
)  # fmt: skip
