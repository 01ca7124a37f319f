"""Put items to a model and write down every answer with its score; what is already written is not asked again."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from luthier.data.dataset import Item
from luthier.data.prepared import Prepared
from luthier.evaluate import metrics
from luthier.evaluate.arms import Prompt
from luthier.evaluate.metrics import Metric
from luthier.model import generate
from luthier.model.head import summed_loss
from luthier.model.loading import LanguageModel
from luthier.model.packed import pack
from luthier.runs import append_json_lines, read_json_lines

Line = dict[str, Any]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sheet:
    """A file of answers: a line per item and arm. Lines are appended batch by batch, so an interruption loses one batch."""

    path: Path
    metrics: Mapping[str, Metric]
    """The first is the one that decides; the others are reported."""

    def lines(self) -> list[Line]:
        return read_json_lines(self.path)

    def answer(
        self,
        lm: LanguageModel,
        items: Sequence[Item],
        *,
        arm: str,
        prompt: Prompt,
        max_new_tokens: int,
        progress: OnProgress,
    ) -> list[Line]:
        """Ask the items that this arm has not answered yet; returns the arm's lines in the items' order."""
        done = {line["item"] for line in self.lines() if line["arm"] == arm}
        missing = [item for item in items if item.id not in done]
        prompts = [lm.template.prompt(prompt(item)) for item in missing]
        progress(len(done), len(items))

        def keep(replies: dict[int, generate.Reply]) -> None:
            lines = [
                self._line(lm, missing[number], arm, len(prompts[number]), reply) for number, reply in replies.items()
            ]
            append_json_lines(self.path, lines)
            done.update(line["item"] for line in lines)
            progress(len(done), len(items))

        generate.answer(lm, prompts, max_new_tokens=max_new_tokens, on_batch=keep)
        return self.of(arm, items)

    def continue_documents(self, lm: LanguageModel, rows: Prepared, *, arm: str, progress: OnProgress) -> list[Line]:
        """Score documents by how well the model predicts them: −bits per byte, higher is better, no text generated."""
        done = {line["item"] for line in self.lines() if line["arm"] == arm}
        items = rows.items()
        for number, item in enumerate(items):
            if item.id in done:
                continue
            row = rows[number]
            with torch.inference_mode():
                nats = summed_loss(lm.model, pack([row], lm.device)).item()
            size = len(lm.template.tokenizer.decode(row.ids[row.learn].tolist()).encode())
            bits = nats / math.log(2) / max(1, size)
            line = self._common(item, arm) | {
                "question": "", "prompt_tokens": 0, "answer_tokens": int(row.learn.sum()), "answer": "", "reference": "",
                "score": -bits, "scores": {"bits_per_byte": -bits}, "finish": "stop", "seconds": 0.0,
            }  # fmt: skip
            append_json_lines(self.path, [line])
            progress(number + 1, len(items))
        return self.of(arm, items)

    def of(self, arm: str, items: Sequence[Item]) -> list[Line]:
        """An arm's lines in the items' order."""
        lines = {line["item"]: line for line in self.lines() if line["arm"] == arm}
        return [lines[item.id] for item in items]

    def _line(self, lm: LanguageModel, item: Item, arm: str, prompt_tokens: int, reply: generate.Reply) -> Line:
        text, reference = lm.template.reply(reply.ids), item.conversation.answer
        scores = metrics.score(self.metrics, text, reference, place=item.place)
        return self._common(item, arm) | {
            "question": item.conversation.question,
            "prompt_tokens": prompt_tokens,
            "answer_tokens": len(reply.ids),
            "answer": text,
            "reference": reference,
            "score": next(iter(scores.values())),
            "scores": scores,
            "finish": reply.finish,
            "seconds": round(reply.seconds, 4),
        }

    @staticmethod
    def _common(item: Item, arm: str) -> Line:
        return {"item": item.id, "place": item.place, "group": item.group, "arm": arm}
