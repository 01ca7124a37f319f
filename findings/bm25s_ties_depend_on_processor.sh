#!/usr/bin/env bash
# bm25s 0.3.16 with NumPy 2.4.6: which of equally good texts `retrieve` gives depends on the processor.
#
# The best k are picked with `numpy.argpartition`, which says nothing about the order of equal scores and partitions in another
# way for each set of instructions that NumPy finds. Of 40 equal texts and another one, asked for 5 (documents by their number):
#
#     with AVX2            39, 35, 38, 37, 36
#     without (disabled)   20, 13, 14, 12, 19
#
# The scores are the same. With examples chosen in this way a prompt, and what a model answers to it, differs from machine to
# machine; so Luthier takes the scores from bm25s and sorts them itself, stably (evaluate/prompts/retrieval.py).
set -euo pipefail
grep -qw avx2 /proc/cpuinfo || { echo "this needs a processor with AVX2"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install -qqq --target "$folder" bm25s==0.3.16 numpy==2.4.6 || exit 3
cat >"$folder/ask.py" <<'PYTHON'
import bm25s

texts = ["the same text"] * 40 + ["other words"]
index = bm25s.BM25()
index.index(bm25s.tokenize(texts, stopwords=None, show_progress=False), show_progress=False)
question = bm25s.tokenize(["same text"], stopwords=None, show_progress=False, return_ids=False)
documents, scores = index.retrieve(question, k=5, show_progress=False, backend_selection="numpy")
assert len(set(scores[0].tolist())) == 1, "the five are equally good"
print(documents[0].tolist())
PYTHON
with=$(PYTHONPATH=$folder python3 "$folder/ask.py")
without=$(NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL AVX512_SPR" PYTHONPATH=$folder python3 "$folder/ask.py" 2>/dev/null)
echo "with AVX2            $with"
echo "without (disabled)   $without"
[ "$with" = "[39, 35, 38, 37, 36]" ] && [ "$without" = "[20, 13, 14, 12, 19]" ]
echo "as recorded"
