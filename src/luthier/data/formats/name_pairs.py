"""Names of columns that mean something beside each other: what is asked and what answers it, texts that are compared.

The words are in the plain form of `names`.
"""

PARTNERS = {
    "problem": ("solution",),
    "query": ("response", "answer"),
    "human": ("assistant", "gpt", "bot", "ai", "chatbot"),
    "user": ("assistant", "gpt", "bot", "ai", "chatbot"),
    "customer": ("agent", "support_response"),
    "client": ("agent",),
    "patient": ("doctor",),
    "student": ("teacher",),
    "front": ("back",),
    "q": ("a",),
    "source": ("target", "output"),
    "src": ("tgt", "target"),
    "article": ("highlight", "summary"),
    "sql_prompt": ("sql",),
    "nl": ("bash", "cmd", "code"),
    "description": ("abstract",),
}
"""A question's word → the answers that go with it before all others."""

PAIRS = (
    (("issue", "ticket", "incident", "complaint"), ("resolution", "fix", "remedy", "reply", "answer")),
    (("bug", "error", "error_message", "exception"), ("fix", "patch", "resolution")),
    (
        ("symptom", "clinical_note", "finding", "case"),
        ("diagnosis", "assessment", "impression", "treatment", "summary"),
    ),
    (
        ("msg", "req", "message", "tweet", "comment", "post", "review", "email", "email_body"),
        ("resp", "reply", "response", "comment"),
    ),
    (
        ("term", "word", "concept", "acronym", "abbreviation", "phrase", "idiom"),
        ("definition", "meaning", "explanation", "gloss"),
    ),
    (
        ("sentence", "wrong", "original_sentence", "error_sentence", "toxic"),
        ("corrected_sentence", "right", "correct_sentence", "neutral"),
    ),
    (("function", "method", "snippet"), ("docstring", "comment", "documentation", "explanation")),
    (("diff", "change", "patch"), ("commit_message", "message", "subject")),
    (
        ("description", "specification", "requirement", "task", "comment", "intent"),
        ("code", "function", "implementation", "snippet"),
    ),
    (
        ("keyword", "topic", "theme", "title", "prompt", "outline", "headline"),
        ("essay", "article", "poem", "song", "email", "paragraph"),
    ),
    (("ingredient",), ("direction", "recipe", "instruction", "step")),
    (("setup",), ("punchline",)),
    (("anchor",), ("positive",)),
    (("fact", "event", "cause"), ("effect", "consequence")),
    (("claim",), ("rebuttal", "counterclaim")),
)  # fmt: skip
"""Words that ask and answer only beside each other: a ticket and its resolution, a term and its definition."""

TEXT_PAIRS = (
    ("premise", "hypothesis"), ("sentence_1", "sentence_2"), ("text_1", "text_2"), ("question_1", "question_2"),
    ("text_a", "text_b"), ("sentence_a", "sentence_b"), ("s_1", "s_2"), ("question", "sentence"), ("query", "passage"),
    ("query", "document"), ("claim", "evidence"), ("title", "abstract"), ("passage", "question"), ("context",
    "question"),
    ("query", "title"), ("query", "text"), ("question", "text"), ("sentence", "phrase"), ("context", "statement"),
    ("paragraph", "hypothesis"),
)  # fmt: skip
"""Two texts that a label compares."""
