"""Text against text: exact match, normalised match, and how much the two share (token F1, ROUGE-L, chrF)."""

from collections import Counter
from collections.abc import Sized

from sacrebleu.metrics.chrf import CHRF

from luthier.data import similarity
from luthier.data.words import tokens
from luthier.evaluate.metrics import normalization

_CHRF = CHRF()


def exact_match(answer: str, reference: str) -> float:
    """1 if the two are the same text after Unicode NFC and without surrounding blanks."""
    return float(normalization.text(answer) == normalization.text(reference))


def normalised_match(answer: str, reference: str) -> float:
    """1 if the two are the same words, whatever their case, punctuation, articles and spelling of numbers and dates.

    Texts of nothing but punctuation are compared as they are, here and in the metrics below.
    """
    predicted, wanted = normalization.canonical(answer), normalization.canonical(reference)
    return (
        float(predicted == wanted)
        if predicted and wanted
        else _score_without_words(predicted, wanted, answer, reference)
    )


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the bag of words, as SQuAD counts it (Rajpurkar et al. 2016, 6.1).

    Case, punctuation and English articles do not count; numbers keep their sign and point (`normalization.words`). Two empty
    texts agree; an empty one and another share nothing.
    """
    predicted, wanted = Counter(normalization.words(answer)), Counter(normalization.words(reference))
    if not predicted or not wanted:
        return _score_without_words(predicted, wanted, answer, reference)
    return 2 * (predicted & wanted).total() / (predicted.total() + wanted.total())


def rouge_l(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the longest common subsequence of words (Lin 2004, section 3).

    Words are runs of letters, marks and digits without case, none left out and none stemmed; numbers keep their sign and
    point, and signs that mean something count as words.
    """
    predicted, wanted = (tokens(text.replace("_", " ")) for text in (answer, reference))
    if not predicted or not wanted:
        return _score_without_words(predicted, wanted, answer, reference)
    return similarity.rouge_l(predicted, wanted)


def _score_without_words(predicted: Sized, wanted: Sized, answer: str, reference: str) -> float:
    """The score where a text has no words: that of the same text if neither has any, else 0."""
    return 0.0 if predicted or wanted else exact_match(answer, reference)


def chrf(answer: str, reference: str) -> float:
    """chrF2 / 100: F-score over character 1- to 6-grams, recall weighted twice (Popović 2015), by sacrebleu.

    Over characters of Unicode's composed form; blanks do not count.
    """
    predicted, wanted = normalization.text(answer), normalization.text(reference)
    if not predicted or not wanted:
        return float(predicted == wanted)
    score: float = _CHRF.sentence_score(predicted, [wanted]).score
    return min(1.0, max(0.0, score / 100))


def chrf_signature() -> str:
    """sacrebleu's own words for what exactly its chrF is, such as `chrF2|nrefs:1|…|version:2.6.0`."""
    scorer = CHRF()
    scorer.sentence_score("a", ["a"])
    return f"chrF2|{scorer.get_signature().format()}"
