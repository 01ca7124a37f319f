"""What a word of the recipe stands for, and what is said of one that stands for nothing."""

from pathlib import Path

import pytest

from luthier.data.formats import Table, reader, recognise
from luthier.errors import UserError
from luthier.evaluate import error_analysis, metrics
from luthier.evaluate.judge import sources
from luthier.evaluate.prompts import arms
from luthier.extensions import import_function, import_optional, is_dotted, look_up, resolve
from luthier.model import methods
from luthier.recipe import Data
from luthier.train import objectives, optimizer

TABLE = {"sum": sum, "max": max}
HOW = "Expected package.module:function, with the folder that holds the package on PYTHONPATH."


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_code_of_a_user.py").write_text("LIMIT = 3\ndef build(row): return row\n")
    (tmp_path / "own_code_that_fails.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "own_code_of_a_user"


def test_a_word_is_an_entry_of_the_table_and_a_dotted_name_a_function(own: str) -> None:
    assert resolve("sum", "max", TABLE, where="x") is max
    assert resolve("sum", f"{own}:build", TABLE, where="x")(7) == 7
    assert look_up("sum", "sum", TABLE) is sum
    assert is_dotted("a.b:c") and not is_dotted("a:b c") and not is_dotted("max")


def test_an_unknown_word_gets_the_nearest_known_one() -> None:
    with pytest.raises(UserError, match=r'^x: unknown sum "maxx", did you mean "max"\? Known: sum, max\.$'):
        resolve("sum", "maxx", TABLE, where="x")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module:f", "No module named 'no_such_module'."),
        ("own_code_that_fails:f", "ZeroDivisionError: division by zero."),
        ("own_code_of_a_user:biuld", 'own_code_of_a_user has no function "biuld", did you mean "build"?'),
        ("own_code_of_a_user:other", 'own_code_of_a_user has no function "other".'),
        ("own_code_of_a_user:LIMIT", "it is of the type int, and no function."),
    ],
)
def test_a_dotted_name_that_reaches_no_function_says_why(own: str, name: str, why: str) -> None:
    with pytest.raises(UserError) as caught:
        import_function(name, where="evaluate.metric")
    assert str(caught.value) == f'evaluate.metric: "{name}" cannot be imported: {why} {HOW}'


def test_every_setting_says_the_same_of_a_function_that_is_not_there() -> None:
    name = "no_such_module:f"
    settings = {
        "data.format": lambda: reader(recognise(Table.named(["q"]), Data(format=name))),
        "train.method": lambda: methods.resolve(name),
        "train.objective": lambda: objectives.resolve(name),
        "train.optimizer": lambda: optimizer.resolve(name),
        "train.schedule": lambda: optimizer.resolve_schedule(name),
        "evaluate.arms": lambda: arms.resolve(name),
        "evaluate.metric": lambda: metrics.resolve(name),
        "evaluate.judge": lambda: sources.resolve(name),
        "evaluate.errors.mine": lambda: error_analysis.user_categories({"mine": name}),
    }
    for where, use in settings.items():
        with pytest.raises(UserError) as caught:
            use()
        assert str(caught.value) == f"{where}: \"{name}\" cannot be imported: No module named 'no_such_module'. {HOW}"


def test_a_package_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(UserError, match=r"x: this needs the package no_such_package, .*pip install 'luthier\[more\]'"):
        import_optional("no_such_package", "more", where="x")
