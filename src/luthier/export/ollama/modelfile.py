"""The Modelfile: what Ollama makes a model from. Written so that its parser gives back every byte, and read as it reads it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier.errors import UserError

NAME = "Modelfile"
QUOTES = '"""'
INSTRUCTION = re.compile(r"(?P<name>[A-Za-z]+)[ \t]+(?P<value>.*)", re.DOTALL)
PARAMETER = re.compile(r"(?P<name>\w+)[ \t]+(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class Modelfile:
    """Its instructions."""

    file: str
    """The GGUF file beside it."""
    template: str
    parameters: tuple[tuple[str, str], ...] = ()
    system: str | None = None

    def render(self, comment: str) -> str:
        """The text; refuses a system message that the format cannot hold."""
        lines = [f"# {comment}", f"FROM ./{self.file}", f"TEMPLATE {QUOTES}{self.template}{QUOTES}"]
        lines += [f"PARAMETER {name} {_value(name, value)}" for name, value in self.parameters]
        if self.system:
            lines.append(f"SYSTEM {QUOTES}{_expect_kept(self.system)}{QUOTES}")
        return "\n".join(lines) + "\n"


def _value(name: str, value: str) -> str:
    return f'"{_expect_kept(value)}"' if name == "stop" else value


def _expect_kept(text: str) -> str:
    """A text that comes through the parser as it is: it knows no escapes, and drops what cannot be printed."""
    lost = [sign for sign in text if not _is_kept(sign)]
    if QUOTES in text or text.endswith('"') or text.startswith('"') or lost:
        what = f"the character U+{ord(lost[0]):04X}" if lost else "quotes at its ends or three in a row"
        raise UserError(
            f"a Modelfile cannot hold {what}, as the run's system message or a stop has it ({text[:60]!r}). Take --to gguf, "
            "and send the system message with each conversation.",
            where="data.system",
        )
    return text


def _is_kept(sign: str) -> bool:
    """As Go's strconv.IsPrint, and blanks."""
    return sign.isprintable() or sign in "\n\t"


def read(path: Path) -> Modelfile:
    """The instructions of a file; what Ollama would not read as such is refused."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"there is no {NAME} in this folder, so it is no export for Ollama.", where=str(path)) from None
    except UnicodeDecodeError:
        raise UserError("is no text in UTF-8.", where=str(path)) from None
    found: dict[str, str] = {}
    parameters = []
    for name, value in _instructions(text, path):
        if name == "parameter":
            match = PARAMETER.fullmatch(value)
            if not match:
                raise UserError(f"PARAMETER has no value: {value!r}.", where=str(path))
            parameters.append((match["name"], _unquoted(match["value"])))
        else:
            found[name] = _unquoted(value)
    for name in ("from", "template"):
        if name not in found:
            raise UserError(f"it has no line {name.upper()}.", where=str(path))
    return Modelfile(found["from"].removeprefix("./"), found["template"], tuple(parameters), found.get("system"))


def _instructions(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """Names in small letters, and values with their quotes."""
    lines: Sequence[str] = text.split("\n")
    at = 0
    while at < len(lines):
        line, begin = lines[at], at + 1
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = INSTRUCTION.fullmatch(line.lstrip())
        if not found:
            raise UserError(f"line {begin} is no instruction: {line[:60]!r}.", where=str(path))
        value = found["value"]
        plain = value.partition(" ")[2] if found["name"].lower() == "parameter" else value
        while _is_open(plain):
            if at == len(lines):
                raise UserError(f"the quotes that line {begin} opens do not end.", where=str(path))
            value, plain = f"{value}\n{lines[at]}", f"{plain}\n{lines[at]}"
            at += 1
        yield found["name"].lower(), "".join(sign for sign in value if _is_kept(sign))


def _is_open(value: str) -> bool:
    """Whether quotes begin and do not end."""
    quotes = QUOTES if value.startswith(QUOTES) else '"' if value.startswith('"') else ""
    return bool(quotes) and (len(value) < 2 * len(quotes) or not value.rstrip().endswith(quotes))


def _unquoted(value: str) -> str:
    value = value.strip()
    for quotes in (QUOTES, '"'):
        if value.startswith(quotes):
            return value[len(quotes) : -len(quotes)]
    return value
