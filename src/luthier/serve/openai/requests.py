"""What may be asked of a model: every number with its limits, every list with its length, and nothing that has no effect."""

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from luthier.serve.allowed_answers import LONGEST_ANSWER, MOST_ANSWERS
from luthier.serve.openai.shapes import Asked

MOST_CHOICES = 128
"""Answers to one request: prompts times `n`."""
MOST_PROMPTS = 2048
LONGEST_PROMPT = 1 << 20  # tokens or characters; a model's context is the nearer limit
MOST_MESSAGES, MOST_TOOLS, MOST_STOPS, LONGEST_STOP, MOST_LOGPROBS = 2048, 128, 16, 256, 20
MOST_TOKENS = 1 << 24
LARGEST_SEED = 2**63 - 1


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _without_effect(*allowed: object) -> BeforeValidator:
    """A field of other servers that may only be sent with the value that changes nothing."""

    def check(value: object) -> object:
        if not any(value == each and type(value) is type(each) for each in allowed):
            raise ValueError(f"this server knows only {', '.join(json.dumps(each) for each in allowed)} here")
        return value

    return BeforeValidator(check)


Text = Annotated[str, Field(max_length=LONGEST_PROMPT)]
Stops = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]],
    Field(max_length=MOST_STOPS),
    BeforeValidator(_as_list),
]
TokenLimit = Annotated[int | None, Field(ge=1, le=MOST_TOKENS)]


class StreamOptions(Asked):
    include_usage: bool | None = None
    include_obfuscation: Annotated[bool | None, _without_effect(None, False)] = None


class Generation(Asked):
    """What chat and plain completions have in common."""

    model: Annotated[str, Field(max_length=256)]
    n: Annotated[int | None, Field(ge=1, le=MOST_CHOICES)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    seed: Annotated[int | None, Field(ge=-LARGEST_SEED - 1, le=LARGEST_SEED)] = None
    stop: Stops | None = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: Annotated[dict[str, Any] | None, _without_effect(None, {})] = None
    user: Annotated[str | None, Field(max_length=512)] = None
    """Whom a client acts for; nothing is done with it."""

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> "Generation":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options belong to a request with stream=true")
        return self


# Plain completions

TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1, max_length=LONGEST_PROMPT)]


class CompletionRequest(Generation):
    prompt: (
        Text
        | TokenIds
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    max_tokens: Annotated[int | None, Field(ge=0, le=MOST_TOKENS)] = None
    echo: bool | None = None
    logprobs: Annotated[int | None, Field(ge=0, le=MOST_LOGPROBS)] = None
    best_of: Annotated[int | None, Field(ge=1, le=1)] = None
    suffix: Annotated[str | None, _without_effect(None, "")] = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or as tokens."""
        asked: Any = self.prompt
        alone = isinstance(asked, str) or (asked and isinstance(asked[0], int))
        return [asked] if alone else list(asked)


# Chat


class TextPart(Asked):
    type: Literal["text", "refusal"]
    text: Text | None = None
    refusal: Text | None = None


Content = Text | Annotated[list[TextPart], Field(max_length=256)] | None
Name = Annotated[str | None, Field(max_length=256)]


class CalledFunction(Asked):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: Text


class Call(Asked):
    id: Annotated[str, Field(max_length=256)]
    type: Literal["function"] = "function"
    function: CalledFunction


class MessageAsked(Asked):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = None
    name: Name = None
    tool_calls: Annotated[list[Call], Field(max_length=MOST_TOOLS)] | None = None
    tool_call_id: Name = None
    function_call: CalledFunction | None = None
    reasoning_content: Text | None = None
    refusal: Text | None = None
    annotations: list[Any] | None = None
    """What an answer of this API holds and clients send back."""
    audio: Annotated[None, _without_effect(None)] = None

    @model_validator(mode="after")
    def _something_said(self) -> "MessageAsked":
        silent = self.content is None and not self.tool_calls and self.function_call is None
        if silent and not (self.role == "assistant" and self.refusal):
            raise ValueError(f"a message of the role {self.role} without content")
        return self

    @property
    def as_data(self) -> dict[str, Any]:
        """The message as a line of training data would have it."""
        parts = self.content if isinstance(self.content, list) else []
        text = "".join(part.text or part.refusal or "" for part in parts) if parts else self.content
        kept = self.model_dump(exclude_none=True, include={"role", "name", "tool_calls", "tool_call_id",
                               "function_call", "reasoning_content"})  # fmt: skip
        return kept | {"content": text if text is not None else self.refusal}


class FunctionDefinition(Asked):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    """Calls are what the model writes, so there is nothing to be strict with."""


class Tool(Asked):
    type: Literal["function"]
    function: FunctionDefinition


class Schema(Asked):
    name: Annotated[str, Field(max_length=64)]
    description: Text | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Asked):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None

    @model_validator(mode="after")
    def _schema_where_it_belongs(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to the type json_schema")
        return self


AllowedAnswers = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=LONGEST_ANSWER)]], Field(min_length=2, max_length=MOST_ANSWERS)
]


class StructuredOutputs(Asked):
    choice: AllowedAnswers


class ChatRequest(Generation):
    messages: Annotated[list[MessageAsked], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_tokens: TokenLimit = None
    max_completion_tokens: TokenLimit = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=MOST_LOGPROBS)] = None
    response_format: ResponseFormat | None = None
    guided_choice: AllowedAnswers | None = None
    """The answers that are allowed, as vLLM has it; `structured_outputs` is its later name for the same."""
    structured_outputs: StructuredOutputs | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: Annotated[bool | None, _without_effect(None, True)] = None
    store: Annotated[bool | None, _without_effect(None, False)] = None
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(
        None, max_length=16
    )

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def allowed_answers(self) -> list[str] | None:
        return self.structured_outputs.choice if self.structured_outputs else self.guided_choice

    @model_validator(mode="after")
    def _one_form_of_answer(self) -> "ChatRequest":
        if answers := self.allowed_answers:
            if self.response_format or self.tools or (self.guided_choice and self.structured_outputs):
                raise ValueError("allowed answers leave nothing for a response_format, tools or other allowed answers")
            if len(set(answers)) < len(answers):
                raise ValueError("an answer is allowed twice")
        return self

    @model_validator(mode="after")
    def _logprobs_that_were_asked_for(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs belong to a request with logprobs=true")
        return self


class EmbeddingRequest(Asked):
    model: Annotated[str, Field(max_length=256)]
    input: (
        Text
        | TokenIds
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int | None, Field(ge=1, le=65536)] = None
    user: Annotated[str | None, Field(max_length=512)] = None
