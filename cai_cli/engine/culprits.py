"""Which replies a row failed on: found by playing its flow with the replies that the ledger holds. Asks nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from cai_cli.engine.preview import about
from cai_cli.engine.retries import Retries
from cai_cli.errors import Reject
from cai_cli.flow import Flow, Outcome, Request

FLAGS = ("refused", "truncated")  # of rows that are kept
_WELL = ("end_turn", "stop_sequence", "tool_use", "pause_turn")  # how a reply ends that nothing is wrong with, by itself
Known = Callable[[Request], Outcome | None]  # what was answered; None: nothing yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A row that was rejected or, `kept`, one that stayed with a flag. `where`: its place in the input, if it failed there"""

    stage: str
    id: str
    prompt_id: str
    reason: str
    where: str = ""
    kept: bool = False


class Asked(NamedTuple):
    """A question as its stage put it, and what came back."""

    wave: int
    request: Request
    outcome: Outcome


def played(flow: Flow[Any], retries: Retries, known: Known) -> list[Asked] | None:
    """All that a flow asks, with the replies to its questions as these retries put them; None: not all of them are known."""
    asked: list[Asked] = []
    try:
        requests = next(flow)
        for wave in itertools.count():
            found = [known(retries.asked(request)) for request in requests]
            outcomes = tuple(outcome for outcome in found if outcome is not None)
            if len(outcomes) < len(found):
                return None
            asked += [Asked(wave, request, outcome) for request, outcome in zip(requests, outcomes, strict=True)]
            requests = flow.send(outcomes)
    except StopIteration:
        pass
    finally:
        flow.close()
    return asked


def culprits(asked: Sequence[Asked], row: Failed, loop: Collection[str]) -> list[Request]:
    """The questions whose replies a row failed on, with all attempts at them, as the stage put them.

    Of a kept row: those whose reply has its flag. Of a rejected one, among what its last visit to the stage asked: those that
    were refused, cut off, left without text, not taken by the server or asked twice; where there is no such, the last ones.
    Takes: `loop`: the stage, and the one that it is looped with
    """
    mine = [one for one in asked if one.request.stage in loop and about(row.id, one.request.row)]
    if row.kept:
        visit = [one for one in mine if one.request.stage == row.stage]
        bad = [one for one in visit if getattr(one.outcome, row.reason, False)]
    else:
        visit = list(itertools.takewhile(lambda one: one.request.stage == row.stage, reversed(mine)))[::-1]
        bad = [one for one in visit if _is_bad(one)] or [one for one in visit if one.wave == visit[-1].wave]
    questions = {_question(one.request) for one in bad}
    return [one.request for one in visit if _question(one.request) in questions]


def _is_bad(one: Asked) -> bool:
    reply = one.outcome
    if isinstance(reply, Reject):
        return True
    return not reply.text.strip() or reply.stop_reason not in _WELL or one.request.attempt > 0


def _question(request: Request) -> str:
    """The same for all attempts at a question, also for that with twice the tokens."""
    return repr(replace(request, attempt=0).with_max_tokens(1).identity())
