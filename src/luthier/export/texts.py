"""Texts that two tokenizers are held against each other on: a run's own, and such as tokenizers usually part on.

The ids that count are ours, by which the model was trained.
"""

import random
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from luthier.chat import Message, Template
from luthier.data.dataset import Item
from luthier.errors import UserError
from luthier.export.running import Running
from luthier.model.tokenizer import HubTokenizer

TEXTS = 2000
OWN_SHARE = 0.75  # of them from the run, as far as it has so many
SHOWN = 60  # characters of a text in a message
LONGEST = 4000  # characters of a text; the rest of a longer one shows nothing new

_WORDS = (
    "the", "Price", "don't", "we'll", "I'm", "naïve", "Straße", "ΑΒΓ", "привет", "世界", "こんにちは", "한국어", "مرحبا",
    "हिन्दी", "1", "12", "007", "1234567", "3.14159", "1,000", "a1b2", "x=y", "{}", "[[1]]", "http://a.b/c?d=e", "user@host",
    "#tag", "…", "—", "“q”", "🙂", "👩‍👩‍👧", "e\u0301", "\u00a0", "\u200b", "\u3000", "\ufeff", "\t", "\n", "\n\n",
    "\r\n", " ", "  ", "    ", "def f(x):", "return", "</p>", "&amp;", "100%", "$5", "€", "½", "Ⅷ", "\ufb01", "İ", "ß", "'s",
    "'S", "'T", "?!", "...",
)  # fmt: skip
FIXED = (
    "", " ", "a", " a", "a ", "\n\n1", "1\n\n2", "\n\n\na", "a\n\n b", "12345678901234567890", "1 2 3", "1.5e-10",
    "a  b   c", "\t\tx", "x\r\n\r\ny", "Hello, world!", "HELLO world's END", "I'VE you'LL", "C++ & C#", "a\u0301e\u0301",
    "\ufb03", "🙂🙂", "日本語テキスト", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "[INST]", "<think>", "<0x0A>", "▁", "Ġ",
    "Ċ", "\\n", "<|", "|>",
)  # fmt: skip


@dataclass(frozen=True)
class TextCase:
    """A text with our ids."""

    text: str
    ids: list[int]
    where: str
    special: bool = False
    """Whether control tokens in it are the template's, and not words of somebody's."""


@dataclass(frozen=True)
class Difference:
    """Where two sequences of ids part."""

    number: int
    case: TextCase
    theirs: list[int]

    def words(self, tokenizer: HubTokenizer) -> str:
        """In one line: which text, which token, and what each has there."""
        at = next(
            (n for n, pair in enumerate(zip(self.case.ids, self.theirs, strict=False)) if pair[0] != pair[1]),
            min(len(self.case.ids), len(self.theirs)),
        )
        ours, theirs = (_token(ids, at, tokenizer) for ids in (self.case.ids, self.theirs))
        shown = self.case.text[:SHOWN] + "…" * (len(self.case.text) > SHOWN)
        return f"ids: text {self.number} ({self.case.where}) {shown!r}: token {at} is {ours}, in the export {theirs}"


def _token(ids: Sequence[int], at: int, tokenizer: HubTokenizer) -> str:
    if at >= len(ids):
        return "missing"
    spelled = tokenizer.hub.convert_ids_to_tokens(ids[at])
    return f'{ids[at]} "{spelled}"'


def cases(template: Template, items: Iterable[Item], *, begin: list[int], count: int = TEXTS) -> list[TextCase]:
    """Texts of the run's rows and hard ones, `count` in all, and renderings of the rows as well.

    `begin` are the ids that the file puts before a plain text: BOS or nothing.
    """
    tokenizer = template.tokenizer
    assert isinstance(tokenizer, HubTokenizer)
    found: dict[tuple[str, bool], TextCase] = {}
    documents = False
    for item in items:
        if len(found) >= int(count * OWN_SHARE):
            break
        documents = item.conversation.is_document
        for message in item.conversation.messages:
            text = message.content[:LONGEST]
            found.setdefault(
                (text, False), TextCase(text, begin + plain_ids(text, tokenizer, documents), item.location)
            )
        if whole := _rendered(item, template):
            found.setdefault(
                (whole, True), TextCase(whole, tokenizer.render([whole])[0], f"{item.location}, rendered", True)
            )
    for number, text in enumerate(hard_texts()):
        if len(found) >= count:
            break
        case = TextCase(text, begin + plain_ids(text, tokenizer, documents), f"hard text {number}")
        found.setdefault((text, False), case)
    return [case for case in found.values() if case.special or not _spells_tags(case.text, tokenizer)]


def plain_ids(text: str, tokenizer: HubTokenizer, document: bool) -> list[int]:
    """A document stands at the beginning, where some tokenizers put a blank in front; a message behind a control token."""
    return tokenizer.encode(text)[0] if document else tokenizer.between(tokenizer.eos, text, "")


def _rendered(item: Item, template: Template) -> str | None:
    """A row as the template renders it, where nobody has spelled a control token in it."""
    conversation, tokenizer = item.conversation, template.tokenizer
    assert isinstance(tokenizer, HubTokenizer)
    if conversation.is_document or any(spells_control(message.content, tokenizer) for message in conversation.messages):
        return None
    try:
        whole = template.render(conversation.messages, add_generation_prompt=False, tools=conversation.tools)
    except UserError:
        return None
    return whole if len(whole) <= LONGEST else None


def spells_control(text: str, tokenizer: HubTokenizer) -> bool:
    """Whether an added token is spelled in a text."""
    return any(token in text for token in tokenizer.hub.added_tokens_encoder)


def _spells_tags(text: str, tokenizer: HubTokenizer) -> bool:
    """Whether a text spells an added token that is no special one: llama.cpp reads these in any text."""
    added = tokenizer.hub.added_tokens_decoder.values()
    return any(not token.special and token.content in tokenizer.control and token.content in text for token in added)


def hard_texts(seed: int = 0) -> Iterator[str]:
    """Texts without end, always the same: white space, digits, scripts, signs, spelled control tokens."""
    yield from FIXED
    random_source = random.Random(seed)
    while True:
        words = random_source.choices(_WORDS, k=random_source.randint(1, 12))
        joiner = random_source.choice(("", " ", " ", "  ", "\n"))
        yield joiner.join(words)


def differences(llama: Running, wanted: Sequence[TextCase]) -> list[Difference]:
    """Texts that llama.cpp cuts otherwise than we do; plain ones get BOS where the file says so, renderings have their own."""
    found: dict[int, list[int]] = {}
    for special in (False, True):
        numbers = [number for number, case in enumerate(wanted) if case.special is special]
        texts = [wanted[number].text for number in numbers]
        found |= dict(zip(numbers, llama.tokenize(texts, special=special, add=not special), strict=True))
    return [Difference(n, case, found[n]) for n, case in enumerate(wanted) if found[n] != case.ids]


def normalised(difference: Difference) -> bool:
    """Whether a text is not in Unicode's NFC form, to which llama.cpp brings none."""
    return unicodedata.normalize("NFC", difference.case.text) != difference.case.text


def conversations(template: Template) -> dict[str, tuple[Message, ...]]:
    """Twenty conversations, by what is special in them: a system message, several turns, blanks, spelled control tokens."""
    end = template.tokenizer.eos
    two = (_user("Where is it?"), _assistant("In the folder."), _user("Which one?"))
    return {
        "one question": (_user("Where is it?"),),
        "a system message": (_system("Be brief."), _user("Where is it?")),
        "two turns": two,
        "two turns and a system message": (_system("Be brief."), *two),
        "four turns": (*two, _assistant("The blue one."), _user("Why?"), _assistant("It is."), _user("Thanks.")),
        "blanks around a question": (_user("  Where is it?\n"),),
        "blanks around an answer": (_user("Where?"), _assistant("\n Here. \n"), _user("Which?")),
        "blanks around a system message": (_system(" Be brief.\n\n"), _user("Where?")),
        "a question of blanks": (_user("   "),),
        "line breaks": (_user("a\n\nb\r\nc\n"),),
        "digits": (_user("1234567 + 89.5 = ?"),),
        "other scripts": (_user("你好, мир! 🙂 नमस्ते"),),
        "quotes and braces": (_user('{"a": \'{{ b }}\', "c": "{% d %}"}'),),
        "markup": (_user("<b>bold</b> &amp; <|x|>"),),
        "a spelled control token": (_user(f"What does {end} mean?"),),
        "a spelled control token in a system message": (_system(f"Never say {end}."), _user("Why?")),
        "a spelled control token in an answer": (_user("Say it."), _assistant(end), _user("Again.")),
        "all control tokens spelled": (_user(" ".join(template.tokenizer.control)),),
        "a long question": (_user("word " * 300),),
        "a code block": (_user("```python\ndef f(x):\n    return x\n```"),),
    }


def _user(content: str) -> Message:
    return Message("user", content)


def _assistant(content: str) -> Message:
    return Message("assistant", content)


def _system(content: str) -> Message:
    return Message("system", content)
