"""Chat rows of about a kilobyte in a JSON Lines file, written by a seed: common words in no order, some names and numbers.

python rows.py rows.jsonl --rows 1000000
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

COMMON = """
the of and to a in is it you that he was for on are with as his they be at one have this from or had by hot but some
what there we can out other were all your when up use word how said each she which do their time if will way about many
then them would write like so these her long make thing see him two has look more day could go come did my sound no most
number who over know water than call first people may down side been now find any new work part take get place made live
where after back little only round man year came show every good me give our under name very through just form much great
think say help low line before turn cause same mean differ move right boy old too does tell sentence set three want air
well also play small end put home read hand port large spell add even land here must big high such follow act why ask men
change went light kind off need house picture try us again animal point mother world near build self earth father order
refund delivery parcel invoice account password address customer return warranty repair broken missing late payment
receipt shipping warehouse contact reply morning evening Monday Friday week month question answer letter station colour
battery screen button window kitchen garden
"""
SYLLABLES = (
    "an",
    "ber",
    "cor",
    "den",
    "el",
    "fa",
    "gro",
    "hin",
    "jor",
    "lum",
    "mer",
    "nos",
    "pra",
    "ros",
    "tar",
    "vel",
)
SYSTEM = "You answer letters to a shop. Be short and friendly."
LETTERS = 450
"""Letters of a question, and of an answer, in the mean: with keys and quotes a row has about 1,000 bytes."""


def writer(draw: random.Random) -> Callable[[int], str]:
    """A function that writes a text of about so many letters."""
    names = ["".join(draw.choices(SYLLABLES, k=3)).capitalize() for _ in range(5_000)]
    words = COMMON.split()
    marks = [". ", ", ", "? ", "\n\n", " – ", ": "]

    def text(letters: int) -> str:
        chosen = draw.choices(words, k=max(3, letters * 10 // 53))
        for at in range(7, len(chosen), 13):
            chosen[at] = draw.choice(names) if at % 2 else f"{draw.randrange(10_000)}"
        sentences = [" ".join(chosen[at : at + 11]) for at in range(0, len(chosen), 11)]
        return "".join(sentence + draw.choice(marks) for sentence in sentences).strip().capitalize() + "."

    return text


def write(path: Path, rows: int, *, seed: int = 0) -> None:
    """The file: of ten rows three have a system message, and two have two questions."""
    draw = random.Random(seed)
    text = writer(draw)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            turns = 2 if number % 5 == 4 else 1
            messages = [{"role": "system", "content": SYSTEM}] if number % 10 in (1, 4, 8) else []
            for _ in range(turns):
                for role in ("user", "assistant"):
                    messages.append({"role": role, "content": text(round(LETTERS / turns * draw.uniform(0.2, 1.8)))})
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    write(given.path, given.rows)


if __name__ == "__main__":
    main()
