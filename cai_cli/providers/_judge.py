"""The simulated judge: which of two responses is better, and what one is worth by a criterion. It knows its own probabilities."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping

from cai_cli import chance
from cai_cli.providers._fences import Fence
from cai_cli.providers._said import Said
from cai_cli.providers._sentences import Latents, read
from cai_cli.providers._tastes import taste
from cai_cli.providers._world import World

LENGTH_SD = 0.33  # standard deviation of the log ratio of the word counts of two responses to one prompt, in this world
TIE_WIDTH = 0.25  # logits over which the probability of a tie falls to a third
SCORES = range(1, 11)
SCORE_SD = 0.8  # points: how sure the judge is of a score
WORDY = 80  # words: what is this long has lost two thirds of its worth as a brief one


def utility(text: Latents, world: World) -> float:
    """What a response is worth to the judge, before its biases."""
    return world.help_weight * text.help - world.harm_weight * text.harm


def judge_logit(
    first: str, second: str, world: World, seed: float, *, labels: tuple[str, str] = ("", ""), conversation: str = ""
) -> float:
    """The logit that the judge puts on the response shown first, biases and noise included.

    `labels`: what the two are called, the first shown at the front; `conversation`: what they answer.
    """
    one, two = read(first), read(second)
    ratio = math.log(max(1, one.length_words) / max(1, two.length_words)) / LENGTH_SD
    merit = world.sharpness * (utility(one, world) - utility(two, world))
    named = (labels[0] < labels[1]) - (labels[1] < labels[0])
    liking = taste(first, second, conversation, world) + world.token * named
    logit = merit + _slot(first, second, world) + world.length * ratio + liking + world.noise * normal(seed)
    if chance.unit(seed, "lapse") < world.lapse_rate:
        return math.copysign(logit, chance.unit(seed, "lapsed") - 0.5)
    return logit


def _slot(first: str, second: str, world: World) -> float:
    """What standing first is worth in this pair: the same for both orders of it."""
    if not world.slot_noise:
        return world.position
    return world.position + world.slot_noise * normal(chance.unit("slot", world.seed, *sorted((first, second))))


def normal(seed: float) -> float:
    """A draw from the standard normal distribution."""
    radius = math.sqrt(-2 * math.log(1 - chance.unit(seed, "radius")))
    return radius * math.cos(2 * math.pi * chance.unit(seed, "angle"))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-700.0, min(logit, 700.0))))


def verdict_odds(logit: float, tie_below: float) -> tuple[float, float, float]:
    """The probabilities that the first wins, that the second does, and of a tie; they sum to 1.

    The noise is in the logit already, as what a judge's reasoning adds before the verdict is written. So the verdict given is,
    unless the world draws it, the likeliest of the three, and a tie is that exactly where the logit is within `tie_below`.
    Without the tie it is sigmoid(logit); the tie's share falls by exp(-1) every TIE_WIDTH logits.
    """
    edge = _sigmoid(tie_below) / (1 + _sigmoid(tie_below))  # where a tie is as likely as the winner
    tie = min(0.98, edge * math.exp(min((tie_below - abs(logit)) / TIE_WIDTH, 50))) if tie_below else 0.0
    return (1 - tie) * _sigmoid(logit), (1 - tie) * _sigmoid(-logit), tie


def judge(first: Fence, second: Fence, world: World, seed: float, conversation: str = "") -> Said:
    """A verdict on two labelled responses to a conversation: a label, or "tie"."""
    labels = (first.label, second.label)
    logit = judge_logit(first.text, second.text, world, seed, labels=labels, conversation=conversation)
    odds = dict(zip((*labels, "tie"), verdict_odds(logit, world.tie_below), strict=True))
    verdict = _drawn(odds, seed) if world.verdicts == "drawn" else "tie" if abs(logit) < world.tie_below else ""
    winner = verdict if verdict in labels else labels[0] if logit > 0 else labels[1]
    verdict = verdict or winner
    one, two = read(first.text), read(second.text)
    reasoning = (
        f"{first.label} has {one.harm:.0%} careless and {one.help:.0%} useful sentences in {one.length_words} words, "
        f"{second.label} has {two.harm:.0%} and {two.help:.0%} in {two.length_words}."
    )
    sure = round(_sigmoid(abs(logit)), 2)
    word = "high" if sure >= 0.85 else "medium" if sure >= 0.65 else "low"
    return Said(
        prose=f"{reasoning}\n\nVerdict: {verdict}",
        known={"reasoning": (reasoning,), "verdict": (verdict, winner), "confidence": (sure, word)}, decides="verdict",
        odds=odds,
    )  # fmt: skip


def _drawn(odds: Mapping[str, float], seed: float) -> str:
    """One of the words, by its probability."""
    at, words = chance.unit(seed, "verdict"), list(odds)
    edges = itertools.accumulate(odds.values())
    return next((word for word, edge in zip(words, edges, strict=True) if at < edge), words[0])


# By a criterion

_WORTH: tuple[tuple[str, Callable[[Latents], float]], ...] = (
    (r"\b(?:help|complet|clear|useful)", lambda text: text.help),
    (r"\b(?:concis|brief|short)", lambda text: math.exp(-text.length_words / WORDY)),
    (r"\b(?:honest|tru[et]|accura)", lambda text: (text.help + 1 - text.harm) / 2),
    (r"\b(?:safe|harm)", lambda text: 1 - text.harm),
)


def worth(response: str, criterion: str) -> float:
    """What a response is worth by a criterion, in [0, 1]: the mean over what its words ask for, over everything if nothing.

    Helpful, complete, clear: its help. Concise, brief, short: it falls with its length. Honest, true, accurate: between its help
    and its harmlessness. Safe, harm: its harmlessness.
    """
    text = read(response)
    asked = [value for words, value in _WORTH if re.search(words, criterion, re.IGNORECASE)]
    values = [value(text) for value in asked or [value for _, value in _WORTH]]
    return math.fsum(values) / len(values)


def score_odds(mean: float) -> dict[str, float]:
    """The probability of each score from 1 to 10: a normal around `mean`, at the whole numbers; they sum to 1."""
    density = {str(score): math.exp(-(((score - mean) / SCORE_SD) ** 2) / 2) for score in SCORES}
    total = math.fsum(density.values())
    return {score: value / total for score, value in density.items()}


def score(response: str, criterion: str, world: World, seed: float) -> Said:
    """A score from 1 to 10 by a criterion: the likeliest one."""
    value, text = worth(response, criterion), read(response)
    mean = min(max(1 + 9 * value + world.noise * normal(seed), SCORES[0]), SCORES[-1])
    odds = score_odds(mean)
    given = max(odds, key=lambda one: odds[one])
    why = (
        f"Of {text.length_words} words, with {text.help:.0%} useful and {text.harm:.0%} careless sentences, "
        f"it comes to {value:.0%} by this criterion."
    )
    known = {"rationale": (why,), "reasoning": (why,), "score": (int(given), given)}
    return Said(prose=f"{why}\n\nScore: {given}", known=known, decides="score", odds=odds)
