"""Typed decisions: a probability for each allowed answer to a question, from likelihoods; no text is generated.

A run whose answers are labels knows them, and the temperature at which its probabilities mean what they say (its
`evaluation/decisions.json`). For any other model the request lists the answers.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator

from luthier.chat import Message
from luthier.errors import UserError
from luthier.evaluate import decisions
from luthier.report.json_fields import read_json_object
from luthier.serve.engines import Voice
from luthier.serve.errors import bad_request
from luthier.serve.openai import answering, chat
from luthier.serve.openai.requests import MOST_MESSAGES, MessageAsked, Text
from luthier.serve.openai.shapes import Asked, key_of
from luthier.serve.service import service_of

router = APIRouter(prefix="/v1/decisions", tags=["decisions"])

LONGEST_ANSWER = 1000  # characters


class DecisionRequest(Asked):
    model: Annotated[str, Field(max_length=256)]
    input: Text | None = None
    """The question alone; or `messages`, which end with it."""
    messages: Annotated[list[MessageAsked], Field(min_length=1, max_length=MOST_MESSAGES)] | None = None
    answers: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=LONGEST_ANSWER)]],
            Field(min_length=2, max_length=decisions.MOST_ANSWERS),
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
    noted = read_json_object(known.folder.parent / "evaluation" / "decisions.json") if _is_run(known.folder) else {}
    answers = asked.answers or [str(answer) for answer in noted.get("answers") or ()]
    if not answers:
        message = "Missing required parameter: 'answers'. The model was not tuned on labels, so none are known."
        raise bad_request(message, "answers", "missing_required_parameter")
    own = bool(noted) and sorted(answers) == sorted(map(str, noted["answers"]))
    temperature = float(noted["temperature"]) if own else 1.0
    async with answering.speaking(request, asked.model) as voice:
        logs = await asyncio.to_thread(_log_likelihoods, voice, asked, answers)
    shares = decisions.probabilities(logs, temperature)
    options = [
        Option(answer=answer, probability=float(probability), logprob=float(log))
        for answer, probability, log in sorted(zip(answers, shares, logs, strict=True), key=lambda one: -one[2])
    ]
    return Decision(
        model=asked.model, answer=options[0].answer, answers=options, temperature=temperature,
        calibrated=own and bool(noted.get("dev")), allowed_mass=float(min(1.0, np.exp(logs).sum())),
    )  # fmt: skip


def _is_run(folder: Path) -> bool:
    return (folder.parent / "recipe.toml").is_file()


def _log_likelihoods(voice: Voice, asked: DecisionRequest, answers: list[str]) -> Any:
    """Σ log p of each answer behind the question."""
    spoken = _spoken(voice, asked)
    try:
        pairs = decisions.pairs(voice.template, [spoken], answers)
    except UserError as refusal:
        raise bad_request(f"Invalid 'messages': {refusal.message}", "messages", "invalid_value") from None
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    if longest > voice.context:
        message = (
            f"This model's maximum context length is {voice.context} tokens. However, you requested {longest} tokens."
        )
        raise bad_request(message, None, "context_length_exceeded")
    found = voice.engine.likelihoods(pairs, adapter=voice.adapter)
    return np.array([each.logprob for each in found])


def _spoken(voice: Voice, asked: DecisionRequest) -> tuple[Message, ...]:
    """The question with what comes before it."""
    if asked.messages is None:
        spoken = voice.with_system((Message("user", str(asked.input)),))
    else:
        spoken = chat.spoken_messages(voice, asked.messages)
    if not spoken or spoken[-1].role == "assistant":
        raise bad_request("Invalid 'messages': expected a question at their end.", "messages", "invalid_value")
    return spoken
