"""What is identified is taken off labels, what is not is left, and what gold does not bear out is refused and said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from cai_cli import votes
from cai_cli.records import Pair, Preference, Probed, Turn, Vote
from cai_cli.tables._pilot import Pilot
from cai_cli.tables.debias import Report, Settings, correct, measure

B, TASTE, PER_SD = 0.679, 0.8, 0.2  # one sd of length is a fifth of a log word ratio
DEFAULTS = Settings()


def words(length: float) -> str:
    return " ".join(["word"] * round(1000 * math.exp(PER_SD * length)))


def vote(rng: np.random.Generator, x: float, order: str, labeler: str = "main", noise: float = 0.5) -> Vote:
    p = votes.sigmoid(x + (B if order == "ab" else -B) + rng.normal(0, noise))
    return Vote(labeler=labeler, order=order, verdict="a" if p > 0.5 else "b", p_a=p)


def world(
    count: int, seed: int, taste: float = TASTE, gold: int = 0, rho: float = 0.3, sharp: float = 1.0
) -> tuple[list[Pair], list[str]]:
    """Pairs judged in both orders, and the truth of each; the first `gold` of them carry it."""
    rng, pairs, truths = np.random.default_rng(seed), [], []
    for n in range(count):
        quality = rng.normal()
        length = rho * quality + math.sqrt(1 - rho**2) * rng.normal()
        x = sharp * (1.5 * quality + taste * length + rng.normal(0, 0.8))
        truth = "a" if quality > 0 else "b"
        pairs.append(
            Pair(
                id=f"p{n}-0-1", prompt_id=f"p{n}", messages=(Turn(role="user", content="why?"),), prompt="why?",
                response_a=words(length), response_b=words(0), gold=truth if n < gold else "",
                votes=(vote(rng, x, "ab"), vote(rng, x, "ba")),
            )
        )  # fmt: skip
        truths.append(truth)
    return pairs, truths


def probed(count: int, seed: int, taste: float = TASTE, labeler: str = "main") -> list[Probed]:
    """Pairs whose length was changed by .5 to 1.5 sd, in both orders."""
    rng, rows = np.random.default_rng(seed), []
    for n in range(count):
        x, change = rng.normal(0, 2), rng.choice([-1, 1]) * rng.uniform(0.5, 1.5)
        for order in ("ab", "ba"):
            before, after = (vote(rng, at, order).p_a for at in (x, x + taste * change))
            rows.append(
                Probed(
                    id=f"p{n}-0-1", prompt_id=f"p{n}", dimension="length", labeler=labeler, order=order,
                    change=PER_SD * change, before_p_a=before, after_p_a=after,
                )
            )  # fmt: skip
    return rows


def hits(truths: Sequence[str], report: Report) -> np.ndarray:
    """1 where a label is the truth, .5 where it is a tie, else 0."""
    sides = [votes.preference_of(report.labels[at].p_a) for at in range(len(truths))]
    return np.array([0.5 if side == "tie" else float(side == truth) for side, truth in zip(sides, truths, strict=True)])


def right(truths: Sequence[str], report: Report, start: int = 0) -> float:
    """The share of labels from `start` on that are the truth."""
    return float(hits(truths, report)[start:].mean())


def length_of(report: Report) -> dict:
    return report.document["labelers"]["main"]["length"]


def steps(report: Report) -> dict[str, bool]:
    return {step["step"]: step["kept"] for step in report.document["calibration"]["steps"]}


def test_probes_tell_bias_from_quality_and_labels_are_freed_of_it() -> None:
    pairs, truths = world(2000, 1)
    plain, freed = measure(pairs, DEFAULTS, 7), measure(pairs, DEFAULTS, 7, probed=probed(50, 2))
    assert length_of(plain)["identified_by"].startswith("nothing")
    assert length_of(plain)["ci"][0] > TASTE  # honest correlation comes on top
    found = length_of(freed)
    assert found["identified_by"] == "probe"
    assert found["ci"][0] < TASTE < found["ci"][1]
    assert found["in_labels"]["effect"] == length_of(plain)["effect"]
    assert steps(freed) == {"probes": True}
    assert right(truths, freed) > right(truths, plain) + 0.01
    assert freed.document["probes"] == {"length": 50}
    assert any("length moves it by" in line and "taken off" in line for line in freed.document["warnings"])


def test_probes_of_a_judge_without_the_bias_change_nothing() -> None:
    pairs, truths = world(1000, 3, taste=0)
    plain, freed = measure(pairs, DEFAULTS, 7), measure(pairs, DEFAULTS, 7, probed=probed(50, 4, taste=0))
    assert length_of(freed)["identified_by"] == "probe"
    assert steps(freed) == {}
    assert right(truths, freed) == right(truths, plain)


def test_length_off_leaves_probes_of_it_alone() -> None:
    pairs, _ = world(200, 5)
    off = measure(pairs, Settings(length="off"), 7, probed=probed(50, 6))
    assert steps(off) == {}
    assert "length" not in off.document["labelers"]["main"]


def test_gold_identifies_and_calibrates() -> None:
    pairs, truths = world(2000, 7, gold=300)
    report, plain = measure(pairs, DEFAULTS, 7), measure([replace(row, gold="") for row in pairs], DEFAULTS, 7)
    assert length_of(report)["identified_by"] == "gold"
    assert steps(report) == {"calibration": True}
    assert report.document["calibration"]["coefficients"]["length"] < 0
    assert right(truths, report, 300) > right(truths, plain, 300)
    assert report.document["after"]["log_loss_all"] < report.document["before"]["log_loss_all"]


def test_no_gold_label_decides_on_itself() -> None:
    pairs, _ = world(300, 8, gold=60)
    lie = {"a": "b", "b": "a"}
    one = measure(pairs, DEFAULTS, 7)
    other = measure([replace(pairs[0], gold=lie[pairs[0].gold]), *pairs[1:]], DEFAULTS, 7)
    assert one.labels[0].p_a == pytest.approx(other.labels[0].p_a)
    assert one.labels[299].p_a != pytest.approx(other.labels[299].p_a)


def test_few_gold_labels_are_used_for_nothing_and_that_is_said() -> None:
    report = measure(world(200, 9, gold=20)[0], DEFAULTS, 7)
    assert steps(report) == {"calibration": False}
    assert any("20 pairs with gold are too few" in line for line in report.document["warnings"])


def test_a_correction_that_gold_does_not_bear_out_is_refused() -> None:
    pairs, truths = world(1500, 10, taste=0, gold=1500)
    wrong = probed(50, 11, taste=3.0)  # probes of another judge
    report = measure(pairs, Settings(calibrate="off"), 7, probed=wrong)
    assert steps(report) == {"probes": False}
    assert any("not corrected: length by probes" in line and "worse" in line for line in report.document["warnings"])
    assert right(truths, report) == right(truths, measure(pairs, Settings(calibrate="off"), 7))


@pytest.mark.parametrize("method", ["temperature", "isotonic", "platt"])
def test_confidence_follows_gold_by_each_method(method: str) -> None:
    pairs, _ = world(1200, 12, gold=600, sharp=3.0)
    report = measure(pairs, Settings(calibrate=method), 7)  # type: ignore[arg-type]
    calibration = report.document["calibration"]
    assert calibration["method"] == method
    assert calibration["steps"][-1]["log_loss_after"] < calibration["steps"][-1]["log_loss_before"]
    assert ("length" in calibration["coefficients"]) == (method == "platt")
    found = [correct(row, report.labels[at], Settings(min_confidence=0.5, ties="keep")) for at, row in enumerate(pairs)]
    p = np.array([one.p_a for one in found if isinstance(one, Preference)])
    assert len(p) == len(pairs)
    assert ((p > 0) & (p < 1)).all()


def test_a_style_takes_fifty_more_gold_labels() -> None:
    pairs, _ = world(300, 13, gold=120)
    few = measure(pairs, Settings(style=["lists", "bold"]), 7)
    assert any("styles (lists, bold)" in line and "50 more" in line for line in few.document["warnings"])
    assert set(few.document["calibration"]["coefficients"]) == {"logit", "length"}
    enough = measure(world(300, 13, gold=200)[0], Settings(style=["lists", "bold"]), 7)
    assert set(enough.document["calibration"]["coefficients"]) == {"logit", "length", "lists", "bold"}


def panel(count: int, seed: int, gold: int) -> tuple[list[Pair], list[str]]:
    """One good judge, one that knows nothing, and one that has it the wrong way round."""
    rng, (pairs, truths) = np.random.default_rng(seed), world(count, seed, taste=0, gold=gold)
    out = []
    for row, truth in zip(pairs, truths, strict=True):
        x = rng.normal(1.0, 1.5) * (1 if truth == "a" else -1)
        blind, turned = rng.normal(0, 1.5), -0.7 * x + rng.normal(0, 0.5)
        more = [vote(rng, at, order, name) for name, at in (("blind", blind), ("turned", turned)) for order in ("ab", "ba")]
        out.append(replace(row, votes=(*row.votes, *more)))
    return out, truths


def test_labelers_are_weighted_by_what_gold_says_of_each() -> None:
    pairs, truths = panel(1000, 14, gold=300)
    weighted, plain = measure(pairs, DEFAULTS, 7), measure(pairs, Settings(aggregate="mean", calibrate="off"), 7)
    weights = weighted.document["calibration"]["coefficients"]
    assert weights["turned"] < 0 < weights["main"]
    assert abs(weights["blind"]) < weights["main"] / 2
    assert right(truths, weighted) > right(truths, plain) + 0.05
    assert "weights of labelers" in weighted.document["aggregation"]["method"]
    assert weighted.document["agreement"]["panel"]["labelers"] == 3


def test_a_calibration_that_weights_leave_no_place_for_is_told() -> None:
    pairs, _ = panel(300, 14, gold=150)
    report = measure(pairs, Settings(calibrate="isotonic"), 7)
    assert steps(report) == {"panel": True, "calibration": False}
    assert any("calibrate: isotonic" in line and "aggregate: mean" in line for line in report.document["warnings"])


def test_dawid_skene_needs_three_labelers_and_no_gold() -> None:
    pairs, truths = panel(800, 15, gold=0)
    good = [replace(row, votes=tuple(at for at in row.votes if at.labeler != "turned")) for row in pairs]
    report = measure(good, Settings(aggregate="dawid_skene"), 7)
    assert steps(report) == {"panel": False}
    assert any("no pair was judged by 3 labelers" in line for line in report.document["warnings"])
    rng = np.random.default_rng(16)
    third = [
        replace(row, votes=(*row.votes, *(vote(rng, 3.0 if truth == "a" else -3.0, order, "third") for order in ("ab", "ba"))))
        for row, truth in zip(good, truths, strict=True)
    ]
    three, mean = (measure(third, Settings(aggregate=how), 7) for how in ("dawid_skene", "mean"))  # type: ignore[arg-type]
    assert steps(three) == {"panel": True}
    assert three.document["calibration"]["coefficients"]["accuracy of third"] > 0.8
    assert right(truths, three) >= right(truths, mean)


def test_those_that_were_likelier_to_be_asked_count_less() -> None:
    pairs, truths = world(400, 18)
    first = measure(pairs, DEFAULTS, 7)
    hit = hits(truths, first)
    weight = np.where(hit == 1, 1.0, 9.0)
    judged = [replace(row, gold=truth, gold_weight=float(w)) for row, truth, w in zip(pairs, truths, weight, strict=True)]
    told = measure(judged, Settings(calibrate="off"), 7).document["after"]["accuracy_all"]
    assert told == pytest.approx(float(np.average(hit, weights=weight)), abs=1e-5)


def test_stronger_labelers_stand_in_for_those_before() -> None:
    cheap = (Vote(labeler="cheap", order="ab", verdict="a", p_a=0.6), Vote(labeler="cheap", order="ba", verdict="a", p_a=0.6))
    strong = Vote(labeler="strong", order="ab", verdict="b", p_a=0.1, escalated=True)
    pairs, _ = world(40, 19)
    called = replace(pairs[0], votes=(*cheap, strong))
    label = measure([called, *pairs[1:]], DEFAULTS, 7).labels[0]
    assert label.p_a == pytest.approx(0.1)
    assert "escalated" in label.flags
    mute = replace(strong, verdict="abstain", p_a=None)
    assert measure([replace(called, votes=(*cheap, mute)), *pairs[1:]], DEFAULTS, 7).labels[0].p_a == pytest.approx(0.6)


def named(row: Pair, rng: np.random.Generator, liking: float) -> Pair:
    """The pair with votes of a judge that likes what is called A."""
    out = []
    for at in row.votes:
        flipped = rng.random() < 0.5
        toward = liking * (-1 if flipped else 1) * (1 if at.order == "ab" else -1)
        p = votes.sigmoid(votes.logit(votes.clip(at.p_a or 0.0)) + toward)
        out.append(replace(at, p_a=p, labels=("B", "A") if flipped else ("A", "B")))
    return replace(row, votes=tuple(out))


def test_a_liking_for_names_is_measured_and_taken_off() -> None:
    pairs, truths = world(1500, 21, taste=0)
    rng = np.random.default_rng(22)
    liked = [named(row, rng, 1.5) for row in pairs]
    report, left = measure(liked, DEFAULTS, 7), measure(liked, Settings(position=False), 7)
    found = report.document["labelers"]["main"]["label_token"]
    assert found["ci"][0] < 1.5 < found["ci"][1]
    assert (steps(report), steps(left)) == ({"token": True}, {})
    assert right(truths, report) > right(truths, left) + 0.01
    assert right(truths, report) == pytest.approx(right(truths, measure(pairs, DEFAULTS, 7)), abs=0.01)
    assert any("called by the earlier" in line and "; taken off" in line for line in report.document["warnings"])
    assert not any("varies by item" in line for line in report.document["warnings"])


def test_a_pilot_s_bias_is_what_one_order_is_freed_of() -> None:
    pairs, _ = world(100, 20)
    single = [replace(row, votes=row.votes[:1]) for row in pairs]
    report = measure(single, DEFAULTS, 7, pilot=Pilot(shift={"main": 0.5}))
    assert report.shift == {"main": 0.5}
    p_a = single[0].votes[0].p_a
    assert report.labels[0].p_a == pytest.approx(votes.sigmoid(votes.logit(p_a) - 0.5))


def test_position_is_measured_on_the_pairs_that_a_pilot_chose_by_chance() -> None:
    pairs, _ = world(300, 23)
    rng = np.random.default_rng(24)
    doubtful = [
        replace(
            row,
            id=f"d{n}",
            prompt_id=f"d{n}",
            votes=tuple(vote(rng, 3.0 if order == "ab" else -3.0, order) for order in ("ab", "ba")),
        )
        for n, row in enumerate(pairs)
    ]
    chosen = frozenset(row.id for row in pairs)
    fair = measure([*pairs, *doubtful], DEFAULTS, 7, pilot=Pilot(shift={"main": B}, pairs=chosen))
    assert fair.document["labelers"]["main"]["position"] == measure(pairs, DEFAULTS, 7).document["labelers"]["main"]["position"]
    assert measure([*pairs, *doubtful], DEFAULTS, 7).document["labelers"]["main"]["position"]["b"] > 2 * B
    said = measure(pairs, DEFAULTS, 7, pilot=Pilot(pairs=chosen, warnings=("main: its bias varies",)))
    assert "labeler main: its bias varies" in said.document["warnings"]
