"""Invented data: clean sets of several kinds, and faults planted into them at known rows.

Sentences are drawn from a small grammar with so many words that no two are alike by chance.
"""

# ruff: noqa: SIM905

import json
import random
from collections.abc import Sequence
from pathlib import Path

ADJECTIVES = """amber brittle copper distant eager faded gentle hollow ivory jagged keen lively mossy narrow oaken pale quiet
rusty silver tidy upright velvet wooden yellow blunt crooked damp earthen frosty grimy heavy inland loose mild northern
plain ragged shallow tall uneven""".split()
NOUNS = """anchor barrel candle drawer engine ferry garden harbour inkwell jetty kettle ladder mirror needle orchard paddle
quarry ribbon saddle tunnel umbrella valve wagon yard bellows chimney dredger easel furnace gutter hinge island jacket
kiln lantern mill nozzle oven pulley quilt rudder shutter trellis urn viaduct winch yoke basin cradle depot""".split()
VERBS = """whistle tilt crack settle glow shrink drift rattle swell bend leak hum turn stall spin fade lean creak tremble rise
harden melt loosen wobble sink float vibrate warp darken cool""".split()
TIMES = """before noon; after heavy rain; in early spring; during the night; at low tide; on windy days; every second week;
when nobody watches; under bright light; since last autumn; without any warning; until the bell rings""".split(";")
OPENERS = (
    "Why does; How often does; When should; Where could; How long may; Who noticed that; For what reason must".split(
        ";"
    )
)


def sentence(draw: random.Random) -> str:
    """A statement of 9 to 14 words that ends with a full stop."""
    one, two = draw.sample(NOUNS, 2)
    return (
        f"The {draw.choice(ADJECTIVES)} {one} near the {draw.choice(ADJECTIVES)} {two} will {draw.choice(VERBS)} and "
        f"{draw.choice(VERBS)}{draw.choice(['', ' slowly', ' at once', ' a little'])} {draw.choice(TIMES).strip()}."
    )


def question(draw: random.Random) -> str:
    """A question of 11 to 16 words."""
    one, two = draw.sample(NOUNS, 2)
    return (
        f"{draw.choice(OPENERS).strip()} the {draw.choice(ADJECTIVES)} {draw.choice(ADJECTIVES)} {one} beside the "
        f"{draw.choice(ADJECTIVES)} {two} {draw.choice(VERBS)} {draw.choice(TIMES).strip()}?"
    )


def answer(draw: random.Random) -> str:
    """One to three sentences."""
    return " ".join(sentence(draw) for _ in range(draw.randint(1, 3)))


def pairs(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Questions with answers; no question stands twice."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        found.setdefault(question(draw), answer(draw))
    return list(found.items())


def labelled(count: int, seed: int = 2) -> list[tuple[str, str]]:
    """Texts with one of four labels, one of which is called none."""
    draw = random.Random(seed)
    return [
        (f"{sentence(draw)} {question(draw)}", draw.choice(["repair", "order", "praise", "none"])) for _ in range(count)
    ]


def extracted(count: int, seed: int = 3) -> list[tuple[str, str]]:
    """Texts with a JSON object of what is in them, and lists and code among the answers."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        thing, size = draw.choice(NOUNS), draw.randint(2, 90)
        wish = f"Please put the {thing} with {size} cm on the list for hall {draw.randint(1, 400)}"
        text = f"{sentence(draw)} {wish}, {question(draw)}"
        styles = (
            json.dumps({"thing": thing, "size": size, "version": "2.4.1"}),
            f"- {thing}\n- {size} cm\n- hall",
            f"```python\nsize = {size}\nprint(size)\n```",
            f"The list has these:\n1. {thing}\n2. {draw.choice(NOUNS)}, {draw.choice(ADJECTIVES)}",
        )
        found.append((text, styles[number % 4]))
    return found


def write(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """The rows as a JSON Lines file: the row with index i stands in line i + 1."""
    lines = (json.dumps({"question": asked, "answer": said}, ensure_ascii=False) + "\n" for asked, said in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def luhn(digits: str) -> str:
    """The digits with their check digit behind them, by the textbook's rule."""
    total = 0
    for at, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if at % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return digits + str(-total % 10)


def iban(country: str, account: str) -> str:
    """The account with its check digits in front, in groups of four."""
    number = "".join(str(int(sign, 36)) for sign in account + country + "00")
    whole = f"{country}{98 - int(number) % 97:02}{account}"
    return " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))


def personal(kind: str, draw: random.Random) -> str:
    """Something personal or secret of this kind, made up."""
    digits = "".join(str(draw.randint(0, 9)) for _ in range(20))
    letters = "".join(draw.choice("abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(48))
    name = f"{draw.choice(NOUNS)}.{draw.choice(ADJECTIVES)}"
    host = f"{draw.choice(NOUNS)}-mail.{draw.choice(['com', 'de', 'co.uk'])}"
    card = luhn("4" + digits[:14])
    address = f"{draw.choice([23, 52, 81, 93])}.{draw.randint(1, 254)}.{draw.randint(1, 254)}.{draw.randint(1, 254)}"
    made = {
        "email": [f"{name}@{host}", f"{name}{digits[:2]}@uni.{draw.choice(NOUNS)}.edu"],
        "phone": [
            f"+49 30 9018{digits[:4]}",
            f"+44 20 7946 0{digits[:3]}",
            f"(415) 555-{digits[:4]}",
            f"+1 212-555-{digits[:4]}",
        ],
        "iban": [
            iban("DE", digits[:18]),
            iban("GB", f"WEST{digits[:14]}"),
            iban("NL", f"ABNA{digits[:10]}").replace(" ", ""),
        ],
        "credit-card": [card, luhn("53" + digits[:13]), " ".join(card[at : at + 4] for at in (0, 4, 8, 12))],
        "ip-address": [address, f"2a01:4f8:{digits[:4]}:1::{digits[4:7]}"],
        "secret": [
            "AKIA" + letters[:16].upper(),
            "ghp_" + letters[:36],
            f"xoxb-{digits[:12]}-{letters[:24]}",
            f'api_key = "{letters[:32]}"',
            "sk_" + "live_" + letters[:24],
        ],
        "private-key": ["-----BEGIN " + "RSA PRIVATE KEY-----\n" + letters],
    }
    return draw.choice(made[kind])
