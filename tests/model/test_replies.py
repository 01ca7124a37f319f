"""Thoughts apart from answers: read, counted, cut, and streamed as they are answered."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import thinking
from luthier.chat import Message
from luthier.inference import Chat, ChatModel, ReplyPiece
from luthier.model import generate, loading, replies
from luthier.model.loading import LanguageModel
from luthier.model.replies import Answer, TokenBudget


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return loading.load(str(thinking.make(tmp_path_factory.mktemp("thinker"), ["two and two is four"])))


@pytest.fixture
def says(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[int]]:
    """Has the model say a text, token by token, whatever it is asked; gives the text's ids."""

    def script(text: str) -> list[int]:
        ids: list[int] = lm.tokenizer(text, add_special_tokens=False).input_ids

        def decode(
            model: LanguageModel, prompts: Sequence[object], limits: Sequence[int], ended: set[int], *_: object
        ) -> Iterator[dict[int, int]]:
            for step, token in enumerate(ids):
                new = {row: token for row, limit in enumerate(limits) if row not in ended and step < limit}
                ended.update(row for row in new if token in model.template.stop_ids)
                if new:
                    yield new

        monkeypatch.setattr(generate, "_decode", decode)
        return ids

    return script


ASKED = [Message("user", "two and two?")]


def said(lm: LanguageModel, room: TokenBudget) -> Answer:
    return replies.ask(lm, [lm.template.prompt(ASKED)], room)[0]


def test_an_answer_stands_behind_its_thoughts(lm: LanguageModel, says: Callable[[str], list[int]]) -> None:
    ids = says("<think>\ntwo and two\n</think>\n\nfour<|im_end|>")
    found = said(lm, TokenBudget(8, 32))
    assert (found.text, found.thoughts, found.finish) == ("four", "two and two", "stop")
    behind = len(lm.tokenizer("four<|im_end|>").input_ids)
    assert found.tokens == len(ids) and found.thought_tokens <= len(ids) - behind


def test_a_reply_that_ends_inside_its_thoughts_has_no_answer(
    lm: LanguageModel, says: Callable[[str], list[int]]
) -> None:
    says("<think>\ntwo and two is two and two</think>\n\nfour<|im_end|>")
    found = said(lm, TokenBudget(2, 6))
    assert (found.text, found.finish, found.tokens, found.thought_tokens) == ("", "thinking", 8, 8)
    assert found.thoughts and found.thoughts.startswith("two and")


def test_room_that_thoughts_leave_is_no_room_for_the_answer(
    lm: LanguageModel, says: Callable[[str], list[int]]
) -> None:
    """An answer of 40 tokens without thoughts keeps 4, and is not written to its end."""
    says("four " * 40)
    found = said(lm, TokenBudget(4, 32))
    assert (found.tokens, found.thoughts, found.finish) == (4, None, "length")
    over = replies.full(lm.template, TokenBudget(4, 32))
    assert over is not None and over(lm.tokenizer("four " * 40).input_ids[: replies.CHECK_EVERY])


def test_without_room_for_thoughts_the_limit_is_the_limit(lm: LanguageModel, says: Callable[[str], list[int]]) -> None:
    says("<think>\n\n</think>\n\nfour<|im_end|>")
    assert said(lm, TokenBudget(16)).text == "four"
    assert replies.full(lm.template, TokenBudget(16)) is None


def test_what_ends_an_answer_may_stand_in_thoughts(lm: LanguageModel) -> None:
    over = replies.full(lm.template, TokenBudget(64, 64), stop_strings=["\n\n"])
    assert over is not None
    inside = lm.tokenizer("<think>\ntwo\n\nand two\n\nis it four").input_ids
    behind = lm.tokenizer("<think>\ntwo\n</think>\n\nfour\n\nand").input_ids
    pad = lm.tokenizer("x").input_ids
    fill = [pad * ((-len(ids)) % replies.CHECK_EVERY) for ids in (inside, behind)]
    assert not over([*inside, *fill[0]]) and over([*behind, *fill[1]])


def test_a_stream_says_what_an_answer_says(lm: LanguageModel, says: Callable[[str], list[int]]) -> None:
    for text in ("<think>\ntwo\n</think>\n\nfour<|im_end|>", "<think>\ntwo and two", "four " * 30):
        says(text)
        room = TokenBudget(4, 12)
        *_, last = replies.stream(lm, lm.template.prompt(ASKED), room)
        asked = said(lm, room)
        assert (last.text, last.thoughts, last.finish, last.tokens) == (
            asked.text, asked.thoughts, asked.finish, asked.tokens,
        )  # fmt: skip


def test_a_chat_tells_thoughts_from_answers_and_remembers_both(
    lm: LanguageModel, says: Callable[[str], list[int]]
) -> None:
    says("<think>\ntwo and two\n</think>\n\nfour, is it not?<|im_end|>")
    chat = Chat(ChatModel(lm, None, 32), 16)
    pieces = list(chat.say("two and two?"))
    told = {kind: "".join(piece.text for piece in pieces if piece.thought is kind) for kind in (True, False)}
    assert told == {True: "two and two", False: "four, is it not?"}
    assert pieces[0] == ReplyPiece("two", thought=True) or pieces[0].thought
    assert chat.history[-1] == Message("assistant", "four, is it not?", reasoning="two and two")


def test_models_that_think_get_the_usual_room_unless_somebody_says_how_much(
    lm: LanguageModel, tiny_model: Path
) -> None:
    plain = loading.load(str(tiny_model))
    assert (TokenBudget.of(lm, 9), TokenBudget.of(plain, 9)) == (TokenBudget(9, 128), TokenBudget(9)), (
        "a quarter of the context"
    )
    assert TokenBudget.of(lm, 9, 5) == TokenBudget(9, 5) and TokenBudget.of(plain, 9, 5).tokens == 14
    assert replies.usual_thinking(40_960) == replies.THINKING_TOKENS
