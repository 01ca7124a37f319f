"""YAML to rows: a list of objects, an object with one such list, or an object per document; each with its line.

Scalars stay as they are written: `yes`, `1.50`, `007` and `2024-03-05` are texts, where YAML would make something of them.
"""

from collections.abc import Iterator

import yaml

from luthier.data.readers.json_files import EXAMPLE
from luthier.data.readers.sources import Source
from luthier.data.readers.values import JSONFault, Number, Record, Value, decode_only, kind, shown
from luthier.errors import UserError

MOST_VALUES = 10_000_000
DEEPEST = 100
NOTHING = ("", "~", "null", "Null", "NULL")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, in C


def read_yaml(source: Source) -> Iterator[Record]:
    """A row per object of the list; raises a UserError with the line where there is none."""
    try:
        documents = [node for node in yaml.compose_all(source.text(), _LOADER) if node is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        location = f"{source.name}:{mark.line + 1}" if mark else source.name
        column = f" at column {mark.column + 1}" if mark else ""
        raise UserError(
            f"not valid YAML{column}: {error.problem}. A text with a colon or a # in it needs quotes around it.",
            where=location,
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"not valid YAML: {str(error).splitlines()[0]}.", where=source.name) from None
    except RecursionError:
        raise UserError("not valid YAML: lists or objects nested too deeply.", where=source.name) from None
    if not documents:
        raise source.empty()
    reader = _Reader(source)
    nodes = documents if len(documents) > 1 else reader.rows(documents[0])
    for node in nodes:
        location = f"{source.name}:{node.start_mark.line + 1}"
        value = reader.value(node)
        if isinstance(value, str):
            value = {"text": value}
        if not isinstance(value, dict):
            raise UserError(f"found {kind(value)}, expected an object such as {EXAMPLE}.", where=location)
        yield Record(location, value)


class _Reader:
    """From the nodes of a file to values, with a limit to what aliases (`*name`) may multiply."""

    def __init__(self, source: Source) -> None:
        self.source, self.read = source, 0

    def rows(self, node: yaml.Node) -> list[yaml.Node]:
        """The nodes of the list, or of the only list in the object."""
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        if not isinstance(node, yaml.MappingNode):
            raise self._refusal(node, "found a text, expected a list of objects. A text file is named .txt.")
        lists = {key.value: held for key, held in node.value if isinstance(held, yaml.SequenceNode)}
        wanted = self.source.part
        if wanted in lists:
            return list(lists[wanted].value)
        if wanted is None and len(lists) == 1:
            return list(next(iter(lists.values())).value)
        if (
            wanted is None
            and not lists
            and node.value
            and all(isinstance(held, yaml.MappingNode) for _, held in node.value)
        ):
            return [held for _, held in node.value]
        found = (
            f"the lists {shown(list(lists))}"
            if lists
            else f"no list (keys: {shown([key.value for key, _ in node.value])})"
        )
        way = f" Name the list that holds the rows: {self.source.path}#{next(iter(lists))}." if lists else ""
        raise self._refusal(
            node, f"found an object with {found}; expected a list of objects, or an object with one.{way}"
        )

    def value(self, node: yaml.Node, depth: int = 0) -> Value:
        self.read += 1
        if self.read > MOST_VALUES or depth > DEEPEST:
            raise self._refusal(node, "aliases (*name) or nesting make too many values of this. Write it out plainly.")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Value] = {}
            for key, held in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                    raise self._refusal(
                        key, "a key that is no text, or <<, which takes another object in. Write it out."
                    )
                if key.value in found:
                    raise self._refusal(key, f'the key "{key.value}" stands twice in one object. Remove one.')
                found[key.value] = self.value(held, depth + 1)
            return found
        return _scalar(node)

    def _refusal(self, node: yaml.Node, message: str) -> UserError:
        return UserError(message, where=f"{self.source.name}:{node.start_mark.line + 1}")


def _scalar(node: yaml.Node) -> Value:
    """A scalar as it is written; of what stands without quotes, nothing is None, and JSON's numbers are numbers."""
    text = str(node.value)
    if node.style:  # quoted, or a block
        return text
    if text in NOTHING:
        return None
    try:
        value = decode_only(text)
    except JSONFault:
        return text
    return value if isinstance(value, Number | bool) else text
