"""Parquet: rows as the columns that their shape declares, so that `datasets` reads the same features as from JSONL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from cai_cli.records import features

if TYPE_CHECKING:
    import pyarrow as pa


def as_parquet(lines: bytes, shape: type[Any], compression: str) -> bytes:
    """JSON lines as one Parquet file; the same lines give the same bytes under one version of pyarrow.

    Takes: `compression`: none | gzip | zstd, of the columns inside the file
    """
    import pyarrow as pa
    from pyarrow import parquet

    rows = [orjson.loads(line) for line in lines.split(b"\n") if line]
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, schema=_schema(features(shape))), sink, compression=compression)
    return bytes(sink.getvalue())


def _schema(columns: Sequence[Mapping[str, Any]]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(column["name"], _type(column)) for column in columns])


def _type(column: Mapping[str, Any]) -> pa.DataType:
    import pyarrow as pa

    if "list" not in column:
        return _scalar(column["dtype"])
    item = column["list"]
    if isinstance(item, str):
        return pa.list_(_scalar(item))
    return pa.list_(pa.struct([pa.field(one["name"], _type(one)) for one in item]))


def _scalar(dtype: str) -> pa.DataType:
    import pyarrow as pa

    return {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}[dtype]
