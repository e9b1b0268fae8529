"""Text from models and files, made safe to print: nothing in it can move the cursor, hide text or change its direction."""

from __future__ import annotations

_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), *map(ord, _BIDI), 0x2028, 0x2029, 0xFEFF]
_TABLE = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _CONTROLS} | {
    ord("\n"): "\n",
    ord("\t"): "    ",
}
_LINE = _TABLE | {ord("\n"): " "}


def visible(text: str) -> str:
    """The text with C0, C1, escape and bidi controls written out; line ends stay."""
    return text.translate(_TABLE)


def on_one_line(text: str) -> str:
    """The same, with line ends as spaces."""
    return text.translate(_LINE)
