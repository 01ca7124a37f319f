"""Corpora on the terminal: their first documents, and a tokenizer that was made of one."""

import json
import textwrap
from collections.abc import Sequence

from rich.table import Table

from luthier.cli.screens.terminal import console, count, print_whole
from luthier.data.corpora import Preview
from luthier.pipeline.vocabulary import NewTokenizer

SHOWN = 400
"""Characters of a document."""


def show_tokenizer(found: NewTokenizer) -> None:
    """Its size, and how many bytes of text a token stands for, beside other tokenizers."""
    out = console()
    out.print(
        f"A tokenizer of {found.vocabulary:,} entries, made of {found.characters:,} characters; "
        "texts come back from it bit for bit.\n"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tokenizer")
    for title in ("entries", "bytes a token"):
        table.add_column(title, justify="right")
    for each in found.compressions:
        table.add_row(each.name, f"{each.vocabulary:,}", f"{each.bytes_per_token:.2f}")
    print_whole(out, table)
    out.print(f"on the first {found.compressions[0].bytes:,} bytes\n\nTokenizer  {found.folder}", markup=False)


def show_first(found: Sequence[Preview], *, as_json: bool) -> None:
    """The first documents: where each stands, how long it is, how it begins."""
    if as_json:
        print(json.dumps([each.to_json() for each in found], ensure_ascii=False, indent=2))
        return
    out = console()
    for each in found:
        length = "more than is shown" if each.characters is None else count(each.characters, "character")
        out.print(f"{each.location}, {each.source}, {length}", markup=False, style="bold")
        cut = len(each.text) > SHOWN or each.characters is None
        out.print(textwrap.indent(each.text[:SHOWN].rstrip() + ("…" if cut else ""), "  "), markup=False)
        out.print()
