"""The settings, section by section: their types, their defaults, and under each its documentation (see `schema`)."""

import datetime
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1, strict=True)]
Share = Annotated[float, Field(gt=0, lt=1)]

METHODS = ("full", "lora", "dora", "qlora")
OPTIMIZERS = ("adamw", "adamw-8bit", "adafactor", "muon")
SCHEDULES = ("cosine", "linear", "constant")
OBJECTIVES = ("sft", "text", "dpo", "kto")
_OWN = re.compile(r"[\w.]+:\w+")


def _word_of(known: tuple[str, ...]) -> AfterValidator:
    """Accepts a table's words, and "package.module:function"; another word is refused with the nearest known one."""

    def check(word: str) -> str:
        if word not in known and not _OWN.fullmatch(word):
            raise PydanticCustomError("unknown_word", "a known word", {"known": known})
        return word

    return AfterValidator(check)


def _words(known: tuple[str, ...]) -> Any:
    return Field(json_schema_extra={"examples": [*known, "package.module:function"]})


Method = Annotated[str, _word_of(METHODS), _words(METHODS)]
Optimizer = Annotated[str, _word_of(OPTIMIZERS), _words(OPTIMIZERS)]
Schedule = Annotated[str, _word_of(SCHEDULES), _words(SCHEDULES)]
Objective = Annotated[str, _word_of(OBJECTIVES), _words(OBJECTIVES)]


def _value_of_variable(value: object) -> object:
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise PydanticCustomError("variable", "true, false, a number or a text")


def _day(value: object) -> object:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    try:
        return datetime.date.fromisoformat(str(value))
    except ValueError:
        raise PydanticCustomError("day", "a day such as 2026-11-28") from None


Variable = Annotated[
    Any,
    AfterValidator(_value_of_variable),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "number"}, {"type": "string"}]}),
]
Day = Annotated[datetime.date, BeforeValidator(_day)]


class Section(BaseModel):
    """A group of settings: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Data(Section):
    """Where the rows are and how to read them."""

    path: Path | None = None
    """File or folder: JSONL, JSON, CSV, TSV or Parquet, plain or .gz/.zst/.xz/.bz2."""
    format: str | None = None
    """How a row becomes a conversation; recognised from the columns when not set. Also "package.module:function", a template
    with columns in braces such as `"Q: {question}"`, or a .txt file that holds one."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Your column for each of the format's columns: `columns.question = "Frage"`."""
    group: str | None = None
    """Column whose equal values stay in one split (customer, document); else the question's own text."""
    system: str | None = None
    """System message put before every conversation that has none."""
    test_path: Path | None = None
    """File or folder of your own test rows, in any of the formats; then none of `data.path` are held out for the verdict."""
    dev_path: Path | None = None
    """The same for the rows that choices are made by."""
    test_items: Count | None = None
    """Items held out for the verdict; by default 10 % of the rows, at most 300, or all rows of `test_path`."""
    dev_items: Count | None = None
    """Items held out for dev checks and choices; by default 10 % of the rows, at most 200, or all rows of `dev_path`."""
    findings: dict[str, Literal["accept", "drop", "group"]] = Field(default_factory=dict)
    """What `luthier inspect` finds, by its kind: accept it, drop its rows, or (near-duplicate) group them in one split."""
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training rows that is trained on; a smaller share is always part of a larger one."""


class Chat(Section):
    """What the chat template gets beside the messages: in training, for every arm, and wherever the run's model answers."""

    variables: dict[str, Variable] = Field(default_factory=dict)
    """Variables of the model's chat template: `chat.variables.enable_thinking=false`."""
    date: Day | None = None
    """The day that a chat template with a date writes; by default the one on which the run was made."""


class Train(Section):
    """How the weights are trained."""

    method: Method | None = None
    """What is trained: all weights; low-rank adapters beside frozen ones (LoRA, DoRA); or these beside 4-bit ones (QLoRA)."""
    objective: Objective | None = None
    """What is minimised: answers (sft), whole texts (text), or a preference: of the chosen answer to the rejected one
    (dpo), or of liked answers to disliked ones (kto)."""
    optimizer: Optimizer = "adamw"
    """What turns gradients into updates; the two small ones (adamw-8bit, adafactor) save memory; muon learns in fewer
    steps from random weights."""
    epochs: Count | None = None
    """Passes over the training rows."""
    max_steps: Count | None = None
    """Stop after this many optimizer steps, whatever `epochs` says."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Highest learning rate, reached after the warm-up."""
    schedule: Schedule = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0, strict=True)] | None = None
    """Steps over which the learning rate rises from 0."""
    tokens_per_step: Count | None = None
    """Tokens of one optimizer step, prompts included: the global batch size."""
    tokens_per_batch: Count | None = None
    """Tokens of one micro-batch, a forward and backward pass; lower it when memory is short: the result is the same."""
    max_tokens: Count | None = None
    """Longest row, in tokens; longer conversations lose their oldest turns, longer documents are cut into pieces."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay, on matrices only."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm; a longer gradient is scaled down to it."""
    check_every: Count | None = None
    """Optimizer steps between two dev checks, each followed by a checkpoint."""
    patience: Count = 3
    """Stop after this many dev checks in a row without a new best dev loss."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass instead of saving them: less memory, more time, the same result."""
    compile: bool = False
    """Compile the layers with torch.compile; it takes minutes at first, so it is off unless you ask for it."""
    precision: Literal["bf16", "fp32"] | None = None
    """Dtype of the forward and backward pass; master weights are always fp32."""
    lora_rank: Count = 16
    """Rank of the adapters (every method but "full")."""
    lora_alpha: Count = 32
    """Scale of the adapters: their output is multiplied by alpha / rank (every method but "full")."""
    dpo_beta: Annotated[float, Field(gt=0)] = 0.1
    """How closely the tuned model is held to the one it started from (objectives "dpo" and "kto"); higher is closer."""
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 0
    """Fixes the order of the data, the adapters' first values, dropout and the resampling of the statistics; below 2⁶³."""


class Endpoint(Section):
    """A model behind an OpenAI-compatible address, or in a GGUF file, for the arm "endpoint:NAME"."""

    url: str
    """Address up to the version: `http://localhost:8000/v1`; or a GGUF file, which llama.cpp answers for."""
    model: str
    """The model's name there."""
    key_env: str | None = None
    """Environment variable that holds the key; the key itself is never stored."""
    prompt: str = "retrieved"
    """The arm whose prompts are sent; "fine-tuned" is the question alone."""


class Evaluate(Section):
    """How the tuned model is compared with prompting."""

    arms: tuple[str, ...] = ("zero-shot", "few-shot", "retrieved", "fine-tuned")
    """What answers the questions: also rag, optimised, fine-tuned+few-shot, "endpoint:NAME", "package.module:function"."""
    metric: str | None = None
    """How an answer is scored; chosen from the reference answers when not set. Also "package.module:function"."""
    json_schema: Path | None = None
    """A file with the JSON Schema that answers should keep to; how many do is shown as `schema_valid`."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How far a number in an answer may be from the reference's, as a share of it: 0.01 is 1 %."""
    embedder: Path | None = None
    """Folder of a sentence-embedding model; how near answers are in meaning is then shown as `similarity`."""
    judge: str | None = None
    """Who compares the answers beside the metric: `http://…/v1#model`, a model as in `model`, or "package.module:function"."""
    max_new_tokens: Count | None = None
    """Longest answer, in tokens, the same for every arm."""
    thinking_tokens: Annotated[int, Field(ge=0, strict=True)] | None = None
    """Room for thoughts before the answer, in tokens, the same for every arm; thoughts are cut before anything is scored."""
    shots: Count | None = None
    """Examples in a retrieved prompt; if you set it, in a few-shot prompt too."""
    shots_tried: tuple[Count, ...] | None = None
    """Numbers of examples tried for the few-shot prompt; the best on dev is taken."""
    dev_budget: Count | None = None
    """Tokens to compute on dev for that choice; by default what the few-shot and the retrieved prompt cost there."""
    instruction: str | None = None
    """System message for the prompt arms; by default one that states the answer's form where the data shows it."""
    documents: Path | None = None
    """What to look answers up in, for the arm rag: .txt, .md, .html, .pdf, .docx or .jsonl, a file or a folder."""
    passages: Count = 4
    """Passages of about 200 words in a rag prompt."""
    reflection: str = "base"
    """Who improves the instruction of the arm optimised: `base`, the base model itself, or `endpoint:NAME`."""
    optimise_budget: Count = 240
    """Answers to training questions that may be asked for in search of a better instruction."""
    endpoints: dict[str, Endpoint] = Field(default_factory=dict)
    """Models elsewhere, by a name of yours: `endpoints.big = { url = "…", model = "…" }`; also `key_env`, `prompt`."""
    alpha: Share = 0.05
    """Significance level of the one planned test."""
    margin: Annotated[float, Field(gt=0)] = 0.02
    """Differences inside ± margin are called EQUIVALENT when the test can show it."""
    guards: tuple[str, ...] | None = None
    """What is watched besides the score: `forgetting`, `hallucination`, `consistency`, `format`, `knowledge`; [] is nothing."""
    out_of_scope: Path | None = None
    """File of questions that the model should refuse, asked beside ours by the guard `hallucination`."""
    facts: Path | None = None
    """File of facts in wordings that are not trained (question, answer, old_answer, neighbour), for the guard `knowledge`."""
    errors: dict[str, str] = Field(default_factory=dict)
    """Error categories of your own: a name, and a regular expression or "module:function"; `refusal` adds to ours."""


class Recipe(Section):
    """Everything a run needs to know."""

    model: str = "smollm2-135m"
    """`smollm2-135m`, a local Hugging Face folder, a GGUF file, or a name on the hub."""
    data: Data = Data()
    chat: Chat = Chat()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()


class Pretrain(Section):
    """A model from random weights, or one that learns more text: one of parameters, minutes and compute decides the rest."""

    parameters: Count | None = None
    """Weights of the model, the table of tokens included."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """How long to train on this machine."""
    compute: Annotated[float, Field(gt=0)] | None = None
    """Floating-point operations to spend."""
    tokens: Count | None = None
    """Tokens to train on, however often the corpus has to be read for that."""
    family: Literal["llama", "gpt-neox"] = "llama"
    """The architecture."""
    width: Count | None = None
    """Numbers that stand for a token between two layers (hidden size)."""
    layers: Count | None = None
    """Layers of the model."""
    context: Annotated[int, Field(ge=8, strict=True)] | None = None
    """Tokens of a training row, and the most that the model can look back on."""
    tokenizer: Path | None = None
    """Folder with the tokenizer, as `luthier tokenizer` makes it; by default one is made of the corpus."""
    vocab: Count | None = None
    """Entries of the tokenizer that is made."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """How often a source of the corpus comes in a pass, relative to the others: `pretrain.weights.Books=2`."""
    rows: Path | None = None
    """Rows to mix in, in any format that `luthier run` reads: the given `model` goes on answering while it learns text."""
    rows_weight: Annotated[float, Field(ge=0)] = 1.0
    """How often these rows come in a pass over the corpus; at 0 they are asked and not learnt."""
    deduplicate: bool = False
    """Leave out passages that came before."""
    prompts: tuple[str, ...] = ("The",)
    """Beginnings that the model continues at each dev check."""


class PretrainTrain(Train):
    """How a model is trained on text: the settings of `train`, with other defaults."""

    optimizer: Optimizer = "muon"
    schedule: Schedule = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    patience: Count = 1_000_000
    """Without effect unless set: text that is new to the model is worth all steps."""


SCRATCH = "scratch"


class PretrainRecipe(Recipe):
    """A recipe of its own kind: what `luthier pretrain` needs to know; of `data` it reads the path only."""

    model: str = SCRATCH
    """`scratch`, random weights; or a model that learns more text: whatever `luthier run` tunes."""
    pretrain: Pretrain = Pretrain()
    train: PretrainTrain = PretrainTrain()

    @property
    def continues(self) -> bool:
        """Whether a given model learns on."""
        return self.model != SCRATCH

    def keys_read(self) -> tuple[str, ...]:
        """The settings that pretraining depends on."""
        idle = OF_A_NEW_MODEL if self.continues else OF_ROWS
        own = tuple(f"pretrain.{name}" for name in Pretrain.model_fields if name not in idle)
        return ("model", "data.path", *own, *(f"train.{name}" for name in TRAINS_FROM_SCRATCH))


OF_A_NEW_MODEL = ("parameters", "family", "width", "layers", "tokenizer", "vocab")
"""What a model that is given has already."""
OF_ROWS = ("rows", "rows_weight")
"""What only a model that can answer takes."""


TRAINS_FROM_SCRATCH = (
    "method", "objective", "optimizer", "epochs", "max_steps", "learning_rate", "schedule", "warmup_steps",
    "tokens_per_step", "tokens_per_batch",
    "weight_decay", "clip_norm", "check_every", "patience", "gradient_checkpointing", "compile", "precision", "seed",
)  # fmt: skip
"""The settings of `train` that apply where all weights are new and all tokens are learnt."""
