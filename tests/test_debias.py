"""From pairs with votes to preferences, on judges whose biases are known."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console

from cai_cli import votes
from cai_cli.errors import Reject
from cai_cli.records import Pair, Preference, Turn, Vote
from cai_cli.reports.bias_table import bias_table
from cai_cli.tables.debias import Filtered, Report, Settings, correct, measure

B = 0.679
DEFAULTS = Settings()
POSITION_KEYS = {
    "b", "se", "ci", "n", "first_first", "second_second", "p_value", "consistency", "conflict_rate", "first_slot_excess",
    "identified_by",
}  # fmt: skip
Judge = Callable[[np.random.Generator, float], float | None]  # log-odds that a wins -> p_a of one vote


def verdict(rng: np.random.Generator, logit: float) -> float | None:
    return float(rng.random() < votes.sigmoid(logit))


def probability(rng: np.random.Generator, logit: float) -> float | None:
    return votes.sigmoid(logit + rng.normal(0, 0.5))


def pair(n: int, cast: tuple[Vote, ...], gold: str = "", a: str = "yes", b: str = "no") -> Pair:
    turn = Turn(role="user", content="why?")
    return Pair(
        id=f"p{n}-0-1", prompt_id=f"p{n}", messages=(turn,), prompt="why?", response_a=a, response_b=b, votes=cast, gold=gold
    )


def vote(p_a: float | None, order: str, labeler: str = "main") -> Vote:
    return Vote(labeler=labeler, order=order, verdict={0.0: "b", 1.0: "a", 0.5: "tie"}.get(p_a, "abstain"), p_a=p_a)


def world(judge: Judge, count: int, seed: int, b: float = B, taste: float = 0.0, single: float = 0.0) -> list[Pair]:
    """Pairs judged in both orders (a `single` share of them in one): opinion 1.5*quality + taste*length, bias b."""
    rng, rows = np.random.default_rng(seed), []
    for n in range(count):
        quality, length = rng.normal(), rng.normal()
        x = 1.5 * quality + taste * length + rng.normal(0, 0.8)
        orders = [rng.choice(["ab", "ba"])] if rng.random() < single else ["ab", "ba"]
        cast = tuple(vote(judge(rng, x + (b if order == "ab" else -b)), str(order)) for order in orders)
        rows.append(pair(n, cast, "a" if quality > 0 else "b", *worded(length)))
    return rows


def worded(length: float) -> tuple[str, str]:
    """Two texts whose log ratio of words is a fifth of `length`, as near as whole words get."""
    return " ".join(["x"] * round(1000 * math.exp(length / 5))), " ".join(["x"] * 1000)


def main(report: Report) -> dict:
    return report.document["labelers"]["main"]


def corrected(rows: list[Pair], report: Report, settings: Settings = DEFAULTS) -> Iterator[tuple[Pair, Preference]]:
    for at, row in enumerate(rows):
        found = correct(row, report.labels[at], settings)
        if isinstance(found, Preference):
            yield row, found


@pytest.mark.parametrize("judge", [verdict, probability])
def test_the_position_bias_is_found(judge: Judge) -> None:
    report = measure(iter(world(judge, 1000, 1)), DEFAULTS, 7)
    position = main(report)["position"]
    low, high = position["ci"]
    assert low < B < high
    assert position["p_value"] < 1e-6
    assert position["first_slot_excess"] == pytest.approx(0.22, abs=0.06)
    assert report.soft == ({"main"} if judge is probability else set())
    assert any("prefers the first shown answer" in line for line in report.document["warnings"])


def test_counts_leave_ties_and_abstentions_out() -> None:
    cast = [(1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.0), (None, 0.0), (1.0, None)]
    rows = [pair(n, (vote(ab, "ab"), vote(ba, "ba"))) for n, (ab, ba) in enumerate(cast)]
    position = main(measure(rows, DEFAULTS, 7))["position"]
    assert (position["first_first"], position["second_second"], position["n"]) == (2, 1, 5)
    assert position["b"] == pytest.approx(0.5 * math.log(2.5 / 1.5), rel=1e-5)
    assert (position["consistency"], position["conflict_rate"]) == (0.2, 0.6)


def test_repeated_draws_are_matched_draw_by_draw() -> None:
    asked = [("ab", 0, 1.0), ("ab", 1, 0.0), ("ba", 0, 0.0), ("ba", 1, 0.0)]
    cast = tuple(replace(vote(p, order), draw=draw) for order, draw, p in asked)
    for given in (cast, cast[::-1]):
        position = main(measure([pair(0, given)], DEFAULTS, 7))["position"]
        assert (position["n"], position["first_first"], position["second_second"], position["consistency"]) == (2, 1, 0, 0.5)


def test_the_document_has_its_keys_and_is_plain_json_the_same_each_time() -> None:
    rows = world(verdict, 200, 2)
    document = measure(rows, DEFAULTS, 7).document
    assert set(document) == {
        "labelers", "calibration", "agreement", "aggregation", "before", "after", "probes", "recommendations", "warnings",
    }  # fmt: skip
    assert set(main(measure(rows, DEFAULTS, 7))["position"]) == POSITION_KEYS
    assert set(main(measure(rows, DEFAULTS, 7))["length"]) >= {"effect", "se", "ci", "p_value", "identified_by"}
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text) == document
    assert json.dumps(measure(iter(rows), DEFAULTS, 7).document) == text


def test_one_order_is_freed_of_the_bias_that_the_others_show() -> None:
    rows = world(probability, 3000, 3, single=0.5)
    shifted = measure(rows, DEFAULTS, 7)
    raw = measure(rows, Settings(position=False), 7)
    assert shifted.shift["main"] == pytest.approx(B, abs=0.05)
    assert raw.shift == {}
    reached = [at["accuracy_all"] for at in (raw.document["before"], raw.document["after"], shifted.document["after"])]
    assert reached == sorted(set(reached))
    assert any("debias.position is false" in line for line in raw.document["warnings"])
    single = [found for row, found in corrected(rows, shifted) if len(row.votes) == 1]
    assert all({"one_order", "shifted"} <= set(found.flags) for found in single)
    assert np.mean([found.preference == found.votes[0].order[0] for found in single]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("judge", [verdict, probability])
def test_what_was_announced_is_what_comes_out(judge: Judge) -> None:
    rows = world(judge, 400, 4, single=0.3)
    report = measure(rows, DEFAULTS, 7)
    kept = [found for _, found in corrected(rows, report)]
    after = report.document["after"]
    assert after["kept_share"] == pytest.approx(len(kept) / len(rows), rel=1e-5)
    assert after["accuracy"] == pytest.approx(np.mean([found.preference == found.gold for found in kept]), rel=1e-5)
    loss = np.mean([-math.log(found.p_a if found.gold == "a" else 1 - found.p_a) for found in kept])
    assert after["log_loss"] == pytest.approx(loss, rel=1e-5)


def test_an_unbiased_judge_is_left_alone() -> None:
    document = measure(world(probability, 800, 5, b=0.0), DEFAULTS, 7).document
    assert document["aggregation"]["shift"] == {}
    assert document["after"]["accuracy_all"] >= document["before"]["accuracy_all"] - 0.005
    assert not any("prefers" in line for line in document["warnings"])


def test_length_is_measured_and_said_to_be_confounded() -> None:
    rows = [replace(row, gold="") for row in world(probability, 1000, 6, taste=0.8)]
    length = main(measure(rows, DEFAULTS, 7))["length"]
    low, high = length["ci"]
    assert low < 0.8 < high
    assert length["identified_by"] == "nothing: confounded with quality"
    assert any(
        "labels go with length (+0." in line and "not corrected" in line
        for line in measure(rows, DEFAULTS, 7).document["warnings"]
    )
    assert "length" not in main(measure(rows, Settings(length="off"), 7))


def test_a_preference_carries_the_contract_s_numbers() -> None:
    row = pair(0, (vote(0.9, "ab"), vote(0.6, "ba")))
    found = correct(row, measure([row], DEFAULTS, 7).labels[0], DEFAULTS)
    assert isinstance(found, Preference)
    p = votes.sigmoid((votes.logit(0.9) + votes.logit(0.6)) / 2)
    assert found.p_a == pytest.approx(p)
    assert (found.p_a_raw, found.confidence, found.weight) == pytest.approx((0.75, p, 2 * p - 1))
    assert found.margin == pytest.approx(votes.logit(p))
    assert (found.preference, found.chosen, found.rejected, found.consistent, found.flags) == ("a", "yes", "no", True, ())
    derived = {"p_a", "preference", "confidence", "consistent"}
    assert all(getattr(found, at.name) == getattr(row, at.name) for at in fields(Pair) if at.name not in derived)


def test_exchanging_a_and_b_exchanges_the_label_and_nothing_else() -> None:
    rows = world(probability, 60, 8, single=0.3)
    swapped = [
        replace(row, response_a=row.response_b, response_b=row.response_a, gold={"a": "b", "b": "a"}[row.gold], votes=tuple(
            replace(at, p_a=1 - at.p_a, order=at.order[::-1]) for at in row.votes)) for row in rows
    ]  # fmt: skip
    one, other = measure(rows, DEFAULTS, 7), measure(swapped, DEFAULTS, 7)
    assert main(one)["position"] == main(other)["position"]
    for at, (left, right) in enumerate(zip(rows, swapped, strict=True)):
        first, second = correct(left, one.labels[at], DEFAULTS), correct(right, other.labels[at], DEFAULTS)
        if isinstance(first, Preference):
            assert second.p_a == pytest.approx(1 - first.p_a)
            assert (second.chosen, second.flags) == (first.chosen, first.flags)
        else:
            assert second == first


def test_ties_are_dropped_or_kept() -> None:
    row = pair(0, (vote(1.0, "ab"), vote(0.0, "ba")))
    report = measure([row], DEFAULTS, 7)
    assert correct(row, report.labels[0], DEFAULTS) == Filtered("tie")
    found = correct(row, report.labels[0], Settings(ties="keep"))
    assert isinstance(found, Preference)
    assert (found.preference, found.chosen, found.weight, found.margin) == ("tie", "yes", 0.0, 0.0)
    assert found.flags == ("inconsistent", "votes_only", "tie")
    assert measure([row], Settings(ties="keep"), 7).document["after"]["kept_share"] == 1.0


def test_low_confidence_is_filtered() -> None:
    row = pair(0, (vote(0.58, "ab"), vote(0.58, "ba")))
    report = measure([row], DEFAULTS, 7)
    assert correct(row, report.labels[0], DEFAULTS) == Filtered("low_confidence")
    assert isinstance(correct(row, report.labels[0], Settings(min_confidence=0.55)), Preference)


@pytest.mark.parametrize(
    ("cast", "reason"), [((), "no_verdict"), ((vote(None, "ab"),), "no_verdict"), ((vote(1.0, "sideways"),), "bad_vote")]
)
def test_a_row_without_a_usable_vote_is_rejected_and_reported(cast: tuple[Vote, ...], reason: str) -> None:
    rows = [pair(0, cast), *world(verdict, 40, 9)]
    report = measure(rows, DEFAULTS, 7)
    with pytest.raises(Reject) as caught:
        correct(rows[0], report.labels[0], DEFAULTS)
    assert caught.value.reason == reason
    assert report.document["aggregation"][reason] == 1
    assert any(reason in line for line in report.document["warnings"])


def test_no_rows_at_all_still_make_a_report() -> None:
    document = measure([], DEFAULTS, 7).document
    assert document["labelers"] == {}
    assert document["after"] == {**document["before"], "kept_share": 0.0}
    assert "0 pairs with a verdict" in document["warnings"][0]


def reversed_judge(rng: np.random.Generator, logit: float) -> float | None:
    return votes.sigmoid(-logit)


def blind(rng: np.random.Generator, logit: float) -> float | None:
    return float(rng.random() < 0.5)


def shy(rng: np.random.Generator, logit: float) -> float | None:
    return None if rng.random() < 0.1 else verdict(rng, logit)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (world(reversed_judge, 200, 10), "worse than chance"),
        (world(blind, 200, 11), "no more than chance"),
        (world(blind, 200, 11), "no better than chance"),
        (world(shy, 200, 12), "abstentions"),
        (world(verdict, 200, 13, single=1.0), "only one order"),
        (world(verdict, 12, 14), "12 pairs with a verdict"),
        (world(verdict, 200, 15, b=2.0), "the same candidate wins in both orders in only"),
        ([replace(row, gold="a") for row in world(verdict, 200, 16)], "gold is on side a in 200 of 200"),
        ([pair(n, (vote(1.0, "ab"), vote(1.0, "ba"))) for n in range(40)], "votes alone do not tell the bias"),
    ],
)
def test_a_judge_that_breaks_the_model_is_noticed(rows: list[Pair], words: str) -> None:
    document = measure(rows, DEFAULTS, 7).document
    assert any(words in line for line in document["warnings"]), document["warnings"]


def test_recommendations_name_what_to_set() -> None:
    document = measure(world(verdict, 200, 13, single=1.0), DEFAULTS, 7).document
    assert "ask in both orders: label_pairs.orders: both" in document["recommendations"]
    rows = [replace(row, gold="") for row in world(verdict, 200, 17)]
    assert any(
        "prompts.gold: true" in line and "cai audit sample" in line
        for line in measure(rows, DEFAULTS, 7).document["recommendations"]
    )


def test_several_labelers_are_measured_apart_and_compared() -> None:
    rows = [
        replace(one, votes=one.votes + tuple(replace(at, labeler="second") for at in other.votes))
        for one, other in zip(world(verdict, 300, 18), world(probability, 300, 18, b=-0.4), strict=True)
    ]
    report = measure(rows, DEFAULTS, 7)
    assert list(report.document["labelers"]) == ["main", "second"]
    assert report.soft == {"second"}
    assert report.document["labelers"]["second"]["position"]["b"] == pytest.approx(-0.4, abs=0.1)
    (between,) = report.document["agreement"]["labelers"]
    assert (between["left"], between["right"], between["n"]) == ("main", "second", 300)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"style": ["header"]}, "did you mean 'headers'"),
        ({"probes": {"lenght": 50}}, "did you mean 'length'"),
        ({"min_confidence": 0.4}, "greater than or equal to 0.5"),
        ({"ties": "coin"}, "'drop' or 'keep'"),
        ({"lenght": "auto"}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(**given)


def test_reading_the_settings_does_not_load_numpy() -> None:
    program = (
        "import sys, cai_cli.tables.debias, cai_cli.reports.bias_table; "
        "print([name for name in ('numpy', 'scipy', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_table_fits_80_columns_and_shows_strange_names() -> None:
    rows = [replace(row, votes=tuple(replace(at, labeler="[red]\x1b]x") for at in row.votes)) for row in world(verdict, 60, 19)]
    console = Console(width=80, no_color=True, record=True, file=io.StringIO())
    console.print(bias_table(measure(rows, DEFAULTS, 7).document))
    text = console.export_text()
    assert "[red]\\x1b]x" in text
    assert "accuracy on gold" in text
    assert "position bias b" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_clamp_is_told_because_it_hides_biases() -> None:
    def held_by(one: Vote) -> Vote:
        p_a = one.p_a or 0.0
        return replace(one, confidence=max(p_a, 1 - p_a), p_a=min(max(p_a, 0.4), 0.6))

    def clamped(row: Pair) -> Pair:
        return replace(row, votes=tuple(map(held_by, row.votes)))

    rows = world(probability, 200, 3)
    plain, held = (measure(found, DEFAULTS, 7) for found in (rows, map(clamped, rows)))
    assert abs(main(held)["position"]["b"]) < 0.5 * abs(main(plain)["position"]["b"])
    told = [any("a clamp" in line for line in report.document["warnings"]) for report in (plain, held)]
    assert told == [False, True]
