"""How likely each of the allowed answers to a question is: from likelihoods, no text is generated.

A run whose answers are labels knows them, and the temperature at which its probabilities mean what they say (its
`evaluation/decisions.json`). For any other model the request lists the answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from luthier.chat import Message
from luthier.errors import UserError
from luthier.evaluate import decisions
from luthier.report.json_fields import read_json_object
from luthier.serve.engines import Voice
from luthier.serve.errors import bad_request

LONGEST_ANSWER = 1000  # characters
MOST_ANSWERS = decisions.MOST_ANSWERS


@dataclass(frozen=True)
class Scored:
    """The allowed answers, each with Σ log p of its tokens and its end token, in nats, and its probability among them."""

    answers: Sequence[str]
    logs: "np.ndarray[Any, np.dtype[np.float64]]"
    shares: "np.ndarray[Any, np.dtype[np.float64]]"
    """They add up to 1."""
    temperature: float
    """That the log-probabilities were divided by: the run's own, 1 where there is none."""
    calibrated: bool
    prompt_tokens: int
    answer_tokens: Sequence[int]
    """How many each answer has, with its end token."""


def score(voice: Voice, folder: Path, spoken: tuple[Message, ...], answers: Sequence[str] | None) -> Scored:
    """Scores of these answers, or of those that the model in this folder was tuned on."""
    if not spoken or spoken[-1].role == "assistant":
        raise bad_request("Invalid 'messages': expected a question at their end.", "messages", "invalid_value")
    is_run = (folder.parent / "recipe.toml").is_file()
    noted = read_json_object(folder.parent / "evaluation" / "decisions.json") if is_run else {}
    answers = answers or [str(answer) for answer in noted.get("answers") or ()]
    if not answers:
        message = "Missing required parameter: 'answers'. The model was not tuned on labels, so none are known."
        raise bad_request(message, "answers", "missing_required_parameter")
    own = bool(noted) and sorted(answers) == sorted(map(str, noted["answers"]))
    temperature = float(noted["temperature"]) if own else 1.0
    pairs = _pairs(voice, spoken, answers)
    logs = np.array([each.logprob for each in voice.engine.likelihoods(pairs, adapter=voice.adapter)])
    return Scored(
        answers, logs, decisions.probabilities(logs, temperature), temperature, own and bool(noted.get("dev")),
        prompt_tokens=len(pairs[0][0]), answer_tokens=[len(answer) for _, answer in pairs],
    )  # fmt: skip


def _pairs(voice: Voice, spoken: tuple[Message, ...], answers: Sequence[str]) -> Any:
    """The prompt with each answer, as tokens."""
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
    return pairs
