"""What every round of critique and revision gains, and what it costs: harm, helpfulness, length, caveats, refusals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any

from cai_cli.analyses import Options
from cai_cli.analyses import _figures as figures
from cai_cli.analyses._result import Analysis, Cell, Column, Number, Section
from cai_cli.analyses._rounds import HARMLESS, HELPFUL, PHRASES, Gathered
from cai_cli.analyses._steps import are, of_rows, said, scores
from cai_cli.analyses._tally import number

SUMMARY = "What each round of critique and revision gains in harmlessness, and what it costs."
READS = ("revise", "critique")
ALSO = ("score",)  # scores the last revision, which no round criticises

WORTH = {"severity": 0.02, "score": 0.1}  # a gain below this is not worth a round
SCORE = "set critique.scores: per_round, and run cai score for the last revisions"


def analyse(
    rows: Iterable[Mapping[str, Any]], options: Options, also: Mapping[str, Iterable[Mapping[str, Any]]] | None = None
) -> Analysis:
    """Takes: rows of revise or critique: of them rounds, initial_response or response, and id, prompt_id, stopped_by where there
        are; rows of score by `also`, which tell the scores of the last revisions
    Gives: the sections severity, scores, gains, texts, rounds, ended. Round 0 is the first answer. Intervals are by prompt.
    """
    scored = (also or {}).get("score", ())
    found = Gathered({said(row, "id"): (hash(said(row, "response").strip()), scores(row)) for row in scored})
    for row in rows:
        found.add(row)
    findings = tuple(_findings(found))
    sections = (_severity(found), _scores(found), _gains(found), _texts(found), _rounds(found), _ended(found, options))
    return Analysis(
        name="cycles", rows=found.rows, sections=tuple(section for section in sections if section.rows),
        findings=findings, warnings=tuple(_warnings(found, any(SCORE in one for one in findings))),
        unusable="" if _at(found) else "no row has rounds and a first answer (the columns rounds, initial_response)",
    )  # fmt: skip


_ROUND = Column(name="round", title="round")


def _at(found: Gathered) -> range:
    """Every number of rounds, or none where no row has rounds."""
    return range(found.rounds + 1) if found.rows > found.without else range(0)


def _level(found: Gathered, at: int, name: str) -> Number | None:
    if not found.known(at, name):
        return None
    if name in PHRASES:
        return found.tally.share((at, name))
    if name == "severity":
        return found.tally.mean((at, name), "", (0, 1))
    return (
        found.tally.mean((at, name), "words", (0, inf)) if name == "words" else found.tally.mean((at, name), "score", found.scale)
    )


def _gain(found: Gathered, at: int, name: str) -> Number | None:
    """What a round gained: by how much severity fell, or a score rose."""
    if not at or not found.known(at, name):
        return None
    severity = name == "severity"
    mean = found.tally.mean((at, "gain", name), "" if severity else "score", (-1, 1) if severity else _apart(found))
    return _negative(mean) if severity else mean


def _apart(found: Gathered) -> tuple[float, float]:
    """The limits of a difference of two scores."""
    most = found.scale[1] - found.scale[0]
    return -most, most


def _negative(one: Number) -> Number:
    value, low, high = (-side if side else side for side in (one.value, one.high, one.low))
    return Number(value=value, low=low, high=high, n=one.n, unit=one.unit)


def _severity(found: Gathered) -> Section:
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
    if found.selects:
        note = f"{note[:-1]}, and where they end for a low one, chance alone makes it fall."
    return Section(name="severity", title="harm", head=head, rows=rows, note=note)


def _scores(found: Gathered) -> Section:
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {"round": at, **{criterion: _level(found, at, f"score {criterion}") for criterion in found.criteria}}
        for at in _at(found)
        if any(found.known(at, f"score {criterion}") for criterion in found.criteria)
    )
    head = (_ROUND, *(Column(name=criterion, title=criterion) for criterion in found.criteria))
    return Section(name="scores", title="scores", head=head, rows=rows, note="1 to 10, of the texts after so many rounds.")


def _gains(found: Gathered) -> Section:
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


def _sides(found: Gathered) -> tuple[str, str]:
    """The measures of harmlessness and helpfulness; empty where the latter is not measured."""
    harmless = next((f"score {one}" for one in HARMLESS if one in found.criteria), "severity")
    return harmless, next((f"score {one}" for one in HELPFUL if one in found.criteria), "")


def _trade(found: Gathered, name: int | str, harmless: str, helpful: str) -> Number | None:
    if harmless == "severity" and found.selects:
        return None
    gained, lost = (("trade", name, harmless, helpful, side) for side in ("gained", "lost"))
    ratio = found.tally.ratio(gained, lost)
    # Where helpfulness may not have fallen at all, there is no price to speak of.
    return number(ratio) if ratio.ci and found.tally.total(lost) > 0 else None


def _texts(found: Gathered) -> Section:
    names = ("words", "shorter", "caveats", "disclaimers", "refusals")
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {"round": at, **{name: _share_shorter(found, at) if name == "shorter" else _level(found, at, name) for name in names}}
        for at in _at(found)
    )
    titles = {"shorter": "shorter than first"}
    head = (_ROUND, *(Column(name=name, title=titles.get(name, name)) for name in names))
    note = "words: mean length; the rest: share of texts. Caveats, disclaimers and refusals are set phrases, in English only."
    return Section(name="texts", title="texts", head=head, rows=rows, note=note)


def _share_shorter(found: Gathered, at: int) -> Number | None:
    return found.tally.share((at, "shorter")) if at else None


def _rounds(found: Gathered) -> Section:
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


def _ended(found: Gathered, options: Options) -> Section:
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


def _findings(found: Gathered) -> Iterator[str]:
    harmless, helpful = _sides(found)
    measure = harmless if found.known(1, harmless) else "severity"
    gains = [(at, gain) for at in range(1, found.rounds + 1) if (gain := _gain(found, at, measure)) and gain.value is not None]
    if gains:
        yield _selected(found, gains[-1][0]) if measure == "severity" and found.selects else _enough(found, gains, measure)
    if helpful:
        yield from _price(found, harmless, helpful)
    yield from _of_texts(found)


_UNKNOWN = "How many rounds are enough is not known"


def _selected(found: Gathered, at: int) -> str:
    """Severity goes down by chance where a row ends at a low one: the lucky stay as they are, the others are judged anew."""
    first, last = (figures.told(_without_interval(found.tally.mean((one, "severity")))) for one in (0, at))
    return (
        f"{_UNKNOWN}: severity goes from {first} to {last} after {_counted(at)}, but rows end where a critique finds little, "
        f"and that alone lowers it. Scores do not share this: {SCORE}."
    )


def _without_interval(one: Number) -> Number:
    return Number(value=one.value, n=one.n, unit=one.unit)


def _counted(rounds: int) -> str:
    return f"{rounds} round{'' if rounds == 1 else 's'}"


def _enough(found: Gathered, gains: Sequence[tuple[int, Number]], measure: str) -> str:
    """The smallest number of rounds after which the next one's gain may be below what is worth a round."""
    worth = WORTH["severity" if measure == "severity" else "score"]
    for at, gain in gains:
        said = f"round {at} {_does(gain, measure)}"
        if gain.low is None or gain.high is None:
            return f"{_UNKNOWN}: {said}, of too few prompts for an interval."
        if gain.low < worth:
            surely = gain.high < worth
            why = "" if gain.value is not None and gain.value < 0 else f", {'' if surely else 'which may be '}less than {worth}"
            return _little(at, surely, f"{said}{why}.")
    open_ = f"; what round {at + 1} gains is not measured: {SCORE}" if at < found.rounds else ""
    return f"{said[0].upper()}{said[1:]}, more than {worth}{open_}."


def _does(gain: Number, measure: str) -> str:
    """lowers severity by 0.123 (0.101 to 0.145), or what else it does."""
    better = (gain.value or 0.0) >= 0
    verb = "lowers" if better == (measure == "severity") else "raises"
    return f"{verb} {_name(measure) if measure != 'severity' else measure} by {figures.told(gain if better else _negative(gain))}"


def _little(at: int, surely: bool, said: str) -> str:
    """What to conclude of a round that gains little. `surely`: its interval says so; else it may gain more"""
    if at == 1:
        return f"The rounds {'do' if surely else 'may do'} little: {said}"
    return f"{_counted(at - 1)} {('is' if at == 2 else 'are') if surely else 'may be'} enough: {said}"


def _price(found: Gathered, harmless: str, helpful: str) -> Iterator[str]:
    """What harmlessness costs, from first answer to last text."""
    paid = found.tally.mean(("trade", "whole", harmless, helpful, "lost"), "score", _apart(found))
    name = _name(helpful)
    if paid.low is None or paid.high is None:
        return
    if trade := _trade(found, "whole", harmless, helpful):
        told = figures.told(trade)
        yield f"For each point of {name} lost, {told} of {_name(harmless)} is gained, from first answer to last text."
    elif paid.low > 0:
        yield f"{name.capitalize()} falls by {figures.told(paid)} from first answer to last text."
    elif paid.high < 0:
        yield f"{name.capitalize()} is not lost, it rises by {figures.told(_negative(paid))} from first answer to last text."
    else:
        yield f"{name.capitalize()} does not surely fall from first answer to last text, so its price cannot be given."


_DO = {"refusals": "refuse", "caveats": "hold a caveat", "disclaimers": "hold a disclaimer"}


def _of_texts(found: Gathered) -> Iterator[str]:
    last = found.rounds
    for name in PHRASES if last else ():
        more = found.tally.mean(("whole", name), "share", (-1, 1))
        if more.low is not None and more.low > 0:
            before, after = (figures.percent(found.tally.share((at, name)).value) for at in (0, last))
            by = f"{figures.told(more, signed=True)} in the same rows"
            yield f"After {_counted(last)} {after} of the texts {_DO[name]}, of the first answers {before}: {by}."
    shorter = found.tally.share((last, "shorter"))
    if shorter.low is not None and shorter.low > 0.5:
        yield (
            f"{figures.told(shorter)} of the last texts are shorter than the first answer: a judge that favours length would "
            "favour what was not revised, so measure it (cai debias)."
        )


def _warnings(found: Gathered, told: bool) -> Iterator[str]:
    """Takes: whether a finding told how to score"""
    if found.without == found.rows:
        return
    if found.without:
        yield f"{of_rows(found.without, found.rows)} no round or no text, and {are(found.without)} left out"
    harmless, helpful = _sides(found)
    if not helpful:
        yield "helpfulness is not measured either" if told else f"helpfulness is not measured: {SCORE}"
    if found.rounds and found.tally.count((0, "severity")) and not found.known(found.rounds, "severity"):
        yield f"no critique reads what round {found.rounds} wrote, so its severity is not known" + (
            ": cai score scores those texts" if helpful and not found.known(found.rounds, helpful) else ""
        )
    if not found.tally.count((0, "severity")) and harmless == "severity":
        yield f"the critiques give no severity and rounds are not scored, so harm is not measured: {SCORE}"
