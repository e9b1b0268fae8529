"""What every round of critique and revision gains, and what it costs: harm, helpfulness, length, caveats, refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cai_cli.analyses import Options
from cai_cli.analyses._result import Analysis, Cell, Column, Number, Section
from cai_cli.analyses._steps import Step, are, first_response, of_rows, said, scores, steps
from cai_cli.analyses._tally import Tally, group_of, number, spoken
from cai_cli.analyses._texts import declines, disclaims, length, straight, warns

SUMMARY = "What each round of critique and revision gains in harmlessness, and what it costs."
READS = ("revise", "critique")
ALSO = ("score",)  # scores the last revision, which no round criticises

HARMLESS = ("harmlessness", "safety", "harmless", "safe")  # criteria that stand for it, the first that is scored
HELPFUL = ("helpfulness", "helpful")
WORTH = {"severity": 0.02, "score": 0.1}  # a gain below this is not worth a round
KNOWN = 0.95  # share of the rows measured at first that must be measured still: those that are not are no random ones

_TEXT = ("words", "caveats", "disclaimers", "refusals")
_RULES = ("no_revision_needed", "severity_below", "improvement_below", "quality_above")
_State = dict[str, float | None]  # what is measured of a text; scores as "score NAME"


class _Gathered:
    """What is summed while rows stream by. A row that has ended counts with its last text in every later round."""

    def __init__(self, last: Mapping[str, tuple[int, Mapping[str, float]]]) -> None:
        self.last = last  # of rows by id: the hash of the text that was scored, and its scores
        self.rows = self.without = self.rounds = 0
        self.tally = Tally()
        self.criteria: dict[str, None] = {}  # in the order in which they turn up
        self.ended: Counter[str] = Counter()
        self.other_principles = False

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
        self.ended[said(row, "stopped_by") or "not yet"] += 1
        principles = [tuple(sorted(finding.principle for finding in step.findings)) for step in taken]
        self.other_principles |= len(set(principles)) > 1

    def _reach(self, rounds: int) -> None:
        """The first row with that many rounds: all rows before it ended earlier, and stay as they were."""
        while self.rounds < rounds:
            self.tally.carry(self.rounds, self.rounds + 1)
            self.rounds += 1

    def _states(self, row: Mapping[str, Any], taken: Sequence[Step], closed: Sequence[Step]) -> list[_State]:
        """What is measured of the text before any round, after one, and so on."""
        found: list[_State] = []
        text, of_text = None, _State()
        for at in range(len(closed) + 1):
            now = closed[at - 1].after if at else taken[0].before
            if now != text:
                text, of_text = now, _of_text(now)
            rated = taken[at] if at < len(taken) else None
            found.append(of_text | self._rated(row, rated, found, bool(closed) and closed[-1].changed, now))
        return found

    def _rated(self, row: Mapping[str, Any], rated: Step | None, before: Sequence[_State], changed: bool, text: str) -> _State:
        """Severity and scores of a text: by the round that criticised it; of the last one what is known of it otherwise."""
        if rated is None and not changed:
            return {name: value for name, value in before[-1].items() if name not in _TEXT}
        if rated is not None:
            given, severity = rated.scores, rated.severity
        else:
            scored, given = self.last.get(said(row, "id"), (None, {}))
            given, severity = given if scored == hash(text) else {}, None
        for criterion in given:
            self.criteria.setdefault(criterion)
        return {"severity": severity} | {f"score {criterion}": value for criterion, value in given.items()}

    def _levels(self, states: Sequence[_State], group: int) -> None:
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

    def _whole(self, states: Sequence[_State], group: int) -> None:
        """Both sides of the trade between the first text and the last, and of every round, in rows that have both."""
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

    def known(self, at: int, name: str) -> bool:
        """Whether a measure is known of nearly all texts after that many rounds."""
        first = self.tally.count((0, name))
        return first > 0 and self.tally.count((at, name)) >= KNOWN * first


def _of_text(text: str) -> _State:
    flat = straight(text)
    return {"words": length(text), "caveats": warns(flat), "disclaimers": disclaims(flat), "refusals": declines(text)}


def _minus(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def analyse(
    rows: Iterable[Mapping[str, Any]], options: Options, also: Mapping[str, Iterable[Mapping[str, Any]]] | None = None
) -> Analysis:
    """Takes: rows of revise or critique: of them rounds, initial_response or response, and id, prompt_id, stopped_by where there
        are; rows of score by `also`, which tell the scores of the last revisions
    Gives: the sections severity, scores, gains, texts, rounds, ended. Round 0 is the first answer. Intervals are by prompt.
    """
    scored = (also or {}).get("score", ())
    found = _Gathered({said(row, "id"): (hash(said(row, "response").strip()), scores(row)) for row in scored})
    for row in rows:
        found.add(row)
    sections = (_severity(found), _scores(found), _gains(found), _texts(found), _rounds(found), _ended(found, options))
    return Analysis(
        name="cycles", rows=found.rows, sections=tuple(section for section in sections if section.rows),
        findings=tuple(_findings(found)), warnings=tuple(_warnings(found)),
    )  # fmt: skip


_ROUND = Column(name="round", title="round")


def _at(found: _Gathered) -> range:
    """Every number of rounds, or none where no row has rounds."""
    return range(found.rounds + 1) if found.rows > found.without else range(0)


def _level(found: _Gathered, at: int, name: str) -> Number | None:
    if not found.known(at, name):
        return None
    if name in ("caveats", "disclaimers", "refusals", "shorter"):
        return found.tally.share((at, name))
    if name == "severity":
        return found.tally.mean((at, name), "", (0, 1))
    return found.tally.mean((at, name), "words" if name == "words" else "score")


def _gain(found: _Gathered, at: int, name: str) -> Number | None:
    """What a round gained: by how much severity fell, or a score rose."""
    if not at or not found.known(at, name):
        return None
    mean = found.tally.mean((at, "gain", name), "score" if name.startswith("score") else "")
    return _negative(mean) if name == "severity" else mean


def _negative(one: Number) -> Number:
    value, low, high = (-side if side else side for side in (one.value, one.high, one.low))
    return Number(value=value, low=low, high=high, n=one.n, unit=one.unit)


def _severity(found: _Gathered) -> Section:
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {"round": at, "severity": _level(found, at, "severity"), "gain": _gain(found, at, "severity")}
        for at in _at(found)
        if found.known(at, "severity")
    )
    head = (
        _ROUND,
        Column(name="severity", title="severity", bar=True, most=1),
        Column(name="gain", title="fell by", whiskers=True, at=0),
    )
    note = "Severity in [0, 1] of the texts after so many rounds, as the next critique has it; rows that ended keep their last."
    return Section(name="severity", title="harm", head=head, rows=rows, note=note)


def _scores(found: _Gathered) -> Section:
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {"round": at, **{criterion: _level(found, at, f"score {criterion}") for criterion in found.criteria}}
        for at in _at(found)
        if any(found.known(at, f"score {criterion}") for criterion in found.criteria)
    )
    head = (_ROUND, *(Column(name=criterion, title=criterion) for criterion in found.criteria))
    return Section(name="scores", title="scores", head=head, rows=rows, note="1 to 10, of the texts after so many rounds.")


def _gains(found: _Gathered) -> Section:
    harmless, helpful = _sides(found)
    trades = {at: _trade(found, at, harmless, helpful) for at in _at(found) if at and helpful}
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {
            "round": at, **{criterion: _gain(found, at, f"score {criterion}") for criterion in found.criteria},
            "trade": trades.get(at),
        }
        for at in _at(found)
        if at and any(found.known(at, f"score {criterion}") for criterion in found.criteria)
    )  # fmt: skip
    head = [_ROUND, *(Column(name=criterion, title=criterion, whiskers=True, at=0) for criterion in found.criteria)]
    note = "What a round adds to the score of the same rows."
    if any(trades.values()):
        head.append(Column(name="trade", title="gained per lost"))
        note = f"{note[:-1]}; gained per lost: {_name(harmless)} gained per {_name(helpful)} lost."
    return Section(name="gains", title="gains of a round", head=tuple(head), rows=rows, note=note)


def _name(measure: str) -> str:
    return "harmlessness, as severity has it," if measure == "severity" else measure.removeprefix("score ")


def _sides(found: _Gathered) -> tuple[str, str]:
    """The measures of harmlessness and helpfulness; empty where the latter is not measured."""
    harmless = next((f"score {one}" for one in HARMLESS if one in found.criteria), "severity")
    return harmless, next((f"score {one}" for one in HELPFUL if one in found.criteria), "")


def _trade(found: _Gathered, name: int | str, harmless: str, helpful: str) -> Number | None:
    gained, lost = (("trade", name, harmless, helpful, side) for side in ("gained", "lost"))
    ratio = found.tally.ratio(gained, lost)
    # Where helpfulness may not have fallen at all, there is no price to speak of.
    return number(ratio) if ratio.ci and found.tally.total(lost) > 0 else None


def _texts(found: _Gathered) -> Section:
    names = ("words", "shorter", "caveats", "disclaimers", "refusals")
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {"round": at, **{name: _share_shorter(found, at) if name == "shorter" else _level(found, at, name) for name in names}}
        for at in _at(found)
    )
    titles = {"shorter": "shorter than first"}
    head = (_ROUND, *(Column(name=name, title=titles.get(name, name)) for name in names))
    note = "words: mean length; the rest: share of texts. Caveats, disclaimers and refusals are set phrases, in English only."
    return Section(name="texts", title="texts", head=head, rows=rows, note=note)


def _share_shorter(found: _Gathered, at: int) -> Number | None:
    return found.tally.share((at, "shorter")) if at else None


def _rounds(found: _Gathered) -> Section:
    rows: list[Mapping[str, Cell]] = []
    for at in range(1, found.rounds + 1):
        count = found.tally.count(("round", at, "revised"))
        shares = {name: found.tally.share(("round", at, name)) for name in ("revised", "accepted", "unchanged")}
        rows.append({"round": at, "rows": count, **shares})
    head = (
        _ROUND, Column(name="rows", title="rows", bar=True), Column(name="revised", title="revised"),
        Column(name="accepted", title="accepted"), Column(name="unchanged", title="text unchanged"),
    )  # fmt: skip
    note = "Of the rows that had this round; accepted: of those that were revised."
    return Section(name="rounds", title="rounds", head=head, rows=tuple(rows), note=note)


def _ended(found: _Gathered, options: Options) -> Section:
    total = sum(found.ended.values())
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {"stopped_by": name, "rows": count, "share": Number(value=count / total, unit="share", n=total)}
        for name, count in found.ended.most_common(options.top)
    )
    head = (
        Column(name="stopped_by", title="ended by"),
        Column(name="rows", title="rows"),
        Column(name="share", title="share", bar=True),
    )
    return Section(name="ended", title="what ended them", head=head, rows=rows)


def _findings(found: _Gathered) -> Iterator[str]:
    harmless, helpful = _sides(found)
    measure = harmless if found.known(1, harmless) else "severity"
    gains = [(at, gain) for at in range(1, found.rounds + 1) if (gain := _gain(found, at, measure)) and gain.value is not None]
    if gains:
        yield _enough(gains, measure)
    if helpful:
        yield from _price(found, harmless, helpful)
    yield from _of_texts(found)


def _price(found: _Gathered, harmless: str, helpful: str) -> Iterator[str]:
    """What harmlessness costs, from first answer to last text."""
    paid = found.tally.mean(("trade", "whole", harmless, helpful, "lost"))
    name = _name(helpful)
    if paid.value is None:
        return
    if trade := _trade(found, "whole", harmless, helpful):
        yield f"For each point of {name} lost, {spoken(trade)} of {_name(harmless)} is gained, from first answer to last text."
    elif paid.high is not None and paid.high < 0:
        yield f"{name.capitalize()} is not lost, it rises by {spoken(_negative(paid))} from first answer to last text."
    else:
        yield f"{name.capitalize()} does not surely fall from first answer to last text, so its price cannot be given."


def _enough(gains: Sequence[tuple[int, Number]], measure: str) -> str:
    """The smallest number of rounds after which the next one's gain may be below what is worth a round."""
    worth = WORTH["severity" if measure == "severity" else "score"]
    does = "lowers severity by" if measure == "severity" else f"raises {_name(measure)} by"
    small = next(((at, gain) for at, gain in gains if _end(gain, gain.low) < worth), None)
    if small is None:
        at, gain = gains[-1]
        return f"Every round that is measured pays: round {at} still {does} {spoken(gain)}, more than {worth}."
    at, gain = small
    surely = _end(gain, gain.high) < worth
    said = f"round {at} {does} {spoken(gain)}, {f'less than {worth}' if surely else f'which may be less than {worth}'}"
    if at == 1:
        return f"The rounds {'do' if surely else 'may do'} little: {said}."
    enough = (
        f"{at - 1} round{'s are' if at > 2 else ' is'} enough"
        if surely
        else f"{at - 1} round{'s' if at > 2 else ''} may be enough"
    )
    return f"{enough}: {said}."


def _end(gain: Number, end: float | None) -> float:
    """An end of a gain's interval; the gain itself where it has none, as where no row gained anything."""
    return (gain.value or 0.0) if end is None else end


def _of_texts(found: _Gathered) -> Iterator[str]:
    last = found.rounds
    if not last:
        return
    for name, what in (("refusals", "refuse"), ("caveats", "hold a caveat"), ("disclaimers", "hold a disclaimer")):
        before, after = found.tally.share((0, name)), found.tally.share((last, name))
        if after.value is not None and before.high is not None and after.value > before.high:
            yield f"After {last} rounds {spoken(after)} of the texts {what}, of the first answers {spoken(before)}."
    shorter = found.tally.share((last, "shorter"))
    if shorter.value is not None and shorter.low is not None and shorter.low > 0.5:
        yield (
            f"{spoken(shorter)} of the last texts are shorter than the first answer: a judge that favours length would favour "
            "what was not revised, so measure it (cai debias)."
        )


def _warnings(found: _Gathered) -> Iterator[str]:
    if found.rows == found.without:
        yield "no row has rounds and a first answer (the columns rounds, initial_response): cycles reads rows of revise"
        return
    if found.without:
        yield f"{of_rows(found.without, found.rows)} no round or no text, and {are(found.without)} left out"
    harmless, helpful = _sides(found)
    if not helpful:
        yield "helpfulness is not measured: set critique.scores: per_round, and run cai score for the last revisions"
    if found.rounds and found.tally.count((0, "severity")) and not found.known(found.rounds, "severity"):
        yield f"no critique reads what round {found.rounds} wrote, so its severity is not known" + (
            ": cai score scores those texts" if helpful and not found.known(found.rounds, helpful) else ""
        )
    if not found.tally.count((0, "severity")) and harmless == "severity":
        yield "the critiques give no severity and rounds are not scored, so harm is not measured"
    elif harmless == "severity" and found.other_principles and any(found.ended[rule] for rule in _RULES):
        yield (
            "severity falls by chance as well: a row ends where the principle drawn found little, and the others are judged anew "
            "by another; scores do not share this: critique.scores: per_round"
        )
