"""Parquet files to rows. The only tables that come with types: these become text here, by `str`, and JSON is read."""

import io
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from luthier.data.readers.sources import Source
from luthier.data.readers.values import JSONFault, Number, Record, Value, decode_only
from luthier.errors import UserError

ROWS_AT_ONCE = 1024


def columns(source: Source) -> list[str]:
    """The names in the schema."""
    with source.open(whole=False) as stream:
        file = io.BytesIO(stream.read()) if source.codec else stream
        try:
            return list(pq.ParquetFile(file).schema_arrow.names)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError):
            return []  # reading the rows will tell


def read_parquet(source: Source) -> Iterator[Record]:
    """A row per record, placed by its number from 1: `x.parquet:row 12`."""
    with source.open() as stream:
        # The directory of a Parquet file stands at its end, so a packed one has to be unpacked as a whole.
        file = io.BytesIO(stream.read()) if source.codec else stream
        if not file.seek(0, io.SEEK_END):
            raise source.empty()
        number = 0
        try:
            table = pq.ParquetFile(file)
            _expect_distinct(table.schema_arrow.names, source)
            readers = {field.name: _reader(field.type) for field in table.schema_arrow}
            for batch in table.iter_batches(batch_size=ROWS_AT_ONCE):
                columns = {name: _column(batch.column(name)) for name in batch.schema.names}
                for index in range(batch.num_rows):
                    number += 1
                    location = f"{source.name}:row {number}"
                    yield Record(
                        location,
                        {name: _read(column[index], readers[name], location, name) for name, column in columns.items()},
                    )
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(
                f"not a sound Parquet file: {reason}. Write or download it again.", where=source.name
            ) from None


def _expect_distinct(names: list[str], source: Source) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f'two columns are named "{twice}"; rename one of them.', where=source.name)


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


def _reader(kind: pa.DataType) -> Callable[[Any], Value]:
    """From a Python value of this Arrow type to a row's value; JSON, as Hugging Face datasets write it, at any depth."""
    types = pa.types
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
