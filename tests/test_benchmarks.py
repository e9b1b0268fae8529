"""The benchmarks run, and what they are to reach holds on a few fixed seeds: with room, since few repetitions tell little."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import judge_rows
import judges
import llmbar
import million
from judge_server import text
from judge_world import B, Drawn, Judge, Oracle, draw, panel, probe, sigmoid

ROOM = 0.03  # of a coverage, for a few hundred repetitions


def failed(lines: list[judges.Line]) -> list[str]:
    return [line.text for line in lines if line.passed is False]


def test_the_world_is_the_one_that_was_written_down() -> None:
    drawn = draw(Judge(), 1, 400_000, 3)
    assert np.corrcoef(drawn.theta[0], drawn.length[0])[0, 1] == pytest.approx(0.3, abs=0.01)
    rest = drawn.x - 1.5 * drawn.theta - 0.8 * drawn.length
    assert (rest.mean(), rest.std()) == (pytest.approx(0, abs=0.01), pytest.approx(0.8, abs=0.01))
    half = (drawn.logit[0] - drawn.logit[1]) / 2
    assert (half.mean(), half.std()) == (pytest.approx(B, abs=0.01), pytest.approx(0.5 / np.sqrt(2), abs=0.01))
    excess = drawn.vote[0].mean() - drawn.vote[1].mean()
    assert excess == pytest.approx(0.20, abs=0.01)


def test_one_order_and_the_oracle_are_as_good_as_they_were_known_to_be() -> None:
    drawn = draw(Judge(), 1, 400_000, 4)
    one, best = judges.score(drawn.logit[0], drawn), judges.score(Oracle(judge=Judge()).logits(drawn), drawn)
    assert (one.accuracy, one.log_loss) == (pytest.approx(0.785, abs=0.004), pytest.approx(0.443, abs=0.004))
    assert (best.accuracy, best.log_loss) == (pytest.approx(0.835, abs=0.004), pytest.approx(0.355, abs=0.004))


def test_no_shift_of_the_oracle_makes_it_better() -> None:
    drawn = draw(Judge(), 1, 200_000, 5)
    logit = Oracle(judge=Judge()).logits(drawn)
    at = judges.score(logit, drawn).log_loss
    for other in (0.95 * logit, 1.05 * logit, logit + 0.05 * drawn.length, logit - 0.05 * drawn.length):
        assert judges.score(other, drawn).log_loss > at


@pytest.mark.parametrize(
    ("judge", "what"),
    [
        (Judge(b_sd=1.0), lambda drawn: half(drawn).std() > 0.9),
        (Judge(b=1.5, fades=1.0), lambda drawn: np.corrcoef(half(drawn), np.abs(drawn.x[0]))[0, 1] < -0.3),
        (Judge(lapses=0.1), lambda drawn: (np.abs(half(drawn) - B) > 2).mean() > 0.05),
        (Judge(blank=True), lambda drawn: abs(np.corrcoef(*drawn.logit[:, 0])[0, 1]) < 0.05),
        (Judge(knows=0.0, rho=0.0), lambda drawn: abs(np.corrcoef(drawn.theta[0], drawn.x[0])[0, 1]) < 0.05),
        (Judge(knows=-1.5, c=-0.8), lambda drawn: np.corrcoef(drawn.theta[0], drawn.x[0])[0, 1] < -0.5),
        (Judge(token=0.8), lambda drawn: np.corrcoef(half(drawn), drawn.naming[:, 0].mean(axis=0))[0, 1] > 0.5),
    ],
)
def test_each_broken_judge_is_broken_as_it_says(judge: Judge, what: object) -> None:
    assert callable(what)
    assert what(draw(judge, 1, 4000, 6))


def half(drawn: Drawn) -> np.ndarray:
    return (drawn.logit[0, 0] - drawn.logit[1, 0]) / 2


def test_refusals_go_with_the_prompt() -> None:
    drawn = draw(Judge(refuses=0.3), 1, 4000, 6)
    silent = np.isnan(drawn.logit[0, 0])
    assert silent[drawn.harmful[0]].mean() == pytest.approx(0.3, abs=0.03)
    assert silent[~drawn.harmful[0]].mean() == pytest.approx(0.03, abs=0.01)


def test_a_panel_shares_what_it_is_told_to() -> None:
    for shared in (0.0, 0.9):
        one, other, *_ = panel(Judge(), 4000, shared, 7)
        rests = [drawn.x[0] - 1.5 * drawn.theta[0] - 0.8 * drawn.length[0] for drawn in (one, other)]
        assert np.corrcoef(*rests)[0, 1] == pytest.approx(shared, abs=0.05)


def test_probes_change_length_and_nothing_else() -> None:
    exact = Judge(call=0.0)
    drawn = draw(exact, 2, 30, 8)
    asked = probe(exact, drawn, 20, 8)
    assert asked.after - asked.before == pytest.approx(0.8 * asked.change)


def test_the_truth_is_recovered() -> None:
    lines = list(judges.recovery(24))
    assert failed(lines) == []
    assert sum(line.passed is True for line in lines) == len(judges.CORRECTING)


def test_an_unbiased_judge_is_not_harmed() -> None:
    assert failed(list(judges.harmless(24))) == []


def test_estimates_reach_their_bounds_and_cover() -> None:
    lines = [*judges.position(300, ROOM), *judges.probes(300, ROOM), *judges.win_rates(100, ROOM)]
    assert failed(lines) == []


def test_a_bar_that_is_missed_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    missed = judges.Line(text="half of it", passed=False)
    assert not judges.show(iter([("title", iter([missed]))]))
    assert judges.show(iter([("title", iter([judges.Line(text="only told")]))]))
    assert "FAIL  half of it" in capsys.readouterr().out


def test_texts_have_just_the_words_that_make_the_length() -> None:
    for words in (12, 13, 40, 41, 42, 250):
        assert len(text(words, 7, "left").split()) == words
    length = draw(Judge(), 1, 500, 9).length[0]
    counts = np.array([[len(one.split()) for one in made] for made in judge_rows.texts(length)])
    found = np.log(counts[:, 0] / counts[:, 1]) / judge_rows.SD
    assert np.sqrt(np.mean((found - length) ** 2)) < 0.01


def test_rows_through_the_command_give_the_figures_of_the_estimators() -> None:
    drawn = draw(judges.BIASED, 1, judges.PAIRS, 1)
    for name, gold, probes in (("100 gold", 100, 0), ("50 length probes, no gold", 0, 50)):
        through = judges.score(judge_rows.labelled(drawn, 0, gold, probes).logit[np.newaxis], drawn)
        plain = judges.score(judges.METHODS[name][0](judges.BIASED, drawn, 1), drawn)
        assert through.accuracy == pytest.approx(plain.accuracy, abs=0.01)
        assert through.log_loss == pytest.approx(plain.log_loss, abs=0.01)


def test_a_judge_that_is_the_wrong_way_round_is_named_and_turned() -> None:
    reversed_judge = next(one for one in judge_rows.JUDGES if one.name == "reversed")
    drawn = draw(reversed_judge.judge, 1, judges.PAIRS, 60)
    cast = judge_rows.said(reversed_judge.judge, drawn)
    found = judge_rows.fresh(judge_rows.rows(drawn, [cast], judge_rows.GOLD), judges.PAIRS)
    first, *warned = judge_rows.judged(reversed_judge, found, [cast], drawn, True)
    assert first.passed
    assert "the wrong way round" in warned[0].text


def test_real_judges_are_read_and_compared(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl.gz"
    drawn = draw(Judge(), 1, 150, 12)
    names = ("GPT-4", "ChatGPT", "PaLM2")
    casts = [judge_rows.said(Judge(), draw(Judge(), 1, 150, seed), votes=True, name=name) for seed, name in enumerate(names, 12)]
    given = [{**row, "meta": json.dumps({"subset": "natural"})} for row in judge_rows.rows(drawn, casts, 150)]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, given)).encode()))
    data = llmbar.read(llmbar.found_file(str(path)))
    side, chosen = llmbar.best_single(data)
    assert set(chosen) == {"GPT-4"}  # the others judged other pairs
    assert llmbar.right(side, data.gold).mean() == pytest.approx(((data.opinion[:, 0] * data.gold + 1) / 2).mean(), abs=0.1)
    run = llmbar.debiased_fold(data, 2)
    assert np.isfinite(run.logit).all()
    assert run.report["calibration"]["gold"] == (data.fold != 2).sum()


def test_without_the_real_judges_it_says_where_they_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAI_SHARED", str(tmp_path))
    with pytest.raises(SystemExit, match="no such file"):
        llmbar.found_file(None)


def test_a_few_hundred_pairs_go_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    million.measured(tmp_path, 300, 100, True)
    told = capsys.readouterr().out
    assert "-i FILE" in told
    assert "published version" in told
    kept = [line.split(" kept")[0].split()[-1] for line in told.splitlines() if " kept" in line]
    assert len(kept) == 2
    assert len(set(kept)) == 1


def test_sigmoid_is_that_of_the_votes() -> None:
    assert sigmoid(np.array([0.0, 2.0])) == pytest.approx([0.5, 1 / (1 + np.exp(-2.0))])
