"""Prompts as they were surveyed, to be read again for less than the input costs: no ids to make, no column to look for.

The file has no name: it goes with the process, however that ends. It also keeps a run to the input as it was when it was counted.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cai_cli.engine.disk import naming
from cai_cli.records import Prompt

PIECE = 1 << 18  # bytes read at once


class Spool:
    """Lines in partitions of `size`, in a private folder. Raises: OSError: the disk is full"""

    def __init__(self, folder: Path, size: int) -> None:
        import msgspec

        self._encode, self._decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(Prompt).decode
        self._folder, self._size = folder, size
        self._file = tempfile.TemporaryFile(dir=folder, buffering=PIECE)  # noqa: SIM115 - as long as the run
        self._begins: list[int] = []  # of each partition, in bytes
        self._bytes = self._lines = 0

    def add(self, prompt: Prompt) -> bytes:
        """Take the next prompt. Gives: its line, just as orjson would write it: texts are all there is, and both escape alike

        Raises: OSError: the disk is full; it names the folder
        """
        line = self._encode(prompt) + b"\n"
        if self._lines % self._size == 0:
            self._begins.append(self._bytes)
        try:  # for each prompt, where `naming` would cost more than the rest
            self._file.write(line)
        except OSError as error:
            error.filename = error.filename or str(self._folder)
            raise
        self._bytes += len(line)
        self._lines += 1
        return line

    def end(self) -> None:
        """Nothing more is added."""
        with naming(self._folder):
            self._file.flush()

    def units(self, unit: Callable[[int, Any], Any], done: Callable[[int], bool]) -> Iterator[Any]:
        """A unit of each prompt; those of partitions that are done are empty, and are not read."""
        ends = [*self._begins[1:], self._bytes]
        for shard, (begin, end) in enumerate(zip(self._begins, ends, strict=True)):
            if done(shard):
                left = self._lines - shard * self._size
                yield from (unit(shard, ()) for _ in range(min(left, self._size)))
            else:
                yield from (unit(shard, (self._decode(line),)) for line in self._between(begin, end))

    def _between(self, at: int, end: int) -> Iterator[bytes]:
        """The lines from one byte to another, without their ends."""
        tail = b""
        while at < end:
            piece = os.pread(self._file.fileno(), min(PIECE, end - at), at)
            at += len(piece)
            *lines, tail = (tail + piece).split(b"\n")
            yield from lines
