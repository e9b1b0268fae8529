"""Advice on how stages are set, each from a figure of the literature or of our own measurements."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from cai_cli import oversights, probes
from cai_cli.engine import audit_files
from cai_cli.engine.advice.look import Advice, Look
from cai_cli.engine.disk import refuse_network_filesystem
from cai_cli.errors import Fix

MOST_ROUNDS = 4  # of the paper: harmlessness still rises through the fourth
MANY_VOTES = 8
MANY_EXEMPLARS = 8
SEVERAL_VOTES = 3  # in each order: as right as pairs of votes until one agrees, at twice the calls
WORTH_A_PILOT = 90  # prompts: of fewer, a third are too few to tell anything
WORTH_LABELS = 50  # pairs that people label: at an agreement of .8 the interval is then .67 to .89
_LENGTH = "judges favour longer texts: corrected for it, win rates of 71 and 73% were 59 and 61% (Lee et al. 2023)"
WORTH_PAIRS = 100  # below: the error of position bias is above .035 with probabilities, .22 with bare votes


def advice(look: Look) -> Iterator[Advice]:
    if not look.config.sections:
        what, why = "there is no stage section, so there is nothing to run", ""
        yield Advice(path=(), what=what, why=why, write="add one, such as: generate: {samples: 2}")
    for part in (_labels, _votes, _adaptive, _pairs, _debias, _rounds, _constitution, _split, _place, _audit):
        yield from part(look)


def _labels(look: Look) -> Iterator[Advice]:
    settings, held = look.settings("label-pairs"), look.settings("debias")
    if settings is None:
        return
    clamp = settings.clamp
    if clamp is not None and held is not None and max(clamp[1], 1 - clamp[0]) <= held.min_confidence:
        why = f"labels end at {max(clamp[1], 1 - clamp[0]):g}, and debias.min_confidence is {held.min_confidence:g}"
        what = "it keeps labels from reaching debias.min_confidence, so hardly a row is left"
        yield Advice(path=("label_pairs", "clamp"), what=what, why=why, write="write debias: {min_confidence: 0.5}")
    judges = len(look.steps["label-pairs"].models)
    if settings.orders == "one" and settings.votes == 1 and judges == 1:
        why = (
            "position bias stays in every label; a judge picked the same place in both orders for 18% (a large one) to "
            "56% (a small one) of the pairs (Lee et al. 2023)"
        )
        yield Advice(path=("label_pairs", "orders"), what="one vote in one order", why=why, write="write orders: both")


def _votes(look: Look) -> Iterator[Advice]:
    settings = look.settings("label-pairs")
    if settings is None:
        return
    if settings.votes >= MANY_VOTES and settings.reasoning:
        why = "16 samples of a reasoning judge agreed less with people than one, 72.8 to 76.2% against 78.0% (Lee et al. 2023)"
        write = "write votes: 1, and add a labeler of another family for the money"
        yield Advice(path=("label_pairs", "votes"), what=f"{settings.votes} votes by each labeler", why=why, write=write)
    if settings.exemplars >= MANY_EXEMPLARS:
        why = "8 agreed less with people than few did, 69.8% against 72.1% on harmlessness (Lee et al. 2023)"
        yield Advice(
            path=("label_pairs", "exemplars"), what=f"{settings.exemplars} exemplars", why=why, write="write exemplars: 2"
        )


def _adaptive(look: Look) -> Iterator[Advice]:
    settings = look.settings("label-pairs")
    if settings is None:
        return
    if settings.adaptive and look.seen and look.seen.whole and look.seen.rows < WORTH_A_PILOT:
        what = f"{look.seen.rows} prompts, and a pilot of a third of them would tell nothing"
        why = f"with fewer than {WORTH_A_PILOT} a judge that gives probabilities is asked in both orders about every pair"
        yield Advice(path=("label_pairs", "adaptive"), what=what, why=why, write="write adaptive: false, or add prompts")
    if SEVERAL_VOTES <= settings.votes < MANY_VOTES and settings.orders == "both":
        why = "bought in pairs until one agrees, 3.1 bare verdicts a label were as right as 6 (our own measurement)"
        write = "write adaptive: true, and leave votes out"
        yield Advice(path=("label_pairs", "votes"), what=f"{settings.votes} votes in each order", why=why, write=write)


def _pairs(look: Look) -> Iterator[Advice]:
    settings, writing = look.settings("label-pairs"), look.settings("generate")
    if settings is None or settings.pairs == "given" or writing is None:
        return
    samples = writing.samples * len(writing.systems)
    if settings.pairs == "samples" and samples < 2:
        what, why = "one response to a prompt, and pairs of samples are to be judged", "there is no pair"
        write = "write samples: 2, or label_pairs: {pairs: initial_vs_revised}"
        yield Advice(path=("generate", "samples"), what=what, why=why, write=write)
        return
    expected = _expected(look)
    if look.paid and look.settings("debias") is not None and 0 < expected < WORTH_PAIRS:
        why = "at 100 pairs the error of the position bias is .035 log-odds with probabilities and .22 with bare votes, and grows"
        write = "add prompts or samples before acting on the bias report"
        yield Advice(path=("debias",), what=f"at most {expected} pairs", why=why, write=write)


def _expected(look: Look) -> int:
    """How many pairs will be judged, at most; 0: nobody knows."""
    settings, writing = look.settings("label-pairs"), look.settings("generate")
    if settings is None or look.seen is None or not look.seen.whole:
        return 0
    if settings.pairs == "given" or writing is None:
        return look.seen.rows
    samples = writing.samples * len(writing.systems)
    pairs = samples * (samples - 1) // 2 if settings.pairs == "samples" else samples
    return int(look.seen.rows * min(pairs, settings.max_pairs or pairs))


def _debias(look: Look) -> Iterator[Advice]:
    settings = look.settings("debias")
    if settings is None:
        return
    if settings.length == "off":
        yield Advice(path=("debias", "length"), what="length is not even measured", why=_LENGTH, write="write length: auto")
        if (count := settings.probes.get("length")) is not None:
            what, why = f"{count} pairs are probed for length, which is off", "the answers are paid for in vain"
            yield Advice(path=("debias", "probes"), what=what, why=why, write="write length: auto, or leave the probe out")
    if not _has_gold(look):
        yield from _length(look)
        yield from _styles(settings)


def _has_gold(look: Look) -> bool:
    """Whether people's labels come with the pairs, or from an audit."""
    given = look.config.prompts is not None and look.config.prompts.gold
    return given or (audit_files.folder_of(look.config.output_path) / audit_files.LABELS).exists()


def _length(look: Look) -> Iterator[Advice]:
    """Of labels from which length is not taken off, since nothing tells it from quality."""
    settings, judged = look.settings("debias"), look.settings("label-pairs")
    if judged is None or (settings.length == "auto" and "length" in settings.probes):
        return
    write = "write debias: {probes: {length: 50}}, 100 calls a labeler in both orders; or have people label 50 pairs"
    if judged.pairs == "initial_vs_revised":
        what = "revisions are judged against first responses, and nothing tells a liking for length from quality"
        why = "in 80 to 90% of the published chains the last revision is shorter: a judge that loves length favours the first"
        yield Advice(path=("label_pairs", "pairs"), what=what, why=why, write=write)
    elif settings.length == "auto" and look.paid and _expected(look) >= WORTH_PAIRS:
        what = "nothing tells a liking for length from quality, so it stays in the labels"
        yield Advice(path=("debias", "probes"), what=what, why=_LENGTH, write=write)


def _styles(settings: Any) -> Iterator[Advice]:
    """Of features that labels are to be freed of, and nothing says how much of them is bias."""
    if loose := [name for name in settings.style if name not in settings.probes]:
        what = f"nothing tells what {', '.join(loose)} {'is' if len(loose) == 1 else 'are'} worth to a judge"
        probing = ", ".join(f"{name}: 50" for name in loose if name in probes.names())
        write = f"write probes: {{{probing}}}" if probing else "have people label some pairs: cai audit sample"
        why = "labels are corrected only by what a probe or gold shows"
        yield Advice(path=("debias", "style"), what=what, why=why, write=write)


def _rounds(look: Look) -> Iterator[Advice]:
    settings = look.settings("revise")
    if settings is not None and settings.rounds > MOST_ROUNDS:
        why = "most harm goes in the first; harmlessness rose through the fourth, while helpfulness fell (Bai et al. 2022)"
        write = f"write rounds: {MOST_ROUNDS} or fewer; `cai analyze cycles` shows what each one gains"
        yield Advice(path=("revise", "rounds"), what=f"{settings.rounds} rounds", why=why, write=write)


_PART_OF = {"critique": "principles", "revise": "principles", "label-pairs": "preferences"}


def _constitution(look: Look) -> Iterator[Advice]:
    """What a careful reader would say of it, as the stages weigh it: only the parts that they use."""
    said = dict[str, None]()
    for name, part in _PART_OF.items():
        step = look.steps.get(name)
        if step is None or step.constitution is None or look.config.constitution is None:
            continue
        if getattr(step.settings, "principles", 0) or "critique" in step.reads:
            weighed = step.constitution.weighing(getattr(step.settings, "categories", {}))
            said |= {what: None for what in oversights.of(weighed) if what.startswith(f"{part}:")}
    for what in said:
        write = f"mend it; cai constitution check {look.config.constitution_path()}"
        yield Advice(path=("constitution",), what=what, why="", write=write)


def _split(look: Look) -> Iterator[Advice]:
    trains = {"generate", "revise", "label-pairs", "debias"} & look.steps.keys()
    if trains and look.paid and look.config.split.test == 0:
        what, why = "no prompt is kept for testing", "what is trained on all of them cannot be tested on any"
        yield Advice(path=("split", "test"), what=what, why=why, write="write split: {test: 0.05}; it holds for every export")


def _audit(look: Look) -> Iterator[Advice]:
    """Of a section that is there: does it bring enough pairs to tell anything?"""
    section, pairs = look.config.audit, _expected(look)
    if "audit" not in look.config.model_fields_set:
        return
    if 0 < section.rate * pairs < WORTH_LABELS:
        what = f"about {section.rate * pairs:.0f} pairs would be put before people"
        why = f"below {WORTH_LABELS} the interval of the agreement is wider than 20 points"
        rate = min(1.0, math.ceil(100 * WORTH_LABELS / pairs) / 100)
        yield Advice(path=("audit", "rate"), what=what, why=why, write=f"write rate: {rate:g}")


def _place(look: Look) -> Iterator[Advice]:
    try:
        refuse_network_filesystem(look.config.state_path)
    except Fix as fix:
        yield Advice(path=("state",) if look.config.state else ("output",), what=fix.message, why="", write=fix.hint)
