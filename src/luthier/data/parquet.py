"""Parquet files to rows. The only tables that come with types: these become text here, by `str`."""

import io
import math
from collections.abc import Iterator
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq

from luthier.data.sources import Source
from luthier.data.values import Number, Row, Value
from luthier.errors import Mistake

ROWS_AT_ONCE = 1024


def read_parquet(source: Source) -> Iterator[Row]:
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
            for batch in table.iter_batches(batch_size=ROWS_AT_ONCE):
                columns = {name: _column(batch.column(name)) for name in batch.schema.names}
                for index in range(batch.num_rows):
                    number += 1
                    yield Row(f"{source.name}:row {number}", {name: column[index] for name, column in columns.items()})
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = str(error).splitlines()[0].rstrip(".")
            raise Mistake(
                f"not a sound Parquet file: {reason}. Write or download it again.", where=source.name
            ) from None


def _expect_distinct(names: list[str], source: Source) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Mistake(f'two columns are named "{twice}"; rename one of them.', where=source.name)


def _column(column: pa.Array) -> list[Value]:
    """A column's values as rows hold them."""
    if pa.types.is_float16(column.type) or pa.types.is_float32(column.type):
        # By way of the shortest text, else 0.1 in single precision would read 0.10000000149011612.
        column = column.cast(pa.string()).cast(pa.float64())
    elif pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        # Python's datetime ends at microseconds, and refuses what does not fit.
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return [_value(item) for item in column.to_pylist()]


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
