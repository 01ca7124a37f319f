"""The service as a team uses it: OpenAI's own client takes a file to a tuned model and chats with it, through one server."""

import json
import time
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from serving import Running

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"Is {number} even?"},
            {"role": "assistant", "content": "no" if number % 2 else "yes"},
        ]
    }
    for number in range(60)
]


def wait(client: OpenAI, job: str, *states: str, seconds: float = 180) -> str:
    """The job's state, once it is one of these."""
    deadline = time.monotonic() + seconds
    while (state := client.fine_tuning.jobs.retrieve(job).status) not in states and time.monotonic() < deadline:
        assert state not in ("failed", "cancelled"), client.fine_tuning.jobs.retrieve(job).error
        time.sleep(0.05)
    return state


@pytest.mark.story
def test_an_openai_client_tunes_a_model_and_talks_to_it(server: Running, tmp_path: Path) -> None:
    strict, lenient = server.client(), server.client(strict=False)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    file = strict.files.create(file=tmp_path / "rows.jsonl", purpose="fine-tune")
    job = strict.fine_tuning.jobs.create(
        model="tiny", training_file=file.id, suffix="even", seed=3,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4, "batch_size": 4}}},
    )  # fmt: skip
    with pytest.raises(openai.ConflictError, match="is needed by"):
        strict.files.delete(file.id)

    wait(strict, job.id, "running")
    lenient.fine_tuning.jobs.pause(job.id)  # OpenAI's types lack the state that this leads to
    assert wait(lenient, job.id, "paused", "succeeded") == "paused"
    lenient.fine_tuning.jobs.resume(job.id)
    assert wait(lenient, job.id, "succeeded") == "succeeded"

    done = strict.fine_tuning.jobs.retrieve(job.id)
    assert done.fine_tuned_model and done.fine_tuned_model.startswith("ft:tiny:luthier:even:")
    events = [event.message for event in strict.fine_tuning.jobs.list_events(job.id, limit=5)]
    assert events[-1] == f"Created fine-tuning job: {job.id}"
    assert events[0] == "The job has successfully completed"
    followed = server.ask("GET", f"/v1/fine_tuning/jobs/{job.id}/events?stream=true").text.split("\n\n")
    assert [json.loads(line[6:])["message"] for line in (followed[0], followed[-3])] == [events[-1], events[0]]
    assert followed[-2:] == ["data: [DONE]", ""]
    checkpoints = list(strict.fine_tuning.jobs.checkpoints.list(job.id))
    assert checkpoints and checkpoints[0].metrics.train_loss
    csv = strict.files.content(done.result_files[0]).text
    assert csv.startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n")

    asked = {"messages": [{"role": "user", "content": "Is 4 even?"}], "max_tokens": 8, "temperature": 0}
    for name in (done.fine_tuned_model, checkpoints[-1].fine_tuned_model_checkpoint, "tiny"):
        whole = strict.chat.completions.create(model=name, **asked)  # type: ignore[call-overload]
        chunks = strict.chat.completions.create(model=name, **asked, stream=True)  # type: ignore[call-overload]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert strict.models.delete(done.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        strict.chat.completions.create(model=done.fine_tuned_model, **asked)  # type: ignore[call-overload]
    assert strict.files.delete(file.id).deleted
