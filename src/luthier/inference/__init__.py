"""Questions to models: once, from a file, side by side, and in conversations that remember.

question        a model that can be asked by name; one question, to one model or to several
gguf_model      a GGUF file, which llama.cpp answers for
question_file   a file of questions → a file of answers; it can be stopped and continued
conversation    a conversation, answered piece by piece; several adapters can share one base model
"""

from luthier.inference.conversation import Chat, ReplyPiece, shared_chats
from luthier.inference.question import ChatModel, ModelAnswer, ask, asked_model, compare, load_base, load_model, prompt
from luthier.inference.question_file import ask_file

__all__ = [
    "Chat",
    "ChatModel",
    "ModelAnswer",
    "ReplyPiece",
    "ask",
    "ask_file",
    "asked_model",
    "compare",
    "load_base",
    "load_model",
    "prompt",
    "shared_chats",
]
