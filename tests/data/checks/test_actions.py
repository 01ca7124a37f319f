"""What `data.findings` does: rows leave the data by name, near ones stay together, and only what is named stops a run."""

from pathlib import Path

import pytest

from luthier.data.checks import actions
from luthier.data.checks.rows import Scope
from luthier.data.dataset import Dataset
from luthier.data.reading import load
from luthier.data.splits import Splits, split
from luthier.errors import UserError
from luthier.recipe import Data

from .planted import pairs, write

KEY = "-----BEGIN " + "RSA PRIVATE KEY-----"


def dataset(tmp_path: Path, *rows: tuple[str, str]) -> Dataset:
    return load(Data(path=write(tmp_path / "x.jsonl", [*pairs(20), *rows])))


def lines(data: Dataset) -> list[int]:
    return [int(item.location.rpartition(":")[2]) for item in data.items]


def test_rows_that_are_dropped_stand_in_the_ledger_with_the_reason(tmp_path: Path) -> None:
    data = dataset(tmp_path, ("Who asks?", "anna.berg@nord-mail.de"), ("Who else?", "Nobody else."))
    found = actions.apply(data, {"email": "drop"}, Scope())
    assert lines(found) == [*range(1, 21), 22] and found.ledger.kept == 21
    assert found.ledger.dropped == {"email, as data.findings says": [f"{tmp_path / 'x.jsonl'}:21"]}
    assert found.sha256 != data.sha256


def test_without_a_word_about_it_data_stays_as_it_is(tmp_path: Path) -> None:
    data = dataset(tmp_path, ("Who asks?", "anna.berg@nord-mail.de"))
    assert actions.apply(data, {}, Scope()) is data
    assert actions.apply(data, {"email": "accept"}, Scope()) is data


def test_a_private_key_stops_a_run_until_the_recipe_says_what_to_do(tmp_path: Path) -> None:
    data = dataset(tmp_path, ("What is the key?", KEY))
    with pytest.raises(
        UserError, match=r"1 row \(4\.8 %\) with a private key \(.*:21\)\. Take them out, or set data\.fin"
    ):
        actions.apply(data, {}, Scope())
    assert len(actions.apply(data, {"private-key": "accept"}, Scope()).items) == 21
    assert len(actions.apply(data, {"private-key": "drop"}, Scope()).items) == 20


def test_of_near_rows_the_first_stays_or_all_are_in_one_group(tmp_path: Path) -> None:
    asked, said = pairs(20)[4]
    data = dataset(tmp_path, (f"So {asked[:-1]} exactly?", "Another answer."), (f"Well, {asked}", said))
    assert lines(actions.apply(data, {"near-duplicate": "drop"}, Scope())) == list(range(1, 21))
    grouped = actions.apply(dataset(tmp_path), {"near-duplicate": "group"}, Scope())
    assert len({item.group for item in grouped.items}) == 20
    groups = [item.group for item in actions.apply(data, {"near-duplicate": "group"}, Scope()).items]
    assert groups[20] == groups[21] == groups[4] and len(set(groups)) == 20


def test_leaks_are_dropped_from_training_and_dev(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    parts = split(data.items, test_items=4, dev_items=4)
    leaky = Splits([*parts.train, *parts.test], [*parts.dev, parts.test[0]], parts.test)
    assert actions.without_relatives(leaky, {"leak": "accept"}) is leaky
    clean = actions.without_relatives(leaky, {"leak": "drop"})
    assert clean == Splits(parts.train, parts.dev, parts.test)
    with pytest.raises(UserError, match=r"data\.findings\.leak: no training row is left without a relative in test"):
        actions.without_relatives(Splits(parts.test, parts.dev, parts.test), {"leak": "drop"})


@pytest.mark.parametrize(
    ("kind", "action", "message"),
    [
        ("emial", "drop", r'data\.findings\.emial: unknown kind of finding "emial", did you mean "email"\?'),
        ("email", "group", r"data\.findings\.email: found \"group\", which is for near-duplicate only"),
        ("blank", "drop", r"data\.findings\.blank: found \"drop\", but a finding of this kind .* has no rows"),
    ],
)
def test_words_that_mean_nothing_are_refused(kind: str, action: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        actions.check_words({kind: action})


def test_data_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [(f"Who is {n}?", f"anna{n}@nord-mail.de") for n in range(5)])
    with pytest.raises(UserError, match=r"data\.findings: no row is left after data\.findings has dropped its rows"):
        actions.apply(load(Data(path=path)), {"email": "drop"}, Scope())
