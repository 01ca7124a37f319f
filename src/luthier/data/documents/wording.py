"""How a person would ask for what a document says: questions for cells of tables, terms, options and headings.

English grammar by a few rules; where none fits there is no question, since one that nobody would ask teaches nothing.
"""

import re
from dataclasses import dataclass

_CODE = re.compile(r"`[^`]+`")
_NAME = re.compile(r"[\w.%-]*(?:\d|[A-Z][A-Z\d]|\w[._/\\]\w)[\w.%/\\-]*")
_LIST = re.compile(r"(?:`[^`]+`|[\w-]+(?: [\w-]+)?)(?:(?:, | and |, and )(?:`[^`]+`|[\w-]+(?: [\w-]+)?))+")
_NAMES = re.compile(r", and |, | and ")
_ARTICLE = re.compile(
    r"(?:an?|the|any|your|its|their|all|each|every|no|some|this|that|what|who|how|when|where|if)\b", re.I
)
_PRONOUN = re.compile(r"\b(?:it|its|they|them|their|this|these|that|those|he|she|his|her|here|there)\b", re.I)
_BE = r"is|are|was|were|can|may|must|will|should|could"
_PARTICIPLE = r"\w+(?:ed|en|wn|ght|[^s]lt)|made|kept|read|good|known|sent|set|put|held|left|bad|meant|fit"
_PREPOSITION = r"as|for|by|of|in|with|from|to|at|on|into|about|against"

ATTRIBUTE = re.compile(
    r"(?:\w+ )?(?:address|age|amount|area|author|capital|category|code|colou?r|cost|country|date|deadline|default|duration|fee"
    r"|height|interval|kind|length|limit|location|margin|maximum|minimum|name|number|owner|phone|place|population|price|purpose"
    r"|range|rate|role|size|speed|status|symbol|temperature|time|type|unit|value|version|voltage|volume|weight|width)s?",
    re.IGNORECASE,
)
_MEANING = re.compile(r"means?|meaning|definition|stands for|bedeutung|erklärung", re.I)
_DESCRIPTION = re.compile(
    r"|is|description|explanation|details?|notes?|remarks?|comment|what it is|what they are|beschreibung", re.I
)
_EFFECT = re.compile(r"does|what it does|effects?|action", re.I)
_ADJECTIVE = re.compile(r"\w+(?:ed|able|ible|ous|ful|less|ive)", re.I)

_VERB_BASES = """
ask contain cost count cover create do expect give hold include keep learn leave list make measure need offer produce provide
read record replace require return save say send show store support take tell train use want work write
"""
_STATES = """
available new old free safe fast slow big small large better worse best right wrong true false open closed optional possible
public private default local remote stable heavy light hot cold cheap expensive synthetic
"""
_OTHERS = """
passes fails computed because if when where why how who which that then else and or but not yes no also instead otherwise
only more less than here there now today example examples see seen says it they we you i
"""
_GENERAL = "word name term key item what value entry thing"
_STEPS = """
activate add adjust apply ask assemble attach build calibrate cancel choose clean clear clone close compare compile configure
connect convert copy create customise customize delete deploy disable disconnect edit enable fill find get improve increase
inspect install launch load make merge migrate monitor open prepare publish read rebuild recover reduce register reinstall
remove rename resize resolve restart restore resume save send submit undo uninstall unlock unpack verify write
"""
_STEPS_OR_NOUNS = """
change charge check cut download export fix import log measure mount move order pack pay print pull push put release repair
replace report reset return run schedule search set share sign start stop store switch test train turn update upgrade upload
use view
"""
_VERBS = {f"{base}es" if base == "do" else f"{base}s": base for base in _VERB_BASES.split()}
"""What a column may say of its row (`needs`), and the verb in a question."""
_ADJECTIVES = frozenset(_STATES.split())
_NO_NOUN = frozenset(_OTHERS.split())
_NO_KIND = frozenset(_GENERAL.split())
_ALSO_NOUNS = frozenset(_STEPS_OR_NOUNS.split())
_STEPS_VERBS = frozenset(_STEPS.split()) | _ALSO_NOUNS
_OBJECT = re.compile(r"(?:an?|the|your|another|all|new|several|more|it)\b|`|[A-Z]")
_AUXILIARY = re.compile(
    rf"(?P<ask>how|why|when|where|what|who|which \w+)\s+(?P<noun>(?!(?:{_BE})\b)\S+(?:\s+(?!(?:{_BE})\b)\S+){{0,5}})\s+"
    rf"(?P<verb>{_BE})\s+(?P<rest>\S.*)",
    re.I,
)
_DIRECT = re.compile(
    rf"(?:what|who|which \w+)\s+(?:{_BE}|happens|changes|counts|comes|goes|helps|holds|matters|stays|stops)\b.*", re.I
)
_DOES = re.compile(
    r"(?P<ask>what|how|why|when|where)\s+(?P<noun>(?:an?|the)\s+\w+(?:\s\w+)?)\s+(?P<verb>[a-z]+s)(?P<rest>\s.*)?", re.I
)
_DO = re.compile(r"(?P<ask>what|how|why|when|where)\s+(?P<noun>[a-z]+s)\s+(?P<verb>[a-z]+[^s\W])(?P<rest>\s.*)?", re.I)
_GERUND = re.compile(r"(?P<verb>[A-Za-z]+ing)\s+(?P<rest>\w.*|`.*)", re.I)
_HOW_TO = re.compile(r"how to (\w.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Subject:
    """What a row of a table is about, as a sentence has it."""

    words: str
    is_plural: bool
    stands_alone: bool
    """Whether it says by itself what it is; other words want the title under which they stand."""

    @property
    def verb(self) -> str:
        return "are" if self.is_plural else "is"

    @property
    def auxiliary(self) -> str:
        return "do" if self.is_plural else "does"


def subject(kind: str, name: str) -> Subject:
    """The first cell of a row: `the setting "seed"`, where the name of its column says what it is, else the cell alone."""
    names = _NAMES.split(name) if _LIST.fullmatch(name) else [name]
    shown = [each if _CODE.fullmatch(each) or _is_distinct(each) else f'"{each}"' for each in names]
    if _is_kind(kind, name):
        noun = _lower(kind.strip()) + ("s" if len(names) > 1 else "")
        return Subject(f"the {noun} {_enumerated(shown)}", len(names) > 1, True)
    alone = all(map(_is_distinct, names))
    if len(names) > 1:
        return Subject(_enumerated(shown if alone else names), True, alone)
    words = name if alone or len(name.split()) <= 3 else f'"{name}"'
    return Subject(words, _is_plural(name) and name.islower() and name.isalpha(), alone)


def _is_kind(kind: str, name: str) -> bool:
    """Whether a column's name is a noun that can stand before the names in it."""
    words = kind.split()
    if not 1 <= len(words) <= 2 or not all(word.isalpha() and not word.isupper() for word in words):
        return False
    last = words[-1].casefold()
    if last in _NO_KIND | _NO_NOUN or last in _VERBS or _is_plural(last) or _ARTICLE.match(kind):
        return False
    return len(name.split()) <= 4 and not _ARTICLE.match(name) and "(" not in name and last not in name.casefold()


def _is_distinct(name: str) -> bool:
    """Code of several words or with signs in it, a name with capitals, digits or signs: it means one thing anywhere."""
    bare = name.strip("`")
    if _CODE.fullmatch(name):
        return bool(re.search(r"[\s._/:=<-]|[A-Z0-9]", bare))
    return bool(_NAME.search(name)) or any(word[:1].isupper() for word in name.split()) or "`" in name


def of_cell(column: str, about: Subject, *, is_yes_or_no: bool = False, is_code: bool = False) -> str | None:
    """What a column says about `about`, as a question; None where its name makes none."""
    column = _lower(" ".join(column.strip(" :?.").split()))
    words = column.split()
    last = words[-1].casefold() if words else ""
    if is_yes_or_no:
        is_state = last in _ADJECTIVES or _ADJECTIVE.fullmatch(last) or re.match(rf"(?:{_PREPOSITION})\s", column)
        return f"{about.verb.capitalize()} {about.words} {column}?" if is_state and len(words) <= 4 else None
    if _EFFECT.fullmatch(column) or (is_code and column.casefold() in ("description", "effect")):
        return f"What {about.auxiliary} {about.words} do?"
    if _MEANING.fullmatch(column):
        return f"What {about.auxiliary} {about.words} mean?"
    if _DESCRIPTION.fullmatch(column):
        return f"What {about.verb} {about.words}?"
    if len(words) == 1 and column in _VERBS:
        return f"What {about.auxiliary} {about.words} {_VERBS[column]}?"
    if column == "what to do":
        return f"What should I do about {about.words}?"
    if column == "for" or re.fullmatch(rf"(?:{_PARTICIPLE}) (?:{_PREPOSITION})", column):
        return f"What {about.verb} {about.words} {column}?"
    if words and words[0] in ("how", "why", "when", "where", "what", "who"):
        asked = direct(column)
        return f"{asked[:-1]} for {about.words}?" if asked else None
    if ATTRIBUTE.fullmatch(column) or _is_noun_phrase(words):
        return f"What {'are' if _is_plural(last) else 'is'} the {column} of {about.words}?"
    return None


def of_term(term: str) -> str:
    """What a term means."""
    return f'What does "{term}" mean?'


def of_option(name: str, command: str = "") -> str:
    """What a word of a command does."""
    return f"What does `{name}` do in `{command}`?" if command else f"What does `{name}` do?"


def of_heading(heading: str, *, has_steps: bool) -> str | None:
    """What a heading asks without a question mark; `has_steps` where its section shows how something is done."""
    how = _HOW_TO.fullmatch(heading)
    if how:
        return f"How do I {_lower(how[1])}?"
    if not has_steps or not 2 <= len(heading.split()) <= 8 or _PRONOUN.search(heading):
        return direct(heading)
    first, _, rest = heading.partition(" ")
    if first.casefold() in _STEPS_VERBS and (first.casefold() not in _ALSO_NOUNS or _OBJECT.match(rest)):
        return f"How do I {first.casefold()} {rest}?"
    if (gerund := _GERUND.fullmatch(heading)) and (base := _base_form(gerund["verb"])):
        return f"How do I {base} {gerund['rest']}?"
    return direct(heading)


def direct(clause: str) -> str | None:
    """The question of an indirect one: "How is memory counted?" of "how memory is counted"; None where it is none."""
    clause = clause.strip(" :.?")
    clause = clause.partition(":")[0].strip()
    if len(clause.split()) < 3 or _PRONOUN.search(clause) or "," in clause or re.search(r"\byou\b", clause, re.I):
        return None
    if match := _AUXILIARY.fullmatch(clause):
        return f"{match['ask'].capitalize()} {match['verb'].lower()} {match['noun']} {match['rest']}?"
    if _DIRECT.fullmatch(clause):
        return f"{clause[0].upper()}{clause[1:]}?"
    if match := _DOES.fullmatch(clause):
        return f"{match['ask'].capitalize()} does {match['noun']} {_without_s(match['verb'])}{match['rest'] or ''}?"
    if match := _DO.fullmatch(clause):
        return f"{match['ask'].capitalize()} do {match['noun']} {match['verb']}{match['rest'] or ''}?"
    return None


def within(question: str, title: str) -> str:
    """The question for somebody who does not see under which title its subject stands."""
    title = title.partition(": ")[0]
    return f'In "{title}", {question[0].lower()}{question[1:]}'


def _is_noun_phrase(words: list[str]) -> bool:
    """Whether one to three plain words can be what something has: no adjective, no preposition, no verb behind them."""
    if not 1 <= len(words) <= 3 or not all(re.fullmatch(r"[\w-]+", word) and not word[0].isdigit() for word in words):
        return False
    last = words[-1].casefold()
    small = {word.casefold() for word in words}
    if small & _NO_NOUN or any(re.fullmatch(_PREPOSITION, word) for word in small) or _ARTICLE.match(words[0]):
        return False
    return not (last in _ADJECTIVES or _ADJECTIVE.fullmatch(last) or last in _VERBS or last.endswith(("ing", "ly")))


def _enumerated(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _is_plural(word: str) -> bool:
    return word.endswith("s") and not word.endswith(("ss", "us", "is"))


def _base_form(gerund: str) -> str | None:
    """`install` of `installing`, where it is a verb of which instructions speak."""
    stem = gerund.casefold().removesuffix("ing")
    forms = (stem, f"{stem}e", stem[:-1])
    return next((form for form in forms if form in _STEPS_VERBS), None)


def _without_s(verb: str) -> str:
    if verb.endswith("ies"):
        return f"{verb[:-3]}y"
    if verb.endswith(("sses", "shes", "ches", "xes", "oes")):
        return verb[:-2]
    return verb[:-1]


def _lower(text: str) -> str:
    """The text as it goes on within a sentence; words in capitals stay."""
    return text[0].lower() + text[1:] if text[1:2].islower() or len(text) == 1 else text
