"""What columns are, by name and content: tables as people have them, each with the reading that it should get."""

import json

import pytest

from luthier.data import Record, Value
from luthier.data.formats import Choice, Table, reader, recognise
from luthier.errors import UserError
from luthier.recipe import Data

ROWS = 12
CONTENT: dict[str, list[Value]] = {
    "asks": [f"Which tram stops at pier {n}?" for n in range(ROWS)],
    "says": [f"Tram {n} does, twice an hour." for n in range(ROWS)],
    "prose": [f"Pier {n} was built of oak and stands until today." for n in range(ROWS)],
    "more": [f"Visitors like pier {n} for its view." for n in range(ROWS)],
    "long": [f"Pier {n} was built of oak. " * 50 for n in range(ROWS)],
    "label": ["calm", "rough", "calm", "foggy"] * 3,
    "flag": ["1", "0", "0", "1"] * 3,
    "id": [f"{n + 700}" for n in range(ROWS)],
    "link": [f"https://example.org/{n}" for n in range(ROWS)],
    "same": ["pier"] * ROWS,
    "amount": [f"{n * 7 % 10}.{n}" for n in range(ROWS)],
    "date": [f"2026-03-{n + 10}" for n in range(ROWS)],
}


def table(columns: str) -> Table:
    """`name:content` for each column; content is a word of CONTENT, or the same JSON in all rows. Without: prose."""
    found: dict[str, list[Value]] = {}
    for part in columns.split():
        name, _, content = part.partition(":")
        found[name] = CONTENT[content or "prose"] if content in ("", *CONTENT) else [json.loads(content)] * ROWS
    rows = [Record(f"x.jsonl:{n + 1}", {name: values[n] for name, values in found.items()}) for n in range(ROWS)]
    return Table.of(rows, path="x.jsonl")


def bound(choice: Choice) -> str:
    """A choice as the table below writes it."""
    return " ".join([choice.format, *(f"{word}={column}" for word, column in choice.columns.items())])


READINGS = [
    # a question and its answer, by many names
    ("question:asks answer:says", "question-answer question=question answer=answer"),
    ("ID:id Question:asks Response:says", "question-answer question=Question answer=Response"),
    ("query:asks response:says type:label", "question-answer question=query answer=response"),
    ("problem:asks solution answer:says", "question-answer question=problem answer=solution"),
    ("human:asks assistant:says", "question-answer question=human answer=assistant"),
    ("Patient:asks Doctor:says", "question-answer question=Patient answer=Doctor"),
    ("questionText:asks answerText:says upvotes:flag", "question-answer question=questionText answer=answerText"),
    ("Frage:asks Antwort:says", "question-answer question=Frage answer=Antwort"),
    ("pregunta:asks respuesta:says", "question-answer question=pregunta answer=respuesta"),
    ("Question_ID:id Questions:asks Answers:says", "question-answer question=Questions answer=Answers"),
    ("query:asks positive negative:more", "question-answer question=query answer=positive"),
    ("question:asks best_answer:says source:link", "question-answer question=question answer=best_answer"),
    ("question:asks query:says db_id:label", "question-answer question=question answer=query"),
    ("Context:asks Response:says", "question-answer question=Context answer=Response"),
    ("title:asks selftext answers:says", "question-answer question=selftext answer=answers title=title"),
    ("Question:asks Complex_CoT Response:says", "question-answer question=Question answer=Response thoughts=Complex_CoT"),
    ("front:asks back:says", "question-answer question=front answer=back"),
    ("ticket resolution:says", "question-answer question=ticket answer=resolution"),
    ("term definition:says", "question-answer question=term answer=definition"),
    ("post comment:says", "question-answer question=post answer=comment"),
    ("tweet reply:says", "question-answer question=tweet answer=reply"),
    # with a passage
    ("context question:asks answers:says", "question-answer question=question answer=answers context=context"),
    ("question:asks context answer:says", "question-answer question=question answer=answer context=context"),
    ('fact:"piers" question:asks answer:says', "question-answer question=question answer=answer"),
    ("question:asks answer:says passage quote:more start:id end:amount", "question-answer question=question answer=answer"),
    ("text question:asks answer:says", "question-answer question=question answer=answer context=text"),
    ("sql_prompt:asks sql:says sql_context id:id", "question-answer question=sql_prompt answer=sql context=sql_context"),
    # instructions and prompts
    ("instruction:asks response:says", "instruction instruction=instruction output=response"),
    ("instruction:asks input output:says", "instruction instruction=instruction output=output input=input"),
    (
        "instruction:asks context response:says category:label",
        "instruction instruction=instruction output=response context=context",
    ),
    ("system_prompt question:asks response:says", "question-answer question=question answer=response system=system_prompt"),
    ("prompt:asks completion:says", "prompt-completion prompt=prompt completion=completion"),
    ("prompt:asks text", "prompt-completion prompt=prompt completion=text"),
    ("prompt:asks canonical_solution:says entry_point:label", "prompt-completion prompt=prompt completion=canonical_solution"),
    # one text for another
    ("article highlights:says id:id", "input-output input=article output=highlights"),
    ("id:id dialogue summary:says topic:label", "input-output input=dialogue output=summary"),
    ("document summary:says", "input-output input=document output=summary"),
    ("src tgt:says", "input-output input=src output=tgt"),
    ("source target:says", "input-output input=source output=target"),
    ("inputs:asks targets:says task:label", "input-output input=inputs output=targets"),
    ("article abstract:says section_names:label", "input-output input=article output=abstract"),
    ("text paraphrase:says", "input-output input=text output=paraphrase"),
    # labels
    ("text label:label", "classification text=text label=label"),
    ("label:label sms", "classification text=sms label=label"),
    ("idx:id sentence label:flag", "classification text=sentence label=label"),
    ("title:says body label:label", "classification text=body label=label title=title"),
    ("review stars:label", "classification text=review label=stars"),
    ("tweet_id:id airline_sentiment:label text created:date", "classification text=text label=airline_sentiment"),
    ("premise hypothesis:says label:label", "classification text=premise label=label second=hypothesis"),
    ("sentence1 sentence2:says label:flag", "classification text=sentence1 label=label second=sentence2"),
    ("text target:label stance:flag", "classification text=text label=stance"),
    ("text coarse_label:label fine_label:flag", "classification text=text label=coarse_label"),
    ('text emotions:["joy","fear"]', "classification text=text label=emotions"),
    ("sentence1 sentence2:says score:amount", "classification text=sentence1 label=score second=sentence2"),
    ("Title:says Plot:more Genre:label", "classification text=Plot label=Genre title=Title"),
    ("utterance:asks intent:label", "classification text=utterance label=intent"),
    ("headline is_sarcastic:flag article_link:link", "classification text=headline label=is_sarcastic"),
    ("v1:label v2", "classification text=v2 label=v1"),
    ("text mood:label", "classification text=text label=mood"),
    # choices
    ('ctx endings:["sank","sailed"] label:"1"', "choices question=ctx choices=endings answer=label"),
    ('question:asks choices:["yes","no"] answer:0', "choices question=question choices=choices answer=answer"),
    (
        'id:id question:asks choices:{"text":["yes","no"],"label":["A","B"]} answerKey:"B"',
        "choices question=question choices=choices answer=answerKey",
    ),
    (
        'article question:asks options:["yes","no"] answer:"A"',
        "choices question=question choices=options answer=answer context=article",
    ),
    ("goal:asks sol1:says sol2 label:flag", "choice-columns question=goal choice1=sol1 choice2=sol2 answer=label"),
    ('question:asks A:says B:more answer:"B"', "choice-columns question=question choice1=A choice2=B answer=answer"),
    # preferences
    ("prompt:asks chosen:says rejected", "preference prompt=prompt chosen=chosen rejected=rejected"),
    ("system question:asks chosen:says rejected", "preference prompt=question chosen=chosen rejected=rejected system=system"),
    ("question:asks response_j:says response_k", "preference prompt=question chosen=response_j rejected=response_k"),
    (
        'prompt:asks response_a:says response_b winner:"model_a"',
        "preference-votes first=response_a second=response_b winner=winner prompt=prompt",
    ),
    ("prompt:asks completion:says label:true", "unpaired-preference prompt=prompt completion=completion label=label"),
    # documents
    ("text:long crawl_kind:label url:link", "text text=text"),
    ("content ext:label lang:label max_line:flag alpha:flag", "text text=content"),
    ("text timestamp:date url:link", "text text=text"),
    ("id:id url:link title:says text", "text text=text"),
    ("quote author:label", "text text=quote"),
    ("haiku", "text text=haiku"),
    # by content alone
    ("foo:asks bar:says", "question-answer question=foo answer=bar"),
    ("bar:says foo:asks note:same", "question-answer question=foo answer=bar"),
    ("1 2:says", "question-answer question=1 answer=2"),
    ("question:asks cevap:says", "question-answer question=question answer=cevap"),
    ("soru answer:says", "question-answer question=soru answer=answer"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "reading"), READINGS, ids=[columns for columns, _ in READINGS])
def test_columns_mean_what_people_mean(columns: str, reading: str) -> None:
    assert bound(recognise(table(columns), Data())) == reading


ASKED = [
    ("en de:says", ["data.columns.answer=de", "data.columns.answer=en"]),
    ("foo bar:says", ["data.columns.answer=bar", "data.columns.answer=foo"]),
    ("comment_text toxic:flag obscene:flag", ["data.columns.label=toxic", "data.columns.label=obscene"]),
    ("Id:id Score:label Summary:says Text", ["data.format=classification", "data.format=input-output"]),
    ("question:asks cevap:says note", ["data.columns.answer=cevap", "data.columns.answer=note"]),
    ("foo bar:says answer:says", ["data.columns.question=foo", "data.columns.question=bar"]),
    ("text remark:says", ["data.format=text", "data.columns.answer=remark"]),
    ("topic:label text:long", ["data.format=text", "data.format=classification"]),
    ("passage_de code:says", ["data.format=text", "data.columns.answer=code"]),
    ("code docstring:says", ["data.format=text", "data.columns.answer=code"]),
    ("formal informal:says", ["data.columns.answer=informal", "data.columns.answer=formal"]),
    (
        "kind:label poem story2:says",
        ["data.format=text", "data.columns.text=poem", "data.columns.text=story2"],
    ),
]


@pytest.mark.parametrize(("columns", "settings"), ASKED, ids=[columns for columns, _ in ASKED])
def test_what_is_not_sure_is_asked_with_settings_that_work(columns: str, settings: list[str]) -> None:
    seen = table(columns)
    with pytest.raises(UserError) as caught:
        recognise(seen, Data())
    assert [word for word in str(caught.value).split() if word.startswith("data.")] == settings
    for setting in settings:
        key, _, value = setting.partition("=")
        data = Data(format=value) if key == "data.format" else Data(columns={key.rpartition(".")[2]: value})
        reader(recognise(seen, data))(seen.sample[0])


NOTHING = [
    'instruction:asks models:["m"] completions:[{"model":"m","response":"r"}]',
    "id:id url:link",
    "question:asks",
    "prompt:asks id:id",
    "answer:says",
    "label:label",
    "day:date n:id",
]


@pytest.mark.parametrize("columns", NOTHING)
def test_nothing_is_guessed_where_an_answer_is_missing(columns: str) -> None:
    with pytest.raises(UserError) as caught:
        recognise(table(columns), Data())
    assert "data.columns.question=COLUMN data.columns.answer=COLUMN" in str(caught.value)


def test_the_question_shows_the_first_row_as_it_would_be_read() -> None:
    with pytest.raises(UserError) as caught:
        recognise(table("en de:says"), Data())
    assert str(caught.value) == (
        "x.jsonl: found the columns en, de; either of two columns could be the answer. Choose with one setting: "
        'data.columns.answer=de asks "Pier 0 was built of oak and stands until today." and teaches "Tram 0 does, twice an '
        'hour."; or data.columns.answer=en asks "Tram 0 does, twice an hour." and teaches "Pier 0 was built of oak and '
        'stands until today.".'
    )


def test_what_columns_hold_is_said_where_they_mean_nothing() -> None:
    with pytest.raises(UserError) as caught:
        recognise(table("no:id url:link day:date kind:same"), Data())
    assert "found the columns no (ids), url (links), day (dates), kind (always the same);" in str(caught.value)


@pytest.mark.parametrize(
    "columns",
    [
        'id:id text label:[[0,4,"PLACE"]]',
        'text entities:[{"start":0,"end":4,"label":"PLACE"}]',
        'tokens:["a","b"] ner_tags:[0,1]',
    ],
)
def test_marked_places_in_texts_are_named(columns: str) -> None:
    with pytest.raises(UserError, match=r"named entities and the like.*data\.format=package\.module:function"):
        recognise(table(columns), Data())


def test_two_answers_of_which_none_is_preferred_are_named() -> None:
    with pytest.raises(UserError, match=r"answer_1 and answer_2 are two answers, and no column says which"):
        recognise(table("question:asks answer_1:says answer_2"), Data())


def test_content_is_seen_over_the_whole_table() -> None:
    rows = [
        Record(f"x:{n}", {"text": f"Line {n} of the log", "label": "calm" if n < 5000 else "rough"})
        for n in range(9000)
    ]
    seen = Table.of(rows)
    assert len(seen.sample) <= 2048 and not seen.whole and seen.rows == 9000
    assert recognise(seen, Data()).format == "classification"


def test_a_column_that_comes_late_counts() -> None:
    rows = [Record(f"x:{n}", {"instruction": f"Do {n}", "output": f"Did {n}"}) for n in range(300)]
    rows.append(Record("x:300", {"instruction": "Translate.", "input": "Hallo", "output": "Hello"}))
    choice = recognise(Table.of(rows), Data())
    assert choice.columns == {"instruction": "instruction", "output": "output", "input": "input"}
    assert reader(choice)(rows[-1]).question == "Translate.\n\nHallo"


def test_rows_of_another_format_are_read_by_it() -> None:
    rows = [Record(f"x:{n}", {"question": f"q{n}", "answer": f"a{n}"}) for n in range(4)]
    rows += [Record(f"x:{n}", {"prompt": f"q{n}", "completion": f"a{n}"}) for n in range(4, 8)]
    choice = recognise(Table.of(rows), Data())
    assert [reader(choice)(row).answer for row in rows] == [f"a{n}" for n in range(8)]
    assert choice.sentence() == (
        "read as question-answer (columns question, answer); rows without these columns read as prompt-completion "
        "(columns prompt, completion)"
    )
