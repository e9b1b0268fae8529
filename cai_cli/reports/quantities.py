"""Numbers as people read them: counts, tokens, dollars, times, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cai_cli.flow import Model
from cai_cli.prices import price_of


def count(number: int) -> str:
    """999,999; from a million on 1.23M, so that a column keeps its width."""
    return f"{number:,}" if number < 1_000_000 else _scaled(number)


def tokens(number: int) -> str:
    return str(number) if number < 1000 else _scaled(number)


def _scaled(number: float) -> str:
    for unit in ("", "k", "M", "G"):
        if number < 999.5 or unit == "G":
            break
        number /= 1000
    return f"{number:.0f}{unit}" if number >= 100 else f"{number:.3g}{unit}"


def counted(number: int, one: str, many: str = "") -> str:
    """1 reply, 2 replies. `many`: where it is not `one` with an s"""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def dollars(amount: float, unknown: bool = False) -> str:
    """`unknown`: some of it was for a model whose price nobody knows."""
    known = f"${amount:.4f}" if 0 < amount < 0.01 else f"${amount:,.2f}"
    return known if not unknown else f"{known}+?" if amount > 0 else "$?"


def duration(seconds: float) -> str:
    """48s, 3m 12s, 2h 05m, 3d 04h."""
    whole = max(0, round(seconds))
    for name, unit, rest, size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= unit:
            return f"{whole // unit}{name} {whole % unit // size:02d}{rest}"
    return f"{whole}s"


def size(number: float) -> str:
    """Bytes, in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def rate(per_s: float, what: str = "prompts") -> str:
    """Prompts, or `what` else is counted, by the second, or by the minute or hour where that is less than one."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if per_s * seconds >= 1:
            return f"{per_s * seconds:.3g} {what}/{unit}"
    return f"{per_s * 3600:.2g} {what}/h"


def reasons(counts: Mapping[str, int]) -> str:
    """The most frequent first; 0 where there are none."""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{number:,} {reason}" for reason, number in ordered if number) or "0"


def unpriced(models: Mapping[str, Sequence[Model]]) -> dict[str, str]:
    """Stages that ask a model whose price nobody knows, with that model's name. A simulated model's price is known: 0."""
    return {stage: model.name for stage, asked in models.items() for model in asked if price_of(model) is None}
