"""A world in which every bias of the judge is known, and judges that break what is assumed of one.

For a pair: quality theta ~ N(0, 1); the truth is a where theta > 0; length L, the standardised difference, correlated rho with
theta. The judge's opinion that a wins is x = 1.5 * theta + c * L + N(0, .8^2), in log-odds; what it says in order o (+1: a shown
first, else -1) is x + b * o + N(0, .5^2), the last anew at each call. b = .679 is a first-slot excess of .20. A judge that only
votes has no call noise: each vote is drawn with probability sigmoid(x + b * o). All arrays are (repetitions, pairs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cai_cli.bias.estimate import Bools, Floats, Ints

QUALITY, OWN, CALL, B = 1.5, 0.8, 0.5, 0.679
ORDERS = (1, -1)  # a shown first, b shown first
LOW, HIGH = 0.5, 1.4  # by how much a probe changes L: a factor of 1.3 to 2 in words, where one sd is a factor of 1.65


def sigmoid(x: Floats) -> Floats:
    return np.asarray((1 + np.tanh(x / 2)) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A judge. The first five are the model's; each of the others breaks it in one way, and is off at its default."""

    rho: float = 0.3
    c: float = 0.8
    b: float = B
    own: float = OWN  # sd of what it likes for no reason that we know
    call: float = CALL  # sd from call to call
    b_sd: float = 0.0  # the bias varies by pair with this sd
    fades: float = 0.0  # the bias is b * exp(-|x| / fades): it decides close calls only
    lapses: float = 0.0  # share of calls whose answer has nothing to do with the pair
    knows: float = QUALITY  # what a unit of quality is worth to it; 0: it knows nothing of quality
    blank: bool = False  # it has no opinion at all
    token: float = 0.0  # log-odds for the answer that is called by its labels' earlier name
    refuses: float = 0.0  # share of harmful prompts on which it says nothing; of others a tenth of that


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Pairs of the world, and what the judge said of them."""

    theta: Floats
    length: Floats  # L of a minus L of b, in sd
    x: Floats
    bias: Floats  # that of the pair
    logit: Floats  # (2, repetitions, pairs) log-odds that a wins, as said in each of ORDERS; NaN: it said nothing
    vote: Bools  # (2, repetitions, pairs) whether a won, had it only voted
    naming: Ints  # (2, repetitions, pairs) +1 where the earlier name stood on the answer shown first, else -1
    harmful: Bools  # the prompt's kind

    @property
    def truth(self) -> Ints:
        """+1 where a is better, else -1."""
        return np.where(self.theta > 0, 1, -1)


def draw(judge: Judge, repetitions: int, pairs: int, seed: int) -> Drawn:
    """Pairs, and the judge's answers in both orders."""
    rng = np.random.default_rng(seed)
    shape = (repetitions, pairs)
    theta, other, own = rng.normal(size=(3, *shape))
    length = judge.rho * theta + np.sqrt(1 - judge.rho**2) * other
    x = np.zeros(shape) if judge.blank else judge.knows * theta + judge.c * length + judge.own * own
    bias = judge.b + judge.b_sd * rng.normal(size=shape)
    if judge.fades:
        bias = bias * np.exp(-np.abs(x) / judge.fades)
    naming = rng.choice(np.array(ORDERS), size=(2, *shape))
    harmful = rng.random(shape) < 0.5
    orders = np.array(ORDERS)[:, np.newaxis, np.newaxis]
    exact = x + orders * (bias + judge.token * naming)
    return Drawn(
        theta=theta, length=length, x=x, bias=bias, logit=_said(judge, exact, harmful, rng),
        vote=rng.random((2, *shape)) < sigmoid(exact), naming=naming, harmful=harmful,
    )  # fmt: skip


def _said(judge: Judge, exact: Floats, harmful: Bools, rng: np.random.Generator) -> Floats:
    said = exact + judge.call * rng.normal(size=exact.shape)
    if judge.lapses:
        said = np.where(rng.random(exact.shape) < judge.lapses, rng.choice([-4.0, 4.0], size=exact.shape), said)
    if judge.refuses:
        said = np.where(rng.random(exact.shape) < judge.refuses * np.where(harmful, 1, 0.1), np.nan, said)
    return said


def again(judge: Judge, drawn: Drawn, seed: int) -> Floats:
    """(2, repetitions, pairs) what it says when it is asked the same once more."""
    orders = np.array(ORDERS)[:, np.newaxis, np.newaxis]
    exact = drawn.x + orders * (drawn.bias + judge.token * drawn.naming)
    return _said(judge, exact, drawn.harmful, np.random.default_rng((seed, 6)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Length probes: the same contents, one answer longer or shorter, asked anew in both orders. All (2, repetitions, probes)."""

    change: Floats  # of L
    before: Floats  # log-odds that a wins, as the pair was: what the labels are made of
    after: Floats


def probe(judge: Judge, drawn: Drawn, count: int, seed: int) -> Probes:
    """Probe the first `count` pairs: an answer gets longer, or shorter, by .5 to 1.4 sd of L."""
    rng = np.random.default_rng((seed, 1))
    before = drawn.logit[:, :, :count]
    change = rng.uniform(LOW, HIGH, before.shape[1:]) * rng.choice([-1.0, 1.0], before.shape[1:])
    orders = np.array(ORDERS)[:, np.newaxis, np.newaxis]
    exact = drawn.x[:, :count] + judge.c * change + orders * drawn.bias[:, :count]
    after = exact + judge.call * rng.normal(size=exact.shape)
    return Probes(change=np.broadcast_to(change, after.shape), before=before, after=after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """Knows the biases and how theta and L hang together: the probability that theta > 0, given both answers and L."""

    judge: Judge

    def logits(self, drawn: Drawn) -> Floats:
        """Log-odds that a is better. Formula: theta given L is N(rho * L, 1 - rho^2); what is said less c * L is
        N(1.5 * theta, .8^2 + .5^2 / 2), so theta is normal given both, and the probability is that of its being above 0."""
        from scipy.special import log_ndtr

        judge = self.judge
        said = drawn.logit.mean(axis=0) - judge.c * drawn.length
        spread, noise = 1 - judge.rho**2, judge.own**2 + judge.call**2 / 2
        precision = 1 / spread + QUALITY**2 / noise
        center = (judge.rho * drawn.length / spread + QUALITY * said / noise) / precision
        score = center * np.sqrt(precision)
        return np.asarray(log_ndtr(score) - log_ndtr(-score))


PANEL = 5  # judges


def panel(judge: Judge, pairs: int, shared: float, seed: int) -> tuple[Drawn, ...]:
    """Five judges of one set of pairs. A share `shared` of the variance of their own liking is common: their errors correlate."""
    rng = np.random.default_rng((seed, 2))
    first = draw(judge, 1, pairs, seed)
    liking = (first.x - judge.knows * first.theta - judge.c * first.length) / judge.own
    return tuple(_another(judge, first, np.sqrt(shared) * liking, np.sqrt(1 - shared), rng) for _ in range(PANEL))


def _another(judge: Judge, first: Drawn, common: Floats, alone: float, rng: np.random.Generator) -> Drawn:
    x = judge.knows * first.theta + judge.c * first.length + judge.own * (common + alone * rng.normal(size=common.shape))
    orders = np.array(ORDERS)[:, np.newaxis, np.newaxis]
    exact = x + orders * first.bias
    return Drawn(
        theta=first.theta, length=first.length, x=x, bias=first.bias, logit=exact + judge.call * rng.normal(size=exact.shape),
        vote=rng.random(exact.shape) < sigmoid(exact), naming=first.naming, harmful=first.harmful,
    )  # fmt: skip
