"""An answer that is not learnt is context for those behind it, in every kind of template."""

from tests.chat.conftest import Make, rows_as_text

from luthier.chat import Conversation, Message

ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
STABLE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + ASK
CHANGES = STABLE.replace("<|im_end|>", "{% if not loop.last %}!{% endif %}<|im_end|>")


def said(*learnt: bool) -> Conversation:
    turns = []
    for number, in_loss in enumerate(learnt):
        turns += [Message("user", f"q{number}"), Message("assistant", f"a{number}", in_loss=in_loss)]
    return Conversation(tuple(turns))


def test_in_one_row_the_loss_leaves_it_out(make: Make) -> None:
    [(text, learnt)] = rows_as_text(make(STABLE), said(True, False, True))
    assert learnt == "a0<|im_end|>a2<|im_end|>" and "a1<|im_end|>" in text


def test_where_each_answer_has_a_row_it_has_none(make: Make) -> None:
    rows = rows_as_text(make(CHANGES), said(True, False, True))
    assert [learnt for _, learnt in rows] == ["a0<|im_end|>", "a2<|im_end|>"]
    assert "a1!<|im_end|>" in rows[1][0]
