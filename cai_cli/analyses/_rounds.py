"""What is summed over the rounds of rows: levels of the text before and after each, gains, and both sides of a trade."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cai_cli.analyses._steps import Step, first_response, said, steps
from cai_cli.analyses._tally import Tally, group_of
from cai_cli.analyses._texts import disclaims, length, warns
from cai_cli.features.refusal import declines, straight

HARMLESS = ("harmlessness", "safety", "harmless", "safe")  # criteria that stand for it, the first that is scored
HELPFUL = ("helpfulness", "helpful")
KNOWN = 0.95  # share of the rows measured at first that must be measured still: those that are not are no random ones
NOT_YET = "not yet"  # what ended a row that goes on, or does not say
PHRASES = ("refusals", "caveats", "disclaimers")

_TEXT = ("words", *PHRASES)
_RULES = ("no_revision_needed", "severity_below", "improvement_below", "quality_above")  # they look at the severity
State = dict[str, float | None]  # what is measured of a text; scores as "score NAME"


class Gathered:
    """What is summed while rows stream by. A row that has ended counts with its last text in every later round."""

    def __init__(self, last: Mapping[str, tuple[int, Mapping[str, float]]]) -> None:
        self.last = last  # of rows by id: the hash of the text that was scored, and its scores
        self.rows = self.without = self.rounds = 0
        self.tally = Tally()
        self.scale = (1.0, 10.0)  # of the scores; wider where they are
        self.criteria: dict[str, None] = {}  # in the order in which they turn up
        self.ended: Counter[str] = Counter()
        self._lengths: set[int] = set()

    def add(self, row: Mapping[str, Any]) -> None:
        group = group_of(row, self.rows)
        self.rows += 1
        taken = steps(row)
        if not taken or not first_response(row).strip():
            self.without += 1
            return
        closed = [step for step in taken if not step.open]
        self._reach(len(closed))
        states = self._states(row, taken, closed)
        self._levels(states, group)
        for at, step in enumerate(closed):
            self._round(at + 1, step, group)
        self._whole(states, group)
        self.ended[said(row, "stopped_by") or NOT_YET] += 1
        self._lengths.add(len(closed))

    def _reach(self, rounds: int) -> None:
        """The first row with that many rounds: all rows before it ended earlier, and stay as they were."""
        while self.rounds < rounds:
            self.tally.carry(self.rounds, self.rounds + 1)
            self.rounds += 1

    def _states(self, row: Mapping[str, Any], taken: Sequence[Step], closed: Sequence[Step]) -> list[State]:
        """What is measured of the text before any round, after one, and so on."""
        found: list[State] = []
        text, of_text = None, State()
        for at in range(len(closed) + 1):
            now = closed[at - 1].after if at else taken[0].before
            if now != text:
                text, of_text = now, _of_text(now)
            rated = taken[at] if at < len(taken) else None
            found.append(of_text | self._rated(row, rated, found, bool(closed) and closed[-1].changed, now))
        return found

    def _rated(self, row: Mapping[str, Any], rated: Step | None, before: Sequence[State], changed: bool, text: str) -> State:
        """Severity and scores of a text: by the round that criticised it; of the last one what is known of it otherwise."""
        if rated is None and not changed:
            return {name: value for name, value in before[-1].items() if name not in _TEXT}
        if rated is not None:
            given, severity = rated.scores, rated.severity
        else:
            scored, given = self.last.get(said(row, "id"), (None, {}))
            given, severity = given if scored == hash(text) else {}, None
        for criterion, value in given.items():
            self.criteria.setdefault(criterion)
            self.scale = min(self.scale[0], value), max(self.scale[1], value)
        return {"severity": severity} | {f"score {criterion}": value for criterion, value in given.items()}

    def _levels(self, states: Sequence[State], group: int) -> None:
        first = states[0]
        for at in range(self.rounds + 1):
            now, before = states[min(at, len(states) - 1)], states[min(max(at - 1, 0), len(states) - 1)]
            for name, value in now.items():
                self.tally.add((at, name), group, value)
                if at:
                    self.tally.add((at, "gain", name), group, _minus(value, before.get(name)))
            words, at_first = now["words"], first["words"]
            self.tally.add((at, "shorter"), group, words < at_first if words is not None and at_first is not None else None)

    def _round(self, at: int, step: Step, group: int) -> None:
        self.tally.add(("round", at, "revised"), group, bool(step.revision))
        self.tally.add(("round", at, "accepted"), group, step.accepted if step.revision else None)
        self.tally.add(("round", at, "unchanged"), group, not step.changed)

    def _whole(self, states: Sequence[State], group: int) -> None:
        """Both sides of the trade between the first text and the last, and of every round, in rows that have both."""
        for phrase in PHRASES:
            self.tally.add(("whole", phrase), group, _minus(states[-1][phrase], states[0][phrase]))
        ends = [("whole", states[0], states[-1]), *((at, states[at - 1], states[at]) for at in range(1, len(states)))]
        for name, before, after in ends:
            for harmless, sign in (*((f"score {one}", 1.0) for one in HARMLESS), ("severity", -1.0)):
                for helpful in (f"score {one}" for one in HELPFUL):
                    gained, lost = (
                        _minus(after.get(harmless), before.get(harmless)),
                        _minus(before.get(helpful), after.get(helpful)),
                    )
                    if gained is not None and lost is not None:
                        self.tally.add(("trade", name, harmless, helpful, "gained"), group, sign * gained)
                        self.tally.add(("trade", name, harmless, helpful, "lost"), group, lost)

    @property
    def selects(self) -> bool:
        """Whether rows ended because of their severity, or may have, as they do not say why."""
        return any(self.ended[rule] for rule in _RULES) or (self.ended[NOT_YET] > 0 and len(self._lengths) > 1)

    def known(self, at: int, name: str) -> bool:
        """Whether a measure is known of nearly all texts after that many rounds."""
        first = self.tally.count((0, name))
        return first > 0 and self.tally.count((at, name)) >= KNOWN * first


def _of_text(text: str) -> State:
    flat = straight(text)
    return {"words": length(text), "caveats": warns(flat), "disclaimers": disclaims(flat), "refusals": declines(text)}


def _minus(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right
