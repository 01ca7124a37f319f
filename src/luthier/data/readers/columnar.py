"""Parquet and Arrow files to rows. These tables come with types: values become text here, by `str`, and JSON is read."""

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from luthier.data.readers.packing import HIGHEST_RATIO, TRUSTED
from luthier.data.readers.sources import LARGEST_DOCUMENT, Source
from luthier.data.readers.values import JSONFault, Number, Record, Unusable, Value, decode_only
from luthier.errors import UserError

ROWS_AT_ONCE = 1024
_FAULTS = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
"""What pyarrow raises for a file that is damaged (a length beyond all memory) or says what no Python value can be."""

Batches = Iterator[pa.RecordBatch]


def read_columnar(source: Source) -> Iterator[Record]:
    """A row per record, placed by its number from 1: `x.parquet:row 12`."""
    number = 0
    with _opened(source) as (schema, batches):
        names, classes = list(schema.names), _class_names(schema)
        readers = [_reader(field.type, classes.get(field.name)) for field in schema]
        if classes:
            shown = " and ".join(f'"{name}"' for name in classes)
            source.remark(f"{source.name} names the classes in {shown}, so the names are read and not their numbers")
        twice = _named_twice(names, source)
        for batch in batches:
            columns = [_column(column) for column in batch.columns]
            for index in range(batch.num_rows):
                number += 1
                location = f"{source.name}:row {number}"
                values: dict[str, Value] = {
                    name: _read(column[index], read, location, name)
                    for name, column, read in zip(names, columns, readers, strict=True)
                }
                yield Record(location, values | twice)


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[tuple[pa.Schema, Batches]]:
    """The schema and the rows by the thousand; what pyarrow says of the file becomes a message."""
    with source.open() as stream:
        # The directory of such a file stands at its end, so a packed one has to be unpacked as a whole.
        file = _in_memory(stream, source) if source.codec or source.member else stream
        if not file.seek(0, io.SEEK_END):
            raise source.empty()
        size = file.tell()
        file.seek(0)
        try:
            if source.kind == "arrow":
                yield _arrow(file)
            else:
                table = pq.ParquetFile(file)
                _expect_measure(table.metadata, size, source)
                yield table.schema_arrow, table.iter_batches(batch_size=ROWS_AT_ONCE)
        except _FAULTS as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            what = "Arrow" if source.kind == "arrow" else "Parquet"
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise UserError(
                f"not a sound {what} file: {reason}. Write or download it again.", where=source.name
            ) from None


def _arrow(file: BinaryIO) -> tuple[pa.Schema, Batches]:
    """An Arrow file, which begins with its name, or a stream, as Hugging Face's datasets write it."""
    start = file.read(6)
    file.seek(0)
    if start == b"ARROW1":
        table = pa.ipc.open_file(file)
        batches = (table.get_batch(number) for number in range(table.num_record_batches))
        return table.schema, _by_the_thousand(batches)
    stream = pa.ipc.open_stream(file)
    return stream.schema, _by_the_thousand(stream)


def _by_the_thousand(batches: Batches) -> Batches:
    for batch in batches:
        batch.validate(full=True)  # else a damaged length reads what is not the file's
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            yield batch.slice(start, ROWS_AT_ONCE)


def _in_memory(stream: BinaryIO, source: Source) -> BinaryIO:
    content = stream.read(LARGEST_DOCUMENT + 1)
    if len(content) > LARGEST_DOCUMENT:
        raise UserError(
            f"more than {LARGEST_DOCUMENT >> 30} GiB when unpacked, and it has to be unpacked as a whole. Unpack it first.",
            where=source.name,
        )
    return io.BytesIO(content)


def _expect_measure(metadata: pq.FileMetaData, size: int, source: Source) -> None:
    """Refuses a file whose rows take absurdly more than the file does, before any is unpacked."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    largest = max((group.total_byte_size for group in groups), default=0)
    if largest > max(TRUSTED, HIGHEST_RATIO * size):
        raise UserError(
            f"its {size:,} bytes say that they hold {largest:,}, which no data do. Write it again, or take it from its source.",
            where=source.name,
        )


def _named_twice(names: list[str], source: Source) -> dict[str, Value]:
    """The columns whose name another one has too, which nothing can use."""
    found: dict[str, Value] = {}
    for name in dict.fromkeys(each for each in names if names.count(each) > 1):
        positions = " and ".join(str(number) for number, other in enumerate(names, start=1) if other == name)
        reason = f'the columns {positions} are both named "{name}"; rename one of them.'
        found[name] = Unusable(reason, location=source.name)
    return found


def _read(item: Any, read: Callable[[Any], Value], location: str, column: str) -> Value:
    """The value in a row's column; a UserError where it is said to be JSON and is not."""
    try:
        return read(item)
    except JSONFault as fault:
        message = f'the column "{column}" is said to hold JSON, and this is none: {fault}. Write the file again.'
        raise UserError(message, where=location) from None


def _column(column: pa.Array) -> list[Any]:
    """A column's values as Python has them."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        # Python's datetime ends at microseconds, and refuses what does not fit.
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    values: list[Any] = column.to_pylist()
    return values


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The columns whose numbers stand for names, and these names, as Hugging Face datasets write both into a file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        inner = {name: feature.get("feature") or feature for name, feature in features.items() if name in schema.names}
        classes = {name: feature["names"] for name, feature in inner.items() if feature.get("_type") == "ClassLabel"}
        return {name: names for name, names in classes.items() if isinstance(names, list)}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def _reader(kind: pa.DataType, classes: Sequence[str] | None = None) -> Callable[[Any], Value]:
    """From a Python value of this Arrow type to a row's value; JSON, as Hugging Face datasets write it, at any depth."""
    types = pa.types
    if classes is not None and types.is_integer(kind):
        return lambda item: str(classes[item]) if item is not None and 0 <= item < len(classes) else None
    if classes is not None and (types.is_list(kind) or types.is_large_list(kind)):
        named = _reader(kind.value_type, classes)
        return lambda item: None if item is None else [named(part) for part in item]
    if getattr(kind, "extension_name", None) == "arrow.json":
        return _json
    if types.is_float16(kind) or types.is_float32(kind):
        # By way of the shortest text, else 0.1 in single precision would read 0.10000000149011612.
        return lambda item: _value(item if item is None else float(str(kind.to_pandas_dtype()(item))))
    if types.is_struct(kind):
        fields = {field.name: _reader(field.type) for field in kind}
        return lambda item: None if item is None else {name: read(item[name]) for name, read in fields.items()}
    if types.is_map(kind):
        key, value = _reader(kind.key_type), _reader(kind.item_type)
        return lambda item: None if item is None else [[key(one), value(other)] for one, other in item]
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _reader(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or types.is_list_view(kind):
        each = _reader(kind.value_type)
        return lambda item: None if item is None else [each(part) for part in item]
    return _value


def _json(item: str | None) -> Value:
    """The value that the JSON means; what looks like no JSON, such as 007, was a text that was written without its quotes."""
    if item is None:
        return None
    try:
        return decode_only(item)
    except JSONFault:
        if item.lstrip().startswith(("{", "[", '"')):
            raise
        return item


def _value(item: object) -> Value:
    """A Python value from Arrow as a row's value: missing ones (null, NaN) None, numbers and dates their text."""
    if item is None or isinstance(item, bool | str):
        return item
    if isinstance(item, float):
        return None if math.isnan(item) else Number(item) if math.isfinite(item) else str(item)
    if isinstance(item, int | Decimal):
        return Number(item)
    if isinstance(item, list | tuple):
        return [_value(part) for part in item]
    if isinstance(item, dict):
        return {str(name): _value(part) for name, part in item.items()}
    if isinstance(item, bytes):
        try:
            return item.decode("utf-8")
        except UnicodeDecodeError:
            return item
    return str(item)  # dates, times, durations, UUIDs
