"""What is said of a training file, with the line of each fault."""

import json
from pathlib import Path
from typing import Any

import pytest

from job_service import Shop, chat_rows
from luthier.errors import UserError
from luthier.jobs import files, hyperparameters
from luthier.jobs.files import Unusable
from luthier.jobs.rows import JobError, JobSpec
from luthier.jobs.store import Store
from luthier.recipe import Recipe, replace


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def chat(*messages: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"messages": list(messages), **more}


ASKED = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Ho"}
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
PREFERENCE = {"input": {"messages": [ASKED]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}
GOOD = chat(ASKED, ANSWER)


@pytest.mark.parametrize(
    ("method", "row"),
    [
        ("supervised", GOOD),
        (
            "supervised",
            chat({"role": "system", "content": "s"}, {**ASKED, "name": "Ann"}, {**ANSWER, "weight": 0}, ASKED, ANSWER),
        ),
        ("supervised", chat(ASKED, CALL, {"role": "tool", "tool_call_id": "c", "content": "1"}, ANSWER, tools=[])),
        ("supervised", chat({"role": "developer", "content": [{"type": "text", "text": "t"}]}, ASKED, ANSWER)),
        ("supervised", {"prompt": "a", "completion": "b"}),
        ("dpo", PREFERENCE),
    ],
)
def test_rows_as_openai_documents_them_are_taken(tmp_path: Path, method: Any, row: object) -> None:
    assert files.check(write(tmp_path / "a.jsonl", *[row] * 12), method) == 12


@pytest.mark.parametrize(
    ("method", "row", "fault"),
    [
        ("supervised", {"messages": []}, "Missing 'messages' list (missing_messages_list)."),
        ("supervised", {"messages": "x"}, "Missing 'messages' list (missing_messages_list)."),
        ("supervised", chat({"content": "x"}, ANSWER), "messages[0] has no 'role' (message_missing_key)."),
        ("supervised", chat(ASKED, {"role": "assistant"}), "messages[1] has no 'content' (message_missing_key)."),
        ("supervised", chat({**ASKED, "role": "alien"}, ANSWER), "messages[0] has the unrecognized role 'alien'"),
        ("supervised", chat({**ASKED, "mood": 1}, ANSWER), "messages[0] has the unrecognized key 'mood'"),
        ("supervised", chat({"role": "user", "content": 5}, ANSWER), "messages[0] has a 'content' that is no text"),
        ("supervised", chat({"role": "user", "content": None}, ANSWER), "messages[0] has a 'content' that is no text"),
        ("supervised", chat(ASKED), "No message from the assistant (example_missing_assistant_message)."),
        ("supervised", chat(ASKED, ANSWER, ASKED), "Last message is not from the assistant."),
        ("supervised", chat(ASKED, {**ANSWER, "weight": 0.5}), "messages[1] has a 'weight' that is not 0 or 1"),
        ("supervised", chat(ASKED, {**ANSWER, "weight": "x"}), "messages[1] has a 'weight' that is not 0 or 1"),
        ("supervised", chat(ASKED, ANSWER, tools={}), "'tools' is not a list."),
        ("supervised", chat("x", ANSWER), "messages[0] is not an object (data_type)."),  # type: ignore[arg-type]
        ("supervised", PREFERENCE, "Missing 'messages' list (missing_messages_list)."),
        ("dpo", GOOD, "Missing 'input'; a DPO example has input, preferred_output, non_preferred_output."),
        ("dpo", {**PREFERENCE, "preferred_output": [ANSWER] * 2}, "'preferred_output' is not a list of one message."),
        ("dpo", {**PREFERENCE, "preferred_output": [ASKED]}, "'preferred_output' is not from the assistant."),
        ("dpo", {**PREFERENCE, "input": {"messages": [ASKED], "tools": [1]}}, "A DPO example with 'tools' cannot be"),
        ("supervised", "[1, 2]", "found a list, expected an object"),
        ("supervised", "{'messages': []}", "not valid JSON"),
        ("supervised", '{"messages": 1, "messages": 2}', 'the key "messages" stands twice'),
        ("supervised", '{"messages": "\\ud800"}', "Missing 'messages' list"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line(tmp_path: Path, method: Any, row: object, fault: str) -> None:
    good = PREFERENCE if method == "dpo" else GOOD
    with pytest.raises(Unusable) as error:
        files.check(write(tmp_path / "a.jsonl", *[good] * 11, row), method)
    assert error.value.error.code == "invalid_training_file" and error.value.error.param == "training_file"
    assert error.value.error.message.startswith("The job failed due to an invalid training file. Invalid file format. ")
    assert f"Line 12: {fault}" in error.value.error.message or f"Line 12: not valid JSON: {fault}" in str(error.value)


def test_a_missing_completion_is_named_as_openai_names_it(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b"}] * 11 + [{"prompt": "a"}]
    with pytest.raises(
        Unusable, match=r'Line 12: Expected file to have JSONL format with prompt/completion keys\. Missing "comp'
    ):
        files.check(write(tmp_path / "a.jsonl", *rows), "supervised")


def test_twenty_faults_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    with pytest.raises(Unusable) as error:
        files.check(write(tmp_path / "a.jsonl", *[chat(ASKED)] * 50), "supervised")
    message = error.value.error.message
    assert message.count("Line ") == 20 and message.endswith("(30 more)") and "Line 20:" in message


def test_columns_that_a_run_understands_by_itself_are_taken_and_others_are_not(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(12)]
    assert files.check(write(tmp_path / "a.jsonl", *rows), "supervised") == 12
    with pytest.raises(
        Unusable, match=r"Missing 'messages' list \(missing_messages_list\), and the columns say nothing else"
    ):
        files.check(write(tmp_path / "b.jsonl", *[{"foo": 1}] * 12), "supervised")


def test_of_a_validation_file_one_example_is_enough_and_its_faults_bear_its_name(tmp_path: Path) -> None:
    assert files.check(write(tmp_path / "a.jsonl", GOOD), "supervised", param="validation_file", fewest=1) == 1
    with pytest.raises(Unusable) as error:
        files.check(write(tmp_path / "b.jsonl", chat(ASKED)), "supervised", param="validation_file", fewest=1)
    assert error.value.error.code == "invalid_validation_file" and "invalid validation file" in str(error.value)


def test_nine_examples_are_one_too_few(tmp_path: Path) -> None:
    with pytest.raises(Unusable) as error:
        files.check(write(tmp_path / "a.jsonl", *[GOOD] * 9), "supervised")
    message = "Training file has 9 example(s), but must have at least 10 examples"
    assert error.value.error == JobError("invalid_n_examples", message, "training_file")


def test_an_upload_is_refused_by_the_line_that_is_no_row(tmp_path: Path) -> None:
    assert files.check_upload(write(tmp_path / "a.jsonl", GOOD, GOOD)) == 2
    with pytest.raises(UserError, match=r"^Invalid file format. Line 2: not valid JSON") as error:
        files.check_upload(write(tmp_path / "b.jsonl", GOOD, "{oops"))
    assert str(tmp_path) not in str(error.value)


# What the request means for the recipe


@pytest.mark.parametrize(
    ("asked", "examples", "passes"),
    [
        ("auto", 1000, 3),
        ("auto", 20, 5),
        ("auto", 2, 25),
        ("auto", 10_000, 2),
        ("auto", 10**6, 1),
        (7, 10**6, 7),
        (None, 60, 3),
    ],
)
def test_passes_are_few_over_many_examples_and_many_over_few(asked: object, examples: int, passes: int) -> None:
    assert hyperparameters.epochs(asked, examples) == passes


def test_hyperparameters_become_settings_of_the_recipe(store: Store) -> None:
    shop = Shop(store)
    asked = {"n_epochs": 4, "beta": 0.3, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    more: dict[str, Any] = {"method": "dpo", "hyperparameters": asked, "seed": 5, "settings": {"train.method": "lora"}}
    job = store.jobs.create(JobSpec(shop.key, "tiny", "/m", shop.upload().id, **more))
    values = hyperparameters.recipe_values(job, training=Path("t.jsonl"), validation=Path("v.jsonl"))
    recipe = replace(Recipe(), values)
    assert (recipe.model, recipe.data.path, recipe.data.dev_path) == ("/m", Path("t.jsonl"), Path("v.jsonl"))
    train = recipe.train
    assert (train.epochs, train.dpo_beta, train.seed, train.objective, train.method) == (4, 0.3, 5, "dpo", "lora")
    assert hyperparameters.settings_for(job, 15)["data.test_items"] == 2
    assert "data.test_items" not in hyperparameters.settings_for(job, 20)


def test_a_tuned_model_is_named_by_its_run_which_knows_what_it_was_trained_on(tmp_path: Path, store: Store) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    job = Shop(store).job(reference=str(tmp_path / "run" / "model"))
    assert hyperparameters.recipe_values(job, training=tmp_path, validation=None)["model"] == job.reference
    (tmp_path / "run" / "run.json").touch()
    assert hyperparameters.recipe_values(job, training=tmp_path, validation=None)["model"] == str(tmp_path / "run")


def test_ten_examples_are_enough_to_be_split(tmp_path: Path, tiny_model: Path, store: Store) -> None:
    from luthier import pipeline

    path = tmp_path / "a.jsonl"
    path.write_bytes(chat_rows(10))
    job = Shop(store).job(settings={"train.precision": "fp32", "evaluate.guards": []}, reference=str(tiny_model))
    values = hyperparameters.recipe_values(job, training=path, validation=None) | hyperparameters.settings_for(job, 10)
    rows = pipeline.prepare(replace(Recipe(), values)).rows
    assert {name: len(part) for name, part in rows.items()} == {"train": 7, "dev": 1, "test": 2}


def test_examples_of_a_step_and_multiples_of_the_rate_are_taken_from_the_data(tmp_path: Path, tiny_model: Path) -> None:
    from luthier import pipeline
    from luthier.jobs.child import asked_for
    from luthier.jobs.orders import Work

    path = tmp_path / "a.jsonl"
    path.write_bytes(chat_rows())
    values = {"model": str(tiny_model), "data.path": str(path), "train.precision": "fp32", "evaluate.guards": []}
    plain = pipeline.prepare(replace(Recipe(), values))
    asked = asked_for(Work("", values, 4.0, 0.5, 30.0)).train
    lengths = plain.rows["train"].number("length")
    assert asked.tokens_per_step == round(4 * lengths.sum() / len(lengths))
    assert plain.recipe.train.learning_rate and asked.learning_rate == plain.recipe.train.learning_rate / 2
    assert asked_for(Work("", values, None, None, 30.0)).train.tokens_per_step is None
