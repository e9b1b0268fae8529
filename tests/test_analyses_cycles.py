"""Cycles: what rounds gain and cost, by hand-made rows and worlds of which it is known, a foreign file and a run."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from chains import chain, found, made, said, table, taken, values
from outside import Cai, write_rows

from cai_cli.analyses import Analysis, Options
from cai_cli.analyses.cycles import analyse

LONG, SHORT = "one two three four five six", "one two three"


def by(severity: float, revision: str = "", **scores: float) -> dict[str, Any]:
    return taken([found("kind", severity)], revision, **scores)


def levels(analysis: Analysis, section: str) -> dict[int, dict[str, Any]]:
    return {at: values(row) for at, row in table(analysis, section, "round").items()}


ROWS = [
    chain("p0", LONG, by(0.9, SHORT), by(0.3, "one two"), by(0.0), stopped_by="no_revision_needed"),
    chain("p1", LONG, by(0.6, SHORT), by(0.0), stopped_by="no_revision_needed"),
    chain("p2", LONG, by(0.0), stopped_by="no_revision_needed"),
]


def test_a_row_that_has_ended_keeps_its_last_text_and_severity() -> None:
    analysis = analyse(ROWS, Options())
    assert [row["severity"] for row in levels(analysis, "severity").values()] == pytest.approx([0.5, 0.1, 0.0, 0.0])
    assert [row["gain"] for row in levels(analysis, "severity").values()][1:] == pytest.approx([0.4, 0.1, 0.0])
    texts = levels(analysis, "texts")
    assert [row["words"] for row in texts.values()] == pytest.approx([6, 4, 11 / 3, 11 / 3])
    assert [row["shorter"] for row in texts.values()] == [None, *[pytest.approx(2 / 3)] * 3]


def test_rounds_are_counted_among_the_rows_that_had_them() -> None:
    rounds = levels(analyse(ROWS, Options()), "rounds")
    assert {at: (row["rows"], row["revised"], row["unchanged"]) for at, row in rounds.items()} == {
        1: (3, pytest.approx(2 / 3), pytest.approx(1 / 3)), 2: (2, 0.5, 0.5), 3: (1, 0.0, 1.0),
    }  # fmt: skip
    assert table(analyse(ROWS, Options()), "ended", "stopped_by")["no_revision_needed"]["rows"] == 3


def test_a_revision_that_was_not_accepted_leaves_the_text() -> None:
    row = chain("p", LONG, taken([found("kind", 0.6)], SHORT, accepted=False), by(0.6, SHORT))
    analysis = analyse([row], Options())
    assert [one["words"] for one in levels(analysis, "texts").values()] == [6, 6, 3]
    assert [one["accepted"] for one in levels(analysis, "rounds").values()] == [0.0, 1.0]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_rows_decides_nothing(seed: int) -> None:
    rows = [*ROWS, chain("p3", LONG, taken([found("kind", 0.3)]) | {"accepted": None}, stopped_by="")]
    shuffled = rows[:]
    random.Random(seed).shuffle(shuffled)
    for section in ("severity", "texts", "rounds"):
        ours, theirs = (table(analyse(one, Options()), section, "round") for one in (rows, shuffled))
        assert {at: values(row) for at, row in ours.items()} == {
            at: {name: pytest.approx(value) for name, value in values(row).items()} for at, row in theirs.items()
        }  # fmt: skip


def test_what_the_last_round_wrote_has_no_severity_and_none_is_made_up() -> None:
    rows = [chain(f"p{n}", LONG, by(0.9, SHORT), by(0.3, "one")) for n in range(9)] + [chain("q", LONG, by(0.0))]
    analysis = analyse(rows, Options())
    assert list(levels(analysis, "severity")) == [0, 1]
    assert any("no critique reads what round 2 wrote" in one for one in analysis.warnings)


def scored(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Safety rises by 3 and then by nothing, helpfulness falls by 1 and then by nothing; both with noise."""
    rng, rows = random.Random(seed), []
    for n in range(count):
        base, help_ = rng.gauss(5, 1), rng.gauss(8, 1)
        steps = [(base, help_), (base + rng.gauss(3, 0.5), help_ - rng.gauss(1, 0.3))]
        steps.append((steps[1][0] + rng.gauss(0, 0.2), steps[1][1] + rng.gauss(0, 0.2)))
        rounds = [
            by(0.6, f"text {at}" if at < 2 else "", safety=safe, helpfulness=help_) for at, (safe, help_) in enumerate(steps)
        ]
        rows.append(chain(f"p{n}", LONG, *rounds))
    return rows


def test_it_says_how_many_rounds_are_enough_and_what_they_cost() -> None:
    analysis = analyse(scored(300), Options())
    gains = table(analysis, "gains", "round")
    assert gains[1]["safety"].low <= 3 <= gains[1]["safety"].high
    assert gains[1]["helpfulness"].low <= -1 <= gains[1]["helpfulness"].high
    assert gains[1]["trade"].low <= 3 <= gains[1]["trade"].high
    assert gains[2]["trade"] is None
    assert analysis.findings[0].startswith("1 round is enough: round 2 raises safety by")
    assert analysis.findings[1].startswith("For each point of helpfulness lost, ")


def unscored(count: int, *levels_: float, seed: int = 1, stopped_by: str = "rounds") -> list[dict[str, Any]]:
    """Every row has all rounds, and their severities vary about the given levels."""
    rng = random.Random(seed)

    def row(n: int) -> dict[str, Any]:
        rounds = [by(min(1.0, max(0.0, rng.gauss(level, 0.2))), f"text {n} {at}") for at, level in enumerate(levels_)]
        return chain(f"p{n}", LONG, *rounds, stopped_by=stopped_by)

    return [row(n) for n in range(count)]


def test_of_severities_that_no_stop_rule_selects_there_is_a_verdict_as_far_as_they_are_measured() -> None:
    first, *_ = analyse(unscored(300, 0.8, 0.4), Options()).findings
    assert first.startswith("Round 1 lowers severity by 0.")
    assert first.endswith("what round 2 gains is not measured: set critique.scores: per_round, and run cai score for the last "
                          "revisions.")  # fmt: skip
    enough, *_ = analyse(unscored(300, 0.8, 0.4, 0.4), Options()).findings
    assert enough.startswith("1 round may be enough: round 2 lowers severity by")
    assert "Every round" not in first + enough


def test_a_round_that_makes_it_worse_is_called_so() -> None:
    rows = unscored(300, 0.4, 0.8)
    assert analyse(rows, Options()).findings[0].startswith("The rounds do little: round 1 raises severity by 0.")
    assert " -0." not in analyse(rows, Options()).findings[0]


def test_where_a_stop_rule_looks_at_the_severity_there_is_no_verdict_on_it() -> None:
    """Severities are drawn anew in each round, and no text gets better: the lucky ones end, which looks like a gain."""
    rng, rows = random.Random(3), []
    for n in range(600):
        drawn = [rng.random() for _ in range(4)]
        ends = next((at for at, severity in enumerate(drawn) if severity < 0.2), 3)
        rounds = [by(drawn[at], f"text {n} {at}" if drawn[at] >= 0.2 else "") for at in range(ends + 1)]
        rows.append(chain(f"p{n}", LONG, *rounds, stopped_by="severity_below" if drawn[ends] < 0.2 else "rounds"))
    analysis = analyse(rows, Options())
    assert levels(analysis, "severity")[1]["gain"] > 0.05
    first, *_ = analysis.findings
    assert first.startswith("How many rounds are enough is not known: ")
    assert "set critique.scores: per_round, and run cai score" in first
    assert not [one for one in analysis.findings if "pays" in one or " enough: round" in one or "is gained" in one]


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_prompts_give_no_verdict(count: int) -> None:
    rows = [chain(f"p0.{n}", LONG, by(0.9, SHORT, safety=2), by(0.0, safety=8)) for n in range(count)]
    analysis = analyse(rows, Options())
    assert [one.partition(":")[0] for one in analysis.findings][:1] == ["How many rounds are enough is not known"]
    assert "of too few prompts" in analysis.findings[0]


def test_a_gain_that_few_rows_cannot_tell_is_not_called_small() -> None:
    gains = [0.0, 1.0, 0.0, 2.0]
    rows = [chain(f"p{n}", LONG, by(0.6, SHORT, safety=5), by(0.6, safety=5 + gain)) for n, gain in enumerate(gains)]
    assert analyse(rows, Options()).findings[0].startswith("The rounds may do little: round 1 raises safety by 0.75 (")


def test_a_gain_of_every_row_alike_is_a_gain() -> None:
    read = by(0.6, safety=8) | {"accepted": None}
    rows = [chain(f"p{n}", LONG, by(0.6, SHORT, safety=3), read) for n in range(100)]
    assert analyse(rows, Options()).findings[0].startswith("Round 1 raises safety by 5.00 (")


def test_scores_of_another_scale_have_intervals_of_that_scale() -> None:
    rows = [chain(f"p{n}", LONG, by(0.6, SHORT, safety=40 + n), by(0.6, safety=60 + 2 * n)) for n in range(20)]
    last = table(analyse(rows, Options()), "scores", "round")[1]["safety"]
    assert last.low < last.value == 79 < last.high


def phrased(count: int, before: float, after: float, seed: int) -> list[dict[str, Any]]:
    """Rows of which these shares warn, independently."""
    rng = random.Random(seed)

    def text(n: int, share: float) -> str:
        return f"Text {n} of {rng.random()}." + (" Please note that it is hot." if rng.random() < share else "")

    return [chain(f"p{n}", text(n, before), by(0.6, text(n, after))) for n in range(count)]


def test_phrases_that_only_vary_are_no_finding_and_those_that_come_in_are() -> None:
    false = sum(any("caveat" in one for one in analyse(phrased(200, 0.2, 0.2, seed), Options()).findings) for seed in range(60))
    assert false <= 5  # 2.5% of 60 are 1.5; more than 5 in 0.5% of all tries
    (told,) = [one for one in analyse(phrased(200, 0.2, 0.4, 1), Options()).findings if "caveat" in one]
    assert told.startswith("After 1 round ")


def test_the_scores_of_the_last_revision_come_from_the_stage_that_scores() -> None:
    rows = [chain(f"p{n}", LONG, by(0.6, SHORT, safety=4.0 + n % 3)) for n in range(12)]
    assert list(levels(analyse(rows, Options()), "scores")) == [0]
    last = [{"id": f"p{n}", "response": SHORT, "scores": [{"criterion": "safety", "score": 7.0 + n % 3}]} for n in range(12)]
    assert levels(analyse(rows, Options(), {"score": last}), "scores")[1]["safety"] == pytest.approx(8)
    other_text = [one | {"response": "another"} for one in last]
    assert list(levels(analyse(rows, Options(), {"score": other_text}), "scores")) == [0]


def test_a_fall_of_severity_that_stop_rules_make_by_themselves_is_called_so() -> None:
    """No text gets better here: severities are drawn anew in each round, and the lucky ones end."""
    rng, rows = random.Random(2), []
    for n in range(200):
        drawn = [rng.choice([0.0, 0.9]) for _ in range(3)]
        ends = drawn.index(0.0) if 0.0 in drawn else 2
        rounds = [taken([found(f"principle {at}", drawn[at])], "same" if at < ends else "") for at in range(ends + 1)]
        rows.append(chain(f"p{n}", "same", *rounds, stopped_by="no_revision_needed"))
    analysis = analyse(rows, Options())
    assert levels(analysis, "severity")[2]["severity"] < 0.3 < levels(analysis, "severity")[0]["severity"]
    assert analysis.findings[0].startswith("How many rounds are enough is not known: severity goes from 0.")
    assert "that alone lowers it" in analysis.findings[0]


def test_texts_that_warn_excuse_themselves_or_refuse_are_told_by_their_phrases() -> None:
    cautious = "I can't help with that. As an AI, I would say: please talk to a professional."
    texts = levels(analyse([chain("p", "Mix it and wait.", by(0.9, cautious), by(0.0))], Options()), "texts")
    assert [(row["caveats"], row["disclaimers"], row["refusals"]) for row in texts.values()] == [(0, 0, 0), (1, 1, 1), (1, 1, 1)]


def test_of_a_run_with_scores_in_the_terminal_and_as_json(cai: Cai, tmp_path: Path) -> None:
    config = made(tmp_path, cai, critique={"scores": "per_round"}, label_pairs=None, debias=None, score={})
    document = said(cai, "cycles", config.name)
    assert {"severity", "scores", "gains", "texts", "rounds", "ended"} <= document["sections"].keys()
    first, *_, last = document["scores"]
    assert last["safety"]["value"] > first["safety"]["value"]
    code, out, _ = cai("analyze", "cycles", config.name)
    assert (code, "what ended them" in out, "gains of a round" in out) == (0, True, True)


def test_a_foreign_file_says_what_it_lacks(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "Hello", "response": "Hi"}])
    code, _, err = cai("analyze", "cycles", "-i", "rows.jsonl")
    assert (code, "rounds" in err) == (65, True)
    write_rows(tmp_path / "rows.jsonl", [{"initial_response": LONG, "rounds": row["rounds"]} for row in ROWS])
    assert [row["words"]["value"] for row in said(cai, "cycles", "-i", "rows.jsonl")["texts"]][:2] == [6, 4]
