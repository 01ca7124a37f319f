"""Ask a model about items and write down every answer with its score; what is already written is not asked again."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from luthier.chat import Message, Template
from luthier.data.dataset import Item
from luthier.data.prepared import Prepared
from luthier.evaluate import metrics
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.answers.endpoint import Endpoint
from luthier.evaluate.metrics import Metric
from luthier.evaluate.prompts.arms import Prompt, render
from luthier.model import replies
from luthier.model.head import summed_loss
from luthier.model.loading import LanguageModel
from luthier.model.packed import pack
from luthier.model.replies import Answer, Ask, TokenBudget
from luthier.runs.durable import append_json_lines, read_json_lines

OnProgress = Callable[[int, int], None]
"""(items that are answered, of how many)"""


def count_shots(messages: Sequence[Message], item: Item) -> int:
    """How many demonstrations stand before the question: assistant messages beyond those of the row itself."""
    counts = [sum(message.role == "assistant" for message in each) for each in (messages, item.conversation.prompt)]
    return max(0, counts[0] - counts[1])


@dataclass(frozen=True)
class AnswersFile:
    """A file of answers, a line per item and arm. Lines are appended batch by batch, so an interruption loses one batch."""

    path: Path
    metrics: Mapping[str, Metric]
    """The first is the one that decides; the others are reported."""
    ask_model: Ask = replies.ask

    def records(self) -> list[AnswerRecord]:
        """All that is in the file."""
        return list(read_json_lines(self.path))

    def ask(
        self,
        lm: LanguageModel,
        items: Sequence[Item],
        *,
        arm: str,
        prompt: Prompt,
        budget: TokenBudget,
        progress: OnProgress,
    ) -> list[AnswerRecord]:
        """Ask the items that this arm has not answered yet; returns the arm's records in the items' order."""
        done, missing = self._remaining(arm, items)
        prompts = [render(arm, prompt, item, lm.template) for item in missing]
        progress(len(done), len(items))

        def append(batch: dict[int, Answer]) -> None:
            records = [
                self._record(missing[number], arm, answer, prompt_tokens=len(prompts[number][1]), template=lm.template)
                | {"shots": count_shots(prompts[number][0], missing[number])}
                for number, answer in batch.items()
            ]
            append_json_lines(self.path, records)
            done.update(record["item"] for record in records)
            progress(len(done), len(items))

        self.ask_model(lm, [ids for _, ids in prompts], budget, on_batch=append)
        return self.records_of(arm, items)

    def ask_endpoint(
        self,
        endpoint: Endpoint,
        items: Sequence[Item],
        *,
        arm: str,
        prompt: Prompt,
        budget: TokenBudget,
        progress: OnProgress,
    ) -> list[AnswerRecord]:
        """The same from an endpoint; raises Unavailable when the endpoint fails, and keeps what came before."""
        done, missing = self._remaining(arm, items)
        progress(len(done), len(items))
        asked = [(prompt(item), item.conversation.tools) for item in missing]
        for number, response in endpoint.answers(asked, max_new_tokens=budget.tokens):
            record = self._record(missing[number], arm, response.answer, prompt_tokens=response.prompt_tokens)
            append_json_lines(self.path, [record])
            done.add(record["item"])
            progress(len(done), len(items))
        return self.records_of(arm, items)

    def score_documents(
        self, lm: LanguageModel, rows: Prepared, *, arm: str, progress: OnProgress
    ) -> list[AnswerRecord]:
        """Score documents by how well the model predicts them: −bits per byte, higher is better, no text generated."""
        items = rows.items()
        done, _ = self._remaining(arm, items)
        for number, item in enumerate(items):
            if item.id in done:
                continue
            row = rows[number]
            with torch.inference_mode():
                nats = summed_loss(lm.model, pack([row], lm.device)).item()
            size = len(lm.template.tokenizer.decode(row.ids[row.loss_mask].tolist()).encode())
            bits = nats / math.log(2) / max(1, size)
            record = self._common_fields(item, arm) | {
                "question": "", "prompt_tokens": 0, "answer_tokens": int(row.loss_mask.sum()), "answer": "", "reference": "",
                "score": -bits, "scores": {"bits_per_byte": -bits}, "finish": "stop", "seconds": 0.0,
            }  # fmt: skip
            append_json_lines(self.path, [record])
            progress(number + 1, len(items))
        return self.records_of(arm, items)

    def records_of(self, arm: str, items: Sequence[Item]) -> list[AnswerRecord]:
        """An arm's records in the items' order."""
        records = {record["item"]: record for record in self.records() if record["arm"] == arm}
        return [records[item.id] for item in items]

    def has_answered(self, arm: str, items: Sequence[Item]) -> bool:
        """Whether the arm has answered all of these items."""
        return not self._remaining(arm, items)[1]

    def copy_records(self, records: Sequence[AnswerRecord], *, arm: str) -> None:
        """Append answers that were given under another name; those that the arm has already stay."""
        known = {record["item"] for record in self.records() if record["arm"] == arm}
        append_json_lines(self.path, [{**record, "arm": arm} for record in records if record["item"] not in known])

    def rescored(self, records: Sequence[AnswerRecord]) -> list[AnswerRecord]:
        """The records with scores of this file's metrics, where they were written with others."""
        rescored: list[AnswerRecord] = []
        for record in records:
            references = record.get("references") or [record["reference"]]
            scored = self._scored(record["answer"], references, record["finish"], where=record["place"])
            rescored.append({**record, **scored})
        return rescored

    def _remaining(self, arm: str, items: Sequence[Item]) -> tuple[set[str], list[Item]]:
        """The ids that the arm has answered, and the items that it has not."""
        wanted = {item.id for item in items}
        done = {record["item"] for record in self.records() if record["arm"] == arm} & wanted
        return done, [item for item in items if item.id not in done]

    def _scored(self, answer: str, references: Sequence[str], finish: str, *, where: str) -> dict[str, Any]:
        """The answer's scores by metric, each against the reference that is best for it, and which one that was.

        All are 0 where there is no answer, whatever a metric says of nothing.
        """
        if finish in replies.UNANSWERED:
            by_reference = [dict.fromkeys(self.metrics, 0.0) for _ in references]
        else:
            by_reference = [metrics.score(self.metrics, answer, each, location=where) for each in references]
        scores = {name: max(each[name] for each in by_reference) for name in self.metrics}
        decides = next(iter(self.metrics))
        matched = max(range(len(references)), key=lambda number: by_reference[number][decides])
        several = {"references": list(references), "matched": matched} if len(references) > 1 else {}
        return {**several, "score": scores[decides], "scores": scores}

    def _record(
        self, item: Item, arm: str, answer: Answer, *, prompt_tokens: int, template: Template | None = None
    ) -> dict[str, Any]:
        conversation = item.conversation
        reference = template.answer_text(conversation.messages[-1]) if template else conversation.answer
        references = list(dict.fromkeys([reference, *conversation.references]))
        text = answer.said(tools=conversation.uses_tools or bool(metrics.calls_in(reference)))
        scored = self._scored(text, references, answer.finish, where=item.location)
        return self._common_fields(item, arm) | {
            "question": conversation.question,
            "prompt_tokens": prompt_tokens,
            "answer_tokens": answer.tokens,
            **({"thought_tokens": answer.thought_tokens} if answer.thought_tokens else {}),
            **({"thoughts": answer.thoughts} if answer.thoughts is not None else {}),
            "answer": text,
            "reference": reference,
            **scored,
            "finish": answer.finish,
            "seconds": round(answer.seconds, 4),
        }

    @staticmethod
    def _common_fields(item: Item, arm: str) -> dict[str, Any]:
        return {"item": item.id, "place": item.location, "group": item.group, "arm": arm}
