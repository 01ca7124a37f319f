"""Finds the texts most like a question, by BM25 over their words: no model, no network, the same answer every time."""

from collections.abc import Sequence

import bm25s

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
WORD = rf"[{UNSPACED}]|[^\W{UNSPACED}]+"  # scripts written without blanks (Chinese, Thai, …) count each character as a word


class Index:
    """Texts to be searched by words (BM25 as Lucene counts it, without stop words, so that any language will do)."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._size = len(texts)
        tokens = _words(texts)
        self._words = {word for text in tokens for word in text}
        self._bm25 = bm25s.BM25()
        if self._words:
            self._bm25.index(tokens, show_progress=False)

    def most_like(self, text: str, count: int) -> list[int]:
        """Numbers of the texts most like this one, the best first; where nothing is alike, the first ones."""
        count = min(count, self._size)
        query = _words([text])
        if not self._words.intersection(query[0]):
            return list(range(count))
        found, _ = self._bm25.retrieve(query, k=count, show_progress=False, backend_selection="numpy")
        numbers: list[int] = found[0].tolist()
        return numbers


def _words(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text, in lower case; single characters too, since a digit may tell two texts apart."""
    words: list[list[str]] = bm25s.tokenize(
        list(texts), stopwords=None, token_pattern=WORD, return_ids=False, show_progress=False
    )
    return words
