#!/usr/bin/env bash
# trafilatura 2.3.1: of a page with little text all structure is lost, and the menu comes along.
#
# When what it finds has fewer characters than MIN_EXTRACTED_SIZE (250), `bare_extraction` gives the page's whole text as one
# paragraph instead. A page with a menu, a heading, a question as heading and a table becomes
#
#     by default                        <p> alone, which begins with "Home About"
#     with MIN_EXTRACTED_SIZE=1         <head>, <p>, <head>, <p>, <table>
#     with it, fast=True, no <main>     the headings are gone
#
# A page of questions and answers is short, and its headings are the questions; so Luthier sets both limits to 1, and takes
# neither `fast` nor `favor_recall` (data/documents/extract.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install -qqq --target "$folder" trafilatura==2.3.1 lxml-html-clean==0.4.6 || exit 3
cat >"$folder/ask.py" <<'PYTHON'
import trafilatura
from trafilatura.settings import use_config

BODY = "<h1>Kiln</h1><p>It is hot.</p><h2>When does it open?</h2><p>At 7.</p><table><tr><td>Glaze</td><td>9</td></tr></table>"
PAGE = f"<html><body><nav><a href='/'>Home</a> <a href='/a'>About</a></nav><main>{BODY}</main></body></html>"


def tags(page: str, **options: object) -> str:
    body = trafilatura.bare_extraction(page, include_comments=False, **options).body
    menu = " (with the menu)" if "Home" in "".join(body.itertext()) else ""
    return " ".join(str(element.tag) for element in body) + menu


sizes = use_config()
for limit in ("MIN_EXTRACTED_SIZE", "MIN_OUTPUT_SIZE"):
    sizes.set("DEFAULT", limit, "1")
print(tags(PAGE))
print(tags(PAGE, config=sizes))
print(tags(f"<html><body>{BODY}</body></html>", config=sizes, fast=True))
PYTHON
seen=$(PYTHONPATH=$folder python3 "$folder/ask.py")
echo "$seen"
mapfile -t lines <<<"$seen"
[ "${lines[0]}" = "p (with the menu)" ] && [ "${lines[1]}" = "head p head p table" ]
[[ "${lines[2]}" != *head* ]]
echo "as recorded"
