"""Ids are the real tokenizer's, whatever its kind: prefixes, tokens that eat blanks, tags that are not special."""

import json
import pickle
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import SENTENCES
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from luthier.chat import Conversation, FastTokenizer, Message, Template, base_template
from luthier.model.tokenizer import template_of

TURNS = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TRIMMED = TURNS.replace("m.content", "m.content | trim")
ZEPHYR = (
    "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}</s>{% else %}"
    "[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
SOURCES = [TURNS, TRIMMED, ZEPHYR, INST]
KINDS = ["bytes", "first", "always", "normalizer", "rstrip"]
ROLES = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "[INST]", "[/INST]"]
TAGS = ["<think>", "</think>", "<|fim|>"]


@cache
def hub(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer that has all control tokens of the sources above."""
    if kind == "bytes":
        coder = Tokenizer(models.BPE())
        coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        coder.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        coder = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        if kind == "normalizer":
            coder.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        else:
            coder.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always" if kind == "always" else "first")
        coder.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        alphabet = [chr(number) for number in range(32, 127)] + ["▁"]
    spelled = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=spelled, initial_alphabet=alphabet, show_progress=False, max_token_length=8
    )
    coder.train_from_iterator(SENTENCES, trainer)
    told = json.loads(coder.to_str())  # bytes are words of the vocabulary, not added tokens
    told["added_tokens"] = [token for token in told["added_tokens"] if not token["content"].startswith("<0x")]
    coder = Tokenizer.from_str(json.dumps(told))
    made = PreTrainedTokenizerFast(tokenizer_object=coder, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokens = [AddedToken(role, special=True, normalized=False, rstrip=kind == "rstrip") for role in ROLES]
    made.add_special_tokens({"additional_special_tokens": tokens})
    made.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return made


@cache
def template(kind: str, source: str) -> Template:
    tokenizer = hub(kind)
    tokenizer.chat_template = source
    return template_of(tokenizer)


def wanted(kind: str, source: str, messages: tuple[Message, ...], *, ask: bool) -> list[int]:
    """The ids that transformers gives."""
    told = [{"role": one.role, "content": one.content} for one in messages]
    ids = hub(kind).apply_chat_template(told, chat_template=source, add_generation_prompt=ask)["input_ids"]
    return list(ids)


words = st.text(alphabet="aB .,\n\t1é猫", max_size=12)
spelling = st.lists(st.one_of(words, st.sampled_from([*ROLES, *TAGS, "</s>", "<s>", "<|en", "d|>"])), max_size=4).map(
    "".join
)


def talks(texts: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[Message, ...]]:
    """Conversations of one or two turns."""
    turn = st.tuples(texts, texts).map(lambda pair: (Message("user", pair[0]), Message("assistant", pair[1])))
    return st.lists(turn, min_size=1, max_size=2).map(lambda turns: tuple(one for pair in turns for one in pair))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(messages=talks(words))
def test_prompts_and_rows_have_the_real_tokenizer_s_ids(kind: str, source: str, messages: tuple[Message, ...]) -> None:
    made = template(kind, source)
    assert made.prompt(messages[:-1]) == wanted(kind, source, messages[:-1], ask=True)
    rows = made.rows(Conversation(messages))
    whole = wanted(kind, source, messages, ask=False)
    if len(rows) == 1 and whole[: len(made.prompt(messages[:-1]))] == made.prompt(messages[:-1]):
        assert rows[0].ids == whole[: len(rows[0].ids)]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(messages=talks(spelling))
def test_a_prompt_s_tokens_begin_its_row(kind: str, source: str, messages: tuple[Message, ...]) -> None:
    made = template(kind, source)
    rows = made.rows(Conversation(messages))
    answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
    for number, place in enumerate(answers):
        row, prompt = rows[number if len(rows) > 1 else 0], made.prompt(messages[:place])
        assert row.ids[: len(prompt)] == prompt
        assert row.loss_mask[len(prompt)] and not row.loss_mask[len(prompt) - 1]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(text=spelling)
def test_no_text_of_a_user_becomes_a_control_token(kind: str, source: str, text: str) -> None:
    made = template(kind, source)
    control = set(made.tokenizer.control.values())
    prompts = [made.prompt((Message("user", content),)) for content in (text, "plain")]
    spelled, plain = ([one for one in ids if one in control] for ids in prompts)
    assert spelled == plain


def test_an_answer_behind_text_does_not_begin_with_a_blank_of_the_tokenizer_s_own() -> None:
    made = template("first", ZEPHYR)
    [row] = made.rows(Conversation.pair("Q", "Answer"))
    first = row.ids[row.loss_mask.index(True)]
    assert not hub("first").convert_ids_to_tokens(first).startswith("▁")


def test_a_role_token_that_eats_blanks_leaves_none_behind_it() -> None:
    for text in ("x", "<|end|>"):
        ids = template("rstrip", TURNS).prompt((Message("user", text),))
        tokens = hub("rstrip").convert_ids_to_tokens(ids)
        assert tokens[1] == "<|user|>" and tokens[2] in {"x", "<"} and tokens[-2:] == ["<|end|>", "<|assistant|>"]


def test_a_vocabulary_that_holds_a_control_token_as_a_word_still_reads_it_as_text() -> None:
    pieces = [("<unk>", 0.0), ("</s>", -1.0), *((letter, -9.0) for letter in "</s>▁aQ|uer#:\n")]
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram(pieces, unk_id=0)), eos_token="</s>", unk_token="<unk>"
    )
    made.chat_template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    ids = template_of(made).prompt((Message("user", "a</s>a"),))
    assert made.convert_ids_to_tokens(ids) == ["a", "<", "/", "s", ">", "a", "</s>"]


def test_calls_of_transformers_in_between_leave_prompts_as_they_were() -> None:
    made, asked = template("bytes", TURNS), (Message("user", "What is it?"),)
    before = made.prompt(asked)
    hub("bytes")("<|user|> x", split_special_tokens=True, truncation=True, max_length=2)
    assert made.prompt(asked) == before


@pytest.mark.parametrize("source", [TURNS, base_template("")])
def test_many_rows_are_tokenized_in_two_calls(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub("bytes").chat_template = source
    made, sizes = template_of(hub("bytes")), []
    render = made.tokenizer.render
    monkeypatch.setattr(made.tokenizer, "render", lambda texts: sizes.append(len(texts)) or render(texts))
    talks = [Conversation.pair(f"What is {number}?", "One.") for number in range(300)]
    rows = made.rows_of(talks)
    assert len(sizes) <= 2 and rows == [made.rows(one) for one in talks]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_template_makes_the_same_rows_in_another_process(kind: str, source: str) -> None:
    made = template(kind, source)
    sent = pickle.loads(pickle.dumps(made))
    assert type(sent.tokenizer) is FastTokenizer and "transformers" not in type(sent.tokenizer).__module__
    said = [
        Conversation.pair("Why <|end|> é?", "So\n\nit  is", system="Be kind."),
        Conversation.pair(" And <think>? ", "42 </s>"),
        Conversation.document("One text."),
    ]
    rows = made.rows_of(said)
    assert sent.rows_of(said) == rows and sent.stop_ids == made.stop_ids and sent.sha256 == made.sha256
    for row in (row for found in rows if isinstance(found, list) for row in found):
        for control in (False, True):
            assert sent.tokenizer.decode(row.ids, control=control) == made.tokenizer.decode(row.ids, control=control)
