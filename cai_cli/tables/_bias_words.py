"""What the measurements mean for a reader: warnings, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cai_cli.tables._bias_report import Labeler

FEW = 30  # pairs below which no estimate is worth acting on
ABSTAINED = 0.02
INCONSISTENT = 0.7  # one pair in three that turns with the order: the labels are mostly about the slots
ONE_SIDED = 0.9  # share of gold on one side from which sides cannot have been drawn by chance
KEPT = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    labelers: list[Labeler]
    rows: int
    usable: int  # pairs with at least one verdict
    bad: int
    shift: Mapping[str, float]
    gold: int  # pairs whose gold is a or b
    gold_a: int
    after: Mapping[str, Any]
    softened: Mapping[str, int]  # votes by labeler whose p_a is nearer to .5 than the judge's own confidence


def warnings(facts: Facts) -> list[str]:
    return [*_of_data(facts), *(line for labeler in facts.labelers for line in _of_labeler(labeler, facts))]


def _of_data(facts: Facts) -> Iterator[str]:
    if facts.usable < FEW:
        yield f"only {facts.usable} pairs have a verdict: with fewer than {FEW} no number here is worth acting on"
    if facts.bad:
        yield f"{facts.bad} pairs have a vote that cannot be read; they are rejected as bad_vote"
    if missing := facts.rows - facts.usable:
        yield f"{missing} pairs have no verdict at all; they are rejected as no_verdict"
    if facts.gold >= FEW and max(facts.gold_a, facts.gold - facts.gold_a) / facts.gold > ONE_SIDED:
        yield f"gold is on side a in {facts.gold_a} of {facts.gold} pairs: a judge that always says so would look right"
    ci = facts.after["accuracy_ci"]
    if facts.gold >= FEW and ci and ci[0] <= 0.5:
        verb = "worse than" if ci[1] < 0.5 else "no better than"
        accuracy = f"accuracy {facts.after['accuracy']:.3f}, 95% {ci[0]:.3f} to {ci[1]:.3f}"
        yield f"against gold the labels are {verb} chance ({accuracy})"


def _of_labeler(labeler: Labeler, facts: Facts) -> Iterator[str]:
    yield from _of_orders(labeler, facts)
    yield from _of_gold(labeler)
    swaps, who = labeler.swapped, f"labeler '{labeler.name}'"
    if count := facts.softened.get(labeler.name):
        yield f"{who}: {count} votes are nearer to .5 than the judge was (a clamp): its biases are larger than they look here"
    low = swaps.consistency.value
    if swaps.n >= FEW and low is not None and low < INCONSISTENT:
        yield f"{who}: the same candidate wins in both orders in only {low:.1%} of {swaps.n} comparisons"
    chance = swaps.above_chance.ci
    if swaps.n >= FEW and chance and chance[0] <= 0:
        yield f"{who}: its agreement with itself over the orders is no more than chance: it may know nothing about these pairs"
    if (share := _abstained(labeler)) > ABSTAINED:
        yield f"{who}: {share:.1%} of {labeler.votes} votes are abstentions (more than {ABSTAINED:.0%})"
    length = labeler.length
    if length is not None and length.significant and length.value is not None:
        side = "longer" if length.value > 0 else "shorter"
        yield (
            f"{who}: labels go with the {side} answer ({length.value:+.3f} log-odds per sd of length); "
            "bias or quality, these data cannot tell; not corrected"
        )


def _abstained(labeler: Labeler) -> float:
    return labeler.abstained / labeler.votes if labeler.votes else 0.0


def _of_gold(labeler: Labeler) -> Iterator[str]:
    ci = labeler.gold.kappa.ci
    if labeler.gold.n >= FEW and ci and ci[0] <= 0:
        verdict = "worse than chance: is a verdict read the wrong way round?" if ci[1] < 0 else "no better than chance"
        kappa = f"kappa {ci[0]:+.3f} to {ci[1]:+.3f}"
        yield f"labeler '{labeler.name}': against {labeler.gold.n} gold labels it is {verdict} ({kappa})"


def _of_orders(labeler: Labeler, facts: Facts) -> Iterator[str]:
    who, position = f"labeler '{labeler.name}'", labeler.position
    if not labeler.both_orders and labeler.one_order:
        yield f"{who}: only one order was asked, so its position bias can be neither measured nor removed"
    elif labeler.both_orders < FEW:
        yield f"{who}: only {labeler.both_orders} pairs were answered in both orders"
    if labeler.both_orders and position.warning:
        yield f"{who}: {position.warning}"
    if position.significant and position.value is not None:
        slot, ci = "first" if position.value > 0 else "second", position.ci
        b = f"b = {position.value:+.3f} ({f'95% {ci[0]:+.3f} to {ci[1]:+.3f}' if ci else 'the same in every pair'})"
        yield f"{who}: prefers the {slot} shown answer, {b}; {_what_was_done(labeler, facts)}"


def _what_was_done(labeler: Labeler, facts: Facts) -> str:
    if not labeler.one_order:
        return "it cancels over the two orders"
    if labeler.name in facts.shift:
        return f"removed from the {labeler.one_order} pairs with one order, cancels in the others"
    return f"not removed from the {labeler.one_order} pairs with one order (debias.position is false)"


def recommendations(facts: Facts) -> list[str]:
    return [*_about_votes(facts), *_about_labels(facts)]


def _about_votes(facts: Facts) -> Iterator[str]:
    if any(labeler.one_order and not labeler.both_orders for labeler in facts.labelers):
        yield "ask in both orders: label_pairs.orders: both"
    abstaining = [labeler.name for labeler in facts.labelers if _abstained(labeler) > ABSTAINED]
    if abstaining:
        yield f"read why they abstain (cai show CONFIG, column votes): {', '.join(abstaining)}"
    unsure = [labeler.name for labeler in facts.labelers if _unsure(labeler)]
    if unsure:
        yield f"replace or give a stronger model to (label_pairs.labelers): {', '.join(unsure)}"
    if 0 < facts.usable < FEW:
        yield f"label at least {FEW} pairs before trusting these estimates"


def _unsure(labeler: Labeler) -> bool:
    gold, swaps = labeler.gold, labeler.swapped
    wrong = gold.n >= FEW and gold.kappa.ci is not None and gold.kappa.ci[0] <= 0
    return wrong or (swaps.n >= FEW and (swaps.consistency.value or 0.0) < INCONSISTENT)


def _about_labels(facts: Facts) -> Iterator[str]:
    if facts.usable and facts.after["kept_share"] < KEPT:
        kept = f"only {facts.after['kept_share']:.0%} of the pairs are kept"
        yield f"{kept}: ask more votes (label_pairs.votes: 2), or debias.ties: keep"
    if facts.usable and not facts.gold:
        yield "nothing here is checked against people: bring pairs they judged (prompts.gold: true), then cai analyze agreement"
