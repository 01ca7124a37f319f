"""The course's cells with Lamini's own client, as a program: `python lamini_cells.py URL KEY ROWS.jsonl`.

Only the wait between two looks at a job is shortened; the client is as its package brings it. Prints one JSON object.
"""

import json
import sys
import time

import lamini

url, key, rows = sys.argv[1:4]
lamini.api_url, lamini.api_key = url, key
wait = time.sleep
time.sleep = lambda seconds: wait(min(seconds, 1.0))

from llama import BasicModelRunner  # noqa: E402  # the client reads its settings when it is imported

# Lesson 2: a base model beside one that was tuned
base = BasicModelRunner("meta-llama/Llama-2-7b-hf")
said = base("Tell me how to train my dog to sit", max_tokens=8)
many = base([f"Question {number}" for number in range(23)], max_tokens=4)  # more than one batch of the client's

# Lesson 5: training in three lines
model = BasicModelRunner("EleutherAI/pythia-410m")
model.load_data_from_jsonlines(rows, input_key="question", output_key="answer")
model.train(is_public=True)
out = model.evaluate()
tuned = model("What is a lute?", max_tokens=8)
typed = model("Is a lute made of wood?", output_type={"wood": "bool"}, max_tokens=250)

# What goes wrong
try:
    BasicModelRunner("no/such-model")("Hello")
    unknown = ""
except Exception as error:
    unknown = f"{type(error).__name__}: {error}"
try:
    BasicModelRunner("EleutherAI/pythia-410m", api_key="sk-wrong-key")("Hello")
    wrong_key = ""
except Exception as error:
    wrong_key = f"{type(error).__name__}: {error}"

print(
    json.dumps(
        {
            "said": said, "many": many, "job": model.job_id, "tuned_name": model.model_name, "eval": out, "tuned": tuned,
            "typed": typed, "unknown": unknown, "wrong_key": wrong_key,
        }
    )
)  # fmt: skip
