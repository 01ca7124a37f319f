"""The account of many rows: counts are whole, the first places in memory, all of them in a file."""

import json
from pathlib import Path

import pytest

from luthier.cli.screens.ledger import ledger_lines
from luthier.data import ledger
from luthier.data.ledger import KEPT, Ledger
from luthier.report.json_fields import locations_by_reason
from luthier.report.page import beyond


def account(dropped: int, noted: int = 0) -> Ledger:
    """Rows of two reasons in turns, and remarks on others."""
    made = Ledger(read=2 * dropped + noted)
    for number in range(dropped):
        made.drop("empty answer", f"x.jsonl:{number}")
        made.drop("exact duplicate", f"x.jsonl:{number} (same as y.jsonl:{number})")
    for number in range(noted):
        made.note("cut", f"z.jsonl:{number}")
    return made


def test_few_places_are_in_memory_and_all_are_read_back_in_order() -> None:
    found = account(3 * KEPT)
    places = found.dropped["exact duplicate"]
    wanted = [f"x.jsonl:{number} (same as y.jsonl:{number})" for number in range(3 * KEPT)]
    assert places.first == wanted[:KEPT]
    assert (len(places), list(places), found.kept) == (3 * KEPT, wanted, 0)
    assert (places[0], places[-1], places[:4], places[KEPT + 5], places[250:260]) == (
        wanted[0], wanted[-1], wanted[:4], wanted[KEPT + 5], wanted[250:260],
    )  # fmt: skip


def test_ledgers_are_joined_with_the_places_that_are_not_in_memory() -> None:
    one, other = account(KEPT - 1), account(KEPT + 7, noted=KEPT + 1)
    one.join(other)
    assert one.read == 2 * (2 * KEPT + 6) + KEPT + 1
    assert list(one.dropped["empty answer"]) == [f"x.jsonl:{n}" for n in (*range(KEPT - 1), *range(KEPT + 7))]
    assert list(one.notes["cut"]) == [f"z.jsonl:{n}" for n in range(KEPT + 1)]


def test_the_file_has_a_line_for_each_place(tmp_path: Path) -> None:
    path = tmp_path / ledger.FILE
    ledger.write(path, account(KEPT + 1, noted=1))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2 * (KEPT + 1) + 1
    assert lines[KEPT] == {"location": f"x.jsonl:{KEPT}", "dropped": "empty answer"}
    assert lines[KEPT + 1] == {"location": "x.jsonl:0", "dropped": "exact duplicate", "detail": "same as y.jsonl:0"}
    assert lines[-1] == {"location": "z.jsonl:0", "noted": "cut"}
    assert list(ledger.dropped_in(path))[-1] == (f"x.jsonl:{KEPT}", "exact duplicate")


def test_a_name_that_is_no_unicode_is_kept(tmp_path: Path) -> None:
    made = Ledger(read=1)
    made.drop("empty answer", "\udcff.jsonl:1")
    ledger.write(tmp_path / ledger.FILE, made)
    assert list(ledger.dropped_in(tmp_path / ledger.FILE)) == [("\udcff.jsonl:1", "empty answer")]


def test_an_event_lists_the_first_locations_and_counts_all() -> None:
    made = account(KEPT + 40)
    assert ledger.counts(made.dropped) == {"empty answer": KEPT + 40, "exact duplicate": KEPT + 40}
    assert {reason: len(places) for reason, places in ledger.first_locations(made.dropped).items()} == {
        "empty answer": KEPT,
        "exact duplicate": KEPT,
    }


def test_screens_say_how_many_more_there_are_and_where() -> None:
    dropped = locations_by_reason({"empty answer": [f"x.jsonl:{n}" for n in range(KEPT)]}, {"empty answer": 1234})
    lines = ledger_lines(read=2000, kept=766, dropped=dropped, notes={}, ignored=["a"] * 5, file="data/ledger.jsonl")
    assert lines[0] == "2,000 rows read = 766 kept + 1,234 dropped (1,234 empty answer)"
    assert lines[1].endswith("x.jsonl:3 and 1,230 more, all in data/ledger.jsonl")
    assert lines[2].endswith("a and 1 more")


def test_pages_list_the_first_locations_and_say_where_the_others_are() -> None:
    found = locations_by_reason({"blank": [f"x.jsonl:{n}" for n in range(KEPT)]}, {"blank": 1234})["blank"]
    assert (len(found), len(list(found)), beyond(found)) == (1234, KEPT, ", and 1,134 more, all in data/ledger.jsonl")
    assert beyond(locations_by_reason({"blank": ["x.jsonl:1"]}, None)["blank"]) == ""


@pytest.mark.parametrize(
    ("listed", "parts"),
    [
        ("x.jsonl:5", ("x.jsonl:5", "")),
        ("x (1).jsonl:5 (same as x (1).jsonl:3)", ("x (1).jsonl:5", "same as x (1).jsonl:3")),
        ("x.parquet:row 12 (30 tokens, 20 fit)", ("x.parquet:row 12", "30 tokens, 20 fit")),
        ("x.json:1, record 12", ("x.json:1, record 12", "")),
        ("notes.txt (40 tokens, 20 fit)", ("notes.txt", "40 tokens, 20 fit")),
    ],
)
def test_location_and_detail_are_told_apart(listed: str, parts: tuple[str, str]) -> None:
    assert ledger.parted(listed) == parts
