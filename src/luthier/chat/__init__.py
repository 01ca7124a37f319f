"""Conversations, and the template that turns them into tokens and back."""

from luthier.chat.base import BASE_TEMPLATE, base_template
from luthier.chat.conversation import Conversation, Message, Role, ToolCall
from luthier.chat.template import Template
from luthier.chat.thoughts import Reply
from luthier.chat.tokens import Encoded, Tokenizer

__all__ = [
    "BASE_TEMPLATE",
    "Conversation",
    "Encoded",
    "Message",
    "Reply",
    "Role",
    "Template",
    "Tokenizer",
    "ToolCall",
    "base_template",
]
