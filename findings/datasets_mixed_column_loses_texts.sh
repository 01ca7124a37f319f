#!/usr/bin/env bash
# datasets 5.2.0 with PyArrow 26.0.1: a column that holds texts and numbers gives texts that look like numbers back as numbers.
#
# `load_dataset("json", …)` makes a column of mixed values `Json`. A text that can be read as JSON, by a reader that is not
# strict, is taken for JSON. Seen, for a column of seven answers, five of them texts:
#
#     written      "007"  7  "1.50"  "yes"  "true"  "null"  null
#     given back       7  7     1.5  "yes"    True    None  None
#
# One number in another row is enough: without it all five come back as they were. `to_parquet` writes such a column, also as
# the elements of lists, in the extension type arrow.json: readers that take its texts as they are find "yes" with quotes
# around it, and 007 and 1.50 without, the first of which is no JSON. So Luthier reads arrow.json by its type, and keeps as
# text what is no JSON (data/readers/columnar.py); of "null" nobody can tell any more what it was.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install -qqq --target "$folder" datasets==5.2.0 pyarrow==26.0.1 || exit 3
HF_HOME=$folder/hub HF_HUB_OFFLINE=1 PYTHONPATH=$folder FOLDER=$folder python3 -W ignore - <<'PYTHON'
import json
import os
from pathlib import Path

import datasets
import pyarrow.parquet as pq

datasets.disable_progress_bars()
folder = Path(os.environ["FOLDER"])


def load(name, rows):
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(folder / "cache"))


def written(data, name):
    data.to_parquet(str(folder / f"{name}.parquet"))
    return pq.read_table(folder / f"{name}.parquet")


texts = ["007", "1.50", "yes", "true", "null"]
assert load("texts", [{"answer": text} for text in texts])["answer"][:] == texts

mixed = ["007", 7, "1.50", "yes", "true", "null", None]
data = load("mixed", [{"answer": value} for value in mixed])
found = data["answer"][:]
print("given back", found)
assert list(map(repr, found)) == ["7", "7", "1.5", "'yes'", "True", "None", "None"]

table = written(data, "mixed")
print("in Parquet", table.schema.field("answer").type, table["answer"].to_pylist())
assert table.schema.field("answer").type.extension_name == "arrow.json"
assert table["answer"].to_pylist() == ["007", "7", "1.50", '"yes"', "true", "null", None]

table = written(load("lists", [{"messages": [{"role": "user", "content": "q"}, "x"]}]), "lists")
print("in a list ", table["messages"].to_pylist())
assert table["messages"].to_pylist() == [['{"role":"user","content":"q"}', '"x"']]
print("as recorded")
PYTHON
