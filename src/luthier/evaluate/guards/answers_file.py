"""Have a model do the guards' tasks, and write down every answer; tasks that are in the file are not done again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.chat import Message
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.guards.inputs import (
    ANSWER_TOKENS,
    BASE,
    Choice,
    GuardInputs,
    Passage,
    Question,
    Task,
)
from luthier.model import generate, likelihood, replies
from luthier.model.loading import LanguageModel
from luthier.model.replies import Answer, Ask, TokenBudget
from luthier.runs.durable import append_json_lines, read_json_lines

OnProgress = Callable[[int, int], None]
AnswerFields = dict[str, Any]
WriteResults = Callable[[Sequence[tuple[Task, AnswerFields]]], None]


def unanswered(records: Sequence[AnswerRecord], finishes: Sequence[str] = replies.UNANSWERED) -> set[str]:
    """The tasks that either model did not answer, for these reasons; reworded questions count by the question they reword."""
    return {_subject(record) for record in records if record.get("finish") in finishes}


def answered(records: Sequence[AnswerRecord]) -> list[AnswerRecord]:
    """The records of tasks that both models have answered."""
    left_out = unanswered(records)
    return [record for record in records if _subject(record) not in left_out]


def _subject(record: AnswerRecord) -> str:
    """The test question that a task rewords, or the task itself."""
    return str(record.get("asked", record["item"]))


@dataclass(frozen=True)
class GuardAnswersFile:
    """guard-answers.jsonl: a record for each guard, arm and task."""

    path: Path
    ask_model: Ask = replies.ask

    def records(self) -> list[dict[str, Any]]:
        """All that is written so far."""
        return read_json_lines(self.path)

    def ask(
        self,
        lm: LanguageModel,
        arm: str,
        tasks: Mapping[str, Sequence[Task]],
        inputs: GuardInputs,
        progress: OnProgress,
    ) -> None:
        """Have the model do each guard's tasks that it has not done yet; calls `progress(done, of)` after each batch."""
        done = {(record["guard"], record["item"]) for record in self.records() if record["arm"] == arm}
        total = sum(map(len, tasks.values()))
        count = sum((guard, task.id) in done for guard, of_guard in tasks.items() for task in of_guard)
        for guard, of_guard in tasks.items():
            missing = [task for task in of_guard if (guard, task.id) not in done]

            def write(results: Sequence[tuple[Task, AnswerFields]], guard: str = guard) -> None:
                nonlocal count
                records = [{"guard": guard, "arm": arm, "item": task.id, **fields} for task, fields in results]
                append_json_lines(self.path, records)
                count += len(records)
                progress(count, total)

            _predict(lm, [task for task in missing if isinstance(task, Passage)], write)
            _choose(lm, [task for task in missing if isinstance(task, Choice)], write)
            questions = [task for task in missing if isinstance(task, Question)]
            _answer(self.ask_model, lm, questions, inputs, arm, write)


def _predict(lm: LanguageModel, tasks: Sequence[Passage], write: WriteResults) -> None:
    """The log-likelihood of each text from its second token on: nothing stands before the first one."""
    rows = [lm.template.prompt([Message("text", task.text)])[: lm.context] for task in tasks]

    def on_batch(batch: dict[int, likelihood.Likelihood]) -> None:
        write([(tasks[number], _predicted(lm, tasks[number], rows[number], one)) for number, one in batch.items()])

    likelihood.continuations(lm, [(ids[:1], ids[1:]) for ids in rows], on_batch=on_batch)


def _predicted(lm: LanguageModel, task: Passage, ids: Sequence[int], found: likelihood.Likelihood) -> AnswerFields:
    return {"kind": task.kind, "nats": -found.logprob, "tokens": len(ids) - 1, "bytes": _bytes(lm, ids[1:])}


def _choose(lm: LanguageModel, tasks: Sequence[Choice], write: WriteResults) -> None:
    """How likely the model finds each choice, as the end of `Question: … Answer: …`."""
    pairs = [
        _split(lm, f"Question: {task.question}\nAnswer:", f" {choice}") for task in tasks for choice in task.choices
    ]
    owner = [number for number, task in enumerate(tasks) for _ in task.choices]
    starts = [owner.index(number) for number in range(len(tasks))]
    found: dict[int, likelihood.Likelihood] = {}

    def on_batch(batch: dict[int, likelihood.Likelihood]) -> None:
        found.update(batch)
        whole: list[tuple[Task, AnswerFields]] = []
        for number in dict.fromkeys(owner[at] for at in batch):
            of_task = range(starts[number], starts[number] + len(tasks[number].choices))
            if all(at in found for at in of_task):
                sizes = [_bytes(lm, pairs[at][1]) for at in of_task]
                whole.append((tasks[number], _chosen(tasks[number], [-found[at].logprob for at in of_task], sizes)))
        write(whole)

    likelihood.continuations(lm, pairs, on_batch=on_batch)


def _chosen(task: Choice, nats: Sequence[float], sizes: Sequence[int]) -> AnswerFields:
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
    begin = next((number for number, start in enumerate(starts) if start >= len(context)), len(ids))
    return lm.template.prompt([Message("text", "")]) + ids[:begin], ids[begin:]


def _bytes(lm: LanguageModel, ids: Sequence[int]) -> int:
    return len(lm.template.tokenizer.decode(ids).encode())


def _answer(
    ask_model: Ask, lm: LanguageModel, tasks: Sequence[Question], inputs: GuardInputs, arm: str, write: WriteResults
) -> None:
    """Answers, greedy ones first; sampled ones of one temperature go together."""
    limit = min(ANSWER_TOKENS, inputs.settings.max_new_tokens or ANSWER_TOKENS)
    room = TokenBudget(limit, inputs.settings.thinking_tokens or 0)
    for temperature in sorted({task.temperature for task in tasks}):
        asked = [task for task in tasks if task.temperature == temperature]
        prompts = [lm.template.prompt(messages_for(task, inputs, arm), tools=task.tools) for task in asked]
        seeds = [(inputs.seed, task.sample, *task.id.encode()) for task in asked]

        def on_batch(batch: dict[int, Answer], asked: Sequence[Question] = asked) -> None:
            write([(asked[number], _replied(asked[number], said)) for number, said in batch.items()])

        sampling = generate.Sampling(temperature, seeds) if temperature else None
        ask_model(lm, prompts, room, sampling=sampling, on_batch=on_batch)


def _replied(task: Question, said: Answer) -> AnswerFields:
    return {
        "question": next(message.content for message in reversed(task.messages) if message.role == "user"),
        "answer": said.said(tools=bool(task.tools)),
        **({} if said.thoughts is None else {"thoughts": said.thoughts}),
        "finish": said.finish,
        "temperature": task.temperature,
        "sample": task.sample,
        **task.extra,
    }


def messages_for(task: Question, inputs: GuardInputs, arm: str) -> tuple[Message, ...]:
    """A question's messages. Where the question says so, the base model gets the prompt arms' instruction in front."""
    instruction = inputs.settings.instruction if arm == BASE and task.with_instruction else None
    if not instruction:
        return tuple(task.messages)
    systems = [instruction, *(message.content for message in task.messages if message.role == "system")]
    rest = (message for message in task.messages if message.role != "system")
    return (Message("system", "\n\n".join(systems)), *rest)
