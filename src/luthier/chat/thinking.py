"""Thoughts apart from answers: what templates write around them, and replies read behind them."""

import re
from dataclasses import dataclass

from luthier.chat.conversation import ToolCall


@dataclass(frozen=True)
class ThinkingTags:
    """What stands before and behind thoughts."""

    open: str
    close: str


KNOWN_TAGS = (
    ThinkingTags("<think>", "</think>"),
    ThinkingTags("<thinking>", "</thinking>"),
    ThinkingTags("<thought>", "</thought>"),
    ThinkingTags("<seed:think>", "</seed:think>"),
    ThinkingTags("[THINK]", "[/THINK]"),
    ThinkingTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ThinkingTags("<|inner_prefix|>", "<|inner_suffix|>"),
    ThinkingTags("<|channel>thought", "<channel|>"),
)
ANY_TAG = re.compile("|".join(re.escape(tag) for tags in KNOWN_TAGS for tag in (tags.open, tags.close)))


def open_tags(text: str) -> ThinkingTags | None:
    """The tags of a thought that is open where the text ends."""
    end = text.rstrip()
    return next((tags for tags in KNOWN_TAGS if end.endswith(tags.open)), None)


def split_thoughts(content: str, tags: ThinkingTags) -> tuple[str, str] | None:
    """Thoughts and answer of a content that begins with a complete thought."""
    text = content.lstrip()
    if not text.startswith(tags.open) or tags.close not in text:
        return None
    thoughts, answer = text[len(tags.open) :].split(tags.close, 1)
    return thoughts.strip("\n"), answer.lstrip("\n")


@dataclass(frozen=True)
class Reply:
    """A reply as a reader sees it. `thinking`: it ended inside a thought, and there is no answer yet."""

    text: str
    thoughts: str | None = None
    thinking: bool = False
    calls: tuple[ToolCall, ...] = ()
    """What it calls, if it is read as a reply of somebody who was offered functions."""
    called: str | None = None
    """The same reply with its calls as `ToolCall.text` writes them; None where it calls nothing."""


@dataclass(frozen=True)
class ReplyFormat:
    """How a model's replies begin, by its template.

    `header` stands before every answer; `tags` around thoughts. Where `prompt_opens` a thought, its opening tag is no part of
    the reply; where `prompt_closes` it, no thoughts are to come.
    """

    tags: ThinkingTags = KNOWN_TAGS[0]
    separator: str = ""
    """All that stands between thoughts and their answer; `tags.close` is its end."""
    header: str = ""
    prompt_opens: bool = False
    prompt_closes: bool = False
    writes_thoughts: bool = False
    """Whether the template writes thoughts at all."""

    @property
    def thinks(self) -> bool:
        """Whether replies may begin with thoughts."""
        return self.prompt_opens or (self.writes_thoughts and not self.prompt_closes)

    def is_closed_in(self, prompt: str) -> bool:
        """Whether a prompt ends with a closed thought, behind which only the answer is to come."""
        return prompt.rstrip().endswith(self.tags.close)

    @property
    def answers_have_header(self) -> bool:
        """Whether thoughts end where the answer's header begins, and not with a tag of their own."""
        return self.tags.close != (self.separator or self.tags.close)

    def answer_start(self, text: str) -> int | None:
        """Where the answer begins in a reply with its control tokens; None inside a thought."""
        inner = text.lstrip()
        lead = len(text) - len(inner)
        pair = (
            self.tags
            if self.prompt_opens
            else next((t for t in (self.tags, *KNOWN_TAGS) if inner.startswith(t.open)), None)
        )
        if pair:
            # A tag that closes thoughts counts the first time; a header of the answer comes again with each part of a reply.
            again = pair.close != (self.separator or pair.close)
            at = text.rfind(pair.close) if again else text.find(pair.close)
            return None if at < 0 else at + len(pair.close)
        header = self.header.strip()
        return lead + len(header) if header and inner.startswith(header) else 0

    def thoughts_of(self, text: str) -> str | None:
        """The thoughts in the part of a reply before its answer."""
        inner = text.strip()
        for tags in (self.tags, *KNOWN_TAGS):
            inner = inner.removeprefix(tags.open)
        for close in (self.separator, *(tags.close for tags in (self.tags, *KNOWN_TAGS))):
            inner = inner.removesuffix(close)
        return inner.strip() or None
