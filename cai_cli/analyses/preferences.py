"""What the labels say: which side wins and how surely, by labeler, criterion and kind; and whether slot or length decide it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from cai_cli.analyses import Options, Row
from cai_cli.analyses import _judged_words as sentences
from cai_cli.analyses._columns import Table
from cai_cli.analyses._judged import NO_VERDICT, NOT_TOLD, OTHER_NAME, Judged, first_won, labelled
from cai_cli.analyses._pairs import SIDES
from cai_cli.analyses._result import Analysis, Cell, Column, Number, Section
from cai_cli.bias.estimate import Bools
from cai_cli.votes import clip

SUMMARY = "Distribution of labels, ties, confidence; by labeler, criterion and kind; slot and length of what wins."
READS = ("label-pairs", "debias")  # debias keeps the surer labels: votes look better there than they are
ALSO = ("debias",)
TAKES = ("by",)

SURE = (0.5, 1.0)  # what a confidence can be
BINS = 10  # of confidence, .5 to 1
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
UNUSABLE = "no row has a label (preference, p_a or votes), or two texts, chosen and rejected"
COUNT = Column(name="rows", title="rows")


def analyse(rows: Iterable[Row], options: Options, also: Mapping[str, Iterable[Row]] | None = None) -> Analysis:
    """The labels of pairs, and of the votes behind them; and what becomes of the labels where debias leaves out some.

    Takes: pairs with `preference`, `p_a` or votes, or with `chosen` and `rejected`, best all that were judged; `options.by`, a
    column to break them down by; `also`: the rows that debias kept
    Intervals: 95%, by prompt (see `bias.interval`): a prompt's pairs share responses, so they are no independent rows.
    """
    seen, kept, count = Judged(), Judged(), 0
    for row in rows:
        count += 1
        seen.add(row, options.by)
    for row in (also or {}).get("debias", ()):
        kept.add({**row, "votes": None}, None)
    sections = [one for one in _sections(seen, kept, options) if one.rows]
    return Analysis(
        name="preferences", rows=count, sections=tuple(sections), findings=tuple(sentences.findings(seen)),
        warnings=tuple(sentences.warnings(seen)), unusable="" if sections else UNUSABLE,
    )  # fmt: skip


def _sections(seen: Judged, kept: Judged, options: Options) -> Iterator[Section]:
    if labelled(seen).any():
        yield _labels(seen)
    if len(kept.pairs):
        yield _kept(seen, kept)
    yield _confidence(seen)
    yield _margins(seen)
    yield _sources(seen)
    yield _length(seen)
    yield _position(seen)
    yield _labelers(seen)
    yield _bases(seen)
    yield _principles(seen)
    if len(seen.pairs.values("kind")) > 1:
        yield _broken_down(seen, "kind", "kind")
    if options.by:
        yield _broken_down(seen, "by", options.by)
    yield _flags(kept if len(kept.pairs) else seen)


def _labels(seen: Judged) -> Section:
    pairs = seen.pairs
    all_rows = np.ones(len(pairs), dtype=bool)
    named = {"a": "a is better", "b": "b is better", "tie": "tie", "": "no verdict"}
    rows: list[dict[str, Cell]] = [
        {"side": words, "rows": int(hits.sum()), "share": pairs.share(hits, all_rows)}
        for name, words in named.items()
        if (hits := pairs.where("side", name)).any() or name in ("a", "b")
    ]
    note = "Which of the two is called a is chance or the order of sampling: far from half and half, one place is favoured."
    return Section(name="labels", title="labels", head=_counted("side", "label"), rows=tuple(rows), note=note)


def _kept(seen: Judged, kept: Judged) -> Section:
    """The labels before and after debias, which leaves out ties and unsure ones, and may correct what it measured."""
    before, after = _in_short(seen), _in_short(kept)
    rows = tuple({"what": what, "all": before[what], "kept": after[what]} for what in before)
    head = (Column(name="what", title="what"), Column(name="all", title="all pairs"), Column(name="kept", title="kept by debias"))
    note = "Training sees what debias keeps, the surer labels; all other tables are of all pairs, also the unsure and tied ones."
    return Section(name="kept", title="what debias keeps", head=head, rows=rows, note=note)


def _in_short(seen: Judged) -> dict[str, Cell]:
    pairs = seen.pairs
    every = np.ones(len(pairs), dtype=bool)
    return {
        "rows": len(pairs),
        "a is better": pairs.share(pairs.where("side", "a"), every),
        "tie": pairs.share(pairs.where("side", "tie"), every),
        "confidence": pairs.mean(np.maximum(pairs["p"], 1 - pairs["p"]), every, within=SURE),
        "the longer one is chosen": pairs.mean_share(pairs["longer_won"], every),
        "words, chosen minus rejected": pairs.mean(pairs["chosen_words"] - pairs["rejected_words"], every, "words"),
    }


def _counted(name: str, title: str) -> tuple[Column, ...]:
    return (Column(name=name, title=title), COUNT, Column(name="share", title="share", bar=True, most=1))


def _confidence(seen: Judged) -> Section:
    """A histogram of max(p_a, 1 - p_a), and the weight |2 p_a - 1| that goes with each bin."""
    p = seen.pairs["p"]
    sure = np.maximum(p, 1 - p)[np.isfinite(p)]
    place = np.minimum(np.floor((sure - 0.5) * 2 * BINS + 1e-9), BINS - 1)
    rows: list[dict[str, Cell]] = [
        {
            "confidence": f"{0.5 + n / 2 / BINS:.2f} to {0.5 + (n + 1) / 2 / BINS:.2f}",
            "weight": f"{n / BINS:.1f} to {(n + 1) / BINS:.1f}",
            "rows": int((place == n).sum()),
            "share": Number(value=float((place == n).mean()), n=len(sure), unit="share"),
        }
        for n in range(BINS)
        if len(sure)
    ]
    head = (Column(name="confidence", title="confidence"), Column(name="weight", title="weight"), COUNT,
            Column(name="share", title="share", bar=True))  # fmt: skip
    note = "How sure the labels are: confidence is max(p_a, 1 - p_a), weight |2 p_a - 1|."
    return Section(name="confidence", title="confidence", head=head, rows=tuple(rows), note=note)


def _margins(seen: Judged) -> Section:
    p = seen.pairs["p"][np.isfinite(seen.pairs["p"])]
    margin = np.abs([math.log(clip(one) / (1 - clip(one))) for one in p])
    row: dict[str, Cell] = {f"q{q * 100:.0f}": round(float(np.quantile(margin, q)), 3) for q in QUANTILES if len(p)}
    head = tuple(Column(name=f"q{q * 100:.0f}", title=f"{q:.0%}") for q in QUANTILES)
    note = "Quantiles of the log-odds of the side that is better; .85 is a confidence of .70, 2.2 one of .90."
    return Section(name="margins", title="margins, log-odds", head=head, rows=(row,) if row else (), note=note)


def _sources(seen: Judged) -> Section:
    pairs = seen.pairs
    among = ~pairs.where("source", "")
    named = {"revised": "the revision", "initial": "the first response", "tie": "tie"}
    rows: list[dict[str, Cell]] = [
        {"winner": words, "rows": int((hits := pairs.where("source", name) & among).sum()), "share": pairs.share(hits, among)}
        for name, words in named.items()
        if among.any()
    ]
    note = "Pairs of a first response and its revision: how often the labelers like what the constitution made of it."
    return Section(name="revisions", title="revisions", head=_counted("winner", "winner"), rows=tuple(rows), note=note)


def _length(seen: Judged) -> Section:
    pairs = seen.pairs
    among = np.isfinite(pairs["chosen_words"])
    if not among.any():
        return Section(name="length", title="length", head=(), rows=())
    values: dict[str, Number] = {
        "the longer one is chosen": pairs.mean_share(pairs["longer_won"], among),
        "words, chosen": pairs.mean(pairs["chosen_words"], among, "words", (0, math.inf)),
        "words, rejected": pairs.mean(pairs["rejected_words"], among, "words", (0, math.inf)),
        "words, chosen minus rejected": pairs.mean(pairs["chosen_words"] - pairs["rejected_words"], among, "words"),
    }
    rows = tuple({"what": what, "value": value, "rows": value.n} for what, value in values.items())
    head = (Column(name="what", title="what"), Column(name="value", title="value"), COUNT)
    note = "Better answers may honestly be longer: gold labels or probes tell that from a liking for length (cai debias)."
    return Section(name="length", title="length", head=head, rows=rows, note=note)


def _position(seen: Judged) -> Section:
    votes, swaps = seen.votes, seen.swaps
    rows: list[dict[str, Cell]] = []
    for labeler in votes.values("labeler"):
        mine, both = votes.where("labeler", labeler), swaps.where("labeler", labeler)
        if np.isfinite(votes["first_won"][mine]).any():
            rows.append({
                "labeler": labeler, "first": first_won(seen, labeler), "both": int(both.sum()),
                "same_slot": swaps.mean_share(swaps["same_slot"], both),
                "same_winner": swaps.mean_share(swaps["same_winner"], both),
            })  # fmt: skip
    head = (
        Column(name="labeler", title="labeler"), Column(name="first", title="first slot won", whiskers=True, at=0.5),
        Column(name="both", title="in both orders"), Column(name="same_slot", title="same slot won"),
        Column(name="same_winner", title="same verdict"),
    )  # fmt: skip
    note = (
        "Without a liking for a slot the first shown wins half of the votes, over both orders or orders drawn by chance; "
        "none is told where the order never varied. Same slot won: the order decided, not the answers."
    )
    return Section(name="position", title="position", head=head, rows=tuple(rows), note=note)


def _labelers(seen: Judged) -> Section:
    votes = seen.votes
    rows = [_vote_shares("labeler", name, votes, votes.where("labeler", name)) for name in votes.values("labeler")]
    note = "With label: how often a vote's side is the row's in the end."
    head = (Column(name="labeler", title="labeler"), *_VOTES)
    return Section(name="labelers", title="votes by labeler", head=head, rows=tuple(rows), note=note)


def _principles(seen: Judged) -> Section:
    names = sorted(seen.votes.values("principle"), key=lambda name: -int(seen.votes.where("principle", name).sum()))
    rows = [_vote_shares("principle", name, seen.votes, seen.votes.where("principle", name)) for name in names]
    head = (Column(name="principle", title="criterion"), *_VOTES)
    note = "What the labelers were asked; one that ties or abstains much, or goes against the rest, is worth rewording."
    known = set(names) - {OTHER_NAME}
    return Section(name="principles", title="votes by criterion", head=head, rows=tuple(rows) if known else (), note=note)


_VOTES = (
    Column(name="votes", title="votes"), Column(name="a", title="a"), Column(name="b", title="b"),
    Column(name="tie", title="tie"), Column(name="abstain", title="abstain"), Column(name="confidence", title="confidence"),
    Column(name="with_label", title="with label"),
)  # fmt: skip


def _vote_shares(what: str, name: str, votes: Table, mine: Bools) -> dict[str, Cell]:
    n = int(mine.sum())
    shares = {
        side: Number(value=float(votes.where("said", side)[mine].mean()), n=n, unit="share") for side in (*SIDES, "abstain")
    }
    sure = votes["confidence"][mine & np.isfinite(votes["confidence"])]
    mean = Number(value=round(float(sure.mean()), 4) if len(sure) else None, n=len(sure))
    return {
        what: name,
        "votes": n,
        **shares,
        "confidence": mean,
        "with_label": _bare(votes.mean_share(votes["with_label"], mine)),
    }


def _bare(one: Number) -> Number:
    """Without its interval: a table of many columns is read for what stands out."""
    return Number(value=one.value, n=one.n, unit=one.unit)


def _bases(seen: Judged) -> Section:
    votes = seen.votes
    rows: list[dict[str, Cell]] = []
    for labeler in votes.values("labeler"):
        mine = votes.where("labeler", labeler)
        for basis in votes.values("basis"):
            if n := int((mine & votes.where("basis", basis)).sum()):
                share = Number(value=n / int(mine.sum()), n=n, unit="share")
                rows.append({"labeler": labeler, "basis": basis, "votes": n, "share": share})
    head = (
        Column(name="labeler", title="labeler", once=True), Column(name="basis", title="from"),
        Column(name="votes", title="votes"),
        Column(name="share", title="share", bar=True, most=1),
    )  # fmt: skip
    note = (
        "What a vote's probability rests on: logprobs, stated, words; verdict: a bare one, 0 or 1 until something calibrates it."
    )
    known = set(votes.values("basis")) - {NOT_TOLD, NO_VERDICT}
    return Section(
        name="soft_labels", title="where probabilities come from", head=head, rows=tuple(rows) if known else (), note=note
    )


def _broken_down(seen: Judged, name: str, title: str) -> Section:
    pairs = seen.pairs
    rows: list[dict[str, Cell]] = []
    p = pairs["p"]
    sure = np.maximum(p, 1 - p)
    for value in sorted(pairs.values(name)):
        mine = pairs.where(name, value)
        rows.append({
            name: value, "rows": int(mine.sum()), "a": _bare(pairs.share(pairs.where("side", "a"), mine)),
            "tie": _bare(pairs.share(pairs.where("side", "tie"), mine)), "confidence": pairs.mean(sure, mine, within=SURE),
            "consistent": _bare(pairs.mean_share(pairs["consistent"], mine)),
            "longer": pairs.mean_share(pairs["longer_won"], mine),
        })  # fmt: skip
    head = (
        Column(name=name, title=title), COUNT, Column(name="a", title="a"), Column(name="tie", title="tie"),
        Column(name="confidence", title="confidence"), Column(name="consistent", title="consistent"),
        Column(name="longer", title="longer wins"),
    )  # fmt: skip
    note = "Consistent: the same side won in both orders."
    return Section(name=f"by_{name}" if name == "kind" else "by", title=f"by {title}", head=head, rows=tuple(rows), note=note)


def _flags(seen: Judged) -> Section:
    n = max(len(seen.pairs), 1)
    rows: list[dict[str, Cell]] = [
        {"flag": flag, "rows": count, "share": Number(value=count / n, n=n, unit="share")}
        for flag, count in seen.flags.most_common()
    ]
    note = "What debias noted of a row; rows keep their label."
    return Section(name="flags", title="flags", head=_counted("flag", "flag"), rows=tuple(rows), note=note)
