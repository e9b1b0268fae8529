"""A reply as the ledger keeps it: JSON, compressed where that is worth while. Its first byte tells which.

Measured on replies of 1,500 characters of English (hh-rlhf), 1,734 bytes as JSON: zlib 950 bytes at level 1, 926 at level 6,
zstd 962; zlib at level 1 with the dictionary below 884, and 145 of 292 where the text has 100 characters.
"""

from __future__ import annotations

import zlib

import orjson

from cai_cli.errors import Exit, Fatal
from cai_cli.flow import Reply

LEVEL = 1
WORTH_WHILE = 256  # bytes of JSON: below, the time is better spent than the room
_JSON = b"{"

# What every reply says, the commonest last: zlib looks it up before the first byte. Part of the format: rows that were written
# with it can be read with nothing else, so it never changes. Another one would be told by the checksum that zlib writes of it.
_FIELDS = (
    b'"estimated":true,"probabilities":{"A":0.5,"B":0.5}"stop_reason":"max_tokens","stop_reason":"refusal","model":"claude-'
    b'{"text":"","stop_reason":"end_turn","model":"","tokens_in":1,"tokens_out":1,"tokens_cache_read":0,"tokens_cache_write":0,'
    b'"estimated":false,"probabilities":null}'
)


def pack(reply: Reply) -> bytes:
    """The bytes that are kept of a reply: JSON as it is, or a zlib stream with a checksum of its own."""
    return packed(orjson.dumps(reply))


def packed(json: bytes) -> bytes:
    """The same of a reply that is JSON already."""
    if len(json) < WORTH_WHILE:
        return json
    stream = zlib.compressobj(LEVEL, zdict=_FIELDS)
    return stream.compress(json) + stream.flush()


def unpack(data: bytes) -> Reply:
    """The reply of bytes that `pack` made, or of the JSON that ledgers held before. Raises: Fatal: they are damaged"""
    return Reply(**orjson.loads(unpacked(data)))


def unpacked(data: bytes) -> bytes:
    """The reply as JSON. Raises: Fatal: the bytes are damaged"""
    if data.startswith(_JSON):
        return data
    stream = zlib.decompressobj(zdict=_FIELDS)
    try:
        json = stream.decompress(data)
    except zlib.error as error:
        raise _damaged() from error
    if not stream.eof:
        raise _damaged()
    return json


def _damaged() -> Fatal:
    return Fatal("a reply in the ledger is damaged", "restore the ledger from a backup; or move it away: its replies are then "
                 "asked and paid for again", Exit.DISK)  # fmt: skip
