"""The recipe: what is read, what is refused and in which words, what is written."""

import datetime
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from luthier import recipe
from luthier.errors import UserError
from luthier.model import methods
from luthier.recipe import Recipe
from luthier.train import objectives, optimizer


def test_words_on_the_command_line_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('model = "a"\n[train]\nepochs = 2\nlearning_rate = 1e-5\n')
    read = recipe.load(file, ["train.epochs=4"])
    assert (read.model, read.train.epochs, read.train.learning_rate) == ("a", 4, 1e-5)


def test_text_settings_stay_text() -> None:
    read = recipe.load(None, ["model=007", "data.columns.question=Frage", "data.system=Be brief."])
    assert (read.model, read.data.columns, read.data.system) == ("007", {"question": "Frage"}, "Be brief.")


def test_arms_are_a_list_of_words() -> None:
    assert recipe.load(None, ["evaluate.arms=zero-shot,fine-tuned"]).evaluate.arms == ("zero-shot", "fine-tuned")


def test_all_errors_come_at_once_each_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('[train]\nepochs = 0\nlerning_rate = 3\n[data]\ntest_items = "ten"\n')
    with pytest.raises(UserError) as caught:
        recipe.load(file, ["train.method=dorra"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert f"{file}:2: train.epochs should be greater than or equal to 1, found 0." in lines
    assert any(
        line.startswith(f'{file}:3: unknown recipe key "train.lerning_rate", did you mean "train.learning_rate"?')
        for line in lines
    )
    assert f'{file}:5: data.test_items should be a whole number, found "ten".' in lines
    wanted = 'command line: unknown train.method "dorra", did you mean "dora"? Known: full, lora, dora, qlora.'
    assert wanted in lines


@pytest.mark.parametrize(
    ("section", "table", "words"),
    [
        ("method", methods.METHODS, recipe.METHODS),
        ("optimizer", optimizer.OPTIMIZERS, recipe.OPTIMIZERS),
        ("schedule", optimizer.SCHEDULES, recipe.SCHEDULES),
        ("objective", objectives.OBJECTIVES, recipe.OBJECTIVES),
    ],
)
def test_the_words_of_training_are_those_of_the_tables(section: str, table: Any, words: tuple[str, ...]) -> None:
    assert tuple(table) == words
    assert recipe.get(recipe.load(None, [f"train.{section}=mine.code:do"]), f"train.{section}") == "mine.code:do"


def test_the_old_name_of_a_setting_is_refused_with_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipe.RENAMED, "train.passes", "train.epochs")
    (tmp_path / "r.toml").write_text("[train]\npasses = 3\n")
    told = r"train\.passes is called train\.epochs now; write it so\."
    with pytest.raises(UserError, match=rf"r\.toml:2: {told}"):
        recipe.load(tmp_path / "r.toml")
    with pytest.raises(UserError, match=f"command line: {told}"):
        recipe.load(None, ["train.passes=3"])
    with pytest.raises(UserError, match=f"settings: {told}"):
        recipe.replace(Recipe(), {"train.passes": 3})


def test_every_new_name_of_a_setting_is_a_setting() -> None:
    known = set(recipe.keys())
    assert {new for new in recipe.RENAMED.values() if new not in known and new.rpartition(".")[0] not in known} == set()
    assert not known & recipe.RENAMED.keys()


def test_a_recipe_that_was_noted_under_an_old_name_is_read_under_the_new_one() -> None:
    noted = {"evaluate": {"refusal": None, "alpha": 0.1}}
    assert recipe.recorded(noted) == recipe.replace(recipe.Recipe(), {"evaluate.alpha": 0.1})
    noted = {"evaluate": {"refusal": "not mine to say"}}
    assert recipe.recorded(noted).evaluate.errors == {"refusal": "not mine to say"}
    assert noted == {"evaluate": {"refusal": "not mine to say"}}


def test_a_word_without_equals_sign_is_refused() -> None:
    with pytest.raises(UserError, match=r'command line: expected key=value, such as train.epochs=3, found "epochs"'):
        recipe.load(None, ["epochs"])


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("[train]\nepochs = \n")
    with pytest.raises(UserError, match=r"r\.toml:2: not valid TOML"):
        recipe.load(file)


def test_a_missing_recipe_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe file; `luthier recipe DATA` prints one"):
        recipe.load(tmp_path / "none.toml")


def test_a_written_recipe_reads_back_the_same() -> None:
    values = {
        "data.path": Path("x.jsonl"),
        "data.columns": {"question": 'Fra"ge'},
        "train.epochs": 3,
        "data.system": "a\nb",
    }
    original = recipe.replace(Recipe(), values)
    assert Recipe.model_validate(tomllib.loads(recipe.render(original, {"train.epochs": "few\nrows"}))) == original


def test_each_reason_stands_beside_its_value() -> None:
    text = recipe.render(recipe.replace(Recipe(), {"train.epochs": 3}), {"train.epochs": "900 training rows"})
    assert "epochs = 3  # 900 training rows" in text.splitlines()


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused_when_the_recipe_is_read(seed: int) -> None:
    with pytest.raises(UserError, match=rf"train.seed should be (greater|less) than .*, found {seed}\."):
        recipe.load(None, [f"train.seed={seed}"])


def test_differences_name_what_changed() -> None:
    before, after = recipe.load(None, ["train.seed=1"]), recipe.load(None, ["train.seed=2"])
    assert recipe.differences(before, after) == {"train.seed": (1, 2)}


def test_every_setting_is_documented() -> None:
    for section in json.loads(recipe.schema())["$defs"].values():
        assert all(field.get("description") for field in section["properties"].values())


def test_there_are_fewer_than_sixty_settings() -> None:
    assert len(list(recipe.keys())) < 60


def test_settings_from_python_are_checked_alike() -> None:
    with pytest.raises(UserError, match=r'settings: unknown recipe key "train.epoch", did you mean "train.epochs"\?'):
        recipe.replace(Recipe(), {"train.epoch": 3})


def test_template_variables_keep_their_types() -> None:
    words = ["enable_thinking=false", "effort=high", "budget=512", "share=0.5", "date_string=26 Jul 2024"]
    read = recipe.load(None, [f"chat.variables.{word}" for word in words])
    wanted = {"enable_thinking": False, "effort": "high", "budget": 512, "share": 0.5, "date_string": "26 Jul 2024"}
    assert read.chat.variables == wanted
    assert [type(value) for value in read.chat.variables.values()] == [bool, str, int, float, str]
    assert Recipe.model_validate(tomllib.loads(recipe.render(read))) == read


def test_a_template_variable_is_a_plain_value(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("[chat.variables]\nenable_thinking = false\ntools = [1]\n")
    with pytest.raises(UserError) as caught:
        recipe.load(file)
    assert str(caught.value) == (
        f"{file}:3: chat.variables.tools should be true, false, a number or a text, found [1]."
    )


def test_a_day_on_the_command_line_of_a_variable_stays_text() -> None:
    assert recipe.load(None, ["chat.variables.day=2026-11-28"]).chat.variables == {"day": "2026-11-28"}


def test_the_day_of_a_run_is_read_from_text_and_toml_and_written_as_a_day(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("[chat]\ndate = 2026-11-28\n")
    day = datetime.date(2026, 11, 28)
    read = recipe.load(file)
    assert read.chat.date == recipe.load(None, ["chat.date=2026-11-28"]).chat.date == day
    assert "date = 2026-11-28  # the day of the run" in recipe.render(read, {"chat.date": "the day of the run"})
    assert Recipe.model_validate(read.model_dump(mode="json")) == read


@pytest.mark.parametrize(("word", "found"), [("yesterday", '"yesterday"'), ("5", "5")])
def test_what_is_no_day_is_refused(word: str, found: str) -> None:
    with pytest.raises(UserError, match=rf"command line: chat\.date should be a day such as 2026-11-28, found {found}"):
        recipe.load(None, [f"chat.date={word}"])
