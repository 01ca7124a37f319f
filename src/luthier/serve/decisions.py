"""The route of typed decisions: a probability for each allowed answer to a question."""

import asyncio
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator

from luthier.chat import Message
from luthier.serve import allowed_answers
from luthier.serve.allowed_answers import LONGEST_ANSWER, MOST_ANSWERS
from luthier.serve.engines import Voice
from luthier.serve.openai import answering, chat
from luthier.serve.openai.requests import MOST_MESSAGES, MessageAsked, Text
from luthier.serve.openai.shapes import Asked, key_of
from luthier.serve.service import service_of

router = APIRouter(prefix="/v1/decisions", tags=["decisions"])


class DecisionRequest(Asked):
    model: Annotated[str, Field(max_length=256)]
    input: Text | None = None
    """The question alone; or `messages`, which end with it."""
    messages: Annotated[list[MessageAsked], Field(min_length=1, max_length=MOST_MESSAGES)] | None = None
    answers: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=LONGEST_ANSWER)]],
            Field(min_length=2, max_length=MOST_ANSWERS),
        ]
        | None
    ) = None
    """The allowed answers, where they are not those of the model's own training."""

    @model_validator(mode="after")
    def _one_question(self) -> "DecisionRequest":
        if (self.input is None) == (self.messages is None):
            raise ValueError("expected either input or messages")
        if self.answers is not None and len(set(self.answers)) < len(self.answers):
            raise ValueError("an answer is allowed twice")
        return self


class Option(BaseModel):
    answer: str
    probability: float
    logprob: float
    """Σ log p of the answer's tokens and its end token, in nats."""


class Decision(BaseModel):
    object: str = "decision"
    model: str
    answer: str
    """The likeliest one."""
    answers: list[Option]
    """All of them, the likeliest first; their probabilities add up to 1."""
    temperature: float
    """That the log-probabilities were divided by: the run's own, 1 where there is none."""
    calibrated: bool
    allowed_mass: float
    """The probability that the model gives to the allowed answers together, against all other texts."""


@router.post("")
async def decide(request: Request, asked: DecisionRequest) -> Decision:
    """Which of the allowed answers, and how sure."""
    known = await asyncio.to_thread(service_of(request).catalogue.find, asked.model, key_of(request))
    async with answering.speaking(request, asked.model) as voice:
        spoken = _spoken(voice, asked)
        scored = await asyncio.to_thread(allowed_answers.score, voice, known.folder, spoken, asked.answers)
    options = [
        Option(answer=answer, probability=float(probability), logprob=float(log))
        for answer, probability, log in sorted(
            zip(scored.answers, scored.shares, scored.logs, strict=True), key=lambda one: -one[2]
        )
    ]
    return Decision(
        model=asked.model, answer=options[0].answer, answers=options, temperature=scored.temperature,
        calibrated=scored.calibrated, allowed_mass=float(min(1.0, np.exp(scored.logs).sum())),
    )  # fmt: skip


def _spoken(voice: Voice, asked: DecisionRequest) -> tuple[Message, ...]:
    """The question with what comes before it."""
    if asked.messages is None:
        return voice.with_system((Message("user", str(asked.input)),))
    return chat.spoken_messages(voice, asked.messages)
