"""What Lamini's clients send. Fields that have no meaning here are known by name and taken; others are refused."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from luthier.serve.openai.requests import LONGEST_PROMPT, LONGEST_STOP, MOST_STOPS, MOST_TOKENS
from luthier.serve.openai.shapes import Asked

MOST_PROMPTS = 512
MOST_FIELDS = 32
"""Fields of one typed answer."""
MOST_ROWS = 100_000

Text = Annotated[str, Field(max_length=LONGEST_PROMPT)]
ModelName = Annotated[str, Field(min_length=1, max_length=256)]
TokenLimit = Annotated[int | None, Field(ge=1, le=MOST_TOKENS)]
FieldType = Literal["str", "string", "int", "integer", "float", "number", "bool", "boolean"]
Types = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], FieldType],
    Field(min_length=1, max_length=MOST_FIELDS),
]


class CompletionRequest(Asked):
    model_name: ModelName
    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
    out_type: Types | None = None
    """Of clients up to 2.1; `output_type` of later ones."""
    output_type: Types | None = None
    max_tokens: TokenLimit = None
    max_new_tokens: TokenLimit = None
    stop_tokens: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]], Field(max_length=MOST_STOPS)]
        | None
    ) = None
    reservation_id: Any = None
    """Reservations hold nothing here: the queue is fair without them."""
    server: Any = None
    model_config_: Annotated[Any, Field(alias="model_config")] = None

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def types(self) -> dict[str, str] | None:
        """The fields of a typed answer with their types in JSON Schema."""
        asked = self.output_type or self.out_type
        return None if asked is None else {name: _JSON_TYPES[kind] for name, kind in asked.items()}

    @property
    def token_limit(self) -> int | None:
        return self.max_new_tokens or self.max_tokens


_JSON_TYPES = {
    "str": "string", "string": "string", "int": "integer", "integer": "integer", "float": "number", "number": "number",
    "bool": "boolean", "boolean": "boolean",
}  # fmt: skip


class Row(Asked):
    input: Text
    output: Text = ""


Rows = Annotated[list[Row], Field(min_length=1, max_length=MOST_ROWS)]


class DataRequest(Asked):
    """Rows that are uploaded; the server chooses the id where a client names none."""

    data: Rows
    upload_base_path: Literal["local"] | None = None
    dataset_id: Annotated[str | None, Field(max_length=200)] = None
    is_public: bool | None = None


class ExistingDataRequest(Asked):
    dataset_id: Annotated[str, Field(max_length=200)]
    upload_base_path: Literal["local"] | None = None
    is_public: bool | None = None


class DataToComeRequest(Asked):
    """Rows that will be sent. Clients before 2.0.16 name a folder for them, and send no rows."""

    dataset_id: Annotated[str, Field(max_length=200)]
    blob_dir_name: Annotated[str | None, Field(max_length=200)] = None


class ReservationRequest(Asked):
    capacity: Annotated[int, Field(ge=1, le=1 << 30)]
    model_name: ModelName
    max_tokens: TokenLimit = None
    batch_size: Annotated[int | None, Field(ge=1, le=1 << 20)] = None


class TrainRequest(Asked):
    model_name: ModelName
    data: Rows | None = None
    dataset_id: Annotated[str | None, Field(max_length=200)] = None
    upload_file_path: Annotated[str | None, Field(max_length=400)] = None
    finetune_args: dict[Annotated[str, Field(max_length=64)], Any] | None = None
    enable_peft: bool | None = None
    peft_args: dict[Annotated[str, Field(max_length=64)], Any] | None = None
    is_public: bool | None = None
    """Every model belongs to the key that trained it."""
    use_cached_model: bool | None = None
    gpu_config: Any = None
    multi_node: bool | None = None
    custom_model_name: Annotated[str | None, Field(min_length=1, max_length=64)] = None
    train_type: Any = None
    model_config_: Annotated[Any, Field(alias="model_config")] = None

    @field_validator("train_type")
    @classmethod
    def _plain_training(cls, value: object) -> object:
        if value not in (None, "finetuning"):
            raise ValueError("only plain fine-tuning is done here")
        return value
