"""Two versions compared, for people: what came and went, why, and how the distributions moved."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cai_cli.reports.quantities import counted
from cai_cli.reports.tabular import tabular
from cai_cli.visible import on_one_line, visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

PROSE = 100  # columns
_PAIRED = ["difference", "error", "in both"]  # of the rows that both versions have
_STYLES = {"added": "green", "gone": "red", "changed": "yellow"}


def difference_parts(one: Mapping[str, Any], narrow: bool) -> Iterator[RenderableType]:
    """A stage's comparison, part by part. `one`: as `--json` gives it; `narrow`: leave quartiles out"""
    from rich.text import Text

    yield Text(f"{one['stage']}  {one['old']} -> {one['new']}", "bold")
    yield _facts(_lines(one))
    paired = one["rows"]["changed"] > 0  # else the rows in both versions are the same, and so is what they add up to
    if numbers := [measure for measure in one["numbers"] if _has_moved(measure)]:
        yield Text("")
        yield _numbers(numbers, narrow, paired)
    if shares := [measure for measure in one["shares"] if _has_moved(measure)]:
        yield Text("")
        yield _shares(shares, paired)


def _has_moved(one: Mapping[str, Any]) -> bool:
    return bool(one["difference"] or one["old"] is None or one["new"] is None or one["old"]["mean"] != one["new"]["mean"])


def _facts(lines: Iterable[tuple[str, str]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=9)
    table.add_column(overflow="fold", max_width=PROSE)
    for name, text in lines:
        table.add_row(Text(name, "dim"), Text(on_one_line(text)))
    return table


def _lines(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rows = one["rows"]
    if rows["added"] or rows["changed"] or rows["gone"]:
        told = ", ".join(f"{rows[what]:,} {what}" for what in ("added", "changed", "gone", "same"))
        yield "rows", f"{rows['old']:,} -> {rows['new']:,}: {told}"
    else:
        yield "rows", f"{rows['new']:,}, all the same"
    if one["columns"]:
        yield "changed", ", ".join(f"{name} in {count:,}" for name, count in one["columns"].items())
    if one["words"]:
        yield "words", ", ".join(f"{found['share']:.0%} of {name}" for name, found in one["words"].items()) + _looked_at(one)
    for what in ("rejected", "filtered"):
        if one[what]:
            yield what, ", ".join(f"{reason} {counts['old']:,} -> {counts['new']:,}" for reason, counts in one[what].items())
    yield "why", "; ".join(f"{cause['what']}: {cause['how']}" for cause in one["why"]) or "nothing that rows depend on differs"


def _looked_at(one: Mapping[str, Any]) -> str:
    most = max(found["rows"] for found in one["words"].values())
    return f" (in {counted(most, 'changed row')} looked at)" if most < one["rows"]["changed"] else ""


def _numbers(measures: Sequence[Mapping[str, Any]], narrow: bool, paired: bool) -> RenderableType:
    """Means side by side; where there is room, quartiles too."""
    head = ["number", "rows", "mean", "", *([] if narrow else ["quartiles", ""]), *(_PAIRED if paired else [])]
    return tabular(head, [_number(one, narrow, paired) for one in measures], right=head[1:])


def _number(one: Mapping[str, Any], narrow: bool, paired: bool) -> list[str | Text]:
    old, new = one["old"], one["new"]
    digits = max(_digits(side["mean"]) for side in (old, new) if side)
    cells: list[str | Text] = [one["name"], _counts(old, new), _mean(old, digits), f"-> {_mean(new, digits)}"]
    cells += [] if narrow else [_quartiles(old, digits), f"-> {_quartiles(new, digits)}"]
    return cells + (_moved(one, one, digits) if paired else [])


def _counts(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    told = [f"{side['count']:,}" if side else "-" for side in (old, new)]
    return told[0] if told[0] == told[1] else f"{told[0]} -> {told[1]}"


def _mean(side: Mapping[str, Any] | None, digits: int) -> str:
    return f"{side['mean']:,.{digits}f}" if side else "-"


def _quartiles(side: Mapping[str, Any] | None, digits: int) -> str:
    return " ".join(f"{one:,.{digits}f}" for one in side["quartiles"]) if side else "-"


def _digits(mean: float) -> int:
    size = abs(mean)
    return 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3


def _small(size: float) -> int:
    """Digits behind the point that show two of a number below 1, six at most."""
    return min(6, 1 - math.floor(math.log10(size))) if 0 < size < 1 else 0


def _moved(one: Mapping[str, Any], scaled: Mapping[str, Any], digits: int) -> list[str | Text]:
    """The mean difference of the rows in both, its error, and how many they are. Where it is more than two errors it is marked.

    Takes: `scaled`: its difference and error as they are shown
    """
    from rich.text import Text

    difference, se = scaled["difference"], scaled["se"]
    if difference is None:
        return ["-", "-", "0"]
    if difference == 0 and not se:
        return [Text("same  ", "dim"), "-", f"{one['pairs']:,}"]
    digits = max(digits, _small(se or abs(difference)))
    clear = _is_clear(difference, se)
    moved = Text(f"{difference:+,.{digits}f}{' *' if clear else '  '}", "yellow" if clear else "")
    return [moved, "-" if se is None else f"{se:.{digits}f}", f"{one['pairs']:,}"]


def _is_clear(difference: float | None, se: float | None) -> bool:
    """Whether a difference is beyond twice its standard error."""
    return difference is not None and bool(se) and abs(difference) > 2 * (se or 0)


def any_marked(one: Mapping[str, Any]) -> bool:
    """Whether a stage's comparison, as `--json` gives it, shows a difference with a *."""
    measures = [measure for measure in (*one["numbers"], *one["shares"]) if _has_moved(measure)]
    return one["rows"]["changed"] > 0 and any(_is_clear(measure["difference"], measure["se"]) for measure in measures)


def sign_line() -> Text:
    """What a * beside a difference says, for below the tables."""
    from rich.text import Text

    return Text("*  beyond twice its standard error", "dim")


def _shares(measures: Sequence[Mapping[str, Any]], paired: bool) -> RenderableType:
    head = ["share of rows", "", "", *(["points", *_PAIRED[1:]] if paired else [])]
    return tabular(head, [_share(one, paired) for one in measures], right=head[1:])


def _share(one: Mapping[str, Any], paired: bool) -> list[str | Text]:
    told = [f"{side['mean']:.1%}" if side else "-" for side in (one["old"], one["new"])]
    points = {key: None if one[key] is None else 100 * one[key] for key in ("difference", "se")}
    cells: list[str | Text] = [f"{one['name']} {one['value']}".rstrip(), told[0], f"-> {told[1]}"]
    return cells + (_moved(one, points, 1) if paired else [])


# Rows.


def id_lines(one: Mapping[str, Any], only: str) -> Iterator[Text]:
    """Ids, a line each, with what became of them."""
    from rich.text import Text

    for what in ("added", "changed", "gone"):
        ids, count = one["ids"][what], one["rows"][what]
        if only not in ("", what):
            continue
        for row in ids:
            yield Text.assemble((f"{what:<8}", _STYLES[what]), on_one_line(row))
        if count > len(ids):
            yield Text(f"{what:<8}and {count - len(ids):,} more", "dim")


def row_parts(old: Mapping[str, Any], new: Mapping[str, Any], marked: bool) -> Iterator[Text]:
    """What differs of a row: texts word by word, all else as it was and is. `marked`: where colour cannot say it"""
    from rich.text import Text

    from cai_cli.reports.word_diff import word_diff

    before, after = dict(_leaves(old)), dict(_leaves(new))
    for path in dict.fromkeys([*before, *after]):
        was, now = before.get(path), after.get(path)
        if was == now:
            continue
        yield Text(on_one_line(path), "bold cyan")
        if isinstance(was, str | None) and isinstance(now, str | None):
            yield word_diff(visible(was or ""), visible(now or ""), marked)
        else:
            yield Text(f"{_told(was)} -> {_told(now)}")
        yield Text("")


def _told(value: Any) -> str:
    return "nothing" if value is None else on_one_line(json.dumps(value, ensure_ascii=False))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a row that holds no others, by its path, as in `rounds 1 critiques 1 severity`. A list of texts is one."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        yield path, "\n".join(value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path} {key}".strip())
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from _leaves(inner, f"{path} {number}".strip())
    else:
        yield path, value
