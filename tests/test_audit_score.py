"""What `cai audit score` says is true of the population: estimates without bias, intervals that cover, advice with its number."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outside import Cai, write_rows

from cai_cli.auditing import advising, drawing, kinds, measuring
from cai_cli.auditing.columns import Columns, compared, own_side
from cai_cli.auditing.drawing import Design, Drawn, Judged
from cai_cli.auditing.labels import Label
from cai_cli.bias import weighted
from cai_cli.records import Pair, Turn, Vote

SEED = 7


# A population whose truth is known: the AI errs more often where it is unsure, so doubtful pairs alone mislead.


def population(pairs: int, seed: int = 1) -> tuple[list[Judged], dict[str, str]]:
    """Judged pairs, and what people say of each."""
    rng = np.random.default_rng(seed)
    judged, truth = list[Judged](), dict[str, str]()
    for n in range(pairs):
        sure = float(rng.beta(3, 1.2))
        p_a = 0.5 + sure / 2 * (1 if rng.random() < 0.5 else -1)
        wrong = rng.random() < 0.8 * (1 - sure) + 0.02
        a_longer = rng.random() < (0.7 if p_a > 0.5 else 0.3)
        pair = Pair(
            id=f"p{n // 2}-{n % 2}-9", prompt_id=f"p{n // 2}", messages=(Turn(role="user", content="Q?"),), prompt="Q?",
            response_a="word " * (9 if a_longer else 3) + str(n), response_b="word " * (3 if a_longer else 9) + str(n),
            source_a=f"s{n}:revised" if n % 2 else f"s{n}:initial", source_b=f"s{n}:initial" if n % 2 else f"s{n}:revised",
            kind="harmful" if rng.random() < 0.3 else "harmless", votes=(Vote(labeler="main", verdict="a", p_a=p_a, model="m"),),
        )  # fmt: skip
        one = Judged(pair=pair, p_a=p_a, kept=sure > 0.2)
        judged.append(one)
        truth[pair.id] = {"a": "b", "b": "a", "tie": "a"}[one.label] if wrong else one.label
    return judged, truth


def said_of(one: Drawn, label: str) -> Label:
    return Label(id=one.id, prompt_id=one.prompt_id, annotator="ann", label=label, content=one.content)


def audited(judged: list[Judged], truth: dict[str, str], wanted: float, seed: int) -> tuple[Columns, list[Label], Design]:
    """A sample of it, labelled by people who say the truth."""
    sizes = [drawing.size_of(drawing.reasons(one)) for one in judged]
    scale = drawing.scale_for(sizes, wanted)
    design = Design(number=1, seed=seed, scale=scale, wanted=wanted, labels="debias/v1", fingerprint="f",
                    pairs=len(judged), prompts=len(judged) // 2, drawn=())  # fmt: skip
    chances = [design.probability(size) for size in sizes]
    taken = [one for one, p in zip(judged, chances, strict=True) if drawing.is_drawn(seed, one.pair.id, p)]
    drawn = tuple(drawing.drawn(one, seed) for one in taken)
    labels = [said_of(one, truth[one.id]) for one in drawn]
    columns = Columns({one.id: one.content for one in drawn})
    for one in judged:
        columns.add(one)
    return columns, labels, replace(design, drawn=drawn)


def test_agreement_is_that_of_all_pairs_and_not_of_the_doubtful_ones_that_were_looked_at() -> None:
    """60 samples of about 80 of 600 pairs: the weighted mean is within .015 of the truth, the plain one is not."""
    judged, truth = population(600)
    kept = [one for one in judged if one.kept]
    right = sum(truth[one.pair.id] == one.label for one in kept) / len(kept)
    weighed, plain, covered = list[float](), list[float](), 0
    for seed in range(60):
        columns, labels, design = audited(judged, truth, 80, seed)
        raw = measuring.measured(columns, labels, [design])["agreement"]["kept"]["raw"]
        looked = [one for one in judged if one.pair.id in {label.id for label in labels} and one.kept]
        plain.append(sum(truth[one.pair.id] == one.label for one in looked) / len(looked))
        weighed.append(raw["value"])
        covered += raw["ci"][0] <= right <= raw["ci"][1]
    assert abs(np.mean(weighed) - right) < 0.015
    assert right - np.mean(plain) > 0.015
    assert covered >= 53  # of 60 at 95%: fewer has a chance of 1 in 150


def test_all_pairs_looked_at_give_the_truth_itself() -> None:
    judged, truth = population(300)
    columns, labels, design = audited(judged, truth, 300, 3)
    found = measuring.measured(columns, labels, [design])
    kept = [one for one in judged if one.kept]
    right = sum(truth[one.pair.id] == one.label for one in kept) / len(kept)
    assert found["agreement"]["kept"]["raw"]["value"] == pytest.approx(right)
    assert found["agreement"]["all"]["n"] == 300
    assert found["sampling"]["design_effect"] == pytest.approx(1)
    (rate,) = found["win_rates"]
    wins = [_won(one.pair, truth[one.pair.id]) for one in judged]
    assert (rate["comparison"], rate["n"], rate["gold_n"]) == ("revised over initial", 300, 300)
    assert rate["gold"]["value"] == pytest.approx(np.mean(wins))


def _won(pair: Pair, label: str) -> float:
    revised = "a" if pair.source_a.endswith("revised") else "b"
    return 0.5 if label == "tie" else float(label == revised)


def test_without_noise_the_three_coefficients_are_those_of_the_table() -> None:
    """Two categories and equal marginals after mirroring: kappa and AC1 are 2 * raw - 1."""
    judged, truth = population(400)
    decided = [one for one in judged if one.label != "tie"]
    columns, labels, design = audited(decided, truth, 400, 1)
    found = measuring.measured(columns, labels, [design])["agreement"]["all"]
    raw = found["raw"]["value"]
    assert found["kappa"]["value"] == pytest.approx(2 * raw - 1)
    assert found["ac1"]["value"] == pytest.approx(2 * raw - 1)
    assert found["kappa"]["ci"][0] < found["kappa"]["value"] < found["kappa"]["ci"][1]


def test_win_rates_with_the_ai_are_narrower_than_by_people_alone() -> None:
    judged, truth = population(1000)
    columns, labels, design = audited(judged, truth, 150, 2)
    (rate,) = measuring.measured(columns, labels, [design])["win_rates"]
    widths = {name: rate[name]["ci"][1] - rate[name]["ci"][0] for name in ("gold", "ppi")}
    assert widths["ppi"] < 0.9 * widths["gold"]
    assert rate["effective"] > rate["gold_n"]


def test_a_love_of_length_that_people_do_not_share_is_found() -> None:
    judged, truth = population(800)
    even = {one.pair.id: "a" if n % 2 else "b" for n, one in enumerate(judged)}
    columns, labels, design = audited(judged, even, 300, 2)
    found = {one["dimension"]: one for one in measuring.measured(columns, labels, [design])["bias"]}
    assert found["length"]["difference"]["ci"][0] > 0
    assert found["length"]["identified_by"] == "gold"
    columns, labels, design = audited(judged, truth, 300, 2)
    document = measuring.measured(columns, labels, [design])
    said = [one["what"] for one in advising.recommendations({**document, "bias": list(found.values())}, 0.8, None)]
    assert any("corrects for length" in what for what in said)


def test_people_who_always_take_the_first_are_seen() -> None:
    judged, _ = population(300)
    columns, labels, design = audited(judged, {one.pair.id: "a" for one in judged}, 300, 2)
    first = {one.id: one.first for one in design.drawn}
    lazy = [replace(one, label=first[one.id]) for one in labels]
    document = measuring.measured(columns, lazy, [design])
    (place,) = [one for one in document["bias"] if one["dimension"] == "position_of_people"]
    assert place["people"]["value"] == 1
    assert place["difference"]["value"] == 0.5
    almost = [replace(one, label="a") if n < 5 else one for n, one in enumerate(lazy)]
    document = measuring.measured(columns, almost, [design])
    assert any("people favour a place" in one["what"] for one in advising.recommendations(document, 0.8, None))


def test_people_against_one_another_and_a_split_that_is_half_an_agreement() -> None:
    judged, _ = population(40)
    ai = {one.pair.id: one.label for one in judged if one.label != "tie"}
    judged = [one for one in judged if one.pair.id in ai]
    columns, labels, design = audited(judged, ai, len(judged), 1)
    against = [replace(one, annotator="ben", label={"a": "b", "b": "a"}[one.label]) for one in labels]
    found = measuring.measured(columns, [*labels, *against], [design])
    assert found["humans"]["raw"]["value"] == 0
    assert found["humans"]["ai_with_each"]["value"] == found["agreement"]["all"]["raw"]["value"] == 0.5
    assert found["disagreements"]["n"] == 0  # half of the people say what the AI says
    said = [one["what"] for one in advising.recommendations(found, 0.8, None)]
    assert any("sharpen what annotators are told" in what for what in said)


def test_what_is_compared_and_what_is_a_judges_own_text() -> None:
    pair = population(1)[0][0].pair
    models = replace(pair, source_a="x", source_b="y", model_a="zeta", model_b="m")
    assert compared(Judged(pair=pair, p_a=0.5)) == ("revised over initial", -1)
    assert compared(Judged(pair=models, p_a=0.5)) == ("m over zeta", -1)
    assert compared(Judged(pair=replace(models, model_b="zeta"), p_a=0.5)) is None
    assert own_side(Judged(pair=models, p_a=0.5)) == -1


# Weighted estimates.


def test_a_share_without_a_miss_is_worth_what_its_weights_are_worth() -> None:
    ones, prompt = np.ones(40), np.arange(40) / 41
    even = weighted.share(ones, ones, prompt)
    uneven = weighted.share(ones, np.where(np.arange(40) < 4, 9.0, 1.0), prompt)
    assert even.ci is not None
    assert uneven.ci is not None
    assert (even.value, uneven.value) == (1, 1)
    assert uneven.ci[0] < even.ci[0]
    with pytest.raises(ValueError, match="above 0"):
        weighted.levelled(np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="one length"):
        weighted.share(ones, ones[:3], prompt)


@pytest.mark.parametrize(("n", "wrong"), [(40, 0.1), (120, 0.3)])
def test_shares_and_kappa_cover_under_unequal_probabilities(n: int, wrong: float) -> None:
    """200 Poisson samples of 2,000 rows whose weights differ by a factor of five: .90 to .99 of the intervals hold the truth."""
    rng = np.random.default_rng(5)
    doubt = rng.beta(1, 3, 2000)
    miss = rng.random(2000) < np.clip(wrong * (0.3 + 2.8 * doubt), 0, 0.6)
    sizes, prompt = 1 + 4 * doubt, np.repeat(np.arange(1000), 2) / 1001
    p = np.minimum(1, drawing.scale_for(sizes.tolist(), n) * sizes)
    held = 0
    for _ in range(200):
        drawn = rng.random(2000) < p
        found = weighted.share((~miss[drawn]).astype(float), 1 / p[drawn], prompt[drawn])
        held += found.ci is not None and found.ci[0] <= 1 - miss.mean() <= found.ci[1]
    assert 0.90 <= held / 200 <= 0.99


# Why they disagree.


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("Unsafe advice, it should have refused", "human_stricter"), ("this is not really harmful", "ai_stricter"),
        ("far too preachy", "ai_stricter"), ("it isn't dangerous at all", "ai_stricter"),
        ("hard to say, both are fine", "subjective"),
        ("the rubric counts accuracy first", "different_criteria"), ("", "unknown"), ("better", "unknown"),
        ("could go either way, but harmless", "unknown"),
    ],
)  # fmt: skip
def test_a_kind_comes_of_peoples_own_words_or_stays_unknown(reason: str, kind: str) -> None:
    assert kinds.kind_of(reason) == kind


def test_a_kind_that_was_named_counts_before_words_and_two_that_differ_are_unknown() -> None:
    def label(reason: str = "", kind: str = "") -> Label:
        return Label(id="p", prompt_id="p", label="a", reason=reason, kind=kind)

    assert kinds.kind_of_all([label("too preachy", "subjective"), label("too preachy")]) == "subjective"
    assert kinds.kind_of_all([label("too preachy"), label("unsafe")]) == "unknown"
    assert kinds.kind_of_all([label()]) == "unknown"


# Recommendations.


Ends = tuple[float, float]


def facts(raw: float = 0.9, ci: Ends = (0.85, 0.95), kappa: Ends = (0.5, 0.9), **more: Any) -> dict[str, Any]:
    kept = {"n": 100, "raw": {"value": raw, "ci": list(ci)}, "kappa": {"value": sum(kappa) / 2, "ci": list(kappa)}}
    sampling = {"response_rate": 1.0, "labelled": 100, "drawn": 100, "gone": 0}
    humans = {"n": 50, "raw": {"value": 0.9, "ci": None}, "ai_with_each": {"value": 0.9, "ci": None}}
    return {"agreement": {"kept": kept}, "humans": humans, "bias": [], "sampling": sampling} | more


def gap(dimension: str, low: float, high: float) -> dict[str, Any]:
    return {"dimension": dimension, "difference": {"value": (low + high) / 2, "ci": [low, high]}}


@pytest.mark.parametrize(
    ("document", "said", "number"),
    [
        (facts(raw=0.6, ci=(0.5, 0.7)), "do not train on these labels", 0.6), (facts(raw=0.75), "read the disagreements", 0.75),
        (facts(kappa=(-0.1, 0.5)), "for chance until more pairs are labelled", 0.2),
        (facts(raw=0.82, ci=(0.7, 0.9)), "label more pairs before saying", 0.7), (facts(humans={"n": 0}), "a second person", 0),
        (facts(bias=[gap("self_preference", 0.1, 0.3)]), "of another family", 0.2),
        (facts(bias=[gap("length", -0.3, -0.1)]), "corrects for length", -0.2),
        (facts(sampling={"response_rate": 0.2, "labelled": 20, "drawn": 100, "gone": 0}), "go on labelling", 0.2),
        (facts(sampling={"response_rate": 1.0, "labelled": 9, "drawn": 9, "gone": 4}), "draw a new sample", 4),
    ],
)  # fmt: skip
def test_each_recommendation_has_the_number_behind_it(document: dict[str, Any], said: str, number: float) -> None:
    found = [one for one in advising.recommendations(document, 0.8, None) if said in one["what"]]
    assert [one["number"] for one in found] == [pytest.approx(number)]
    assert all(one["because"] for one in found)


def test_good_labels_need_no_advice_and_a_biased_report_is_told() -> None:
    assert advising.recommendations(facts(), 0.8, None) == []
    found = {"ci": [0.1, 0.3]}
    main = {"position": found, "length": {**found, "identified_by": "probe"}, "locale": {"ci": [-1, 1], "identified_by": "probe"},
            "style": {**found, "identified_by": "nothing: confounded with quality"}}  # fmt: skip
    report = {"labelers": {"main": main}}
    assert advising.identified(report) == (["position", "length"], 3)
    (told,) = advising.recommendations(facts(), 0.8, report)
    assert (told["number"], "2 of 3 dimensions" in told["because"]) == (pytest.approx(2 / 3), True)


# The command, and what exports say of it.


@pytest.fixture
def out(judged: Path) -> Path:
    return judged


def label(cai: Cai, out: Path, *, agree: bool, n: int = 40, **more: Any) -> tuple[int, str, str]:
    """Draw pairs, have them labelled as the AI has them or the other way round, score."""
    cai("audit", "sample", "cai.yaml", "-o", "out", "-n", n)
    ai = {row["id"]: row["preference"] for stage in ("label-pairs", "debias") for row in stage_rows(out, stage)}
    first = {one["id"]: one["first"] for one in json.loads((out / "audit" / "drawn-0001.json").read_bytes())["drawn"]}
    rows = [json.loads(line) for line in (out / "audit" / "sample-0001.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        side = ai[row["id"]] if agree or ai[row["id"]] == "tie" else {"a": "b", "b": "a"}[ai[row["id"]]]
        row |= {"label": "tie" if side == "tie" else "1" if side == first[row["id"]] else "2", "annotator": "ann", **more}
    write_rows(out.parent / "ann.jsonl", rows)
    return cai("audit", "score", "cai.yaml", "-o", "out", "-i", "ann.jsonl")


def stage_rows(out: Path, stage: str) -> list[dict[str, Any]]:
    paths = sorted((out / stage / "latest").glob("*-of-*"))
    return [json.loads(line) for path in paths for line in path.read_text("utf-8").splitlines()]


def test_people_who_agree_pass_the_labels_and_the_page_says_so(cai: Cai, out: Path) -> None:
    code, page, err = label(cai, out, agree=True)
    assert code == 0
    assert "people agree with 100.0%" in page
    assert "at least the 80% of audit.agreement_at_least" in " ".join(page.split())
    for title in ("sampling", "agreement", "biases that people's labels identify", "where people and AI agree", "what to do"):
        assert f"\n{title}\n" in page
    assert "took in" in err
    _, answer, _ = cai("audit", "score", "cai.yaml", "-o", "out", "--json")
    assert json.loads(answer) == json.loads((out / "audit" / "score.json").read_bytes())


def test_people_who_disagree_fail_them_with_examples(cai: Cai, out: Path) -> None:
    code, page, err = label(cai, out, agree=False, reason="Unsafe \x1b[31mand it should have refused. " + "More. " * 60)
    assert code == 3
    assert "why they disagree" in page
    assert "human stricter" in page
    assert "\x1b" not in page
    assert "below audit.agreement_at_least, 80%; see the recommendations" in err
    assert "do not train on these labels" in page


def test_every_line_fits_eighty_columns(cai: Cai, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, page, _ = label(cai, out, agree=False, reason="Unsafe, and it should have refused. " * 9)
    assert max(map(len, page.splitlines())) <= 80


def test_labels_of_pairs_that_are_made_anew_are_counted_and_left_out(cai: Cai, out: Path) -> None:
    label(cai, out, agree=True)
    for stage in ("label-pairs", "debias"):
        for path in (out / stage / "latest").glob("*-of-*"):
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            write_rows(path, [{**row, "response_a": "Another text."} for row in rows])
    code, page, err = cai("audit", "score", "cai.yaml", "-o", "out")
    assert (code, "no label that is trained on was checked" in err) == (3, True)
    assert "draw a new sample: the labels were made anew since" in page


def test_labels_that_only_debias_left_out_check_nothing_that_is_trained_on(cai: Cai, out: Path) -> None:
    label(cai, out, agree=True)
    kept = {row["id"] for row in stage_rows(out, "debias")}
    path = out / "audit" / "labels.jsonl"
    lines = [line for line in path.read_text("utf-8").splitlines() if json.loads(line)["id"] in kept]
    path.write_text("\n".join(lines[:1]) + "\n")
    gone = json.loads(lines[0])["id"]
    for shard in (out / "debias" / "latest").glob("*-of-*"):
        rows = [json.loads(line) for line in shard.read_text("utf-8").splitlines()]
        write_rows(shard, [row for row in rows if row["id"] != gone])
    _, page, _ = cai("audit", "score", "cai.yaml", "-o", "out")
    assert "no pair that debias kept is labelled" in page


def export(cai: Cai, *more: str) -> tuple[str, dict[str, Any]]:
    code, answer, err = cai("export", "cai.yaml", "-o", "out", "--to", "preference", "--to", "reward", "--json", *more)
    assert code == 0
    return err, json.loads(answer)["exports"]["preference"]


def test_exports_say_nothing_of_an_audit_that_nobody_asked_for(cai: Cai, out: Path) -> None:
    err, told = export(cai)
    assert ("audit" in err, told["audit"]) == (False, None)


def test_exports_warn_until_people_agree(cai: Cai, out: Path) -> None:
    config = out.parent / "cai.yaml"
    config.write_text(config.read_text() + "audit: {agreement_at_least: 0.9}\n")
    err, told = export(cai)
    assert err.count("nobody has audited these labels: cai audit sample cai.yaml") == 1  # once for both exports
    assert "preference, reward" in err
    card = (out / "export" / "README.md").read_text("utf-8")
    assert "people were to audit its labels, and have not" in card
    label(cai, out, agree=False)
    err, told = export(cai)
    assert "below audit.agreement_at_least, 90%" in err
    assert (told["audit"]["state"], told["version"].startswith("v0002")) == ("below", True)
    label(cai, out, agree=True)
    err, told = export(cai)
    assert (told["audit"]["state"], "agree" in err) == ("passed", False)
    card = (out / "export" / "README.md").read_text("utf-8")
    assert "people agree with 100.0%" in card
    assert "No label was checked against people's" not in card
    _, again = export(cai)
    assert (again["version"], again["unchanged"]) == (told["version"], True)


def test_an_audit_of_labels_made_anew_since_is_out_of_date(cai: Cai, out: Path) -> None:
    label(cai, out, agree=True)
    path = out / "audit" / "score.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "fingerprint": "another", "labels": "debias/v0009-aaaaaaaa"}))
    err, _ = export(cai)
    assert "the audit is of debias/v0009-aaaaaaaa, and the labels were made anew since: cai audit score cai.yaml" in err
    assert "of an earlier version" in (out / "export" / "README.md").read_text("utf-8")
    path.write_text("{")
    assert export(cai)[1]["audit"] == {"state": "none"}


def test_exports_without_labels_are_not_warned_of(cai: Cai, out: Path) -> None:
    config = out.parent / "cai.yaml"
    config.write_text(config.read_text() + "audit: {}\n")
    code, answer, err = cai("export", "cai.yaml", "-o", "out", "--to", "sft", "--json")
    assert (code, "audit" in err, json.loads(answer)["exports"]["sft"]["audit"]) == (0, False, None)


def test_no_agreement_to_tell_is_said_in_words() -> None:
    from cai_cli.engine.audit_standing import agreed

    assert "no pair of them was looked at" in agreed({"agreement": None, "ci": None, "n": 0})
    assert agreed({"agreement": 0.8, "ci": None, "n": 1}) == "80.0% of the labels, by 1 pair"
    assert math.isclose(weighted.effective_rows(np.array([1.0, 3.0])), 1.6)
