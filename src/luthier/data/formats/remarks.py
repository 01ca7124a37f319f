"""Remarks on rows that are kept, for the ledger."""

import re

from luthier.chat import Conversation

_CONTROL = re.compile(
    r"\[/?INST\]|<</?SYS>>|<\|(?:im_start|im_end|user|assistant|system|end|eot_id|start_header_id|end_header_id|endoftext|"
    r"begin_of_text|im_sep|END_OF_TURN_TOKEN|START_OF_TURN_TOKEN)\|>|</?(?:start_of_turn|end_of_turn)>|^<s>|</s>$|<(?:bos|eos)>"
)


def control_tokens(conversation: Conversation) -> str | None:
    """What is to be noted of texts that spell the control tokens of a chat template: they stay text.

    One alone is a word that somebody writes about; two mark a text up.
    """
    for message in conversation.messages:
        if "<" not in message.content and "[" not in message.content:
            continue
        found = _CONTROL.findall(message.content.strip())
        if len(found) > 1:
            return f'spells "{found[0]}", a control token of chat templates, which is learnt as text'
    return None
