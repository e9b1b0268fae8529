"""Formats of input: whatever is in a file, each row comes out once, as an object or as a reject with its file:line.

Lines are bytes cut at \\n only: text may hold U+2028 and other characters that str.splitlines takes for line ends.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import orjson

from cai_cli.errors import Exit, Fix, Reject
from cai_cli.records import Rejected

LINE_LIMIT = 8_000_000  # bytes
START = 2_000  # characters of a row that its reject keeps
DEPTH_LIMIT = 1024  # orjson's
CHUNK = 1 << 16  # bytes
BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r\n"


class Line(NamedTuple):
    """A row of the input, before anything is asked of its columns. No dataclass, which takes twice the time of every line."""

    where: str  # file:line
    row: dict[str, Any]
    raw: bytes = b""  # its beginning, at least, as it stands in the file; empty where the file holds no text

    def rejected(self, why: Reject, id: str = "", prompt_id: str = "") -> Rejected:
        raw = self.raw or json.dumps(self.row, ensure_ascii=False, default=str, skipkeys=True).encode("utf-8", "backslashreplace")
        return _rejected(why, self.where, raw, id, prompt_id)


Rows = Iterator[Line | Rejected]
Reader = Callable[[io.BufferedReader, str], Rows]


def _rejected(why: Reject, where: str, raw: bytes, id: str = "", prompt_id: str = "") -> Rejected:
    start = raw[: 4 * START].decode("utf-8", "backslashreplace")[:START]
    return Rejected(id=id, prompt_id=prompt_id, stage="input", reason=why.reason, detail=why.detail, where=where, row=start)


def damaged(name: str) -> Fix:
    return Fix(f"{name} is cut off or damaged", "nothing was asked; fetch or write the file again", Exit.INPUT)


# Lines.


def numbered_lines(stream: io.BufferedIOBase, number: int = 0) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their ends; blank ones are counted and left out. One over the limit comes cut, but still over it.

    Takes: `number`: of the line before the first one
    """
    tail = b""
    while chunk := stream.read(CHUNK):
        *lines, tail = (tail + chunk).split(b"\n")
        if len(tail) > LINE_LIMIT + 1:  # with its \r, no line that is short enough
            _skip_line(stream)
            lines, tail = [*lines, tail], b""
        for line in lines:
            number += 1
            if line[-1:] > b" " and number > 1:
                yield number, line
            elif content := _content(line, number == 1):
                yield number, content
    if content := _content(tail, number == 0):
        yield number + 1, content


def _content(line: bytes, begins_file: bool) -> bytes:
    """A line without its end and what marks a file's beginning; empty: there is nothing in it"""
    if line.endswith(b"\r"):
        line = line[:-1]
    if begins_file:
        line = line.removeprefix(BOM)
    return line if line and not line.isspace() else b""


def _skip_line(stream: io.BufferedIOBase) -> int:
    """Read to the end of the line. Gives: how many quotes were passed, which is what a CSV must know"""
    quotes = 0
    while piece := stream.readline(CHUNK):
        quotes += piece.count(b'"')
        if piece.endswith(b"\n"):
            break
    return quotes


def _json_lines(stream: io.BufferedReader, name: str) -> Rows:
    for number, content in numbered_lines(stream):
        try:
            row = orjson.loads(content) if len(content) <= LINE_LIMIT else None
        except orjson.JSONDecodeError:
            row = None
        where = f"{name}:{number}"
        yield Line(where, row, content) if type(row) is dict else read_object(content, where)


def _text_lines(stream: io.BufferedReader, name: str) -> Rows:
    for number, content in numbered_lines(stream):
        where = f"{name}:{number}"
        try:
            yield Line(where=where, row={"prompt": _decode(content)}, raw=content)
        except Reject as why:
            yield _rejected(why, where, content)


def _decode(content: bytes) -> str:
    if len(content) > LINE_LIMIT:
        raise Reject("line_too_long", f"more than {LINE_LIMIT:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Reject("bad_utf8", f"byte {error.start + 1} of the line: {error.reason}") from None


# JSON.


def read_object(content: bytes, where: str) -> Line | Rejected:
    """A line of a file, or what is wrong with it."""
    try:
        return Line(where=where, row=parse_object(content), raw=content)
    except Reject as why:
        return _rejected(why, where, content)


def parse_object(content: bytes) -> dict[str, Any]:
    """Read one JSON object.

    Raises: Reject line_too_long, bad_utf8, too_deep, nan_or_infinity, lone_surrogate, not_json, not_an_object
    """
    if len(content) > LINE_LIMIT:
        _decode(content)
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise _why_not(content, error) from None
    if not isinstance(value, dict):
        raise Reject("not_an_object", 'a row must be a JSON object, as in {"prompt": "..."}')
    return value


def _why_not(content: bytes, error: orjson.JSONDecodeError) -> Reject:
    """orjson has one error for all; what it was is found by checks, since the words of its message may change."""
    try:
        text = _decode(content)
        if _depth(content) > DEPTH_LIMIT:
            return Reject("too_deep", f"nested more than {DEPTH_LIMIT} deep")
        value = json.loads(text, parse_constant=_refuse_number, parse_int=_finite, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except Reject as why:
        return why
    except UnicodeEncodeError:
        return Reject("lone_surrogate", "half of a surrogate pair, such as \\ud800, is no character")
    except (ValueError, RecursionError):
        pass  # how deep the json module goes depends on the caller's stack, so it must not decide on the reason
    return Reject("not_json", error.msg)


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse_number(digits)


def _refuse_number(digits: str) -> NoReturn:
    raise Reject("nan_or_infinity", f"{digits[:20]} is not a JSON number")


_STEP = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


def _depth(content: bytes) -> int:
    depth = deepest = 0
    for found in _STRING_OR_BRACKET.finditer(content):
        depth += _STEP.get(found[0], 0)
        deepest = max(deepest, depth)
    return deepest


def _json_list(stream: io.BufferedReader, name: str) -> Rows:
    return (read_object(content, f"{name}:{number}") for number, content in _elements(stream, name))


def _elements(stream: io.BufferedReader, name: str) -> Iterator[tuple[int, bytes]]:
    """The elements of a JSON list as bytes, with the line each begins at: a bad one is one reject, and memory stays small."""
    depth, ended, line, begin, element = 0, False, 1, 1, bytearray()
    for text, mark in _marks(stream):
        if depth == 0 and (text.strip(BLANK) or (mark and (ended or mark != b"["))):
            raise Fix(
                f"{name}:{line + _blank_lines(text)}: something follows the list",
                "a .json file must hold one list of objects",
                Exit.INPUT,
            )
        whole = depth == 1 and mark in _ELEMENT_ENDS
        piece = text if whole or depth == 0 else text + mark
        if not element:
            begin = line + _blank_lines(piece)
            piece = piece.lstrip(BLANK)
        line += text.count(b"\n")
        element += piece if len(element) <= LINE_LIMIT else b""
        if whole and element:
            yield begin, bytes(element.rstrip(BLANK))
            element.clear()
        depth += _STEP.get(mark, 0)
        ended = ended or (depth == 0 and mark != b"")
    if not ended:
        raise damaged(name)


def _blank_lines(text: bytes) -> int:
    return text[: len(text) - len(text.lstrip(BLANK))].count(b"\n")


def _marks(stream: io.BufferedReader) -> Iterator[tuple[bytes, bytes]]:
    """Brackets and commas that stand outside of strings, each after the bytes before it; a chunk's last bytes have none."""
    quoted, first = False, True
    while chunk := stream.read(CHUNK):
        while chunk.endswith(b"\\") and (more := stream.read(1)):
            chunk += more
        chunk = chunk.removeprefix(BOM) if first else chunk
        first, start, at = False, 0, 0
        while found := (_QUOTED if quoted else _OUTSIDE).search(chunk, at):
            at = found.end()
            if found[0] == b'"':
                quoted = not quoted
            elif not quoted:
                yield chunk[start : found.start()], found[0]
                start = at
        yield chunk[start:], b""


_QUOTED = re.compile(rb'\\.|"', re.DOTALL)
_OUTSIDE = re.compile(rb'["\[\]{},]')
_ELEMENT_ENDS = (b",", b"]", b"}")


# CSV.


class _CsvFeed:
    """Decoded lines for csv.reader; knows where the row that is being read begins, its first bytes and its size."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self.stream, self.line = stream, 0
        self.begin()

    def begin(self) -> None:
        self.start, self.size, self.first_line = b"", 0, self.line + 1

    def __iter__(self) -> _CsvFeed:
        return self

    def __next__(self) -> str:
        if not (line := self.stream.readline(LINE_LIMIT + 2)):
            raise StopIteration
        self.line += 1
        line = line.removeprefix(BOM) if self.line == 1 else line
        self.size += len(line)
        self.start += line if len(self.start) < 4 * START else b""
        if self.size > LINE_LIMIT:
            # The row is lost, but the next ones are not: a quote that this line leaves open, or closes, must count.
            quotes = line.count(b'"') + (0 if line.endswith(b"\n") else _skip_line(self.stream))
            line = b'"\n' if quotes % 2 else b"\n"
        return line.decode("utf-8", "surrogateescape")


def _table(delimiter: str, stream: io.BufferedReader, name: str) -> Rows:
    feed = _CsvFeed(stream)
    records = _records(feed, delimiter)
    header = next(records, [])
    if isinstance(header, Reject) or len(set(header)) < len(header):
        raise Fix(f"{name}:{feed.first_line}: the header cannot be read", "the first line must name each column once", Exit.INPUT)
    for fields in records:
        where, raw = f"{name}:{feed.first_line}", feed.start.rstrip(b"\r\n")
        if isinstance(fields, list) and len(fields) != len(header):
            fields = Reject("not_csv", f"{len(fields)} fields, but the header has {len(header)}; text with commas needs quotes")
        if isinstance(fields, Reject):
            yield _rejected(fields, where, raw)
        else:
            yield Line(where=where, row=dict(zip(header, fields, strict=True)), raw=raw)


def _records(feed: _CsvFeed, delimiter: str) -> Iterator[list[str] | Reject]:
    csv.field_size_limit(
        2 * LINE_LIMIT
    )  # never reached, as the feed cuts long rows; for the whole process: the module has no other way
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin()
        fields: list[str] | Reject
        try:
            fields = _in_utf8(next(reader))
        except StopIteration:
            return
        except csv.Error as error:
            fields = Reject("not_csv", f"lines {feed.first_line} to {feed.line}: {error}")
        except Reject as why:
            fields = why
        if feed.size > LINE_LIMIT:
            yield Reject("line_too_long", f"lines {feed.first_line} to {feed.line} are one row of more than {LINE_LIMIT:,} bytes")
        elif feed.start.strip():
            yield fields


def _in_utf8(fields: list[str]) -> list[str]:
    """The fields, where all of their bytes could be decoded. Rejects: bad_utf8"""
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        raise Reject("bad_utf8", "a field is not UTF-8") from None
    return fields


# Parquet.


def _parquet(stream: io.BufferedReader, name: str) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        with _seekable(stream) as file:
            batches = parquet.ParquetFile(file).iter_batches(batch_size=1024)
            for number, row in enumerate((row for batch in batches for row in _objects(batch)), start=1):
                where = f"{name}:{number}"
                yield _rejected(row, where, b"") if isinstance(row, Reject) else Line(where=where, row=row)
    except pyarrow.ArrowException as error:
        raise damaged(name) from error


def _objects(batch: Any) -> Iterator[dict[str, Any] | Reject]:
    """The rows of a batch; text that is not UTF-8 makes Arrow refuse the batch, so then one row at a time."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield Reject("bad_utf8", "a column of this row is not UTF-8")


@contextmanager
def _seekable(stream: io.BufferedReader) -> Iterator[Any]:
    """Parquet is read from its end: what is compressed once more is unpacked to a temporary file first."""
    if isinstance(stream.raw, io.FileIO):
        yield stream
        return
    with tempfile.TemporaryFile() as spooled:
        shutil.copyfileobj(stream, spooled)
        yield spooled


READERS: dict[str, Reader] = {
    ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json_list, ".txt": _text_lines, ".parquet": _parquet,
    ".csv": functools.partial(_table, ","), ".tsv": functools.partial(_table, "\t"),
}  # fmt: skip
