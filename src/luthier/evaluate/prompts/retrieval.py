"""Finds the texts most like a question, by BM25 over their words: no model, no network, the same answer every time."""

from collections.abc import Sequence

import bm25s
import numpy as np

from luthier.data.words import words


class Index:
    """Texts to be searched by words (BM25 as Lucene counts it, without stop words, so that any language will do).

    Of texts that are equally alike the first comes first, on every processor: bm25s gives the scores, its own choice of the
    best depends on the instructions that NumPy finds for a partial sort.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._size = len(texts)
        tokens = [words(text) for text in texts]
        self._words = {word for text in tokens for word in text}
        self._bm25 = bm25s.BM25()
        if self._words:
            self._bm25.index(tokens, show_progress=False)

    def most_like(self, text: str, count: int) -> list[int]:
        """Numbers of the texts most like this one, the best first; where nothing is alike, the first ones."""
        known = [word for word in words(text) if word in self._words]
        scores = self._bm25.get_scores(known) if known else np.zeros(self._size)
        ranked: list[int] = np.argsort(-scores, kind="stable")[:count].tolist()
        return ranked
