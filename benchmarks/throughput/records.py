"""The records that both sides train on: support mails of a made-up shop, written by a seed, as rows of token ids.

    python records.py ROWS.json --train 96 --dev 32
    python records.py ROWS.json --train 96 --dev 32 --length 512     rows of exactly 512 tokens

The ids come from Luthier's own template, so all sides see the same tokens and learn the same ones. Beside the rows stand the
orders in which ours takes them, by seed: another side can be given its rows in the same order.
"""

import argparse
import json
import random
from pathlib import Path

from luthier.chat import Conversation
from luthier.model.reference import ModelReference, find_folder
from luthier.train.order import Steps

ORDERS = 32  # seeds whose order is written down

THINGS = {
    "kettle": [
        "the lid no longer closes",
        "it switches off before the water boils",
        "there is rust on the heating plate",
    ],
    "desk lamp": [
        "it flickers when I touch the switch",
        "the arm does not hold its position",
        "the bulb died after a week",
    ],
    "rucksack": ["a seam at the shoulder strap is open", "the zip is stuck halfway", "it smells strongly of glue"],
    "bicycle pump": ["the hose leaks at the valve", "the gauge always shows two bar", "the handle came off"],
    "headphones": [
        "the left side is silent",
        "they lose the connection every few minutes",
        "the battery lasts one hour",
    ],
    "coffee grinder": [
        "it is louder than an aeroplane",
        "the coarse setting grinds fine powder",
        "the drawer is cracked",
    ],
    "rain jacket": [
        "water comes through at the elbows",
        "the hood is far too small",
        "the colour rubs off on my shirt",
    ],
    "chess clock": ["both sides run at once", "the display is upside down", "one button has to be hit very hard"],
}
WISHES = {
    "a refund": "I have started the refund; the money is back on your account within {days} working days.",
    "a new one": "A new {thing} leaves our warehouse today and reaches you within {days} working days.",
    "a repair": "Please send the {thing} to our workshop; the label is in this mail. It takes about {days} working days.",
    "the missing part": "The part goes out by post today. It takes about {days} working days and is free.",
    "advice": "Leave the {thing} alone overnight and try again; most of these come right within {days} days.",
}
ASIDES = [
    "I bought it as a present, so this is rather embarrassing.",
    "I have kept the box and the receipt.",
    "This is the second time in a year.",
    "My neighbour has the same one and hers is fine.",
    "I tried everything in the leaflet, twice.",
    "Otherwise I have always been happy with your shop.",
    "I leave for a journey on Friday, so it is a little urgent.",
    "Please do not call; I am at work all day.",
]
CLOSINGS = [
    "You need not send the old one back.",
    "Reply to this mail if anything goes wrong on the way.",
    "I have noted on your order that you were in touch, so no one will ask you twice.",
    "And because you waited, the next delivery is free.",
    "We have passed your description on to the people who make it.",
]


def conversation(draw: random.Random) -> Conversation:
    """One mail and its answer."""
    thing = draw.choice(list(THINGS))
    wish = draw.choice(list(WISHES))
    order, days = draw.randint(10_000, 99_999), draw.randint(2, 12)
    asides = " ".join(draw.sample(ASIDES, draw.randint(0, 2)))
    closings = " ".join(draw.sample(CLOSINGS, draw.randint(0, 1)))
    fault = draw.choice(THINGS[thing])
    mail = f"My {thing} from order {order} arrived and {fault}. {asides} I would like {wish}."
    help_offered = WISHES[wish].format(thing=thing, days=days)
    answer = f"I am sorry about the {thing}: {fault} is not how it should be. {help_offered} {closings}"
    return Conversation.pair(" ".join(mail.split()), answer.strip())


def own_order(lengths: list[int], seed: int) -> list[int]:
    """Row numbers in the order of our first epoch, whatever the budget of a step: steps of one row each show it."""
    steps = Steps(lengths, epochs=1, max_steps=None, seed=seed, tokens_per_step=1, tokens_per_batch=1)
    return [row for step in steps for batch in step.batches for row in batch]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--train", type=int, default=96)
    parser.add_argument("--dev", type=int, default=32)
    parser.add_argument("--length", type=int, help="cut the records, end to end, into rows of this many tokens")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    template = ModelReference.of(arguments.model).template()
    rows: list[dict[str, list[int] | list[bool]]] = []
    ids: list[int] = []
    while len(rows) < arguments.train + arguments.dev:
        [row] = template.rows(conversation(draw))
        if not arguments.length:
            rows.append({"ids": list(row.ids), "answer": list(row.loss_mask)})
            continue
        ids += row.ids
        while len(ids) >= arguments.length:
            rows.append({"ids": ids[: arguments.length], "answer": [True] * arguments.length})
            ids = ids[arguments.length :]
    rows = rows[: arguments.train + arguments.dev]
    lengths = [len(row["ids"]) for row in rows[: arguments.train]]
    content = {
        "folder": str(find_folder(arguments.model)),
        "train": rows[: arguments.train],
        "dev": rows[arguments.train :],
        "orders": [own_order(lengths, seed) for seed in range(ORDERS)],
    }
    arguments.file.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main()
