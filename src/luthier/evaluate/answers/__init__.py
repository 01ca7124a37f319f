"""Answers: put to a model or an endpoint, written down with their scores, and not asked again.

`file` asks and writes, `endpoint` speaks to services, `samples` averages several answers to one question.
"""

from collections.abc import Mapping
from typing import Any

AnswerRecord = Mapping[str, Any]
"""One line of answers.jsonl: `arm` answered `item` of `group`, whose row stands at `place`.

`question`, `answer`, `reference` and `thoughts` are texts; `score` is the deciding metric's, `scores` holds all by metric;
`prompt_tokens`, `answer_tokens`, `thought_tokens` and `seconds` are what it cost; `finish` is why the answer ended; `shots`
counts the demonstrations before the question.
"""
