"""The blind sheet as one web page that works offline: it loads and sends nothing, and saves marks as a CSV."""

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from luthier.review.sheet import Sheet
from luthier.runs.durable import write_atomic


def write(sheet: Sheet, path: Path, *, items: int) -> None:
    """Write the first `items` questions as a page to mark them on."""
    write_atomic(path, html(sheet, items=items).encode("utf-8", "replace"))


def html(sheet: Sheet, *, items: int) -> str:
    """The page. Its security policy allows one script, by its hash, so that no answer can run as code."""
    script = files("luthier.review").joinpath("templates/review.js").read_text(encoding="utf-8")
    environment = Environment(loader=PackageLoader("luthier.review"), autoescape=True, undefined=StrictUndefined)
    content = {
        "sheet": sheet.id,
        "entries": [
            {
                "number": entry.number,
                "question": entry.question,
                "a": entry.answer_a,
                "b": entry.answer_b,
                "reference": entry.reference,
            }
            for entry in sheet.entries[:items]
        ],
    }
    return environment.get_template("review.html.jinja").render(
        sheet=sheet.id,
        count=len(sheet.entries[:items]),
        content=_inert(content),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _inert(content: object) -> Markup:
    """JSON that cannot end the element that holds it, whatever a model wrote."""
    text = json.dumps(content, ensure_ascii=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
