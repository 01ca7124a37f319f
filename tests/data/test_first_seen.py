"""What was met before is known by its digest, and rows by where they stand."""

import random
from hashlib import blake2b

from luthier.data.first_seen import FirstSeen, Locations


def test_each_digest_has_the_number_with_which_it_came_first() -> None:
    draw, known, first = random.Random(5), FirstSeen(), {}
    for start in range(0, 3000, 70):
        texts = [str(draw.randrange(1500)) for _ in range(70)]
        expected = [first.setdefault(text, number) for number, text in enumerate(texts, start)]
        digests = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
        assert known.look_up(digests, range(start, start + 70)) == expected


def test_nothing_to_look_up_is_no_fault() -> None:
    assert FirstSeen().look_up([], []) == []


def test_locations_come_back_whatever_file_they_are_in() -> None:
    places = Locations(["a.jsonl", "a.jsonl.gz"])
    written = [f"a.jsonl.gz:{number}" if number % 3 else f"a.jsonl:row {number}" for number in range(2500)]
    for location in [*written, "elsewhere:1"]:
        places.append(location)
    assert [places[number] for number in range(len(places))] == [*written, "elsewhere:1"]
