#!/usr/bin/env bash
# bm25s 0.3.16 with NumPy 2.4.6: a corpus of sums of one digit cannot be indexed.
#
# `bm25s.tokenize` takes words of two letters or digits and more (`\b\w\w+\b`), so it finds none in "1 + 2 = 3", without a
# warning. `index` then divides by the mean length 0 and takes the largest of no numbers. Seen:
#
#     tokens of 2 texts    [], []
#     index                ValueError: max() arg is an empty sequence
#
# Chinese runs without blanks into the same rule from the other side: a whole sentence is one word, so no two are alike. So
# Luthier cuts texts into words itself (data/words.py), and asks bm25s only about words that it has seen (evaluate/prompts/retrieval.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install -qqq --target "$folder" bm25s==0.3.16 numpy==2.4.6 || exit 3
PYTHONPATH=$folder python3 -W ignore - <<'PYTHON'
import bm25s

texts = ["1 + 2 = 3", "4 + 5 = 9"]
tokens = bm25s.tokenize(texts, stopwords=None, show_progress=False)
print("tokens of 2 texts   ", *map(list, tokens.ids), sep=" ")
assert [list(each) for each in tokens.ids] == [[], []]
try:
    bm25s.BM25().index(tokens, show_progress=False)
except ValueError as error:
    print("index                ValueError:", error)
    assert str(error) == "max() arg is an empty sequence"
else:
    raise SystemExit("it was indexed")

chinese = bm25s.tokenize(["密码在哪里改", "哪里改密码"], stopwords=None, show_progress=False, return_ids=False)
print("words of Chinese    ", *chinese)
assert chinese == [["密码在哪里改"], ["哪里改密码"]]
print("as recorded")
PYTHON
