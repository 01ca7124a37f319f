"""Corpora: texts to pretrain on, read as a stream in constant memory, and their tokens on the disk.

reading        a file or folder → passages of its documents, each with its source
token_files    passages → flat files of tokens, written in steps that a crash cannot part
token_rows     files of tokens → rows by number, sources weighted: a pure function, so nothing is replayed
"""

from luthier.data.corpora.reading import Corpus, Passage, Preview, find, preview
from luthier.data.corpora.token_files import Account, Plan, tokenize
from luthier.data.corpora.token_rows import CorpusRows

__all__ = ["Account", "Corpus", "CorpusRows", "Passage", "Plan", "Preview", "find", "preview", "tokenize"]
