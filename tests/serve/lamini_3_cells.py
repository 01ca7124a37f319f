"""Lamini's own client of 3.4 through its whole work, as a program: `python lamini_3_cells.py URL KEY ROWS.jsonl`.

Only the waits between two looks are shortened; the client is as its package brings it. Prints one JSON object.
"""

import json
import sys
import time

import lamini

url, key, rows = sys.argv[1:4]
lamini.api_url, lamini.api_key = url, key
wait = time.sleep
time.sleep = lambda seconds: wait(min(seconds, 1.0))

from lamini.api.lamini import Lamini  # noqa: E402
from lamini.api.streaming_completion import StreamingCompletion  # noqa: E402

model = Lamini("EleutherAI/pythia-410m", api_url=url, api_key=key)
said = model.generate("Tell me how to train my dog to sit", max_new_tokens=8)
typed = model.generate("Is a lute made of wood?", output_type={"wood": "bool"}, max_new_tokens=250)
dataset = model.upload_file(rows, input_key="question", output_key="answer")
job = model.tune_and_wait(data_or_dataset_id=dataset, finetune_args={"max_steps": 10})
out = model.evaluate(job["job_id"])
tuned = Lamini(job["model_name"], api_url=url, api_key=key).generate("What is a lute?", max_new_tokens=8)
stream = StreamingCompletion(api_url=url, api_key=key)
parts = list(
    stream.create("What is a lute?", model_name="EleutherAI/pythia-410m", max_new_tokens=8, polling_interval=1)
)


def failure(run: object) -> str:
    """What a call says that goes wrong."""
    try:
        run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


print(
    json.dumps(
        {
            "said": said, "typed": typed, "dataset": dataset, "job": job, "eval": out, "tuned": tuned, "parts": parts,
            "jobs": model.get_jobs(),
            "unknown": failure(lambda: Lamini("no/such-model", api_url=url, api_key=key).generate("Hello")),
            "wrong_key": failure(lambda: Lamini("x", api_url=url, api_key="sk-wrong-key").generate("Hello")),
            "two_rows": failure(lambda: model.tune([{"input": "a", "output": "b"}] * 2)),
        }
    )
)  # fmt: skip
