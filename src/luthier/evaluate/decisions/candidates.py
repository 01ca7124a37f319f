"""The allowed answers of a task with labels, and how likely a model finds each of them behind a question."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from luthier.chat import Conversation, Message, Template
from luthier.errors import UserError
from luthier.evaluate.metrics import labels
from luthier.model import likelihood
from luthier.model.loading import LanguageModel

MOST_ANSWERS = 100
"""Labels of a task for which each is scored; with more of them generating an answer is cheaper."""
Floats = NDArray[np.float64]


def allowed_answers(references: Iterable[str]) -> tuple[str, ...]:
    """The labels among these answers, each in its most frequent spelling, in alphabetical order.

    Nothing where they are no closed set of 2 to `MOST_ANSWERS` labels: choices whose letters mean something else at each
    question, and answers of which most occur once.
    """
    spellings = Counter(reference.strip() for reference in references)
    spelled: dict[str, str] = {}
    for text, _ in spellings.most_common():
        spelled.setdefault(labels.label_of(text), text)
    many = len(spelled) > MOST_ANSWERS or 2 * len(spelled) > spellings.total()
    if len(spelled) < 2 or many or labels.are_choices(list(spellings)):
        return ()
    return tuple(sorted(spelled.values()))


def pairs(
    template: Template, questions: Sequence[Sequence[Message]], answers: Sequence[str], *, tools: Sequence[str] = ()
) -> list[tuple[list[int], list[int]]]:
    """(prompt, answer) as tokens for each question with each answer, question by question; answers have their end token."""
    prompts = [template.prompt(messages, tools=tools) for messages in questions]
    conversations = [
        Conversation((*messages, Message("assistant", answer)), tools=tuple(tools))
        for messages in questions
        for answer in answers
    ]
    found = []
    for number, rows in enumerate(template.stream_rows(conversations)):
        if isinstance(rows, UserError):
            raise rows
        prompt, row = prompts[number // len(answers)], rows[-1]
        assert row.ids[: len(prompt)] == prompt, "a row begins with its prompt's tokens"
        end = max(at for at, counts in enumerate(row.loss_mask) if counts) + 1
        found.append((prompt, row.ids[len(prompt) : end]))
    return found


def log_likelihoods(
    lm: LanguageModel,
    questions: Sequence[Sequence[Message]],
    answers: Sequence[str],
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Floats:
    """Σ log p of each answer behind each question in nats, shape [questions, answers]; `progress` counts questions."""
    done = 0

    def count(batch: dict[int, likelihood.Likelihood]) -> None:
        nonlocal done
        done += len(batch)
        progress(done // len(answers), len(questions))

    found = likelihood.continuations(lm, pairs(lm.template, questions, answers), on_batch=count)
    return np.array([each.logprob for each in found]).reshape(len(questions), len(answers))
