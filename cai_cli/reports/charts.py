"""Small charts in text, always beside their number: bars, and a dot with its interval."""

from __future__ import annotations

BLOCKS = " ▏▎▍▌▋▊▉█"  # eighths of a column


def bar(value: float, most: float, width: int, plain: bool = False) -> str:
    """A bar whose length is to `width` columns what the value is to `most`. Anything above 0 shows, 0 does not.

    Takes: value and most in the same unit, at least 0; `plain`: in ASCII, whole columns only
    """
    eighths = 0 if most <= 0 or value <= 0 else max(1, round(min(value / most, 1) * width * 8))
    if plain:
        return "#" * max(1, round(eighths / 8)) if eighths else ""
    return BLOCKS[-1] * (eighths // 8) + (BLOCKS[eighths % 8] if eighths % 8 else "")


def whiskers(
    value: float, low: float | None, high: float | None, scale: tuple[float, float], width: int, mark: float | None = None
) -> str:
    """A dot with its interval, `---o--`, on a scale that is `width` columns wide, with `|` at the mark, `+` where it
    lies in the interval.

    Takes: numbers of one unit; value, interval and mark inside the scale. Without an interval the dot stands alone.
    """
    start, end = scale
    if end <= start:
        return "o"

    def place(at: float) -> int:
        return max(0, min(width - 1, round((at - start) / (end - start) * (width - 1))))

    cells = [" "] * width
    if mark is not None:
        cells[place(mark)] = "|"
    if low is not None and high is not None:
        cells[place(low) : place(high) + 1] = "-" * (place(high) - place(low) + 1)
        if mark is not None and place(low) <= place(mark) <= place(high):
            cells[place(mark)] = "+"
    cells[place(value)] = "o"
    return "".join(cells).rstrip()
