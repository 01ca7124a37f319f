"""Prompts of mixed lengths that ask for answers of mixed lengths: mails to a made-up shop, and what to do with them."""

import random

from luthier.chat import Message

OPENINGS = [
    "Dear shop, the kettle that I ordered in May no longer switches itself off.",
    "Hello, my new rucksack has an open seam at the left strap.",
    "Good morning. The desk lamp flickers whenever somebody walks through the room.",
    "To whom it may concern: the bicycle pump always shows two bar, with or without a tyre.",
    "Hi there, the coffee grinder turns everything into dust, on every setting.",
]
SENTENCES = [
    "I have had it for about six weeks and used it perhaps ten times.",
    "The box is still in the cellar, and the receipt is somewhere in my desk.",
    "My sister bought the same one a year ago and has never had any trouble with it.",
    "I followed the leaflet step by step, twice, and then watched somebody do it in a film.",
    "On the first day everything worked as it should.",
    "Your colleague on the telephone told me to write a mail, so here it is.",
    "I would rather not send it back in the old box, because the cat has moved in there.",
    "Next month we are going on a long journey and would like to take it along.",
    "It was a present from my aunt, which makes the whole thing a little delicate.",
    "In the evening it makes a noise that I can only describe as singing.",
    "There is no damage to be seen from outside, not even a scratch.",
    "If this cannot be mended, I should like to know what a new one costs today.",
]
TASKS = [
    "Answer with one word: is the writer pleased or displeased?",
    "Name the thing that the mail is about, and nothing else.",
    "Sum up the mail in one sentence.",
    "Write a short and polite reply.",
    "List what the writer says has happened so far, point by point.",
]


def mails(count: int, *, seed: int = 0) -> list[list[Message]]:
    """Prompts in a random order, as a file of questions would have them."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        middle = draw.sample(SENTENCES, draw.choice((0, 1, 2, 4, 8, 12)))
        mail = " ".join([OPENINGS[number % len(OPENINGS)], *middle])
        found.append([Message("user", f"{mail}\n\n{draw.choice(TASKS)}")])
    draw.shuffle(found)
    return found
