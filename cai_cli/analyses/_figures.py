"""How numbers are written, in tables and in sentences alike: so many decimals for a unit, never an exponent."""

from __future__ import annotations

from collections.abc import Iterable

from cai_cli.analyses._result import Number, Unit

_DECIMALS: dict[Unit, int] = {"share": 1, "words": 1, "tokens": 0, "chars": 0, "score": 2, "rounds": 2, "log-odds": 2}
LEAST = 0.001  # smaller ones are said to be


def decimals(values: Iterable[float | None], unit: Unit = "") -> int:
    """Decimals of numbers that stand in one column. Without a unit that says it: three digits of the largest, at most."""
    if unit in _DECIMALS:
        return _DECIMALS[unit]
    size = max((abs(value) for value in values if value is not None), default=0.0)
    return 0 if size >= 100 else 1 if size >= 10 else 2 if size > 1 else 3


def figure(value: float, digits: int) -> str:
    """A number: 1,234  56.7  0.123; what rounding would make 0 is said to be small."""
    if 0 < abs(value) < LEAST and digits >= 3:
        return f"<{LEAST}" if value > 0 else f">-{LEAST}"
    return f"{round(value, digits) + 0.0:,.{digits}f}"  # + 0.0: nothing is -0.0


def p_value(p: float) -> str:
    """A p-value in a sentence, with its sign: p < 0.001, p 0.012"""
    return f"p < {LEAST}" if p < LEAST else f"p {p:.3f}"


def percent(share: float | None) -> str:
    """A share in [0, 1] as a sentence says it."""
    return "-" if share is None else f"{share:.1%}"


def ends(one: Number) -> tuple[float | None, float | None, float | None]:
    """A number's value and the ends of its interval."""
    return one.value, one.low, one.high


def told(number: Number, signed: bool = False) -> str:
    """A number in a sentence, with its interval: 61.2% (58.0% to 64.4%); signed, as a difference: +3.1 points (+1.0 to +5.2)."""
    if number.value is None:
        return "unknown"
    digits = decimals(ends(number), number.unit)

    def say(value: float) -> str:
        if number.unit == "share" and not signed:
            return percent(value)
        value = 100 * value if number.unit == "share" else value
        return ("+" if signed and round(value, digits) > 0 else "") + figure(value, digits)

    interval = "" if number.low is None or number.high is None else f" ({say(number.low)} to {say(number.high)})"
    return say(number.value) + (" points" if signed and number.unit == "share" else "") + interval
