"""The bias report as a table for a terminal: labels before and after, and each labeler's biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_OUTCOMES = {
    "accuracy": "accuracy on gold", "accuracy_all": "  before filtering", "log_loss": "log-loss on gold, nats",
    "longer_wins": "longer answer wins", "longer_wins_gap": "  more than in gold", "kept_share": "share of pairs kept",
}  # fmt: skip
_POSITION = {"consistency": "same winner in both orders", "first_slot_excess": "first minus second slot wins"}


def bias_table(report: Mapping[str, Any]) -> Table:
    """A table of `_bias.json`: 80 columns are enough, and nothing in it is said by colour alone.

    Takes: the parsed document   Gives: three columns: what; before, or the value; after, or the 95% interval
    """
    rows: list[tuple[str | Text, ...]] = []
    for key, words in _OUTCOMES.items():
        before, after = report["before"][key], report["after"][key]
        if before is not None or after is not None:
            rows.append((words, _number(before), _number(after)))
    for name, labeler in report["labelers"].items():
        rows += _labeler(name, labeler, report["agreement"]["itself"].get(name, {}))
    from cai_cli.reports.tabular import tabular

    return tabular(("labels", "before", "after"), rows, right=("before", "after"), fold="labels")


def _labeler(name: str, labeler: Mapping[str, Any], itself: Mapping[str, Any]) -> Iterator[tuple[str | Text, ...]]:
    from rich.text import Text

    position = labeler["position"]
    yield "", "", ""
    yield Text(on_one_line(name), "dim"), Text("value", "dim"), Text("95%", "dim")
    yield "  position bias b, log-odds", _number(position["b"], "+"), _interval(position["ci"], "+")
    for key, words in _POSITION.items():
        sign = "+" if key == "first_slot_excess" else ""
        yield f"  {words}", _number(position[key], sign), _interval(itself.get(key, {}).get("ci"), sign)
    yield "  first, first / second, second", f"{position['first_first']} / {position['second_second']}", ""
    for dimension, found in labeler.items():
        if dimension != "position":
            yield f"  {dimension}, log-odds per sd", _number(found["effect"], "+"), _interval(found["ci"], "+")


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _interval(ci: list[float] | None, sign: str) -> str:
    return "-" if ci is None else f"{ci[0]:{sign}.3f} to {ci[1]:{sign}.3f}"
