"""Streams whose encoding has not every sign. By itself, because a run that draws nothing must not pay for a terminal library."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

_PLAIN = {"·": "-", "…": "...", "—": "-", "–": "-"}


def forgiving(stream: TextIO) -> TextIO:
    """The same stream; what its encoding has not, such as a row may hold, comes out as plain signs or as \\u escapes."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="cai-plain")
    return stream


def _in_plain_signs(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    sign = _PLAIN.get(error.object[error.start])
    if sign is None:
        return codecs.backslashreplace_errors(UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, ""))
    return sign, error.start + 1


codecs.register_error("cai-plain", _in_plain_signs)
