"""What is learnt where templates write headers and thoughts, move system messages, and change earlier turns."""

from datetime import date

import pytest
from tests.chat.conftest import Make, rows_as_text, talk

from luthier.chat import Conversation, Message
from luthier.errors import UserError

ASK = "{% if add_generation_prompt %}"
TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
HARMONY = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if m.thinking and loop.last and not add_generation_prompt %}<|im_start|>assistant<|channel|>analysis<|message|>"
    "{{ m.thinking }}<|end|>{% endif %}"
    "<|im_start|>assistant<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}"
    "{% else %}<|im_start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    + ASK
    + "<|im_start|>assistant{% endif %}"
)
OPENED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{{ m.content.split('</think>')[-1] }}<|im_end|>\n"
    "{% else %}" + TURN + "{% endif %}{% endfor %}" + ASK + "<|im_start|>assistant\n<think>\n{% endif %}"
)
HYBRID = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% if loop.last %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
    "{% else %}" + TURN + "{% endif %}{% endfor %}"
    + ASK + "<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)  # fmt: skip
MOVED = (
    "{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = m.content %}{% elif m.role == 'user' %}"
    "<|im_start|>{% if loop.last and ns.system %}{{ ns.system }}\n\n{% endif %}{{ m.content }}<|im_end|>"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


def test_a_header_behind_the_prompt_is_learnt_and_left_out_of_replies(make: Make) -> None:
    template = make(HARMONY)
    [(text, learnt)] = rows_as_text(template, talk("q", "a"))
    assert text == "<|im_start|>user<|message|>q<|end|><|im_start|>assistant<|channel|>final<|message|>a<|return|>"
    assert learnt == "<|channel|>final<|message|>a<|return|>"
    ids = template.tokenizer.render(["<|channel|>analysis<|message|>Hm.<|end|><|im_start|>assistant" + learnt])[0]
    assert (template.parse_reply(ids).text, template.parse_reply(ids).thoughts) == ("a", "Hm.")


def test_an_answer_is_never_taught_inside_an_open_thought(make: Make) -> None:
    template = make(OPENED)
    assert rows_as_text(template, talk("q", "a")) == [
        (
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\na<|im_end|>",
            "\n</think>\n\na<|im_end|>",
        )
    ]
    [(_, learnt)] = rows_as_text(template, talk("q", "<think>\nHm.\n</think>\n\na"))
    assert learnt == "Hm.\n</think>\n\na<|im_end|>"
    assert template.thinks and template.parse_reply(template.tokenizer.render(["Hm"])[0]).thinking


def test_answers_whose_earlier_turns_change_become_rows_of_their_own(make: Make) -> None:
    rows = rows_as_text(make(HYBRID), talk("q", "a", "p", "b"))
    empty = "<think>\n\n</think>\n\n"
    first = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert rows == [
        (f"{first}{empty}a<|im_end|>", f"{empty}a<|im_end|>"),
        (
            f"{first}a<|im_end|>\n<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n{empty}b<|im_end|>",
            f"{empty}b<|im_end|>",
        ),
    ]


def test_variables_change_prompts_rows_and_the_hash(make: Make) -> None:
    quick, plain = make(HYBRID, variables={"enable_thinking": False}), make(HYBRID)
    [(_, learnt)] = rows_as_text(quick, talk("q", "a"))
    assert learnt == "a<|im_end|>"
    assert (quick.allows_thoughts, plain.allows_thoughts) == (False, True)
    assert (quick.thinks, plain.thinks) == (False, True) and quick.sha256 != plain.sha256
    with pytest.raises(UserError, match="does not read the variable enable_thinkin; it reads: enable_thinking"):
        make(HYBRID, variables={"enable_thinkin": False})


def test_a_system_message_stands_where_the_template_puts_it(make: Make) -> None:
    source = "{% set ns = namespace(system='') %}" + MOVED
    [(text, learnt)] = rows_as_text(make(source), talk("q", "a", system="s"))
    assert (text, learnt) == ("<|im_start|>s\n\nq<|im_end|> a<|im_end|>", " a<|im_end|>")


def test_every_end_token_and_those_of_the_model_stop_a_reply(make: Make) -> None:
    template = make(HARMONY.replace("m.thinking", "m.never"), ends=[0])
    spelled = [template.tokenizer.control[token] for token in ("<|return|>", "<|end|>", "<|im_end|>", "<|endoftext|>")]
    assert template.stop_ids == set(spelled)


def test_a_date_is_the_run_s_and_in_the_hash_where_the_template_reads_it(make: Make) -> None:
    dated = "{{ strftime_now('%d %b %Y') }}\n" + "{% for m in messages %}" + TURN + "{% endfor %}"
    one, other = (make(dated, today=date(2026, 7, day)) for day in (1, 2))
    assert one.render([Message("user", "q")]).startswith("01 Jul 2026\n") and one.sha256 != other.sha256
    assert make(TURN, today=date(2026, 7, 1)).sha256 == make(TURN, today=date(2026, 7, 2)).sha256


def test_what_a_template_does_to_contents_happens(make: Make) -> None:
    source = "{% for m in messages %}" + TURN.replace("m.content", "m.content | trim") + "{% endfor %}"
    [(text, learnt)] = rows_as_text(make(source), talk("  q ", " a\n"))
    assert (text, learnt) == (
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>",
        "<|im_start|>assistant\na<|im_end|>",
    )


def test_tags_that_are_not_special_stay_text_for_users_and_are_tags_for_the_assistant(make: Make) -> None:
    template = make("{% for m in messages %}" + TURN + "{% endfor %}" + ASK + "<|im_start|>assistant\n{% endif %}")
    think = template.tokenizer.control["<think>"]
    assert think not in template.prompt([Message("user", "What is <think>?")])
    [row] = template.rows(talk("q", "<think>Hm.</think>a"))
    assert row.ids.count(think) == 1


def test_many_rows_at_once_are_the_rows_one_by_one_in_their_order(make: Make) -> None:
    template = make(HYBRID)
    talks = [talk(f"q{number}", "a", *(("p", "b") if number % 3 else ())) for number in range(600)]
    talks += [Conversation.document("Once <think> upon."), talk("<|im_end|>", "a")]
    assert template.rows_of(talks) == [template.rows(one) for one in talks]


def test_a_conversation_that_is_refused_leaves_the_others_their_rows(make: Make) -> None:
    template = make(OPENED.replace("{{ m.content", "{{ raise_exception('No x.') if m.content == 'x' }}{{ m.content"))
    first, refused, last = template.rows_of([talk("q", "a"), talk("q", "x"), talk("q", "b")])
    assert isinstance(refused, UserError) and 'message 2 of 2 (assistant behind user): "No x"' in refused.message
    assert [first, last] == [template.rows(talk("q", "a")), template.rows(talk("q", "b"))]


def test_what_is_saved_renders_elsewhere_what_was_trained(make: Make) -> None:
    dated = (
        "{% macro day() %}{{ strftime_now('%d %b %Y') }} {{ strftime_now(\"%H\") }}{% endmacro %}\n {{- day() }}\n"
        + HYBRID
    )
    day, variables = date(2026, 7, 1), {"enable_thinking": False}
    ours = make(dated, today=day, variables=variables)
    hub = ours.tokenizer.hub  # type: ignore[attr-defined]
    asked = [{"role": "user", "content": "q"}]
    saved = {"chat_template": ours.portable_source, "tokenize": False, "add_generation_prompt": True}
    text = ours.render([Message("user", "q")])
    assert text.startswith("01 Jul 2026 00\n") and text.endswith("<think>\n\n</think>\n\n")
    assert hub.apply_chat_template(asked, **saved) == text
    assert hub.apply_chat_template(asked, enable_thinking=True, **saved).endswith("assistant\n")
