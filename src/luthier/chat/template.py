"""From a conversation to tokens and back: the one object that training, evaluation and inference share.

The real conversation is rendered by the model's own template. A prompt is what the template asks with at that turn; a row
begins, token for token, with the prompt; the loss is taken on what stands behind it, up to and with the end token.
Where the template shows an earlier turn otherwise than it was when it was answered, each answer becomes a row of its own.
"""

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property, partial
from itertools import islice

from luthier.chat import escaping, loss_spans, sandbox
from luthier.chat.conversation import Conversation, Message, ToolCall
from luthier.chat.message_renderer import MessageRenderer
from luthier.chat.patterns import Draft, Pattern, Patterns
from luthier.chat.probing import TemplateBehaviour
from luthier.chat.rendering import Dict, Renderer, TemplateRefusal
from luthier.chat.thinking import Reply
from luthier.chat.tokens import Encoded, Rendering, RenderingTokenizer, Tokenizer
from luthier.errors import UserError

VERSION = "2"  # part of the hash: a change of the rules below is a change of the template
CHUNK = 512
CHUNKS_AHEAD = 3
AT_ONCE = 2
"""Chunks that are tokenized at the same time: while one becomes Python's numbers, all cores are busy with the other."""
MARKER = re.compile(r"<\|[^|<>\s]+\|>|<\uff5c[^\uff5c]+\uff5c>|<(?:start|end)_of_\w+>")


class Template:
    """A chat template with its tokenizer. `source` is Jinja, as in a model's `chat_template.jinja`.

    `variables` are passed to each rendering; `today` is the date that a template may ask for; `ends` are ids of tokens at
    which the model is said to stop.
    """

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        name: str,
        variables: Mapping[str, object] | None = None,
        today: date | None = None,
        ends: frozenset[int] = frozenset(),
        *,
        checked: bool = False,
    ) -> None:
        self.source, self.tokenizer, self.name, self.ends = source, tokenizer, name, ends
        self.variables, self.today = dict(variables or {}), today or date.today()
        self._tokenization = RenderingTokenizer(tokenizer)
        named_tokens, settings = tuple(sorted(tokenizer.named.items())), json.dumps(self.variables, sort_keys=True)
        fault = None if checked else sandbox.find_fault(source, named_tokens, settings, self.today)
        if fault:
            raise UserError(f"the chat template {fault}; use a model with another template.", where=name)
        try:
            self._renderer = Renderer(source, tokenizer.named, self.variables, self.today)
        except TemplateRefusal as words:
            raise UserError(f"the chat template is not valid Jinja: {words}.", where=name) from None
        self._check_variables()
        self._behaviour = TemplateBehaviour(self._renderer, self._tokenization.control)
        self._messages = MessageRenderer(self._renderer, self._behaviour, name)
        self.unknown = tuple(dict.fromkeys(MARKER.findall(self._tokenization.control.sub("", self._behaviour.example))))
        """What looks like control tokens in the template but is only letters to this tokenizer."""
        if self._behaviour.textual_end in self.unknown:
            raise UserError(
                f"the chat template ends answers with {self._behaviour.textual_end}, which this tokenizer does not know as a "
                "control token, so a model could not learn to stop. Use the tokenizer that belongs to the template, or the "
                "template that belongs to the tokenizer.",
                where=name,
            )
        spelled = {number: token for token, number in tokenizer.control.items()}
        named = ({spelled[number] for number in ends if number in spelled} | {tokenizer.eos}) & set(tokenizer.control)
        self._ends = loss_spans.EndTokens(frozenset(named) | self._behaviour.end_tokens)
        self._patterns = Patterns(self._draft, self._tokenization) if self._renderer.can_be_followed else None
        self.stop_ids = frozenset(ends) | {tokenizer.control[end] for end in self._ends.tokens}
        """Tokens that end an answer."""

    def __reduce__(self) -> tuple[Callable[..., "Template"], tuple[object, ...]]:
        made = (self.source, self.tokenizer, self.name, self.variables, self.today, self.ends)
        return partial(Template, checked=True), made

    @property
    def sha256(self) -> str:
        """Identifies how conversations become tokens; a model must be used with the template that it was trained with."""
        parts = (
            VERSION,
            self.portable_source,
            json.dumps(sorted(self.tokenizer.named.items())),
            str(sorted(self.tokenizer.control.items())),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def reads_date(self) -> bool:
        """Whether the template writes a date."""
        return self._renderer.reads_date

    @cached_property
    def keeps_thoughts_in_rows(self) -> bool:
        """Whether thoughts beside an answer become tokens of its row: not where the template leaves them out."""
        answer = Message("assistant", "Yes", reasoning="reasons")
        try:
            rows = self.rows(Conversation((Message("user", "Why?"), answer)))
        except UserError:
            return False
        return "reasons" in self.tokenizer.decode(rows[-1].ids)

    @property
    def thinks(self) -> bool:
        """Whether answers may begin with thoughts, under these variables."""
        return self._behaviour.reply_format.thinks

    @property
    def allows_thoughts(self) -> bool:
        """Whether answers have a place for thoughts, under these variables, so that thoughts in the data are trained on."""
        reply_format = self._behaviour.reply_format
        return reply_format.prompt_opens or bool(reply_format.separator and not reply_format.prompt_closes)

    @property
    def merges_system_message(self) -> bool:
        """Whether the template has no place for a system message, so that it opens the first user message."""
        return self._behaviour.merges_system_message

    @property
    def reads_calls(self) -> bool:
        """Whether calls in replies are told from other answers: the template's form of them is understood."""
        return self._behaviour.call_format is not None

    def answer_text(self, answer: Message) -> str:
        """What an answer says, as it would be read back from a reply.

        Where the template writes arguments without their types, a text that spells a number is read as the number.
        """
        calls = self._behaviour.call_format
        if not answer.tool_calls or calls is None or calls.typed:
            return answer.text
        _, read = calls.read(self._behaviour.written_calls(answer.tool_calls) or "")
        same = [call.name for call in read] == [call.name for call in answer.tool_calls]
        return replace(answer, tool_calls=read).text if same else answer.text

    def takes_tools_of(self, conversation: Conversation) -> bool:
        """Whether the template shows the functions that are offered and called in a conversation."""
        called = any(message.tool_calls for message in conversation.messages)
        return (not conversation.tools or self._behaviour.shows_tools) and (not called or self._behaviour.shows_calls)

    @property
    def known_variables(self) -> frozenset[str]:
        """Variables that the template looks at, which a user may set."""
        return self._renderer.known_variables

    @property
    def portable_source(self) -> str:
        """Jinja to save beside the model: it renders elsewhere what we trained with."""
        return self._renderer.portable

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: Sequence[str] = ()
    ) -> str:
        """The rendering itself; `add_generation_prompt` ends it with the beginning of an answer."""
        messages = self._messages.prepare(messages)
        return self._messages.render(
            messages, self._messages.parse_tools(tools), add_generation_prompt=add_generation_prompt
        )

    def prompt(self, messages: Sequence[Message], *, tools: Sequence[str] = ()) -> list[int]:
        """Ids that ask for the assistant's next answer; of a document, its beginning."""
        if not messages or messages[0].role == "text":
            text = "".join(message.content for message in messages)
            return self._bos_ids() + self.tokenizer.encode(text)[0]
        safe, definitions, escapes = self._escape(messages, tools)
        return self._tokenization.ids(
            Rendering(
                self._messages.render(self._messages.prepare(safe), definitions, add_generation_prompt=True),
                escapes=escapes,
            )
        )

    def rows(self, conversation: Conversation) -> list[Encoded]:
        """A conversation to train on: one row, or one per answer where the template shows earlier turns in another form."""
        [rows] = self.rows_of([conversation])
        if isinstance(rows, UserError):
            raise rows
        return rows

    def rows_of(self, conversations: Iterable[Conversation]) -> list[list[Encoded] | UserError]:
        """The rows of many conversations, or for each why it has none."""
        return list(self.stream_rows(conversations))

    def stream_rows(self, conversations: Iterable[Conversation]) -> Iterator[list[Encoded] | UserError]:
        """The same, one conversation after the other, while a few chunks of them at most are in memory.

        While chunks are tokenized on all cores, the next ones are read and rendered.
        """
        waiting: deque[tuple[list[_Begun], Future[list[list[int]]]]] = deque()
        with ThreadPoolExecutor(max_workers=AT_ONCE) as beside:
            for chunk in _chunks(conversations):
                begun = [self._begin(conversation) for conversation in chunk]
                texts = [text for one in begun for text in one.renderings]
                waiting.append((begun, beside.submit(self._tokenization.many, texts)))
                if len(waiting) > CHUNKS_AHEAD:
                    yield from self._tokenize(*_result(waiting.popleft()))
            while waiting:
                yield from self._tokenize(*_result(waiting.popleft()))

    def _begin(self, conversation: Conversation) -> "_Begun":
        """The texts of a conversation's rows, by its pattern where it has one."""
        if self._patterns and not conversation.is_document and (found := self._patterns.find(conversation)):
            pattern, rendering = found
            return _Begun([rendering], conversation, pattern=pattern)
        draft = self._draft(conversation)
        return _Begun([] if isinstance(draft, UserError) else draft.renderings, conversation, draft)

    def _tokenize(self, begun: Sequence["_Begun"], ids: Sequence[list[int]]) -> Iterator[list[Encoded] | UserError]:
        left = iter(ids)
        for one in begun:
            own = [next(left) for _ in one.renderings]
            row = one.pattern.row(own[0], self._tokenization.control_ids) if one.pattern else None
            yield [row] if row else self._tokenize_draft(one.draft or self._draft(one.conversation), own)

    def _tokenize_draft(self, draft: Draft | UserError, ids: Sequence[list[int]]) -> list[Encoded] | UserError:
        if isinstance(draft, UserError):
            return draft
        if not draft.turns:
            return [self._document(ids[0])]
        rows = [self._tokenization.row(rendering, own) for rendering, own in zip(draft.renderings, ids, strict=True)]
        if None in rows:  # the answers' prompts cannot all be the beginning of one row
            apart = [self._answer_row(turn, draft.renderings[0].escapes) for turn in draft.turns]
            rows = [self._tokenization.row(rendering, self._tokenization.ids(rendering)) for rendering in apart]
        return [row for row in rows if row is not None]

    def parse_reply(self, ids: Sequence[int]) -> Reply:
        """Generated ids, up to the first token that ends an answer: the answer, and thoughts apart from it."""
        ids = self._before_end(ids)
        whole = self.tokenizer.decode(ids, control=True)
        start = self._behaviour.reply_format.answer_start(whole)
        calls, called, before = self._parse_calls(whole, start)
        if start is None:
            thoughts = self._behaviour.reply_format.thoughts_of(whole if called is None else before)
            return Reply("", thoughts, thinking=called is None, calls=calls, called=called)
        count = self.answer_start(ids)
        before = self.tokenizer.decode(ids[:count], control=True) if count else ""
        text, thoughts = self.tokenizer.decode(ids[count:]).strip(), self._behaviour.reply_format.thoughts_of(before)
        return Reply(text, thoughts, calls=calls, called=called)

    def _parse_calls(self, whole: str, start: int | None) -> tuple[tuple[ToolCall, ...], str | None, str]:
        """The calls of a reply, from all of its text and where its answer begins; the answer with them; what precedes them."""
        calls = self._behaviour.call_format
        if calls is None or (start is None and not self._behaviour.reply_format.answers_have_header):
            return (), None, ""
        before, found = calls.read(whole[start or 0 :])
        if not found:
            return (), None, ""
        words = "" if start is None else self._tokenization.control.sub("", before).strip()
        return found, Message("assistant", words, tool_calls=found).text, before

    def answer_start(self, ids: Sequence[int]) -> int:
        """How many of the generated ids are thoughts and header."""
        ids = self._before_end(ids)
        start = self._behaviour.reply_format.answer_start(self.tokenizer.decode(ids, control=True))
        if not start:
            return 0 if start == 0 else len(ids)
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if len(self.tokenizer.decode(ids[:middle], control=True)) < start:
                low = middle + 1
            else:
                high = middle
        return low

    def _before_end(self, ids: Sequence[int]) -> Sequence[int]:
        end = next((index for index, token in enumerate(ids) if token in self.stop_ids), len(ids))
        return ids[:end]

    def _check_variables(self) -> None:
        for name in self.variables:
            if name not in self.known_variables:
                known = ", ".join(sorted(self.known_variables)) or "none"
                raise UserError(
                    f"the chat template does not read the variable {name}; it reads: {known}.",
                    where=f"chat.variables.{name}",
                )

    def _bos_ids(self) -> list[int]:
        return [self.tokenizer.control[self.tokenizer.bos]] if self.tokenizer.bos else []

    def _draft(self, conversation: Conversation) -> Draft | UserError:
        """The texts of a conversation's rows."""
        if conversation.is_document:
            [text], _, escapes = self._escape(conversation.messages, ())
            return Draft([Rendering(text.content, escapes=escapes)])
        last = conversation.messages[-1]
        assert last.role == "assistant" and last.in_loss, (
            "a conversation to train on ends with an answer that is learnt"
        )
        try:
            messages, tools, escapes = self._escape(conversation.messages, conversation.tools)
            answers = [
                number for number, message in enumerate(messages) if message.role == "assistant" and message.in_loss
            ]
            turns = [self._messages.render_answer(messages[: number + 1], tools) for number in answers]
            whole = turns[0].with_answer
            if len(turns) > 1 and turns[0].with_answer.startswith(turns[0].prompt):
                answered = [*self._messages.prepare(messages[:-1]), self._messages.split_thoughts(messages[-1])]
                whole = self._messages.render(answered, tools, add_generation_prompt=False)
        except UserError as error:
            return error
        if found := loss_spans.conversation_spans(whole, turns, self._ends, self._tokenization.control):
            return Draft([self._until_last_end(*found, escapes)], turns, together=True)
        return Draft([self._answer_row(turn, escapes) for turn in turns], turns)

    def _until_last_end(self, text: str, spans: list[tuple[int, int]], escapes: Mapping[str, str]) -> Rendering:
        """A rendering up to its last end token, which it gets where the template writes none."""
        begin, end = spans[-1]
        if any(text.endswith(token, 0, end) for token in self._ends.tokens):
            text = text[:end]
        elif self.tokenizer.eos in self.tokenizer.control:
            text += self.tokenizer.eos
        return Rendering(text, [*spans[:-1], (begin, len(text))], escapes)

    def _answer_row(self, turn: loss_spans.AnswerRendering, escapes: Mapping[str, str]) -> Rendering:
        return self._until_last_end(*loss_spans.answer_spans(turn, self._ends, self._tokenization.control), escapes)

    def _document(self, ids: list[int]) -> Encoded:
        start = self._bos_ids()
        end = [self.tokenizer.control[self.tokenizer.eos]] if self.tokenizer.eos in self.tokenizer.control else []
        return Encoded(start + ids + end, [False] * len(start) + [True] * (len(ids) + len(end)))

    def _escape(
        self, messages: Sequence[Message], tools: Sequence[str]
    ) -> tuple[list[Message], list[Dict], Mapping[str, str]]:
        """Messages and tools with letters for what people spelled, and what the letters stand for."""
        allowed, control = self._allowed_in_answers(), self._tokenization.control
        safe, definitions, letters = escaping.escape_control_tokens(messages, tools, control, allowed)
        return safe, self._messages.parse_tools(definitions), letters

    def _allowed_in_answers(self) -> frozenset[str]:
        """Control tokens that an answer may spell, because models write them, such as `<think>`."""
        tags = self._behaviour.reply_format.tags
        return self.tokenizer.spoken | {tag for tag in (tags.open, tags.close) if tag in self.tokenizer.control}


@dataclass(frozen=True)
class _Begun:
    """A conversation with the texts of its rows, by its pattern or by a draft of its own."""

    renderings: list[Rendering]
    conversation: Conversation
    draft: Draft | UserError | None = None
    pattern: Pattern | None = None


def _result(
    waiting: tuple[list[_Begun], Future[list[list[int]]]],
) -> tuple[list[_Begun], list[list[int]]]:
    begun, ids = waiting
    return begun, ids.result()


def _chunks(conversations: Iterable[Conversation]) -> Iterator[list[Conversation]]:
    """A few hundred conversations at a time: enough for all cores, and little enough to overlap."""
    left = iter(conversations)
    while chunk := list(islice(left, CHUNK)):
        yield chunk
