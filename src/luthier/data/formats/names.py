"""What people call the columns of their tables: the words of each meaning, the commonest first.

Words are compared in a plain form: no case, no plural, parts joined by `_`; "questionText", "Question_Text" and "Questions"
are all `question`. A word may have several meanings ("context", "label", "input"); what a column holds decides then.
"""

import re
import unicodedata
from functools import cache

_HUMPS = re.compile(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PARTS = re.compile(r"[^\W\d_]+|\d+")
_FILLERS = {"text", "txt", "the", "raw", "clean", "cleaned", "str", "string", "column", "field"}
"""Parts that say nothing where another part stands beside them."""


@cache
def plain(name: str) -> str:
    """The name in plain form."""
    return "_".join(_parts(name))


@cache
def bare(name: str) -> str:
    """The plain form without fillers: `question_text` is `question`."""
    parts = _parts(name)
    left = [part for part in parts if part not in _FILLERS]
    return "_".join(left) if left else "text" if "text" in parts else parts[-1]


def _parts(name: str) -> list[str]:
    found = _PARTS.findall(_HUMPS.sub(" ", unicodedata.normalize("NFKC", name)))
    return [_singular(part.casefold()) for part in found] or [name.strip().casefold()]


def _singular(part: str) -> str:
    if len(part) > 4 and part.endswith("ies"):
        return f"{part[:-3]}y"
    if len(part) > 3 and part.endswith("s") and not part.endswith(("ss", "us", "is", "as", "news")):
        return part[:-1]
    return part


def rank(name: str, words: tuple[str, ...]) -> int | None:
    """How good a name is among the words for a meaning, 0 the best; None where it is none of them."""
    for form, later in ((plain(name), 0), (bare(name), 1)):
        if form in words:
            return 2 * words.index(form) + later
    return None


# Questions and answers

QUESTION = (
    "question", "query", "problem", "question_stem", "user_question", "user_query", "user_input", "user_message",
    "human",
    "user", "sql_prompt", "nl_query", "frage", "pregunta", "domanda", "pergunta", "vraag", "fråga", "pytanie", "вопрос",
    "问题", "問題", "质问", "質問", "질문", "سؤال", "q", "customer", "client", "patient", "customer_message", "student",
    "goal", "request", "ask", "inquiry", "front", "riddle", "exercise", "task_description", "task", "question_body",
    "question_content",
    "question_title",
)  # fmt: skip
PEOPLE = ("human", "user", "customer", "client", "patient", "student", "task")
"""Words for who or what asks, which also name persons and kinds of rows: only texts under them are questions."""
LATE_QUESTION = (
    "context",
    "body",
    "email_body",
    "message_body",
    "selftext",
    "post",
    "description",
    "message",
    "email",
    "title",
    "subject",
)
"""Words that are the question only where there is no other, and an answer that is surely one."""
OTHER_QUESTION = ("instruction", "prompt", "input", "source", "text", "sentence", "document", "article")
"""Questions of other formats, which serve where the recipe names the answer."""
ANSWER = (
    "answer", "response", "solution", "output", "completion", "reply", "best_answer", "correct_answer", "gold_answer",
    "accepted_answer", "expected_answer", "reference_answer", "final_answer", "answer_body", "long_answer",
    "ideal_answer",
    "ideal_response", "ideal", "expected_output", "expected_response", "expected", "ground_truth", "reference",
    "target",
    "generation", "assistant", "gpt", "bot", "chatbot", "agent", "ai", "model_response", "assistant_response",
    "assistant_message", "gpt_response", "ai_response", "bot_response", "bot_reply", "bot_message",
    "agent_response", "doctor", "teacher", "support_response",
    "antwort", "respuesta", "réponse", "reponse", "risposta", "resposta", "antwoord", "svar", "odpowiedź", "ответ",
    "答案",
    "回答", "답변", "جواب", "a", "canonical_solution", "sql", "sql_query", "query", "code", "back", "positive", "cmd",
    "command",
)  # fmt: skip
INSTRUCTION = ("instruction", "instruct", "task_instruction", "anweisung", "instrucción", "指令")
OUTPUT = ("output", "response", "completion", "answer", "target", "solution", "reply", "ausgabe", "salida", "输出")
PROMPT = ("prompt", "user_prompt", "prompt_input", "message", "conversation", "chat_history", "history")
COMPLETION = (
    "completion", "response", "answer", "output", "generation", "reply", "result", "continuation", "target", "ideal",
    "canonical_solution", "text", "story", "code", "assistant_response", "model_response",
)  # fmt: skip
SOURCE = (
    "input", "source", "src", "source_sentence", "article", "document", "dialogue", "report", "content",
    "text", "passage", "transcript", "email", "body", "long", "original", "sentence", "noisy", "incorrect",
    "complex", "nl", "code", "review", "post", "selftext", "story", "conversation", "dialog", "chat",
    "news",
    "meeting", "note", "speech", "description", "abstract",
)  # fmt: skip
TARGET = (
    "output", "target", "tgt", "target_sentence", "highlight", "summary", "abstractive_summary", "tldr", "translation",
    "paraphrase", "rewrite", "correction", "corrected", "correct", "simple", "simplified", "label",
    "keyphrase",
    "completion", "response", "reply", "answer", "solution", "expected_output", "expected", "ideal", "ground_truth",
    "annotation",
    "code", "bash", "cmd", "abstract",
)  # fmt: skip

# What stands beside them

CONTEXT = (
    "context", "passage", "paragraph", "sql_context", "background", "background_information", "article", "document",
    "story", "support", "evidence", "retrieved_context", "document_context", "reference_document", "knowledge", "fact",
    "premise", "schema", "table", "table_schema", "database_schema", "ddl", "transcript", "dialogue", "input",
    "text", "description",
    "kontext", "contexte", "contexto", "上下文",
)  # fmt: skip
INPUT = ("input", "instruction_input", "eingabe", "输入")
SYSTEM = (
    "system", "system_prompt", "system_message", "system_instruction", "sys_prompt", "system_content", "system_role",
)  # fmt: skip
HISTORY = (
    "history", "chat_history", "conversation_history", "dialogue_history", "dialog_history", "message_history",
    "previous_message", "previous_turn", "past_message",
)  # fmt: skip
TOOLS = ("tool", "function", "available_tool", "tool_definition")
THOUGHTS = (
    "complex_cot", "complex_co_t", "cot", "co_t", "chain_of_thought", "reasoning_content", "reasoning", "thinking",
    "thought", "think",
    "reasoning_trace", "thought_process", "reasoning_chain",
)  # fmt: skip
MORE_ANSWERS = ("correct_answer", "aliase", "answer_aliase", "reference", "other_answer", "alternative_answer")

# Labels

LABEL = (
    "label", "gold_label", "class", "category", "intent", "sentiment", "emotion", "class_label", "class_name",
    "label_name", "category_name", "intent_name", "polarity", "stance", "target", "star", "rating", "score",
    "topic", "tag",
    "type", "genre", "department", "queue", "priority", "toxicity", "spam", "is_spam", "is_duplicate", "is_toxic",
    "is_sarcastic", "sarcasm", "hate", "toxic", "verdict", "relation", "product", "klasse", "kategorie", "etiqueta",
    "categoría", "categorie", "stimmung", "coarse_label", "fine_label", "scenario", "标签", "类别", "airline_sentiment",
    "review_score", "review_rating", "overall",
    "subreddit",
)  # fmt: skip
STRONG_LABEL = 14
"""So many of the first label words mean little else."""
MEASURES = ("label", "score", "similarity", "similarity_score", "relatedness_score")
"""Labels of two texts that may be any number."""
LABEL_NAME = (
    "label_text", "label_name", "label_str", "class_name", "category_name", "intent_name", "label_desc",
    "label_description", "text_label", "sentiment_text", "label_word", "topic_name", "emotion_name",
)  # fmt: skip
LABELLED = (
    "text", "sentence", "tweet", "comment", "review", "review_body", "sms", "message", "utterance", "post",
    "content", "body",
    "statement", "claim", "headline", "description", "utt", "plot", "synopsis", "overview", "resume", "cv",
    "document", "article", "email", "mail", "ticket", "request",
    "question", "query", "prompt", "instruction", "input", "source", "title", "news", "name", "phrase", "snippet",
    "passage", "paragraph", "abstract", "reviewtext", "selftext", "complaint", "consumer_complaint", "narrative",
    "feedback", "transcript", "summary", "code", "func", "premise", "sentence_1", "text_1", "question_1", "text_a",
    "sentence_a", "s_1", "context", "satz", "texto", "texte", "kommentar", "nachricht", "文本",
)  # fmt: skip
TITLE = (
    "title",
    "subject",
    "email_subject",
    "headline",
    "summary",
    "question_title",
    "review_title",
    "betreff",
    "titel",
)

# Choices

REPLIES = {"response", "completion", "model", "generation"}
"""Keys of objects that hold several models' replies, none of which is the answer."""
CHOICES = (
    "choice",
    "option",
    "ending",
    "answer_choice",
    "multiple_choice_option",
    "candidate",
    "alternative",
    "possible_answer",
    "answer",
)
CHOICE_KEY = (
    "answer_key", "answer", "label", "gold", "correct_answer", "correct_option", "correct_choice", "correct",
    "answer_idx",
    "answer_index", "correct_idx", "correct_index", "correct_answer_index", "cop", "key", "target", "gold_idx",
    "solution", "ans",
    "right_answer", "correct_ending", "gold_index",
)  # fmt: skip
STEM = (
    "question", "question_stem", "query", "problem", "ctx", "goal", "sentence", "premise", "sent_1", "startphrase",
    "stem",
    "prompt", "context", "instruction", "text", "input", "story",
)  # fmt: skip
CHOICE_SETS = (
    r"(option_|choice_|answer_|ans_|ending_|opt_|)([a-j])",
    r"(op)([a-j])",
    r"((?:option|choice|answer|ans|ending|sol|solution|hyp|opt|alternative|hypothesis)_)(\d+)",
    r"((?:option|choice|answer|ending|opt)_)(one|two|three|four|five)",
)

# Preferences

CHOSEN = (
    "chosen", "chosen_response", "response_chosen", "chosen_message", "chosen_answer", "chosen_completion",
    "chosen_output",
    "preferred_output", "preferred", "preferred_response", "accepted", "accepted_response", "winner", "win", "better",
    "better_response", "good", "good_response", "y_w", "response_j", "positive_response", "gewählt",
)  # fmt: skip
REJECTED = (
    "rejected", "rejected_response", "response_rejected", "rejected_message", "rejected_answer", "rejected_completion",
    "rejected_output", "non_preferred_output", "dispreferred", "non_preferred", "rejected_output", "loser", "lose",
    "worse",
    "worse_response", "bad", "bad_response", "y_l", "response_k", "negative_response", "dispreferred_response",
    "abgelehnt",
)  # fmt: skip
PREFERENCE_PROMPT = (
    "prompt", "instruction", "question", "query", "input", "conversation", "message", "context", "history",
    "chat_history",
    "post", "problem", "user_prompt", "dialogue", "x", "human",
)  # fmt: skip
RIVALS = (
    "response",
    "completion",
    "answer",
    "output",
    "conversation",
    "generation",
    "human_ref",
    "assistant",
    "model_response",
)
"""What two answers are called before their letter or number."""
WINNER = (
    "winner", "better_response_id", "better_response", "better", "preferred", "preference", "choice", "chosen", "vote",
    "winning_response", "best", "preferred_response", "label", "winner_model", "preference_strength", "overall_preference",
)  # fmt: skip
STRENGTH = ("preference_strength", "overall_preference")
"""Those of them that are below 0 where the first answer is better, and above where the second is."""
UNPAIRED_LABEL = (
    "label", "kto_tag", "desirable", "is_desirable", "thumb", "thumb_up", "thumbs_up", "feedback", "liked",
    "is_good", "good",
    "is_preferred", "preferred", "accepted", "helpful", "is_correct", "correct", "upvoted", "is_chosen", "approved",
)  # fmt: skip

# Chats and documents

MESSAGES = (
    "message",
    "conversation",
    "dialog",
    "dialogue",
    "chat",
    "turn",
    "content",
    "chat_message",
    "thread",
    "item",
    "exchange",
    "utterance",
)
ALTERNATING = ("message", "conversation", "dialog", "dialogue", "chat", "turn", "thread", "exchange", "utterance")
"""Columns whose lists of texts are turns of two people."""
TRANSCRIPT = (
    "conversation",
    "dialogue",
    "dialog",
    "chat",
    "transcript",
    "text",
    "content",
    "message",
    "prompt",
    "history",
)
TEXT = (
    "text", "content", "document", "doc", "body", "article", "story", "poem", "passage", "raw_content", "markdown",
    "page",
    "page_content", "chapter", "paragraph", "abstract", "code", "sentence", "lyric", "quote", "tweet", "transcript",
    "texte", "texto", "文本",
)  # fmt: skip

# Neither

IDENTIFIER = {
    "id",
    "idx",
    "index",
    "uuid",
    "guid",
    "hash",
    "sha",
    "md",
    "key",
    "uid",
    "pk",
    "no",
    "num",
    "number",
    "row",
    "nr",
    "unnamed",
}
"""Parts of a name that make it an identifier, unless the name is a known word of a meaning."""
METADATA = {
    "id", "idx", "index", "lang", "language", "source", "data_source", "dataset", "subset", "split", "date", "time",
    "timestamp",
    "created", "created_at", "updated_at", "create_time", "datetime", "year", "month", "url", "link", "author",
    "username", "user_name",
    "user_id", "license", "licence", "version", "model", "model_name", "meta", "metadata", "annotator", "worker",
    "phone",
    "filename", "file_name", "file", "path", "length", "token", "num_token", "count", "word_count", "upvote",
    "vote", "like", "retweet", "repo", "repo_name", "website", "domain", "status", "origin", "seed", "location",
    "attribution", "size",
    "user", "task", "customer", "client", "agent", "speaker", "role", "from", "sender", "to", "cc", "recipient",
    "text_id", "confidence",
}  # fmt: skip
"""Names that tell about a row and are never what it teaches, unless the recipe says so."""
MEDIA = {
    "image",
    "img",
    "picture",
    "photo",
    "audio",
    "video",
    "image_path",
    "image_file",
    "pixel_value",
    "speech",
    "wav",
    "image_base_64",
}
"""Names of columns with pictures and sounds."""
PROOF = {"quote", "start", "end"}
"""Columns that say where in a passage an answer stands: the passage is its proof then, and no part of the question."""
ORIGIN = PROOF | {"passage", "document", "location", "synthetic", "by", "split"}
"""All that rows made from documents say of where they come from."""
METADATA_ENDS = {
    "id", "url", "date", "time", "timestamp", "source", "subset", "split", "lang", "language", "dataset", "version",
    "license",
    "path", "hash", "count", "length", "at", "name",
}  # fmt: skip
"""Last parts of such names."""
LANGUAGES = {
    "en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "no", "fi", "pl", "cs", "ru", "uk", "tr", "ar", "he",
    "hi", "zh", "ja", "ko",
    "vi", "th", "el", "hu", "ro", "bg", "english", "german", "french", "spanish", "italian", "portuguese", "dutch",
    "russian",
    "chinese", "japanese", "korean", "arabic", "hindi", "turkish", "polish", "deutsch", "englisch", "français",
    "español",
}  # fmt: skip
"""Two columns of these names are a text and its translation; which is the answer, only the user knows."""
