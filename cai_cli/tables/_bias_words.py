"""What the measurements mean for a reader: warnings, and what to do next."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cai_cli import probes
from cai_cli.features import FEATURES
from cai_cli.tables._correction import Step
from cai_cli.tables._dimensions import ENOUGH_GOLD, PER_ONE, PER_SD, SELF, Dimension
from cai_cli.tables._measure import Labeler

FEW = 30  # pairs below which no estimate is worth acting on
ABSTAINED = 0.02
INCONSISTENT = 0.7  # one pair in three that turns with the order: the labels are mostly about the slots
ONE_SIDED = 0.9  # share of gold on one side from which sides cannot have been drawn by chance
KEPT = 0.7
COPIES = 0.6  # of the labelers a panel is worth: less, and most of them only repeat one another


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
    steps: Sequence[Step]  # corrections, made or refused
    correctable: Sequence[str]  # features that labels are corrected for, where something identifies their effect
    panel: Mapping[str, Any]  # how many independent labelers it is worth; empty: there is one labeler
    broken: Sequence[str]  # what is assumed of the panel and does not hold
    asked: Mapping[str, int]  # probes that the settings ask for
    probed: Mapping[str, int]  # pairs that were probed, by dimension
    fitted: Collection[str]  # features in the fit to gold, where one was kept
    piloted: Collection[str]  # labelers whose position bias a pilot froze
    pilot_said: Sequence[str]  # why labelers could not be asked less


def pairs(count: int) -> str:
    """So many pairs, in words."""
    return f"{count:,} pair" if count == 1 else f"{count:,} pairs"


def warnings(facts: Facts) -> list[str]:
    """What is to be known of these labels, the graver first: what speaks against them, then which biases there are."""
    against = (line for labeler in facts.labelers for line in _against(labeler, facts))
    biases = (line for labeler in facts.labelers for line in _biases_of(labeler, facts))
    asked = (f"labeler {line}" for line in facts.pilot_said)
    return [*_of_data(facts), *against, *asked, *_of_panel(facts), *_of_steps(facts), *_of_probes(facts), *biases]


def _of_panel(facts: Facts) -> Iterator[str]:
    yield from facts.broken
    worth = facts.panel.get("n_eff", {}).get("value")
    if worth is not None and worth < COPIES * facts.panel["labelers"]:
        rho = facts.panel["error_correlation"]["value"]
        yield (
            f"the {facts.panel['labelers']} labelers err together (correlation {rho:+.2f} on {facts.panel['n']} gold labels): "
            f"as a panel they are worth {worth:.1f}"
        )


def _of_steps(facts: Facts) -> Iterator[str]:
    for step in facts.steps:
        if not step.kept:
            tried = f" ({step.harm.before:.3f} before, {step.harm.after:.3f} after)" if step.harm else ""
            yield f"not corrected: {step.what}; {step.why}{tried}"


def _of_probes(facts: Facts) -> Iterator[str]:
    few = [
        f"{name} {there:,} of {count:,}" for name, count in facts.asked.items() if (there := facts.probed.get(name, 0)) < count
    ]
    if few:
        yield (
            f"fewer pairs were probed than debias.probes asks for: {', '.join(few)}; the others cannot be changed that way, have "
            "no vote to hold an answer against, or gave no answer"
        )


def _of_data(facts: Facts) -> Iterator[str]:
    if facts.usable < FEW:
        yield f"{pairs(facts.usable)} with a verdict: with fewer than {FEW} no number here is worth acting on"
    if facts.bad:
        yield f"{pairs(facts.bad)} with a vote that cannot be read: rejected as bad_vote"
    if missing := facts.rows - facts.usable:
        yield f"{pairs(missing)} without any verdict: rejected as no_verdict"
    if facts.gold >= FEW and max(facts.gold_a, facts.gold - facts.gold_a) / facts.gold > ONE_SIDED:
        yield f"gold is on side a in {facts.gold_a} of {facts.gold} pairs: a judge that always says so would look right"
    ci = facts.after["accuracy_ci"]
    if facts.gold >= FEW and ci and ci[0] <= 0.5:
        verb = "worse than" if ci[1] < 0.5 else "no better than"
        accuracy = f"accuracy {facts.after['accuracy']:.3f}, 95% {ci[0]:.3f} to {ci[1]:.3f}"
        yield f"against gold the labels are {verb} chance ({accuracy})"


def _biases_of(labeler: Labeler, facts: Facts) -> Iterator[str]:
    yield from _of_position(labeler, facts)
    yield from _of_token(labeler, facts)
    yield from _of_dimensions(labeler, facts)


def _against(labeler: Labeler, facts: Facts) -> Iterator[str]:
    swaps, who = labeler.position.swapped, f"labeler '{labeler.name}'"
    yield from (f"{who}: {line}" for line in labeler.broken)
    yield from _of_gold(labeler)
    yield from _of_orders(labeler)
    if count := facts.softened.get(labeler.name):
        yield f"{who}: {count} votes are nearer to .5 than the judge was (a clamp): its biases are larger than they look here"
    low = swaps.consistency.value
    if swaps.n >= FEW and low is not None and low < INCONSISTENT:
        why = "; mostly its liking for a slot" if labeler.position.bias.significant else ""
        yield f"{who}: the same candidate wins in both orders in only {low:.1%} of {swaps.n} comparisons{why}"
    chance = swaps.above_chance.ci
    if swaps.n >= FEW and chance and chance[0] <= 0:
        yield f"{who}: its agreement with itself over the orders is no more than chance: it may know nothing about these pairs"
    if (share := _abstained(labeler)) > ABSTAINED:
        yield f"{who}: {share:.1%} of {labeler.votes} votes are abstentions (more than {ABSTAINED:.0%})"


def _of_token(labeler: Labeler, facts: Facts) -> Iterator[str]:
    token, made = labeler.position.token, any(step.kept and step.name == "token" for step in facts.steps)
    if token is not None and token.token.significant and token.token.value is not None:
        which = "earlier" if token.token.value > 0 else "later"
        yield (
            f"labeler '{labeler.name}': prefers what is called by the {which} of two labels (A before B), in whatever slot: "
            f"{_with_ci(token.token)} log-odds; by swaps; {'taken off' if made else 'not taken off'}"
        )


def _of_dimensions(labeler: Labeler, facts: Facts) -> Iterator[str]:
    """What moves it: one line for each bias that is identified, one for all that may be quality."""
    for one in labeler.dimensions:
        if one.mute:
            yield f"labeler '{labeler.name}': its probes of {one.name} tell nothing: {one.mute}"
    there = [one for one in labeler.dimensions if one.significant and one.effect.value]
    for one in there:
        if one.identified:
            yield f"labeler '{labeler.name}': {_identified(one, facts)}"
    if confounded := [one for one in there if not one.identified]:
        named = ", ".join(f"{one.name} ({one.effect.value:+.2f})" for one in confounded)
        yield (
            f"labeler '{labeler.name}': labels go with {named}, in log-odds per sd; bias or quality, these data cannot tell; "
            "not corrected"
        )


def _identified(one: Dimension, facts: Facts) -> str:
    if one.name == SELF:
        more = "more" if (one.effect.value or 0) > 0 else "less"
        return f"it is {more} often right where the better answer is its own ({_with_ci(one.effect)}), by gold"
    per = one.unit if one.unit in (PER_SD, PER_ONE) else "log-odds"
    return f"{one.name} moves it by {_with_ci(one.effect)} {per}, by {one.identified_by}; {_what_became(one, facts)}"


def _what_became(one: Dimension, facts: Facts) -> str:
    if one.unit == PER_ONE:
        return "no two answers differ in it, so there is nothing to correct"
    if one.name not in facts.correctable:
        style = one.name != "length" and one.name in FEATURES and FEATURES[one.name].corrects
        return f"not corrected (debias.style: [{one.name}])" if style else "not corrected"
    probed = one.identified_by == "probe" and any(step.kept and step.name == "probes" for step in facts.steps)
    return "taken off" if probed or one.name in facts.fitted else "not taken off"


def _with_ci(found: Any) -> str:
    ci = f" (95% {found.ci[0]:+.2f} to {found.ci[1]:+.2f})" if found.ci else ""
    return f"{found.value:+.2f}{ci}"


def _abstained(labeler: Labeler) -> float:
    return labeler.abstained / labeler.votes if labeler.votes else 0.0


def _of_gold(labeler: Labeler) -> Iterator[str]:
    ci = labeler.gold.kappa.ci
    if labeler.gold.n >= FEW and ci and ci[0] <= 0:
        verdict = "worse than chance: is a verdict read the wrong way round?" if ci[1] < 0 else "no better than chance"
        kappa = f"kappa {ci[0]:+.3f} to {ci[1]:+.3f}"
        yield f"labeler '{labeler.name}': against {labeler.gold.n} gold labels it is {verdict} ({kappa})"


def _of_orders(labeler: Labeler) -> Iterator[str]:
    who, position = f"labeler '{labeler.name}'", labeler.position.bias
    if not labeler.both_orders and labeler.one_order:
        yield f"{who}: only one order was asked, so its position bias can be neither measured nor removed"
    elif labeler.both_orders < FEW:
        yield f"{who}: too few answers in both orders: {pairs(labeler.both_orders)}"
    if labeler.both_orders and position.warning:
        yield f"{who}: {position.warning}"


def _of_position(labeler: Labeler, facts: Facts) -> Iterator[str]:
    who, position = f"labeler '{labeler.name}'", labeler.position.bias
    if position.significant and position.value is not None:
        slot, ci = "first" if position.value > 0 else "second", position.ci
        b = f"b = {position.value:+.3f} ({f'95% {ci[0]:+.3f} to {ci[1]:+.3f}' if ci else 'the same in every pair'})"
        yield f"{who}: prefers the {slot} shown answer, {b}; {_what_was_done(labeler, facts)}"


def _what_was_done(labeler: Labeler, facts: Facts) -> str:
    if not labeler.one_order:
        return "it cancels over the two orders"
    if labeler.name in facts.piloted:
        return f"as its pilot found it, it is removed from the {pairs(labeler.one_order)} with one order, cancels in the others"
    if labeler.name in facts.shift:
        chosen = "" if labeler.both_orders < FEW else "; it is taken from those with both, as if chance had chosen them"
        return f"removed from the {pairs(labeler.one_order)} with one order, cancels in the others{chosen}"
    return f"not removed from the {pairs(labeler.one_order)} with one order (debias.position is false)"


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
    """Whether a labeler knows too little, by gold where there is enough. Verdicts that turn with the order are a bias."""
    gold, swaps = labeler.gold, labeler.position.swapped
    if gold.n >= FEW:
        return gold.kappa.ci is not None and gold.kappa.ci[0] <= 0
    chance = swaps.above_chance.ci
    return swaps.n >= FEW and chance is not None and chance[0] <= 0


def _about_labels(facts: Facts) -> Iterator[str]:
    if facts.usable and facts.after["kept_share"] < KEPT:
        kept = f"only {facts.after['kept_share']:.0%} of the pairs are kept"
        yield f"{kept}: ask more votes (label_pairs.votes: 2), or debias.ties: keep"
    confounded = {one.name for labeler in facts.labelers for one in labeler.dimensions if one.significant and not one.identified}
    if probing := sorted(confounded & set(probes.names())):
        named = ", ".join(f"{name}: 50" for name in probing)
        or_gold = f", or gold of {ENOUGH_GOLD} pairs" if facts.gold < ENOUGH_GOLD else ""
        yield f"tell bias from quality: debias.probes: {{{named}}}{or_gold}"
    if facts.usable and not facts.gold:
        yield (
            "nothing here is checked against people: cai audit sample draws pairs for them to judge, "
            "or bring some that they judged (prompts.gold: true)"
        )
