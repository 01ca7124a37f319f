"""Conversations, and the template that turns them into tokens and back."""

from luthier.chat.conversation import Conversation, Message, Role
from luthier.chat.template import BASE_TEMPLATE, Encoded, Template, Tokenizer

__all__ = ["BASE_TEMPLATE", "Conversation", "Encoded", "Message", "Role", "Template", "Tokenizer"]
