"""`cai constitution diff`, as one JSON object and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cai_cli.cli import _constitution_file
from cai_cli.constitution import Constitution, load
from cai_cli.engine import constitution_diff

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LONG = ("description", "critique_prompt", "revision_prompt", "text")


def compared(before: str, after: str, config: Path | None) -> dict[str, Any]:
    """All that is known of a change, as `--json` gives it. Raises: Fix"""
    paths = [_constitution_file.find(name) for name in (before, after)]
    sides = [load(path) for path in paths]
    found = {
        "before": _named(paths[0], sides[0]), "after": _named(paths[1], sides[1]),
        "same": sides[0].fingerprint == sides[1].fingerprint, **constitution_diff.changes(*sides),
    }  # fmt: skip
    return found if config is None else found | _touched(config, paths)


def _named(path: Path, constitution: Constitution) -> dict[str, str]:
    return {
        "path": str(path), "name": constitution.name, "version": constitution.version, "fingerprint": constitution.fingerprint,
    }  # fmt: skip


def _touched(config: Path, paths: list[Path]) -> dict[str, Any]:
    from cai_cli import config as configs

    loaded = [configs.load(config, flags={"constitution": path.absolute()}) for path in paths]
    stages, place = constitution_diff.touched(loaded[0], loaded[1])
    unpriced = sorted(set().union(*(one.unpriced for one in stages.values())))
    rows = {
        name: {"rows": one.rows, "touched": one.touched, "touched_indirectly": one.indirectly, "requests": one.requests,
               "dollars_at_most": one.dollars_at_most}
        for name, one in stages.items()
    }  # fmt: skip
    dollars = None if unpriced else round(sum(one.dollars_at_most or 0.0 for one in stages.values()), 6)
    return {"config": str(config), "counted": place, "stages": rows, "dollars_at_most": dollars, "unpriced": unpriced}


def show(found: Mapping[str, Any]) -> None:
    """Print it, for people."""
    from rich.text import Text

    from cai_cli.reports.console import console, plain
    from cai_cli.visible import on_one_line

    out = console()
    sides = (found["before"], found["after"])
    old, new = (f"{one['name']} {one['version']}".strip() + f" ({one['fingerprint'][:8]})" for one in sides)
    out.print(Text(on_one_line(f"{old} -> {new}"), "bold"))
    if found["same"]:
        out.print("They are the same; comments and layout do not count.")
        if "stages" in found:
            out.print(_line(f"No request of {found['config']} would change."))
        return
    for part in ("principles", "preferences"):
        for line in _part(part, found[part], plain(out)):
            out.print(line)
    if "stages" in found:
        _print_touched(out, found)


def _part(name: str, part: Mapping[str, Any], marked: bool) -> Iterator[RenderableType]:
    """What happened to principles, or to preferences; nothing if nothing did."""
    from rich.padding import Padding
    from rich.text import Text

    counts = {"added": len(part["added"]), "removed": len(part["removed"]), "changed": len(part["changed"])}
    if not any(counts.values()) and not part["reordered"]:
        return
    said = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    order = "in another order" if part["reordered"] else ""
    yield Text("\n" + f"{name}: " + ", ".join(filter(None, [said, order, f"{part['same']} as before"])), "bold")
    for sign, style, entries in (("-", "red", part["removed"]), ("+", "green", part["added"])):
        for entry in entries:
            yield _line(f"{sign} {entry['name']} ({entry['category']}, weight {entry['weight']:g})", style)
            yield Padding(_line(entry.get("text") or entry["description"]), (0, 0, 0, 4))
    for one in part["changed"]:
        yield _line(f"~ {one['name']}", "yellow")
        for field, (before, after) in one["fields"].items():
            yield Padding(_field(field, before, after, marked), (0, 0, 0, 4))
    yield from _shares(part["weights"])


def _line(text: str, style: str = "") -> RenderableType:
    from rich.text import Text

    from cai_cli.visible import on_one_line

    return Text(on_one_line(text), style)


def _field(name: str, before: Any, after: Any, marked: bool) -> RenderableType:
    from rich.text import Text

    from cai_cli.reports.word_diff import word_diff
    from cai_cli.visible import visible

    if name in LONG:
        return Text.assemble(f"{name}: ", word_diff(visible(before), visible(after), marked))
    old, new = (", ".join(value) if isinstance(value, (list, tuple)) else f"{value:g}" if isinstance(value, float) else value
                for value in (before, after))  # fmt: skip
    return _line(f"{name}: {old or 'none'} -> {new or 'none'}")


def _shares(weights: Mapping[str, list[float]]) -> Iterator[RenderableType]:
    moved = [f"{name} {old:.0%} -> {new:.0%}" for name, (old, new) in weights.items() if abs(old - new) >= 0.005]
    if moved:
        yield _line(f"  weight: {', '.join(moved)}")


def _print_touched(out: Console, found: Mapping[str, Any]) -> None:
    from cai_cli.reports import quantities as say
    from cai_cli.reports.tabular import tabular

    head = ("stage", "rows", "touched", "indirectly", "requests", "dollars at most")
    rows = [
        (name, one["rows"], one["touched"], one["touched_indirectly"], one["requests"],
         "?" if one["dollars_at_most"] is None else say.dollars(one["dollars_at_most"]))
        for name, one in found["stages"].items()
    ]  # fmt: skip
    out.print()
    out.print(_line(f"What it touches in {found['config']}, counted on {found['counted']}:"))
    out.print(tabular(head, rows, right=head[-1:]))
    for model in found["unpriced"]:
        out.print(_line(f"? no price is known for '{model}': give it as model.price in the config"))
    out.print("touched: held to another principle, or another text of it; indirectly: in a later round, in a pair or in scores.")
    out.print("requests, dollars: as the simulated model's replies lead on; every reply as long as its max_tokens allows.")
