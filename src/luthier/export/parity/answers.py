"""The run's test questions, answered again by the exported file in its own engine, and scored by the run's own metric."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier.evaluate import metrics
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.context import Context
from luthier.evaluate.prompts.arms import TUNED, render
from luthier.evaluate.verdict.decision import decide
from luthier.export.running import Running
from luthier.export.source import Source
from luthier.model import generate, replies

SHOWN = 80


@dataclass(frozen=True)
class Answered:
    """Stored answers of the original, and those of the exported file to the same questions."""

    stored: list[AnswerRecord]
    again: list[AnswerRecord]

    @property
    def same(self) -> list[bool]:
        return [one["answer"] == other["answer"] for one, other in zip(self.stored, self.again, strict=True)]

    @property
    def first_difference(self) -> str | None:
        """The first question with another answer, in words."""
        for number, (one, other) in enumerate(zip(self.stored, self.again, strict=True)):
            if one["answer"] != other["answer"]:
                at = _parted(one["answer"], other["answer"])
                return (
                    f"question {number} ({one['place']}): character {at} of the answer; "
                    f"stored …{one['answer'][at : at + SHOWN]!r}, exported …{other['answer'][at : at + SHOWN]!r}"
                )
        return None


def _parted(one: str, other: str) -> int:
    return next(
        (n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )


def stored_answers(source: Source) -> tuple[list[AnswerRecord], str | None]:
    """The fine-tuned model's answers on test, or why there are none to compare with."""
    if source.documents:
        return [], "the run was trained on documents, of which nothing is asked"
    records = [
        each for each in Context(source.run, source.recipe).answers_file("answers").records() if each["arm"] == TUNED
    ]
    if not records:
        return [], "the run has no answers of its model to test questions"
    if len({each["item"] for each in records}) < len(records):
        return [], "the run's answers were sampled, and the file answers with the most likely tokens"
    return records, None


def longest_prompt(source: Source, records: Sequence[AnswerRecord]) -> int:
    """Tokens that the longest question and its answer need."""
    budget = Context(source.run, source.recipe).token_budget.tokens
    return max((int(each["prompt_tokens"]) for each in records), default=0) + budget


def ask_again(source: Source, llama: Running, stored: Sequence[AnswerRecord]) -> Answered:
    """The same questions as ids, so that control tokens that people spelled stay words; greedy, many at once.

    Where the file writes what the run's model wrote, it only reads that: the stored answers are handed over as drafts.
    """
    context = Context(source.run, source.recipe)
    items = {item.id: item for item in context.items("test")}
    known = [record for record in stored if record["item"] in items and record["finish"] not in replies.UNANSWERED]
    prompts = [
        render(TUNED, lambda item: item.conversation.prompt, items[record["item"]], source.template)[1]
        for record in known
    ]
    drafts = [_draft(record, source) for record in known]
    found = llama.complete(prompts, max_new_tokens=context.token_budget.tokens, drafts=drafts)
    again = []
    for record, completion in zip(known, found, strict=True):
        reply = generate.Reply(completion.ids, completion.finish, 0.0)
        answer = replies.read(source.template, reply, context.token_budget)
        conversation = items[record["item"]].conversation
        text = answer.said(tools=conversation.uses_tools or bool(metrics.calls_in(record["reference"])))
        again.append({**record, "answer": text, "finish": answer.finish, "answer_tokens": answer.tokens})
    return Answered(known, context.answers_file("answers").rescored(again))


def _draft(record: AnswerRecord, source: Source) -> list[int]:
    """The stored answer's ids, as far as they can be told from its text: what the file is likely to write as well."""
    ids, _ = source.template.tokenizer.encode(record["answer"])
    ended = record["finish"] == "stop"
    return ids if len(ids) == int(record["answer_tokens"]) - ended else []


def score(source: Source, answered: Answered) -> dict[str, Any]:
    """The metric's means of both, their difference with its paired interval, and whether they are equivalent."""
    settings = source.recipe.evaluate
    groups = [str(record["group"]) for record in answered.stored]
    before, after = ([float(each["score"]) for each in records] for records in (answered.stored, answered.again))
    decision = decide(
        after, before, groups, alpha=settings.alpha, margin=settings.margin, seed=source.recipe.train.seed
    )
    return {
        "metric": str(settings.metric), "original": sum(before) / len(before), "exported": sum(after) / len(after),
        "difference": decision.difference, "interval": list(decision.interval), "confidence": decision.confidence,
        "margin": decision.margin, "verdict": decision.verdict, "n": decision.n,
    }  # fmt: skip
