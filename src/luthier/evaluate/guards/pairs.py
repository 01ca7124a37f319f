"""The test answers on disk, question by question: what the base model said and what the tuned one says."""

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.evaluate.guards.case import TUNED, Case, Line
from luthier.model.replies import UNANSWERED

PLAIN_ARM = "zero-shot"  # the base model as people meet it: a question and nothing else


@dataclass(frozen=True)
class Pair:
    """One test question. `prompt` is all that the question says, system message and earlier turns included."""

    item: str
    group: str
    prompt: str
    question: str
    reference: str
    base: str
    tuned: str
    scores: tuple[float, float]

    def example(self) -> dict[str, str]:
        """For people to read."""
        return {"question": self.question, "base": self.base, "fine_tuned": self.tuned}


def paired(case: Case, answers: Sequence[Line]) -> list[Pair]:
    """The answers of the plainest base arm beside those of the tuned model, for the questions that both have answered.

    A question whose prompt does not fit into the context is not answered.
    """
    name = base_arm(answers)
    base, tuned = ({line["item"]: line for line in answers if line["arm"] == arm} for arm in (name, TUNED))
    prompts = {item.id: "\n".join(message.content for message in item.conversation.prompt) for item in case.test}
    return [
        Pair(
            item, line["group"], prompts.get(item) or line["question"], line["question"], line["reference"],
            base[item]["answer"], line["answer"], (base[item]["score"], line["score"]),
        )
        for item, line in tuned.items()
        if item in base and not {line["finish"], base[item]["finish"]} & {*UNANSWERED}
    ]  # fmt: skip


def base_arm(answers: Sequence[Line]) -> str:
    """The arm that stands for the base model: zero-shot, or where it was not asked, the first prompt arm."""
    names = dict.fromkeys(line["arm"] for line in answers if not line["arm"].startswith(TUNED))
    return PLAIN_ARM if PLAIN_ARM in names else next(iter(names), PLAIN_ARM)
