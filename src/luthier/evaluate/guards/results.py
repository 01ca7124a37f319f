"""Puts the guards' tasks to a model and writes every result down; what is already written is not asked again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.chat import Message
from luthier.evaluate.guards.case import ANSWER_TOKENS, BASE, Case, Choice, Line, Passage, Question, Task
from luthier.model import generate, likelihood, replies
from luthier.model.loading import LanguageModel
from luthier.model.replies import Room, Said
from luthier.runs.durable import append_json_lines, read_json_lines

OnProgress = Callable[[int, int], None]
Result = dict[str, Any]
Keep = Callable[[Sequence[tuple[Task, Result]]], None]


def unanswered(notes: Sequence[Line], finishes: Sequence[str] = replies.UNANSWERED) -> set[str]:
    """The tasks, or the questions that they ask in another way, to which either model had no answer, for these reasons."""
    return {_subject(line) for line in notes if line.get("finish") in finishes}


def answered(notes: Sequence[Line]) -> list[Line]:
    """The notes of tasks that both models came to an answer to."""
    left_out = unanswered(notes)
    return [line for line in notes if _subject(line) not in left_out]


def _subject(line: Line) -> str:
    return str(line.get("asked", line["item"]))


@dataclass(frozen=True)
class Notes:
    """A file with a line for each guard, arm and item."""

    path: Path

    def lines(self) -> list[dict[str, Any]]:
        """All that is written so far."""
        return read_json_lines(self.path)

    def ask(
        self, lm: LanguageModel, arm: str, material: Mapping[str, Sequence[Task]], case: Case, progress: OnProgress
    ) -> None:
        """Have the model do the tasks that it has not done yet, guard by guard; `progress` is told after each batch."""
        done = {(line["guard"], line["item"]) for line in self.lines() if line["arm"] == arm}
        total = sum(map(len, material.values()))
        count = sum((guard, task.id) in done for guard, tasks in material.items() for task in tasks)
        for guard, tasks in material.items():
            missing = [task for task in tasks if (guard, task.id) not in done]

            def keep(results: Sequence[tuple[Task, Result]], guard: str = guard) -> None:
                nonlocal count
                lines = [{"guard": guard, "arm": arm, "item": task.id, **result} for task, result in results]
                append_json_lines(self.path, lines)
                count += len(lines)
                progress(count, total)

            _predict(lm, [task for task in missing if isinstance(task, Passage)], keep)
            _choose(lm, [task for task in missing if isinstance(task, Choice)], keep)
            _answer(lm, [task for task in missing if isinstance(task, Question)], case, arm, keep)


def _predict(lm: LanguageModel, tasks: Sequence[Passage], keep: Keep) -> None:
    """How well the model predicts each text from its second token on: the first one has nothing before it."""
    rows = [lm.template.prompt([Message("text", task.text)])[: lm.context] for task in tasks]

    def on_batch(batch: dict[int, likelihood.Likelihood]) -> None:
        keep([(tasks[number], _predicted(lm, tasks[number], rows[number], one)) for number, one in batch.items()])

    likelihood.continuations(lm, [(ids[:1], ids[1:]) for ids in rows], on_batch=on_batch)


def _predicted(lm: LanguageModel, task: Passage, ids: Sequence[int], found: likelihood.Likelihood) -> Result:
    return {"kind": task.kind, "nats": -found.logprob, "tokens": len(ids) - 1, "bytes": _bytes(lm, ids[1:])}


def _choose(lm: LanguageModel, tasks: Sequence[Choice], keep: Keep) -> None:
    """How likely the model finds each choice, as the end of `Question: … Answer: …`."""
    pairs = [
        _split(lm, f"Question: {task.question}\nAnswer:", f" {choice}") for task in tasks for choice in task.choices
    ]
    owner = [number for number, task in enumerate(tasks) for _ in task.choices]
    starts = [owner.index(number) for number in range(len(tasks))]
    found: dict[int, likelihood.Likelihood] = {}

    def on_batch(batch: dict[int, likelihood.Likelihood]) -> None:
        found.update(batch)
        whole: list[tuple[Task, Result]] = []
        for number in dict.fromkeys(owner[at] for at in batch):
            places = range(starts[number], starts[number] + len(tasks[number].choices))
            if all(at in found for at in places):
                sizes = [_bytes(lm, pairs[at][1]) for at in places]
                whole.append((tasks[number], _chosen(tasks[number], [-found[at].logprob for at in places], sizes)))
        keep(whole)

    likelihood.continuations(lm, pairs, on_batch=on_batch)


def _chosen(task: Choice, nats: Sequence[float], sizes: Sequence[int]) -> Result:
    """The choice with the highest likelihood per byte, as `acc_norm` counts it; of equals the first."""
    per_byte = [one / max(1, size) for one, size in zip(nats, sizes, strict=True)]
    return {
        "question": task.question,
        "reference": task.choices[task.right],
        "answer": task.choices[per_byte.index(min(per_byte))],
        "nats": list(nats),
        "bytes": list(sizes),
    }


def _split(lm: LanguageModel, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of the two parts, tokenized as one text: a token belongs to the part in which it starts."""
    ids, starts = lm.template.tokenizer.encode(context + continuation)
    begin = next((place for place, start in enumerate(starts) if start >= len(context)), len(ids))
    return lm.template.prompt([Message("text", "")]) + ids[:begin], ids[begin:]


def _bytes(lm: LanguageModel, ids: Sequence[int]) -> int:
    return len(lm.template.tokenizer.decode(ids).encode())


def _answer(lm: LanguageModel, tasks: Sequence[Question], case: Case, arm: str, keep: Keep) -> None:
    """Answers, greedy ones first; the drawn ones of a temperature together."""
    limit = min(ANSWER_TOKENS, case.settings.max_new_tokens or ANSWER_TOKENS)
    room = Room(limit, case.settings.thinking_tokens or 0)
    for temperature in sorted({task.temperature for task in tasks}):
        asked = [task for task in tasks if task.temperature == temperature]
        prompts = [lm.template.prompt(as_asked(task, case, arm)) for task in asked]
        seeds = [(case.seed, task.sample, *task.id.encode()) for task in asked]

        def on_batch(batch: dict[int, Said], asked: Sequence[Question] = asked) -> None:
            keep([(asked[number], _replied(asked[number], said)) for number, said in batch.items()])

        sampling = generate.Sampling(temperature, seeds) if temperature else None
        replies.ask(lm, prompts, room, sampling=sampling, on_batch=on_batch)


def _replied(task: Question, said: Said) -> Result:
    return {
        "question": next(message.content for message in reversed(task.messages) if message.role == "user"),
        "answer": said.text,
        **({} if said.thoughts is None else {"thoughts": said.thoughts}),
        "finish": said.finish,
        "temperature": task.temperature,
        "sample": task.sample,
        **task.note,
    }


def as_asked(task: Question, case: Case, arm: str) -> tuple[Message, ...]:
    """A question's messages; for the base model with the instruction that the prompt arms send, where it is told to."""
    instruction = case.settings.instruction if arm == BASE and task.told else None
    if not instruction:
        return tuple(task.messages)
    systems = [instruction, *(message.content for message in task.messages if message.role == "system")]
    rest = (message for message in task.messages if message.role != "system")
    return (Message("system", "\n\n".join(systems)), *rest)
