"""Three kinds of tokenizer, made in a moment around the control tokens that a chat template spells.

`gpt2` splits a text into words as GPT-2, Pythia and SmolLM do, where a line break before a word stands alone. `byte-level`
keeps line breaks together, as Llama 3 and Qwen do. `metaspace` is SentencePiece's kind, as Llama 2, Mistral, Gemma and Phi-3
have it: blanks are `▁`, the text gets one in front, role tokens swallow the blanks behind them, and encoding a text adds BOS.
"""

import json
import re
from functools import cache
from typing import Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

Kind = Literal["gpt2", "byte-level", "metaspace"]
KINDS: tuple[Kind, ...] = ("gpt2", "byte-level", "metaspace")
WORDS = r" ?\w+| ?[^\s\w]+|\s*[\r\n]+|\s+(?!\S)|\s+"
BOS = "<bos>"
UNKNOWN = "<unk>"

_SPELLED = re.compile(
    r"<\|[^<>\s|]{1,40}\|>|<\|[a-z_\"]+>|<[a-z_]+\||<\uff5c[^\uff5c<>]{1,40}\uff5c>|\[/?[A-Z_]{3,40}\]|\[gMASK\]"
    r"|</?(?:think|tool_call|tool_response|tools|start_of_turn|end_of_turn|end_of_utterance|start_of_image|image|sop"
    r"|s|arg_key|arg_value)>"
)
_SWALLOWS = re.compile(r"<\|(?:user|assistant|system|end)\|>")
_CORPUS = [
    "How do I reset my password? Open the settings and choose a new one.",
    "What is the capital of France? The capital of France is Paris.\n\nsystem user assistant model tool",
    "Answer with one word: refund, invoice, delivery or other.\n\n\n  A.\n B.",
    'final analysis commentary {"name": "weather", "arguments": {"city": "Rome"}} 12.50 true',
]


def spelled(source: str) -> list[str]:
    """The control tokens that a template's text spells, in the order of their first use."""
    found = [token + ">" if token.endswith("|") else token for token in _SPELLED.findall(source)]
    return list(dict.fromkeys(token for token in found if token not in {"[SYSTEM_PROMPT", "<|"}))


def is_special(token: str) -> bool:
    """Thought and tool tags are added tokens, but not special ones, as in Qwen's and DeepSeek's tokenizers."""
    return not re.fullmatch(r"</?(?:think|tool_call|tool_response|tools|arg_key|arg_value)>", token)


@cache
def _trained(kind: Kind) -> str:
    """A tokenizer without added tokens, as JSON."""
    if kind != "metaspace":
        coder = Tokenizer(models.BPE())
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        coder.pre_tokenizer = (
            pre_tokenizers.ByteLevel(add_prefix_space=False)
            if kind == "gpt2"
            else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(WORDS), "isolated"), whole])
        )
        coder.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    else:
        coder = Tokenizer(models.BPE(unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True))
        coder.normalizer = normalizers.Sequence([])
        coder.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        coder.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(content=" ", left=1),
            ]
        )
        bytes_ = [UNKNOWN, *(f"<0x{byte:02X}>" for byte in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=bytes_, show_progress=False)
    coder.train_from_iterator(_CORPUS, trainer)
    made = json.loads(coder.to_str())
    made["added_tokens"] = [
        token for token in made["added_tokens"] if token["content"] == UNKNOWN
    ]  # bytes are no control tokens
    return json.dumps(made)


def tokenizer_for(source: str, kind: Kind, *, eos: str, more: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer that knows every control token of this template as one token, with the template in it."""
    coder = Tokenizer.from_str(_trained(kind))
    tokens = dict.fromkeys([BOS, eos, *spelled(source), *more])
    coder.add_tokens(
        [
            AddedToken(
                token,
                special=is_special(token),
                normalized=False,
                rstrip=kind == "metaspace" and bool(_SWALLOWS.fullmatch(token)),
            )
            for token in tokens
        ]
    )
    if kind == "metaspace":
        coder.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, coder.token_to_id(BOS))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=coder, bos_token=BOS, eos_token=eos, pad_token=eos, chat_template=source
    )
