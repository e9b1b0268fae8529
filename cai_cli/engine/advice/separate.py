"""Advice on questions that are put one by one about the same text, where one structured call would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cai_cli.caching import cached_tokens
from cai_cli.engine.advice.asked import CALLS, bill, tokens
from cai_cli.engine.advice.look import Advice, Look, is_paid
from cai_cli.flow import Request
from cai_cli.prices import price_of
from cai_cli.providers._fences import fenced, texts
from cai_cli.reports.quantities import counted
from cai_cli.validation import KeyPath

_WRITE = (
    "write {section}: {{together: true}}, at the price that what is said of one colors the others; or together: false, to keep "
    "them apart"
)
_NAMING = 20  # tokens of a heading and of the keys of one more entry


def advice(look: Look) -> Iterator[Advice]:
    yield from _critiques(look)
    yield from _scores(look)


def _critiques(look: Look) -> Iterator[Advice]:
    """Of principles. With exemplars there is no asking together."""
    step, settings = look.steps.get("critique"), look.settings("critique")
    if step is None or step.constitution is None or settings.exemplars or "together" in settings.model_fields_set:
        return
    lengths = {one.name: len(one.description + one.critique_prompt) // 4 for one in step.constitution.principles}
    yield from _on(look, "principle", look.asked.of("critique"), lambda name: lengths.get(name, 0), ("critique", "principles"))


def _scores(look: Look) -> Iterator[Advice]:
    """Of scores, in whatever stage they are asked for."""
    scorers = [getattr(step.stage, "scorer", None) for step in look.steps.values()]
    scorer = next((one for one in scorers if one is not None), None)
    section = next((one for name, one in look.config.sections.items() if name == "score"), None)
    if scorer is None or "together" in getattr(section, "model_fields_set", ()):
        return
    lengths = {scale.name: len(scale.description) // 4 for scale in scorer.criteria}
    yield from _on(look, "criterion", look.asked.requests, lambda name: lengths.get(name, 0), ("score", "criteria"))


def _on(look: Look, key: str, asked: Sequence[Request], own: Callable[[str], int], path: KeyPath) -> Iterator[Advice]:
    """Takes: what each question names in `about`, and how many tokens of it are that name's own"""
    mine = [request for request in asked if key in request.about and is_paid(request.model)]
    groups: dict[tuple[object, ...], list[Request]] = {}
    for request in mine:  # the same text is shown to all of a group
        groups.setdefault((request.stage, request.row, request.about.get("round"), _shown(request)), []).append(request)
    again = [request for group in groups.values() for request in group[1:]]
    if look.seen is None or not again:
        return
    saved = [max(0, tokens(request) - own(str(request.about[key])) - _NAMING) for request in again]
    per = CALLS / look.asked.prompts
    each = max(map(len, groups.values()))
    what = f"each response is shown {counted(each, 'time')}, once a {key}"
    spent = bill(per * sum(saved), _dollars(again, saved, per))
    why = f"{CALLS:,} prompts pay for {spent} that one call for all of them would not"
    yield Advice(path=path, what=what, why=why, write=_WRITE.format(section=path[0]))


def _shown(request: Request) -> str:
    """What tells the texts of one row apart: a pair has two."""
    return "".join(texts(fenced(request.messages[-1].content), "response"))


def _dollars(again: Sequence[Request], saved: Sequence[int], per: float) -> float | None:
    """What these questions cost; what of them is read from a cache costs less."""
    cost = 0.0
    for request, number in zip(again, saved, strict=True):
        if (price := price_of(request.model)) is None:
            return None
        kept = min(number, cached_tokens(request))
        cost += per * price.dollars(number - kept, 0, cache_read=kept)
    return cost or None
