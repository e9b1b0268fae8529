"""The bias report as a table for a terminal: labels before and after, and each labeler's biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_OUTCOMES = {
    "accuracy": "accuracy on gold", "accuracy_all": "  before filtering", "log_loss": "log-loss on gold, nats",
    "longer_wins": "longer answer wins", "longer_wins_gap": "  more than in gold", "kept_share": "share of pairs kept",
}  # fmt: skip
_POSITION = {"consistency": "same winner in both orders", "first_slot_excess": "first minus second slot wins"}


def bias_table(report: Mapping[str, Any]) -> Table:
    """A table of `_bias.json`: 80 columns are enough, and nothing in it is said by colour alone.

    Takes: the parsed document   Gives: three columns: what; before, or the value; after, or the 95% interval
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (("labels", "left"), ("before", "right"), ("after", "right")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for key, words in _OUTCOMES.items():
        before, after = report["before"][key], report["after"][key]
        if before is not None or after is not None:
            table.add_row(words, _number(before), _number(after))
    for name, labeler in report["labelers"].items():
        _add_labeler(table, name, labeler, report["agreement"]["itself"].get(name, {}))
    return table


def _add_labeler(table: Table, name: str, labeler: Mapping[str, Any], itself: Mapping[str, Any]) -> None:
    from rich.text import Text

    position = labeler["position"]
    table.add_row()
    table.add_row(Text(_visible(name)), Text("value"), Text("95%"))
    table.add_row("  position bias b, log-odds", _number(position["b"], "+"), _interval(position["ci"], "+"))
    for key, words in _POSITION.items():
        sign = "+" if key == "first_slot_excess" else ""
        table.add_row(f"  {words}", _number(position[key], sign), _interval(itself.get(key, {}).get("ci"), sign))
    table.add_row("  first, first / second, second", f"{position['first_first']} / {position['second_second']}", "")
    for dimension, found in labeler.items():
        if dimension != "position":
            table.add_row(f"  {dimension}, log-odds per sd", _number(found["effect"], "+"), _interval(found["ci"], "+"))


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _interval(ci: list[float] | None, sign: str) -> str:
    return "-" if ci is None else f"{ci[0]:{sign}.3f} to {ci[1]:{sign}.3f}"


def _visible(name: str) -> str:
    """Control and direction characters written out: a labeler's name may come from a file of someone else."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in name)
