"""The test answers of both models, side by side, question by question."""

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.evaluate.answers import AnswerRecord, all_references
from luthier.evaluate.guards.inputs import TUNED, GuardInputs
from luthier.model.replies import UNANSWERED

PLAIN_ARM = "zero-shot"  # the question and no examples


@dataclass(frozen=True)
class AnswerPair:
    """One test question with both answers. `prompt` is its whole text, with system message and earlier turns."""

    item: str
    group: str
    prompt: str
    question: str
    reference: str
    base: str
    tuned: str
    scores: tuple[float, float]

    def example(self) -> dict[str, str]:
        """As guards.json shows it."""
        return {"question": self.question, "base": self.base, "fine_tuned": self.tuned}


def answer_pairs(inputs: GuardInputs, answers: Sequence[AnswerRecord]) -> list[AnswerPair]:
    """The answers of the base model's plainest arm beside those of the tuned model, where both have answered."""
    name = base_arm(answers)
    base, tuned = ({record["item"]: record for record in answers if record["arm"] == arm} for arm in (name, TUNED))
    prompts = {
        item.id: "\n".join([*item.conversation.tools, *(message.text for message in item.conversation.prompt)])
        for item in inputs.test
    }
    return [
        AnswerPair(
            item, record["group"], prompts.get(item) or record["question"], record["question"], all_references(record),
            base[item]["answer"], record["answer"], (base[item]["score"], record["score"]),
        )
        for item, record in tuned.items()
        if item in base and not {record["finish"], base[item]["finish"]} & {*UNANSWERED}
    ]  # fmt: skip


def base_arm(answers: Sequence[AnswerRecord]) -> str:
    """The arm that stands for the base model: zero-shot, or the first prompt arm where zero-shot was not asked."""
    names = dict.fromkeys(record["arm"] for record in answers if not record["arm"].startswith(TUNED))
    return PLAIN_ARM if PLAIN_ARM in names else next(iter(names), PLAIN_ARM)
