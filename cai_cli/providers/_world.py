"""The settings of the simulated model's world, and their check."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any

from cai_cli.errors import Fix


def _number(default: float, low: float = -inf, high: float = inf) -> Any:
    return field(default=default, metadata={"low": low, "high": high})


def _share(default: float) -> Any:
    return _number(default, 0, 1)


def _word(*choices: str) -> Any:
    return field(default=choices[0], metadata={"choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How the simulated model behaves: what `model.world` in a config may set."""

    # What it answers
    harm: float = _share(0.6)  # mean share of harmful sentences in responses to prompts that look harmful
    refusal_rate: float = _share(0)  # of prompts: a refused prompt is refused in every draw
    reply_length: float = _number(1, 0.1, 20)  # of responses, and of the reasons in critiques and verdicts: 2 is twice the usual
    reply_spread: float = _number(0, 0, 2)  # standard deviation of its logarithm, over replies
    agreeable: float = _share(0)  # share of answers to a stated belief that open by agreeing, the others disagree; 0: none says
    # What it votes as a judge: logit that the response shown first wins =
    #   sharpness * (utility first - utility second) + position + length * standardised log length ratio + Normal(0, noise)
    #   + what it likes besides content and what breaks that model, all of it 0 unless it is set
    sharpness: float = _number(3.0, 0)
    help_weight: float = _number(1.5)  # utility = help_weight * help - harm_weight * harm
    harm_weight: float = _number(2.0)
    position: float = _number(0.4)  # logit
    length: float = _number(0.3)  # logit per standard deviation of the log length ratio
    noise: float = _number(0.5, 0)  # standard deviation of every single vote, in logits, and of every single score, in points
    tie_below: float = _number(0.02, 0)  # absolute logit under which it calls a tie
    verdicts: str = _word("likeliest", "drawn")  # drawn: by their probabilities, as a bare verdict that is Bernoulli is
    # What it likes besides content, in logits
    sycophancy: float = _number(0)  # toward the one response of which the user's last turn quotes a sentence
    authority: float = _number(0)  # toward a response that names an authority, if the other does not
    markdown: float = _number(0)  # per unit of log(1 + list items + headers + bold spans)
    assertiveness: float = _number(0)  # per unit of log(1 + words that boost) - log(1 + words that hedge)
    token: float = _number(0)  # toward the response with the earlier label, as A is before B
    # What breaks the model of a judge
    slot_noise: float = _number(0, 0)  # standard deviation of `position` over pairs, in logits
    lapse_rate: float = _share(0)  # of votes: as sure as ever, but which side is left to chance
    # How it criticises and revises
    critic_noise: float = _share(0)  # share of sentences that the critic misreads
    revise_keep: float = _share(0.25)  # share of harmful sentences that survive one revision
    spoil_rate: float = _share(0)  # share of revisions that come out worse: useful sentences go, harmful ones stay and gain one
    caveat_rate: float = _share(0.15)  # share of revisions that gain a caveat
    meta_prefix_rate: float = _share(0)  # share of revisions that begin with "Sure, here is ..."
    # What new prompts it writes
    duplicate_rate: float = _share(0.15)  # share of them that nearly repeat one of the examples
    # What goes wrong
    empty_rate: float = _share(0)  # of replies
    unreadable_rate: float = _share(0)  # of critiques, votes, scores and lists of prompts: what was decided cannot be parsed
    # What it looks like from outside
    latency_ms: float = _number(0, 0)
    logprobs: bool = False  # whether replies in this process tell the probabilities of a request's options
    reported_model: str = ""  # the model that replies say they come from; empty: the one asked for
    seed: int = _number(0, 0)  # another seed is another model with the same habits


def world_of(params: Mapping[str, Any]) -> World:
    """The world that a model's parameters describe under `world`; the default one where they do not.

    Raises: Fix with every problem: unknown key (with a near miss), wrong type, out of range
    """
    given = params.get("world") or {}
    if not isinstance(given, Mapping):
        raise Fix(f"model.world must be a mapping of settings, not {given!r}", "such as world: {refusal_rate: 0.1}")
    problems = [problem for name, value in given.items() for problem in _problems(name, value)]
    if problems:
        raise Fix(*problems[0], problems=tuple(problems))
    return World(**given)


_SETTINGS = {setting.name: setting for setting in fields(World)}


def _problems(name: Any, value: Any) -> list[tuple[str, str]]:
    setting = _SETTINGS.get(name)
    if setting is None:
        near = difflib.get_close_matches(str(name), _SETTINGS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(_SETTINGS)}"
        return [(f"model.world: unknown key '{name}'", hint)]
    if choices := setting.metadata.get("choices"):
        hint = f"the default is {setting.default}"
        return [] if value in choices else [(f"model.world.{name} must be {' or '.join(choices)}, not {value!r}", hint)]
    if isinstance(setting.default, str):
        return [] if isinstance(value, str) else [(f"model.world.{name} must be text, not {value!r}", f"write {name}: some-name")]
    if isinstance(setting.default, bool):
        hint = f"the default is {str(setting.default).lower()}"
        return [] if isinstance(value, bool) else [(f"model.world.{name} must be true or false, not {value!r}", hint)]
    whole = setting.name == "seed"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        kind = "a whole number" if whole else "a number"
        return [(f"model.world.{name} must be {kind}, not {value!r}", f"the default is {setting.default}")]
    low, high = setting.metadata["low"], setting.metadata["high"]
    if not low <= value <= high or value in (inf, -inf):
        return [(f"model.world.{name} must be {_range(low, high)}, not {value}", f"the default is {setting.default}")]
    return []


def _range(low: float, high: float) -> str:
    if high < inf:
        return f"between {low} and {high}"
    return f"a finite number, at least {low}" if low > -inf else "a finite number"
