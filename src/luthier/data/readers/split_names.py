"""Files whose names say that they are train, dev or test: apart they stay, and this is said.

The words are those of Hugging Face's datasets, and `eval` is dev where something else is test.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from luthier.data.readers.kinds import BESIDE_ROWS
from luthier.data.readers.sources import Source
from luthier.errors import UserError

WORDS = {
    "train": ("train", "training"),
    "dev": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing"),
    "eval": ("eval", "evaluation"),
}
_SHARD = re.compile(r"[-_.]?\d+(?:-of-\d+)?(?:-[0-9a-f]{16,})?$")


@dataclass(frozen=True)
class Divided:
    """The files to train on, those of dev and test where there are some, those of no split, and a sentence about it."""

    train: list[Source]
    held_out: dict[str, list[Source]] = field(default_factory=dict)
    left: list[Source] = field(default_factory=list)
    sentence: str | None = None


def divide(named: Sequence[tuple[str, Source]], where: str) -> Divided:
    """The files, each with its name inside of the folder, by the splits that the names tell; all to train where none does."""
    loose = {split_of(name) for name, _ in named if split_of(name)}
    if "train" in loose:
        found = [
            (split_of(name) if source.kind not in BESIDE_ROWS else exact_split(name), source) for name, source in named
        ]
    else:
        found = [(exact_split(name), source) for name, source in named]
    splits = {split for split, _ in found if split}
    if not splits or (len(splits) == 1 and all(split for split, _ in found)):
        return Divided([source for _, source in named])
    of_eval = ("dev" if "test" in splits else "test") if "eval" in splits else None
    parts: dict[str, list[Source]] = {"train": [], "dev": [], "test": []}
    left = []
    for split, source in found:
        if split is None and "train" in splits:
            left.append(source)
        else:
            parts[of_eval if split == "eval" and of_eval else split or "train"].append(source)
    if not parts["train"]:
        raise UserError(
            f"files for {' and '.join(split for split, files in parts.items() if files)}, and none to train on. "
            "Expected one that is named train, or a name of its own.",
            where=where,
        )
    _expect_one_kind(
        [name for (split, source), (name, _) in zip(found, named, strict=True) if source in parts["train"]], where
    )
    train = parts.pop("train")
    held_out = {split: files for split, files in parts.items() if files}
    described = [
        f"{_names(train)} is trained on",
        *(f"{_names(files)} is {split}" for split, files in held_out.items()),
    ]
    missing = [split for split in parts if split not in held_out]
    own = f"; {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} taken from train" if missing else ""
    return Divided(train, held_out, left, f"by their names {', '.join(described)}{own}")


def _expect_one_kind(names: Sequence[str], where: str) -> None:
    """Refuses training files of several kinds, which their names tell behind the split: `train_sft`, `train_gen`."""
    stems = {_SHARD.sub("", name.split("/")[-1].split(".", 1)[0]) for name in names}
    words = {stem: re.findall(r"[a-z]+", stem.lower()) for stem in sorted(stems)}
    kinds = [stem for stem, each in words.items() if len(each) > 1 and each[0] in WORDS["train"]]
    if len(kinds) > 1 and len(kinds) == len(stems):
        word = words[kinds[0]][1]
        raise UserError(
            f"several kinds of files to train on: {', '.join(kinds)}. Name the one to read by a word of its names: "
            f"{where}#{word}.",
            where=where,
        )


def split_of(name: str) -> str | None:
    """The split that a word in the name tells: `data/train-00000-of-00002.parquet`, `faq_test.csv`."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((split for word in words for split, known in WORDS.items() if word in known), None)


def exact_split(name: str) -> str | None:
    """The split whose word is the whole name of the file, or of the folder that it lies in; numbers of shards do not count."""
    *folders, file = name.lower().split("/")
    stem = _SHARD.sub("", file.split(".", 1)[0])
    return next((split for word in (stem, *folders) for split, known in WORDS.items() if word in known), None)


def _names(sources: Sequence[Source]) -> str:
    more = len(sources) - 1
    return sources[0].name + (f" (and {more} more)" if more else "")
