"""Print what the real `cai debias` makes of the world of judge_world.py, written as rows, and of judges that break the model.

A difference of L is made by numbers of words: one sd is a factor of exp(.5), around 120 words. Rounding to whole words moves L by
.007 (root mean square), which is .006 log-odds at c = .8. Probes are asked over HTTP: judge_server.py is the judge, and reads the
texts. `make bench-judges` prints it after judges.py; exit 1 if a bar is missed. --quick takes fewer repetitions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import judges
import numpy as np
import orjson
from judge_server import served, text
from judge_world import Drawn, Judge, Oracle, again, draw, panel, sigmoid
from judges import HARM, OVER_ORACLE, PAIRS, SHARE, Line, score, show

from cai_cli.bias.estimate import Bools, Floats

SD, WORDS = 0.5, 120  # of the log of a ratio of numbers of words, per sd of L; words where both are as long
SHORTEST = 12  # words of an answer
GOLD, TWICE = 200, 300  # pairs with gold, and pairs that a broken judge was asked about twice
NAMES, CRITERION = ("A", "B"), "less_harmful"
WAYS = (  # as judges.py names them, gold labels, probes
    ("both orders, logits averaged", 0, 0), ("100 gold", 100, 0), ("300 gold", 300, 0), ("50 length probes, no gold", 0, 50),
    ("50 probes and 100 gold", 100, 50),
)  # fmt: skip
KEEP_ALL = {"min_confidence": 0.5, "ties": "keep"}
SAME, SAME_LOSS = 0.004, 0.006  # how far figures from rows may be from those of judges.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """What a labeler says of the pairs: (2, draws, pairs), or votes as 0 and 1; NaN: it abstained."""

    name: str
    p: Floats
    naming: Floats | None = None


def texts(length: Floats) -> list[tuple[str, str]]:
    """Two texts a pair whose numbers of words have the log ratio SD * L. Takes: (pairs,) L of a minus L of b"""
    counts = np.maximum(SHORTEST, np.rint(WORDS * np.exp(np.array([[0.5], [-0.5]]) * SD * length))).astype(int)
    return [(text(int(a), n, "left"), text(int(b), n, "right")) for n, (a, b) in enumerate(counts.T)]


def rows(drawn: Drawn, casts: Sequence[Cast], gold: int, at: int = 0) -> Iterator[dict[str, Any]]:
    """Rows as label-pairs writes them, of one repetition. `gold`: how many of the first have it"""
    made = texts(drawn.length[at])
    for n, truth in enumerate(drawn.truth[at]):
        prompt, (a, b) = f"What is there to be said of question number {n}?", made[n]
        yield {
            "id": f"p{n}-0-1", "prompt_id": f"p{n}", "messages": [{"role": "user", "content": prompt}], "prompt": prompt,
            "kind": "harmful" if drawn.harmful[at, n] else "harmless", "response_a": a, "response_b": b,
            "source_a": f"p{n}-0", "source_b": f"p{n}-1", "votes": [vote for cast in casts for vote in _votes(cast, n)],
            "gold": ("a" if truth > 0 else "b") if n < gold else "", "meta": "{}",
        }  # fmt: skip


def _votes(cast: Cast, n: int) -> Iterator[dict[str, Any]]:
    for side, order in enumerate(("ab", "ba")):
        for number, p in enumerate(cast.p[side, :, n]):
            if number and np.isnan(p):  # it was not asked a second time
                continue
            first = NAMES if cast.naming is None or cast.naming[side, n] > 0 else NAMES[::-1]
            verdict = "abstain" if np.isnan(p) else "a" if p > 0.5 else "b"
            yield {
                "labeler": cast.name, "principle": CRITERION, "order": order, "draw": number, "verdict": verdict,
                "p_a": None if np.isnan(p) else float(p), "confidence": None if np.isnan(p) else float(max(p, 1 - p)),
                "labels": list(first), "rationale": "", "basis": "stated" if 0 < p < 1 else "verdict",
            }  # fmt: skip


def said(judge: Judge, drawn: Drawn, at: int = 0, twice: int = 0, votes: bool = False, name: str = "main") -> Cast:
    """What a judge said of the pairs of a repetition; `twice`: how many of the first it was asked about a second time"""
    if votes:
        return Cast(name=name, p=drawn.vote[:, np.newaxis, at].astype(float))
    p = sigmoid(drawn.logit[:, np.newaxis, at])
    if twice:
        more = np.full_like(p, np.nan)
        more[:, 0, :twice] = sigmoid(again(judge, drawn, 5)[:, at, :twice])
        p = np.concatenate([p, more], axis=1)
    return Cast(name=name, p=p, naming=drawn.naming[:, at].astype(float))


@dataclass(frozen=True, slots=True, kw_only=True)
class Debiased:
    """What `cai debias` made: `logit`, in the order of the rows, NaN where there is none; `report`: _bias.json."""

    logit: Floats
    report: Mapping[str, Any]


def debiased(given: Iterable[Mapping[str, Any]], count: int, folder: Path, url: str = "", **settings: Any) -> Debiased:
    """Run the real command in a process of its own.

    Takes: rows with ids p0-0-1, p1-0-1, ...; where the judge is, if it is to be probed; settings of `debias`
    """
    config: dict[str, Any] = {"name": "world", "output": "out", "debias": {**KEEP_ALL, **settings}}
    if url:
        model = {"provider": "openai", "name": "world", "base_url": url, "max_tokens": 200}
        labeling = {"labelers": [{"name": "main", "model": model}], "pairs": "given", "reasoning": False}
        config |= {"model": model, "constitution": "constitutions/general.yaml", "label_pairs": labeling}
    (folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in given))
    config["limits"] = {"max_reject_rate": 1.0}  # a judge that refuses both orders leaves a pair without a verdict
    (folder / "world.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "cai_cli", "debias", "world.json", "-i", "rows.jsonl", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OPENAI_API_KEY": "none"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"cai debias: exit {done.returncode}\n{done.stderr[-2000:]}")
    latest, logit = folder / "out" / "debias" / "latest", np.full(count, np.nan)
    for file in sorted(latest.glob("train-*.jsonl")):
        for line in file.read_bytes().splitlines():
            row = orjson.loads(line)
            logit[int(row["prompt_id"][1:])] = np.log(row["p_a"] / (1 - row["p_a"]))
    return Debiased(logit=logit, report=orjson.loads((latest / "_bias.json").read_bytes()))


def fresh(given: Iterable[Mapping[str, Any]], count: int, **more: Any) -> Debiased:
    """The same, in a folder that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        return debiased(given, count, Path(folder), **more)


# The same figures.


def same(repetitions: int) -> Iterator[Line]:
    """Labels from rows, against labels from the estimators alone, on the same answers."""
    drawn = draw(judges.BIASED, repetitions, PAIRS, 1)
    raw, best = score(judges.one_order(judges.BIASED, drawn, 1), drawn), score(Oracle(judge=judges.BIASED).logits(drawn), drawn)
    yield Line(text=f"{'':28} accuracy from rows, from arrays; log-loss from rows, from arrays; longer-wins gap; R")
    for name, gold, probes in WAYS:
        found = np.array([one.logit for one in _each(partial(labelled, drawn, gold=gold, probes=probes), repetitions)])
        through, plain = score(found, drawn), score(judges.METHODS[name][0](judges.BIASED, drawn, 1), drawn)
        share = (through.accuracy - raw.accuracy) / (best.accuracy - raw.accuracy)
        near = abs(through.accuracy - plain.accuracy) <= SAME and abs(through.log_loss - plain.log_loss) <= SAME_LOSS
        good = near and (share >= SHARE or not (gold or probes)) and (not gold or through.log_loss <= best.log_loss + OVER_ORACLE)
        yield Line(text=f"{name:28} {through.accuracy:.4f} {plain.accuracy:.4f}  {through.log_loss:.4f} "
                   f"{plain.log_loss:.4f}  {through.longer_wins_gap:+.3f}  {share:.2f}", passed=good)  # fmt: skip


def _each(work: Callable[[int], Debiased], repetitions: int) -> list[Debiased]:
    """What each repetition gives; two at a time, since they wait for processes."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, range(repetitions)))


def labelled(drawn: Drawn, at: int, gold: int, probes: int) -> Debiased:
    given = rows(drawn, [said(judges.BIASED, drawn, at)], gold, at)
    if not probes:
        return fresh(given, PAIRS)
    with served(judges.BIASED, drawn, at, SD) as url:
        return fresh(given, PAIRS, url=url, probes={"length": probes})


def position(repetitions: int) -> Iterator[Line]:
    """b from rows, as probabilities and as votes."""
    for votes in (False, True):
        judge = replace(judges.BIASED, call=0.0) if votes else judges.BIASED
        drawn = draw(judge, repetitions, 1000, 8)
        found = [
            one.report["labelers"]["main"]["position"] for one in _each(partial(_unprobed, judge, drawn, votes), repetitions)
        ]
        least = judges.bound(judge, 1000, votes)
        error = float(np.sqrt(np.mean([(one["b"] - judge.b) ** 2 for one in found])))
        covered = sum(one["ci"][0] <= judge.b <= one["ci"][1] for one in found)
        allowed = judges.OVER_BOUND * (1 + 2 / np.sqrt(2 * repetitions))  # of so few, an RMSE is known to that
        yield Line(text=f"b, {'votes' if votes else 'probabilities':13} 1,000 pairs: RMSE {error:.3f} (bound {least:.3f}), "
                   f"{covered} of {repetitions} intervals cover", passed=error <= allowed * least)  # fmt: skip


def _unprobed(judge: Judge, drawn: Drawn, votes: bool, at: int) -> Debiased:
    return fresh(rows(drawn, [said(judge, drawn, at, votes=votes)], 0, at), drawn.theta.shape[1])


# Judges that break the model.


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A judge that is not as the model has it. `warned`: what a warning that names it says."""

    name: str
    judge: Judge
    warned: str  # a pattern
    votes: bool = False
    by_gold: bool = False  # only gold can tell


JUDGES = (
    Broken(name="bias varies by pair", judge=Judge(b_sd=1.0), warned="varies by item"),
    Broken(name="bias fades with the gap", judge=Judge(b=1.5, fades=1.0), warned="bias fades"),
    Broken(name="lapses", judge=Judge(lapses=0.1), warned="it lapses:"),
    Broken(name="no opinion", judge=Judge(blank=True), warned="may know nothing"),
    Broken(name="no opinion, votes", judge=Judge(blank=True, call=0.0), warned="may know nothing", votes=True),
    Broken(name="ignorant of quality", judge=Judge(knows=0.0, rho=0.0), warned="no better than chance", by_gold=True),
    Broken(name="reversed", judge=Judge(knows=-1.5, c=-0.8), warned="wrong way round", by_gold=True),
    Broken(name="reversed, votes", judge=Judge(knows=-1.5, c=-0.8, call=0.0), warned="wrong way round", votes=True, by_gold=True),
    Broken(name="label token", judge=Judge(token=0.8), warned="earlier of two labels"),
    Broken(name="refuses harmful prompts", judge=Judge(refuses=0.3), warned="not at random"),
)


def broken() -> Iterator[Line]:
    """Every broken judge, with gold on some pairs and without."""
    for one in JUDGES:
        drawn = draw(one.judge, 1, PAIRS, 60)
        cast = said(one.judge, drawn, twice=0 if one.votes else TWICE, votes=one.votes)
        for gold in (GOLD, 0):
            found = fresh(rows(drawn, [cast], gold), PAIRS)
            yield from judged(one, found, [cast], drawn, bool(gold) or not one.by_gold)
    yield from _sound()
    for shared in (0.0, 0.9):
        drawn, casts = _panel(shared)
        one = Broken(name=f"panel, {shared:.0%} of its own liking shared", judge=Judge(), warned="correlated|err together")
        for gold in (GOLD, 0):
            yield from judged(one, fresh(rows(drawn, casts, gold), PAIRS), casts, drawn, bool(gold) and shared > 0)


def _sound() -> Iterator[Line]:
    """Of a judge that is as the model has it nothing of the kind is said."""
    for votes in (False, True):
        judge = Judge(call=0.0) if votes else Judge()
        drawn = draw(judge, 1, PAIRS, 62)
        cast = said(judge, drawn, twice=0 if votes else TWICE, votes=votes)
        report = fresh(rows(drawn, [cast], GOLD), PAIRS).report
        wrong = [line for line in report["warnings"] if any(re.search(one.warned, line) for one in JUDGES)]
        name = f"as the model has it{', votes' if votes else ''}"
        yield Line(text=f"{name:38} {GOLD} gold: {len(wrong)} false warnings {' '.join(wrong)}".rstrip(), passed=not wrong)


def _panel(shared: float) -> tuple[Drawn, list[Cast]]:
    judged = panel(Judge(), PAIRS, shared, 61)
    return judged[0], [said(Judge(), drawn, name=f"judge-{n}") for n, drawn in enumerate(judged, start=1)]


def judged(one: Broken, found: Debiased, casts: Sequence[Cast], drawn: Drawn, must_warn: bool) -> Iterator[Line]:
    """Whether it was noticed, and whether its labels got worse."""
    raw = as_given(casts)
    known = np.isfinite(raw) & np.isfinite(found.logit)
    before, after = _accuracy(raw, drawn, known), _accuracy(found.logit, drawn, known)
    warned = [line for line in found.report["warnings"] if re.search(one.warned, line)]
    gold = int(found.report["calibration"]["gold"])
    text = f"{one.name:38} {gold or 'no':>3} gold: accuracy {after:.3f}, as given {before:.3f}"
    yield Line(text=text, passed=after >= before - HARM and bool(warned or not must_warn))
    yield from (Line(text=f"  {line}") for line in warned or ["  (no warning that names it)"])


def as_given(casts: Sequence[Cast]) -> Floats:
    """(pairs,) the mean of logits over labelers, orders and draws, nothing corrected; a verdict is a fixed logit."""
    found = []
    for cast in casts:
        p = np.clip(cast.p, 1e-4, 1 - 1e-4)
        found.append(_mean_of_known(_mean_of_known(np.moveaxis(np.log(p / (1 - p)), 1, 0))))
    return _mean_of_known(np.array(found))


def _mean_of_known(values: Floats) -> Floats:
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def _accuracy(logit: Floats, drawn: Drawn, rows: Bools) -> float:
    return float(((np.sign(logit[rows]) * drawn.truth[0, rows] + 1) / 2).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    repetitions = 4 if parser.parse_args().quick else 24
    good = show(iter((
        (f"Rows through cai debias: means of {repetitions}", same(repetitions)),
        (f"Position from rows: {repetitions} repetitions", position(repetitions)),
        ("Judges that break the model", broken()),
    )))  # fmt: skip
    sys.exit(not good)


if __name__ == "__main__":
    main()
