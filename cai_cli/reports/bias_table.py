"""The bias report as a table for a terminal: labels before and after, and each labeler's biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_OUTCOMES = {
    "accuracy": "accuracy on gold", "accuracy_all": "  before filtering",
    "log_loss": "log-loss on gold, nats",
    "log_loss_all": "  before filtering",
    "longer_wins": "longer answer wins", "longer_wins_gap": "  more than in gold", "kept_share": "share of pairs kept",
}  # fmt: skip
_POSITION = {"consistency": "same winner in both orders", "first_slot_excess": "first minus second slot wins"}
LEVEL = 0.05
_UNITS = {"share": "share", "log-odds per sd": "log-odds per sd", "log-odds per one of the feature": "log-odds per one"}
_NOTHING = "nothing"  # the first word of what identifies an effect that may be quality
Row: TypeAlias = "tuple[str | Text, ...]"


def bias_table(report: Mapping[str, Any]) -> Table:
    """A table of `_bias.json`: 80 columns are enough, and nothing in it is said by colour alone.

    Takes: the parsed document
    Gives: four columns: what; before, or the value; after, or the 95% interval; of an effect, what identifies it
    """
    from cai_cli.reports.tabular import tabular

    rows: list[Row] = [*_outcomes(report), *_steps(report)]
    for name, labeler in report["labelers"].items():
        rows += _labeler(name, labeler, report["agreement"]["itself"].get(name, {}))
    return tabular(("labels", "before", "after", ""), rows, right=("before", "after"), fold="labels")


def _outcomes(report: Mapping[str, Any]) -> Iterator[Row]:
    for key, words in _OUTCOMES.items():
        before, after = report["before"].get(key), report["after"].get(key)
        if before is not None or after is not None:
            yield words, _number(before), _number(after), ""


def _steps(report: Mapping[str, Any]) -> Iterator[Row]:
    """What was corrected, and what gold says of each step: its log-loss without and with it."""
    steps = report["calibration"].get("steps", ())
    if steps:
        yield from _head("corrections", "log-loss", "with it", "")
    for step in steps:
        without, with_it = _number(step["log_loss_before"]), _number(step["log_loss_after"])
        yield f"  {on_one_line(step['what'])}", without, with_it, "made" if step["kept"] else "refused"


def _head(*words: str) -> Iterator[Row]:
    from rich.text import Text

    yield "", "", "", ""
    yield tuple(Text(on_one_line(word), "dim") for word in words)


def _labeler(name: str, labeler: Mapping[str, Any], itself: Mapping[str, Any]) -> Iterator[Row]:
    position = labeler["position"]
    yield from _head(name, "value", "95%", "known by")
    known = "-" if position["b"] is None else "swap"
    yield "  position bias b, log-odds", _number(position["b"], "+"), _interval(position["ci"], "+"), known
    for key, words in _POSITION.items():
        sign = "+" if key == "first_slot_excess" else ""
        yield f"  {words}", _number(position[key], sign), _interval(itself.get(key, {}).get("ci"), sign), ""
    yield "  first, first / second, second", f"{position['first_first']} / {position['second_second']}", "", ""
    rest = {dimension: found for dimension, found in labeler.items() if dimension != "position"}
    told = {dimension: found for dimension, found in rest.items() if _tells(found)}
    yield from (_dimension(dimension, found) for dimension, found in told.items())
    if quiet := len(rest) - len(told):
        yield f"  {quiet} more, not apart from 0", "", "", ""


def _tells(found: Mapping[str, Any]) -> bool:
    """Whether an effect was asked for by a probe, or is there after all comparisons are counted."""
    p = found.get("p_adjusted", found["p_value"])
    return found["identified_by"] == "probe" or (p is not None and p < LEVEL)


def _dimension(name: str, found: Mapping[str, Any]) -> Row:
    unit = _UNITS.get(found.get("unit", ""), "log-odds")
    known = found["identified_by"]
    known = _NOTHING if known.startswith(_NOTHING) else known
    words = f"  {on_one_line(name).replace('_', ' ')}, {unit}"
    return words, _number(found["effect"], "+"), _interval(found["ci"], "+"), known


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _interval(ci: list[float] | None, sign: str) -> str:
    return "-" if ci is None else f"{ci[0]:{sign}.3f} to {ci[1]:{sign}.3f}"
