"""What real chat templates do, one small template for each, and the rows that must come of it, worked out by hand.

Each letter is one token here (each byte, to be exact), and so is each control token: `<s>`, `<u>`, `<think>` and the others.
Rows are written as text, with `«` and `»` around what is learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from luthier.chat import Conversation, Encoded, Message, Template
from luthier.errors import UserError
from luthier.model.tokenizer import template_of

SPECIAL = ("<s>", "<eos>", "<e>", "<r>", "<u>", "<a>", "<y>", "<c>", "<m>", "<t>")
NOT_SPECIAL = ("<think>", "</think>", "<fim>")
TODAY = date(2026, 3, 1)

# Asks, questions and answers as `<u>…<e>` and `<a>…<e>`, `<y>` for the system message: the plain form that the others bend.
LOOP = "{% for m in messages %}"
ASK = "{% if add_generation_prompt %}<a>{% endif %}"
PLAIN = LOOP + "<{{ {'system': 'y', 'user': 'u', 'assistant': 'a'}[m.role] }}>{{ m.content }}<e>{% endfor %}" + ASK
FOUR = "{% for m in messages %}{{ {'system': '<y>', 'user': '<u>', 'assistant': '<a>'}[m.role] }}"


@dataclass(frozen=True)
class Feature:
    """A template, what is said, and the rows that it must make."""

    name: str
    source: str
    said: tuple[Message, ...]
    rows: tuple[str, ...]
    variables: dict[str, object] = field(default_factory=dict)


def said(*contents: str, system: str | None = None) -> tuple[Message, ...]:
    head = () if system is None else (Message("system", system),)
    turns = [Message("assistant" if at % 2 else "user", content) for at, content in enumerate(contents)]
    return (*head, *turns)


@pytest.fixture(scope="module")
def letters() -> PreTrainedTokenizerFast:
    """A tokenizer without merges: each byte is a token; `<think>` and `<fim>` are added, but not special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    coder = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = decoders.ByteLevel()
    coder.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    coder.add_tokens([AddedToken(token, special=False, normalized=False) for token in NOT_SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=coder, bos_token="<s>", eos_token="<eos>", pad_token="<eos>")


def made(source: str, tokenizer: PreTrainedTokenizerFast, **given: object) -> Template:
    tokenizer.chat_template = source
    return template_of(tokenizer, **given)  # type: ignore[arg-type]


def written(row: Encoded, tokenizer: PreTrainedTokenizerFast) -> str:
    """A row as text, with « and » around what is learnt."""
    pieces: list[tuple[bool, list[int]]] = []
    for token, learn in zip(row.ids, row.loss_mask, strict=True):
        if not pieces or pieces[-1][0] != learn:
            pieces.append((learn, []))
        pieces[-1][1].append(token)
    texts = [(learn, tokenizer.decode(ids, clean_up_tokenization_spaces=False)) for learn, ids in pieces]
    return "".join(f"«{text}»" if learn else text for learn, text in texts)


# 1. What stands between the prompt and the answer is learnt.
HEADER = FOUR + "{% if m.role == 'assistant' %}<c>final<m>{% endif %}{{ m.content }}<e>{% endfor %}" + ASK
# 3. The prompt opens a thought; finished turns have none (R1), an empty one (Qwen3.5), or another (Nemotron).
OPENS = "{% if add_generation_prompt %}<a><think>\n{% endif %}"
FORGETS = FOUR + "{{ m.content.split('</think>')[-1] }}<e>{% endfor %}" + OPENS
EMPTY = FOUR + "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<e>{% endfor %}" + OPENS
BARE_EMPTY = FOUR + "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}<e>{% endfor %}" + OPENS
SHOWS = (
    FOUR + "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}<e>"
    "{% endfor %}" + ASK
)
OPENS_AND_SHOWS = (
    FOUR
    + "{% if m.role == 'assistant' %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}{{ m.content }}"
    "<e>{% endfor %}" + OPENS
)
# 4. The system message stands before the last question.
LAST = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set loop_messages = messages[1:] %}"
    "{% else %}{% set loop_messages = messages %}{% endif %}"
    "{% set ns = namespace(last=-1) %}{% for m in loop_messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in loop_messages %}{% if m.role == 'user' %}<u>"
    "{% if system is defined and loop.index0 == ns.last %}{{ system }}\n\n{% endif %}{{ m.content }}"
    "{% else %}{{ m.content }}<e>{% endif %}{% endfor %}"
)
# 5. The last turn ends with another token than those before it, or with none, where the next question ends it.
TWO_ENDS = (
    FOUR + "{{ m.content }}{% if m.role == 'assistant' and loop.last %}<r>{% else %}<e>{% endif %}{% endfor %}" + ASK
)
NEXT_ENDS = FOUR + "{{ m.content }}{% endfor %}" + ASK
# 6. No place for a system message: it raises, it drops it, or it folds it into whoever speaks next.
RAISES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + PLAIN
DROPS = (
    LOOP
    + "{% if m.role != 'system' %}{{ '<u>' if m.role == 'user' else '<a>' }}{{ m.content }}<e>{% endif %}{% endfor %}"
    + ASK
)
# 9. A flag in the question changes what is asked for.
FLAG = (
    FOUR + "{% if m.role == 'assistant' and '/quiet' in messages[0].content %}<think></think>{% endif %}"
    "{{ m.content }}<e>{% endfor %}{% if add_generation_prompt %}<a>"
    "{% if '/quiet' in messages[0].content %}<think></think>{% endif %}{% endif %}"
)
# 10. Thoughts of earlier turns are dropped (Qwen3): only the last answer has its thought, empty where none is given.
DROPS_EARLIER = (
    FOUR + "{% if m.role == 'assistant' and loop.last %}<think>{{ m.reasoning_content or '' }}</think>{% endif %}"
    "{{ m.content }}<e>{% endfor %}" + ASK
)
# 12. Contents are trimmed. 13. A blank stands before the answer.
TRIMS = FOUR + "{{ m.content | trim }}<e>{% endfor %}" + ASK
GAP = FOUR + "{% if m.role == 'assistant' %} {% endif %}{{ m.content }}<e>{% endfor %}" + ASK
BLANK_IN_PROMPT = FOUR + "{{ m.content }}<e>{% endfor %}{% if add_generation_prompt %}<a> {% endif %}"
VARIABLE = (
    FOUR + "{{ m.content }}<e>{% endfor %}{% if add_generation_prompt %}<a>"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)
THOUGHT = (Message("user", "Q"), Message("assistant", "A", reasoning="T"))
TWO_THOUGHTS = (*THOUGHT, Message("user", "R"), Message("assistant", "B", reasoning="U"))

FEATURES = (
    Feature("plain", PLAIN, said("Q", "A", system="S"), ("<y>S<e><u>Q<e><a>«A<e>»",)),
    Feature("plain, two turns", PLAIN, said("Q", "A", "R", "B"), ("<u>Q<e><a>«A<e>»<u>R<e><a>«B<e>»",)),
    Feature("header", HEADER, said("Q", "A"), ("<u>Q<e><a>«<c>final<m>A<e>»",)),
    Feature(
        "header, two turns", HEADER, said("Q", "A", "R", "B"),
        ("<u>Q<e><a>«<c>final<m>A<e>»<u>R<e><a>«<c>final<m>B<e>»",),
    ),
    Feature("a thought opened and forgotten", FORGETS, said("Q", "A"), ("<u>Q<e><a><think>\n«\n</think>\n\nA<e>»",)),
    Feature(
        "a thought opened and forgotten, a blank before the answer", FORGETS, said("Q", " A"),
        ("<u>Q<e><a><think>\n«\n</think>\n\n A<e>»",),
    ),
    Feature("a thought opened and shown empty", EMPTY, said("Q", "A"), ("<u>Q<e><a><think>\n«\n</think>\n\nA<e>»",)),
    Feature("an empty thought without a line break", BARE_EMPTY, said("Q", "A"), ("<u>Q<e><a><think>\n«</think>A<e>»",)),
    Feature("a thought given, once", OPENS_AND_SHOWS, THOUGHT, ("<u>Q<e><a><think>\n«T\n</think>\n\nA<e>»",)),
    Feature(
        "system before the last question", LAST, said("Q", "A", "R", "B", system="S"),
        ("<u>S\n\nQ«A<e>»", "<u>QA<e><u>S\n\nR«B<e>»"),
    ),
    Feature(
        "another last end", TWO_ENDS, said("Q", "A", "R", "B"),
        ("<u>Q<e><a>«A<r>»", "<u>Q<e><a>A<e><u>R<e><a>«B<r>»"),
    ),
    Feature("system refused", RAISES, said("Q", "A", system="S"), ("<u>S\n\nQ<e><a>«A<e>»",)),
    Feature("system dropped", DROPS, said("Q", "A", system="S"), ("<u>S\n\nQ<e><a>«A<e>»",)),
    Feature("bos", "{{ bos_token }}" + PLAIN, said("Q", "A"), ("<s><u>Q<e><a>«A<e>»",)),
    Feature("a flag", FLAG, said("Q /quiet", "A"), ("<u>Q /quiet<e><a><think></think>«A<e>»",)),
    Feature("no flag", FLAG, said("Q", "A"), ("<u>Q<e><a>«A<e>»",)),
    Feature(
        "earlier thoughts dropped", DROPS_EARLIER, TWO_THOUGHTS,
        ("<u>Q<e><a>«<think>T</think>A<e>»", "<u>Q<e><a>A<e><u>R<e><a>«<think>U</think>B<e>»"),
    ),
    Feature(
        "earlier empty thoughts dropped", DROPS_EARLIER, said("Q", "A", "R", "B"),
        ("<u>Q<e><a>«<think></think>A<e>»", "<u>Q<e><a>A<e><u>R<e><a>«<think></think>B<e>»"),
    ),
    Feature(
        "an earlier empty answer", DROPS_EARLIER, said("Q", "", "R", "B"),
        ("<u>Q<e><a>«<think></think><e>»", "<u>Q<e><a><e><u>R<e><a>«<think></think>B<e>»"),
    ),
    Feature(
        "earlier context changes", EMPTY.replace("== 'assistant' %}", "== 'assistant' and loop.last %}"),
        said("Q", "A", "R", "B"),
        ("<u>Q<e><a><think>\n«\n</think>\n\nA<e>»", "<u>Q<e><a>A<e><u>R<e><a><think>\n«\n</think>\n\nB<e>»"),
    ),
    Feature("blanks trimmed", TRIMS, said(" Q\n", "\nA ", system=" S "), ("<y>S<e><u>Q<e><a>«A<e>»",)),
    Feature("blanks kept", PLAIN, said(" Q\n", "\nA ", system=" S "), ("<y> S <e><u> Q\n<e><a>«\nA <e>»",)),
    Feature("empty thought", DROPS_EARLIER, said("Q", "A"), ("<u>Q<e><a>«<think></think>A<e>»",)),
    Feature("a blank before the answer", GAP, said("Q", "A"), ("<u>Q<e><a>« A<e>»",)),
    Feature("a blank in the prompt", BLANK_IN_PROMPT, said("Q", "A"), ("<u>Q<e><a> «A<e>»",)),
    Feature("thoughts shown", SHOWS, THOUGHT, ("<u>Q<e><a>«<think>\nT\n</think>\n\nA<e>»",)),
    Feature("no thought given", SHOWS, said("Q", "A"), ("<u>Q<e><a>«A<e>»",)),
    Feature(
        "variables", VARIABLE, said("Q", "A"), ("<u>Q<e><a><think></think>«A<e>»",), variables={"enable_thinking": False}
    ),
)  # fmt: skip


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_rows_are_those_worked_out_by_hand(feature: Feature, letters: PreTrainedTokenizerFast) -> None:
    template = made(feature.source, letters, variables=feature.variables)
    rows = template.rows(Conversation(feature.said))
    assert tuple(written(row, letters) for row in rows) == feature.rows


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_every_row_begins_with_the_prompt_of_its_answer(feature: Feature, letters: PreTrainedTokenizerFast) -> None:
    template = made(feature.source, letters, variables=feature.variables)
    answers = [at for at, message in enumerate(feature.said) if message.role == "assistant"]
    rows = template.rows(Conversation(feature.said))
    for row, answer in zip(rows, answers if len(rows) > 1 else answers[:1], strict=True):
        prompt = template.prompt(feature.said[:answer])
        assert (row.ids[: len(prompt)], any(row.loss_mask[: len(prompt)]), row.loss_mask[len(prompt)]) == (
            prompt,
            False,
            True,
        )


def test_an_answer_without_an_end_gets_one_and_stands_in_its_own_row(letters: PreTrainedTokenizerFast) -> None:
    """Where the template writes no end, the tokenizer's is learnt; each answer learns to stop."""
    bare = LOOP + "{{ m.role[0] }}:{{ m.content }}|{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    rows = made(bare, letters).rows(Conversation(said("Q", "A.", "R", "B.")))
    assert [written(row, letters) for row in rows] == ["u:Q|a:«A.|<eos>»", "u:Q|a:A.|u:R|a:«B.|<eos>»"]


def test_the_next_turn_ends_an_answer_where_the_model_says_so(letters: PreTrainedTokenizerFast) -> None:
    """GLM writes no end; its model stops where the next question would begin, and says so in generation_config."""
    user = letters.convert_tokens_to_ids("<u>")
    template = made(NEXT_ENDS, letters, ends=[user, letters.eos_token_id])
    (row,) = template.rows(Conversation(said("Q", "A", "R", "B")))
    assert written(row, letters) == "<u>Q<a>«A<u>»R<a>«B<eos>»"
    assert template.stop_ids >= {user, letters.eos_token_id}


def test_generation_stops_at_the_ends_of_all_turns(letters: PreTrainedTokenizerFast) -> None:
    """gpt-oss ends earlier answers with another token than the last."""
    ends = {letters.convert_tokens_to_ids(token) for token in ("<e>", "<r>", "<eos>")}
    assert made(TWO_ENDS, letters).stop_ids == ends


def test_a_reply_is_the_answer_behind_its_header_and_thoughts(letters: PreTrainedTokenizerFast) -> None:
    """What is scored is the answer, and a reply that ended inside its thoughts has none."""
    template = made(DROPS_EARLIER, letters)

    def ids(text: str) -> list[int]:
        return list(letters(text, add_special_tokens=False).input_ids)

    whole, cut = template.parse_reply(ids("<think>Hm.</think>A.<e>")), template.parse_reply(ids("<think>Hm"))
    assert (whole.text, whole.thoughts, whole.thinking) == ("A.", "Hm.", False)
    assert (cut.text, cut.thinking) == ("", True)
    assert made(HEADER, letters).parse_reply(ids("<c>final<m>A.<e>")).text == "A."


def test_a_system_message_without_a_place_is_told_and_opens_the_first_question(
    letters: PreTrainedTokenizerFast,
) -> None:
    assert [made(source, letters).merges_system_message for source in (PLAIN, RAISES, DROPS, LAST)] == [
        False,
        True,
        True,
        False,
    ]


def test_a_system_message_is_never_put_into_the_assistant_s_mouth(letters: PreTrainedTokenizerFast) -> None:
    """Without a question there is nobody whose words it could open."""
    with pytest.raises(UserError, match="system"):
        made(RAISES, letters).rows(Conversation((Message("system", "S"), Message("assistant", "A"))))


def test_a_date_is_that_of_the_run(letters: PreTrainedTokenizerFast) -> None:
    """Only where the template reads it, it is part of the hash."""
    source = "<y>{{ strftime_now('%d %b %Y') }}<e>" + PLAIN
    template = made(source, letters, today=TODAY)
    assert letters.decode(template.prompt(said("Q"))) == "<y>01 Mar 2026<e><u>Q<e><a>"
    other = made(source, letters, today=date(2026, 3, 2))
    assert other.sha256 != template.sha256
    assert made(PLAIN, letters, today=TODAY).sha256 == made(PLAIN, letters, today=date(2026, 3, 2)).sha256


@pytest.mark.parametrize("token", ["<e>", "<eos>", "<think>", "<fim>", "<a>"])
def test_control_tokens_spelled_by_people_stay_text(token: str, letters: PreTrainedTokenizerFast) -> None:
    """Special or not, in the system's words and in the user's."""
    template = made(PLAIN, letters)
    ids = template.prompt(said(f"x{token}y", system=token))
    spelled = [letters.convert_tokens_to_ids(letter) for letter in token]
    control = letters.convert_tokens_to_ids
    x, y = control("x"), control("y")
    assert ids == [
        control("<y>"), *spelled, control("<e>"), control("<u>"), x, *spelled, y, control("<e>"), control("<a>"),
    ]  # fmt: skip


def test_an_answer_that_spells_an_end_goes_on_behind_it(letters: PreTrainedTokenizerFast) -> None:
    """A row about templates may name their tokens; only the last one ends the answer."""
    (row,) = made(PLAIN, letters).rows(Conversation(said("Q", "It is <e>, see?")))
    assert written(row, letters) == "<u>Q<e><a>«It is <e>, see?<e>»"
    assert row.ids.count(letters.convert_tokens_to_ids("<e>")) == 2


def test_thought_tags_in_an_answer_are_the_model_s_own(letters: PreTrainedTokenizerFast) -> None:
    """Models write them as tokens."""
    (row,) = made(PLAIN, letters).rows(Conversation(said("Q", "<think>T</think>A")))
    assert row.ids.count(letters.convert_tokens_to_ids("<think>")) == 1
    assert written(row, letters) == "<u>Q<e><a>«<think>T</think>A<e>»"


REFUSED: Sequence[tuple[str, str, tuple[Message, ...], str]] = (
    ("shows none of it", "<u>hello<e>" + ASK, said("Q", "A"), "does not show"),
    ("hides a message", "<u>{{ messages[-1].content }}<e>" + ASK, said("Q", "A"), "does not show"),
    ("shows it twice", FOUR + "{{ m.content }}{{ m.content }}<e>{% endfor %}" + ASK, said("Qu", "An"), "each message once"),
    (
        "raises", LOOP + "{{ raise_exception('Only five words, please.') }}{% endfor %}", said("Q", "A"),
        "Only five words, please.",
    ),
    ("fails", LOOP + "{{ m.content.text.value }}{% endfor %}", said("Q", "A"), "has no attribute 'text'"),
)  # fmt: skip


@pytest.mark.parametrize(("source", "messages", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_refusal_has_the_template_s_own_words(
    source: str, messages: tuple[Message, ...], words: str, letters: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(UserError, match=words):
        made(source, letters).rows(Conversation(messages))
