"""Input files: found, opened whatever they are compressed with, and read in the format that they are in."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cai_cli.documents import lookalike
from cai_cli.engine.formats import BLANK, BOM, CHUNK, READERS, Rows, damaged
from cai_cli.errors import Exit, Fix

STDIN = "stdin"  # where a run spools it, in the run's folder, and what it is called
PACKED = 2048  # bytes of zstd taken at a time: in a bomb they become 60 MB


class File(NamedTuple):
    path: Path
    name: str  # as the user wrote it: what is shown and kept must not depend on where the project lies


def shown(name: str) -> str:
    """A path as people know it. The spool's own is another one in every run."""
    path = Path(name)
    spooled = path.name == STDIN and path.parent.parent.name == "runs" and (path.parent / "run.json").exists()
    return STDIN if spooled else name


def header_hint(name: str) -> str:
    """What is to be known of columns in a file of that name."""
    is_table = _suffix(Path(name)) in (".csv", ".tsv")
    return "the first line of a CSV is taken as its header; " if is_table else ""


def find_files(path: Path, name: str) -> list[File]:
    """The file, or a folder's files in the order of their names; hidden ones, _manifest.json and the like are left out.

    Raises: Fix (exit 65): there is nothing of that name, or nothing in the folder that can be read
    """
    if not path.exists():
        raise Fix(f"there is no file or folder '{name}'", lookalike(Path(name)), Exit.INPUT)
    if path.is_file():
        return [File(path, shown(name))]
    if not path.is_dir():
        raise Fix(f"'{name}' is no regular file, and input is read twice", "pipe it in, with -i -", Exit.INPUT)
    found = [File(item, f"{name.rstrip('/')}/{item.name}") for item in sorted(path.iterdir()) if _is_data(item)]
    if not found:
        raise Fix(
            f"the folder '{name}' holds no file that can be read",
            f"readable are {', '.join(READERS)}, also with .gz or .zst",
            Exit.INPUT,
        )
    return found


def _is_data(path: Path) -> bool:
    return path.is_file() and path.name[0] not in "._" and _suffix(path) in READERS


def read_file(file: File, otherwise: str = "") -> Rows:
    """The rows of a file, told by its ending.

    `otherwise`: the ending to assume where the file has none that is known; by default its first byte tells.
    Raises: Fix (exit 65): it cannot be read, or it is cut off or damaged
    """
    with opened(file) as stream:
        yield from READERS[_format(file, otherwise)](stream, file.name)


def holds_lines(file: File) -> bool:
    """Whether each line of a file is an object of its own. Raises: Fix (exit 65): it cannot be read"""
    with _readable(file.name):
        return READERS[_format(file, "")] is READERS[".jsonl"]


def _format(file: File, otherwise: str) -> str:
    suffix = _suffix(file.path)
    return _sniff(file, suffix, otherwise) if suffix == ".json" or suffix not in READERS else suffix


@contextmanager
def opened(file: File) -> Iterator[io.BufferedReader]:
    """A file's bytes, whatever it is compressed with. Raises: Fix (exit 65): it cannot be read, or it is cut off or damaged"""
    with _readable(file.name), _open(file) as stream:
        yield stream


def unpacked(path: Path) -> AbstractContextManager[io.BufferedReader]:
    """The same by its path alone."""
    return opened(File(path, str(path)))


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return Path(name.removesuffix(".gz").removesuffix(".zst")).suffix


def _sniff(file: File, suffix: str, otherwise: str) -> str:
    if otherwise and suffix != ".json":
        return otherwise
    head = b""
    with _open(file) as stream:
        while not head and (chunk := stream.read(CHUNK)):
            head = chunk.removeprefix(BOM).lstrip(BLANK)
    if head[:1] in (b"{", b"["):
        return ".jsonl" if head[:1] == b"{" else ".json"
    if suffix == ".json" and head:
        raise Fix(f"{file.name} does not begin with [ or {{", "a .json file must hold a list of objects", Exit.INPUT)
    return ".parquet" if head.startswith(b"PAR1") else ".txt"


# Opening: what is wrong with the whole file is found here, while it is read.


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(name) from error
    except FileNotFoundError as error:
        raise Fix(f"there is no file '{name}'", "check the path", Exit.INPUT) from error
    except OSError as error:
        raise Fix(
            f"{name} cannot be read: {error.strerror or error}", "check the path and its permissions", Exit.INPUT
        ) from error


def _open(file: File) -> io.BufferedReader:
    with open(file.path, "rb") as plain:
        magic = plain.read(4)
    name = file.path.name.lower()
    if name.endswith(".gz") or magic[:2] == b"\x1f\x8b":
        return io.BufferedReader(gzip.open(file.path))
    if name.endswith(".zst") or magic == b"\x28\xb5\x2f\xfd":
        return io.BufferedReader(_Zstd(file, _zstandard(file.name)), CHUNK)
    return open(file.path, "rb")


def _zstandard(name: str) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise Fix(f"{name} is compressed with zstd", "pip install zstandard", Exit.INPUT) from error
    return zstandard


class _Zstd(io.RawIOBase):
    """Decompresses zstd and notices where it was cut off, which the package's own stream_reader takes for the end."""

    def __init__(self, file: File, zstandard: Any) -> None:
        self.error, self.begin = zstandard.ZstdError, zstandard.ZstdDecompressor().decompressobj
        self.name, self.source, self.pending = file.name, open(file.path, "rb"), memoryview(b"")  # noqa: SIM115
        self.frame, self.unused = None, b""  # type: Any, bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.pending and (packed := self.unused or self.source.read(PACKED)):
            self.pending = memoryview(self._unpack(packed))
        if not self.pending and self.frame is not None:
            raise damaged(self.name)
        size = min(len(buffer), len(self.pending))
        buffer[:size], self.pending = self.pending[:size], self.pending[size:]
        return size

    def _unpack(self, packed: bytes) -> bytes:
        self.frame = self.frame or self.begin()
        try:
            text: bytes = self.frame.decompress(packed)
        except self.error as error:
            raise damaged(self.name) from error
        self.unused = self.frame.unused_data if self.frame.eof else b""
        self.frame = None if self.frame.eof else self.frame
        return text

    def close(self) -> None:
        self.source.close()
        super().close()
