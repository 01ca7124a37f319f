"""Answers: put to a model or an endpoint, written down with their scores, and not asked again.

`file` asks and writes, `endpoint` speaks to services, `gguf_file` makes one of a file,
`samples` averages several answers to one question.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

AnswerRecord: TypeAlias = Mapping[str, Any]
"""One line of answers.jsonl: `arm` answered `item` of `group`, whose row stands at `place`.

`question`, `answer`, `reference` and `thoughts` are texts; `score` is the deciding metric's, `scores` holds all by metric;
`references` are all right answers, the learnt one first, and `matched` is the number of that which the deciding metric found
nearest; both are absent where there is one.
`prompt_tokens`, `answer_tokens`, `thought_tokens` and `seconds` are what it cost; `finish` is why the answer ended; `shots`
counts the demonstrations before the question.
"""


def matched_reference(record: AnswerRecord) -> str:
    """The reference that the answer is nearest to."""
    references = record.get("references") or [record["reference"]]
    return str(references[record.get("matched", 0)])


def all_references(record: AnswerRecord) -> str:
    """All right answers as one text to read."""
    return "\n\nor\n\n".join(record.get("references") or [record["reference"]])
