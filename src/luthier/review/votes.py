"""Votes between pairs, from files of votes and from the reviews of runs."""

from collections.abc import Sequence
from pathlib import Path

from luthier.data.readers.files import read_rows
from luthier.data.readers.values import as_text
from luthier.errors import UserError, together
from luthier.evaluate.judge.ratings import Vote
from luthier.review import marks, sheet
from luthier.runs import Run
from luthier.runs.durable import read_json_lines

NEEDED = ("a", "b", "winner")
TIE = ("tie", "=", "both bad", "draw")


def read(sources: Sequence[Path]) -> list[Vote]:
    """The votes of all files and run folders; raises one UserError of all that is wrong in them.

    A file has the columns a, b and winner (a, b, tie, or a player's name), and item where several votes share one. In a
    run's review, the tuned model has the run's name, and the prompt that of its base model and arm.
    """
    votes: list[Vote] = []
    errors: list[UserError] = []
    for source in sources:
        try:
            votes += _of_run(source) if (source / "run.json").is_file() else _of_file(source)
        except UserError as error:
            errors.append(error)
    if errors:
        raise together(errors)
    return votes


def _of_run(folder: Path) -> list[Vote]:
    run = Run(folder)
    lines = read_json_lines(folder / marks.FILE)
    if not lines:
        raise UserError(
            f"no marks yet. `luthier review {folder} --export sheet.csv` makes a sheet, --import takes it back filled in.",
            where=str(folder),
        )
    prompt_arm = sheet.current(run).prompt_arm
    prompt = f"{run.metadata['asked']['model']} · {prompt_arm}"
    winners = {sheet.TUNED_ARM: run.name, prompt_arm: prompt}
    return [Vote(run.name, prompt, winners.get(str(line["chosen"])), f"{folder}:{line['item']}") for line in lines]


def _of_file(path: Path) -> list[Vote]:
    votes: list[Vote] = []
    errors: list[UserError] = []
    for row in read_rows(path):
        if missing := [name for name in NEEDED if name not in row.values]:
            raise UserError(
                f"no column {' and '.join(missing)}, found {', '.join(row.values)}. Expected a, b and winner.",
                where=row.location,
            )
        cells = {name: as_text(value).strip() for name, value in row.values.items()}
        a, b, winner = (cells[name] for name in NEEDED)
        words = {"a": a, "b": b, a.casefold(): a, b.casefold(): b} | dict.fromkeys(TIE)
        if not a or not b or a == b:
            errors.append(UserError("a vote needs two different players in the columns a and b.", where=row.location))
        elif winner.casefold() not in words:
            message = f'winner is "{winner}"; expected a, b, tie, "{a}" or "{b}".'
            errors.append(UserError(message, where=row.location))
        else:
            item = cells.get("item") or None
            votes.append(Vote(a, b, words[winner.casefold()], item and f"{path}:{item}"))
    if errors:
        raise together(errors)
    if not votes:
        raise UserError("no votes in it; expected the columns a, b and winner, one vote per row.", where=str(path))
    return votes
