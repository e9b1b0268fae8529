"""A server of the Messages API that costs next to nothing: its reply is a pure function of the body. It prints its port.

One core, uvloop, an asyncio.Protocol. GET /stats: requests, and when the first came and the last was answered (CLOCK_MONOTONIC,
which all processes of a machine share). Usage: _cheap_server.py CORE
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import zlib
from typing import cast

import orjson
import uvloop

WORDS = b"the answer that was given first says what to do and leaves out why it is safe to try at home with a friend " * 6
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Counts:
    """What was asked of this process."""

    requests, first, last = 0, 0.0, 0.0


class Exchange(asyncio.Protocol):
    """One connection, kept open."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.read = cast("asyncio.WriteTransport", transport), b""

    def data_received(self, data: bytes) -> None:
        self.read += data
        while (end := self.read.find(b"\r\n\r\n")) >= 0:
            at = self.read.lower().find(b"content-length: ", 0, end)
            size = 0 if at < 0 else int(self.read[at + 16 : self.read.find(b"\r\n", at)])
            if len(self.read) < end + 4 + size:
                return
            head, body, self.read = self.read[:end], self.read[end + 4 : end + 4 + size], self.read[end + 4 + size :]
            answer = stats() if head.startswith(b"GET") else reply_to(body)
            self.transport.write(_HEAD % len(answer) + answer)


def reply_to(body: bytes) -> bytes:
    """A message of about 600 letters that begins with a digest of the body."""
    now = time.monotonic()
    Counts.requests, Counts.first, Counts.last = Counts.requests + 1, Counts.first or now, now
    return (
        b'{"id":"msg_%08x","type":"message","role":"assistant","model":"cheap","content":[{"type":"text","text":"%08x %s"}],'
        b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":%d,"output_tokens":150}}'
    ) % (Counts.requests, zlib.crc32(body), WORDS, len(body) // 4)


def stats() -> bytes:
    return orjson.dumps({"requests": Counts.requests, "first": Counts.first, "last": Counts.last})


async def main(core: int) -> None:
    os.sched_setaffinity(0, {core})
    server = await asyncio.get_running_loop().create_server(Exchange, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
