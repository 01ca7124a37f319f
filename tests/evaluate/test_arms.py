"""What each arm sends."""

from dataclasses import replace
from pathlib import Path

import pytest

from luthier.chat import Conversation, Message, Template
from luthier.data.dataset import Item
from luthier.errors import UserError
from luthier.evaluate.prompts import arms, demonstrations
from luthier.evaluate.prompts.arms import PromptResources
from luthier.evaluate.prompts.demonstration_selection import TokenCosts
from luthier.evaluate.prompts.passages import Passage
from luthier.model.reference import ModelReference
from luthier.recipe import Endpoint

LABELS = ["refund", "invoice", "other"]


def item(name: str, question: str, answer: str, system: str | None = None) -> Item:
    return Item(name, f"d.jsonl:{name}", question, Conversation.pair(question, answer, system=system))


TRAIN = [
    item(str(number), f"Ticket {number} about {LABELS[number % 3]} now", LABELS[number % 3]) for number in range(12)
]
ASKED = item("q", "Ticket 7 about what?", "invoice")


@pytest.fixture(scope="module")
def template(tiny_model: Path) -> Template:
    return ModelReference.of(str(tiny_model)).template()


def made(template: Template, **changes: object) -> PromptResources:
    settings: dict[str, object] = {
        "train": TRAIN,
        "template": template,
        "shots": 3,
        "max_prompt_tokens": 400,
        "instruction": "One word.",
    }
    return PromptResources(**(settings | changes))  # type: ignore[arg-type]


def test_zero_shot_is_instruction_and_question(template: Template) -> None:
    assert arms.zero_shot(made(template))(ASKED) == (
        Message("system", "One word."),
        Message("user", "Ticket 7 about what?"),
    )


def test_the_instruction_joins_the_system_message_of_the_data(template: Template) -> None:
    asked = item("s", "Hello?", "other", system="You are a clerk.")
    assert arms.zero_shot(made(template))(asked)[0] == Message("system", "One word.\n\nYou are a clerk.")
    assert arms.question_only(made(template))(asked)[0] == Message("system", "You are a clerk.")


def test_few_shot_shows_the_chosen_examples_as_turns(template: Template) -> None:
    messages = arms.few_shot(made(template, demonstrations=TRAIN[:2]))(ASKED)
    assert [message.role for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert messages[2].content == "refund" and messages[-1].content == "Ticket 7 about what?"


def test_examples_go_one_by_one_where_they_do_not_fit(template: Template) -> None:
    whole = arms.few_shot(made(template, demonstrations=TRAIN[:3]))(ASKED)
    limit = len(template.prompt(whole))
    assert len(arms.few_shot(made(template, demonstrations=TRAIN[:3], max_prompt_tokens=limit))(ASKED)) == len(whole)
    assert (
        len(arms.few_shot(made(template, demonstrations=TRAIN[:3], max_prompt_tokens=limit - 1))(ASKED))
        == len(whole) - 2
    )
    assert len(arms.few_shot(made(template, demonstrations=TRAIN[:3], max_prompt_tokens=1))(ASKED)) == 2


def test_each_draw_is_balanced_and_another(template: Template) -> None:
    sets = [demonstrations.fixed_set(TRAIN, 6, draw=draw) for draw in range(3)]
    for chosen in sets:
        assert sorted(example.conversation.answer for example in chosen[:3]) == sorted(LABELS)
        assert sorted(example.conversation.answer for example in chosen) == sorted(LABELS * 2)
    assert len({tuple(example.id for example in chosen) for chosen in sets}) == 3


def test_the_retrieved_example_most_like_the_question_stands_last(template: Template) -> None:
    assert arms.retrieved(made(template, shots=2))(ASKED)[-3].content == "Ticket 7 about invoice now"


def test_rag_puts_the_best_passage_right_before_the_question(template: Template) -> None:
    found = [
        Passage("a.md", "Parrots speak."),
        Passage("b.md", "Ticket 7 is an invoice."),
        Passage("c.md", "No ticket here."),
    ]
    resources = made(template, passages=found, passages_shown=2)
    question = arms.rag(resources)(ASKED)[-1].content
    assert question == (
        "These passages may help:\n\n[c.md]\nNo ticket here.\n\n[b.md]\nTicket 7 is an invoice.\n\nTicket 7 about what?"
    )
    limit = len(template.prompt(arms.rag(resources)(ASKED))) - 1
    short = arms.rag(made(template, passages=found, passages_shown=2, max_prompt_tokens=limit))(ASKED)[-1].content
    assert "b.md" in short and "c.md" not in short
    assert (
        arms.rag(made(template, passages=found, passages_shown=2, max_prompt_tokens=1))(ASKED)[-1].content
        == "Ticket 7 about what?"
    )


def test_an_optimised_instruction_stands_in_for_the_stated_one(template: Template) -> None:
    assert arms.optimised(made(template, optimised_instruction="Think."))(ASKED)[0] == Message("system", "Think.")


def test_an_endpoint_gets_the_prompts_of_the_arm_that_it_names(template: Template) -> None:
    endpoints = {"big": Endpoint(url="http://localhost/v1", model="m", prompt="few-shot")}
    arm = arms.resolve("endpoint:big", endpoints)
    assert arm.answered_by == "endpoint" and arm.build is arms.few_shot
    with pytest.raises(UserError, match='unknown endpoint "bug", did you mean "big"'):
        arms.resolve("endpoint:bug", endpoints)
    with pytest.raises(UserError, match=r'endpoints\.big\.prompt: unknown arm "few-short", did you mean "few-shot"'):
        arms.resolve("endpoint:big", {"big": endpoints["big"].model_copy(update={"prompt": "few-short"})})


def test_a_verdict_needs_both_sides() -> None:
    for names in (["fine-tuned"], ["zero-shot"], ["fine-tuned", "fine-tuned+few-shot"], ["fine-tuned+few-shot", "rag"]):
        with pytest.raises(UserError, match='a verdict needs "fine-tuned" and at least one other arm'):
            arms.resolve_all(names)


def test_all_arms_but_the_planned_two_are_secondary() -> None:
    names = ["zero-shot", "few-shot", "retrieved", "fine-tuned", "fine-tuned+few-shot"]
    assert arms.secondary(names, against="retrieved") == ["zero-shot", "few-shot", "fine-tuned+few-shot"]


def test_functions_count_with_the_question_and_not_with_each_demonstration(template: Template) -> None:
    with_tools = item("t", "Lamp?", "On.")
    tool = '{"type": "function", "function": {"name": "lamp"}}'
    offering = replace(with_tools, conversation=replace(with_tools.conversation, tools=(tool,)))
    shows = Template(
        f"{{% for tool in tools or [] %}}{{{{ tool | tojson }}}}{{% endfor %}}{template.source}",
        template.tokenizer,
        "t",
    )
    tokens = demonstrations.definition_tokens(shows, [offering, with_tools])
    assert tokens == len(shows.tokenizer.encode(tool)[0]) / 2
    assert demonstrations.definition_tokens(template, [with_tools]) == 0
    costs = TokenCosts.of([100, 120], [20, 40], 9, 30)
    assert (costs.demonstration, costs.question) == (80, 80)


def test_every_arm_offers_the_functions_of_its_row(template: Template) -> None:
    tool = '{"type": "function", "function": {"name": "lamp"}}'
    asked = replace(ASKED, conversation=replace(ASKED.conversation, tools=(tool,)))
    shows = Template(
        f"{{% for tool in tools or [] %}}{{{{ tool | tojson }}}}{{% endfor %}}{template.source}",
        template.tokenizer,
        "t",
    )
    for arm in (arms.zero_shot, arms.retrieved, arms.question_only):
        _, ids = arms.render("arm", arm(made(shows)), asked, shows)
        assert shows.tokenizer.decode(ids, control=True).startswith(tool)
    room = len(arms.render("arm", arms.zero_shot(made(shows)), asked, shows)[1])
    assert len(arms.retrieved(made(shows, max_prompt_tokens=room))(asked)) == 2


def test_passages_stand_before_the_question_and_results_behind_it(template: Template) -> None:
    call = Message("assistant", "Let me look.")
    asked = Conversation(
        (Message("user", "Which lamp?"), call, Message("tool", "two", name="lamp"), Message("assistant", "a"))
    )
    resources = made(template, passages=(Passage("a.md:1", "The lamp is two."),), passages_shown=1, instruction=None)
    messages = arms.rag(resources)(Item("r", "d.jsonl:1", "r", asked))
    assert [message.role for message in messages] == ["user", "assistant", "tool"]
    assert messages[0].content.endswith("The lamp is two.\n\nWhich lamp?") and messages[2].name == "lamp"
