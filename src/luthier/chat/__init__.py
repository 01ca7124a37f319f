"""Conversations, and the chat template that turns them into tokens and back; file by file, from a conversation to tokens:

    conversation      messages, from whatever data format: where everything here begins
    template          `Template`, the one object that training, evaluation and inference use; it calls the files below
    probing           what this template does (system role, tool calls, thoughts, end tokens), found by rendering placeholders
    escaping          control tokens that people spell become letters, so that they stay text
    message_renderer  messages, as this template takes them (`message_dicts`, `thinking`), become texts (`rendering`, `sandbox`)
    patterns          what was rendered of one plain conversation is filled in for others of its kind (`stand_ins`)
    loss_spans        where the texts part: which spans the loss is taken on
    tokens            text and spans → token ids and loss mask, `Encoded`
    fast_tokenizer    a tokenizer of the library `tokenizers` for all of this, also in other processes
    call_format       how this template writes calls of functions, by which they are read back from replies

A rule about what templates do goes into `probing.TemplateBehaviour`, where it is found by trying the template and never by its
name; what follows from it, into the file above that does it. `conformance.TEST_CONVERSATIONS` hold it against transformers.
"""

from luthier.chat.conversation import Conversation, Message, Role, ToolCall
from luthier.chat.default_template import BASE_TEMPLATE, base_template
from luthier.chat.fast_tokenizer import FastTokenizer
from luthier.chat.template import Template
from luthier.chat.thinking import Reply
from luthier.chat.tokens import Encoded, Tokenizer

__all__ = [
    "BASE_TEMPLATE",
    "Conversation",
    "Encoded",
    "FastTokenizer",
    "Message",
    "Reply",
    "Role",
    "Template",
    "Tokenizer",
    "ToolCall",
    "base_template",
]
