"""Small tables on stdout: columns that line up, on a terminal and in a file alike."""

from __future__ import annotations

from collections.abc import Sequence

from cai_cli.visible import on_one_line


def aligned(rows: Sequence[Sequence[object]]) -> str:
    """Rows of cells, as many in each, as lines: two spaces between columns, numbers to the right. The first row is the head."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else on_one_line(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(isinstance(cell, int) for cell in column[1:]) for column in zip(*rows, strict=True)]
    pads = [str.rjust if is_right and len(rows) > 1 else str.ljust for is_right in right]
    lines = ("  ".join(pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)
