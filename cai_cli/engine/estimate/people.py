"""What labels cost that a model gives, that people give, and that a model gives and people check."""

from __future__ import annotations

from dataclasses import dataclass

from cai_cli.engine.estimate.survey import Interval
from cai_cli.settings import EstimateSection


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to come by labels. `dollars` None: of a model whose price nobody knows. `hours`: of work, or of the run"""

    name: str
    dollars: Interval | None
    hours: Interval
    labels: float

    @property
    def per_label(self) -> Interval | None:
        return None if self.dollars is None or self.labels <= 0 else self.dollars.times(1 / self.labels)


def ways(
    settings: EstimateSection, verified: float, labels: Interval, dollars: Interval | None, hours: Interval
) -> list[Way]:  # fmt: skip
    """AI alone, AI checked by people, people alone: crowd and experts. `verified`: share of the AI's labels that people check"""
    crowd = (settings.crowd_usd_per_hour, settings.crowd_labels_per_hour)
    expert = (settings.expert_usd_per_hour, settings.expert_labels_per_hour)
    found = [Way(name="AI", dollars=dollars, hours=hours, labels=labels.value)]
    for name, (usd, rate) in (("crowd", crowd), ("experts", expert)):
        work = labels.times(verified * settings.labels_per_item / rate)
        cost = None if dollars is None else plus(dollars, work.times(usd))
        found.append(Way(name=f"AI, {name} check {verified:.0%}", dollars=cost, hours=plus(hours, work), labels=labels.value))
    for name, (usd, rate) in (("crowd", crowd), ("experts", expert)):
        work = labels.times(settings.labels_per_item / rate)
        found.append(Way(name=name, dollars=work.times(usd), hours=work, labels=labels.value))
    return found


def plus(one: Interval, other: Interval) -> Interval:
    """Both together, ends with ends: they may be off the same way."""
    return Interval(one.value + other.value, one.low + other.low, one.high + other.high)
