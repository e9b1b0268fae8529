"""How many pairs a pilot takes, which of them it asks again, and what it makes of limits."""

from __future__ import annotations

from pathlib import Path

from outside import Cai, rows_of
from test_adaptive import ADAPTIVE, WORLD, config, pilot_in


def test_a_few_prompts_more_than_none_are_enough_for_a_pilot_that_concludes(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, count=96, world={**WORLD, "noise": 0.3})
    _, _, err = cai("run", "c.yaml")
    found = pilot_in(tmp_path / "out")
    assert (len(found["pairs"]), len(found["repeated"]) >= 20, found["labelers"]["main"]["policy"]) == (32, True, "one_call"), err
    assert sum(len(row["votes"]) for row in rows_of(tmp_path / "out" / "label-pairs" / "latest")) < 2 * 96


def test_a_cascade_that_was_too_small_to_tell_biases_tells_them_when_it_has_grown(cai: Cai, tmp_path: Path) -> None:
    labelers = [{"name": "cheap"}, {"name": "strong", "escalate": 0.4, "model": {"name": "other-world"}}]
    for count, told in ((60, 0), (120, 40)):
        config(tmp_path, count=count, label_pairs={**ADAPTIVE, "labelers": labelers})
        _, _, err = cai("run", "c.yaml")
        assert ("too few prompts" in err, len(pilot_in(tmp_path / "out")["pairs"])) == (told == 0, told), err


def test_a_cascade_that_asks_all_it_can_learns_from_all_it_has(cai: Cai, tmp_path: Path) -> None:
    labelers = [{"name": "cheap"}, {"name": "strong", "escalate": 0.4, "model": {"name": "other-world"}}]
    config(tmp_path, count=100, label_pairs={"principles": 0, "labelers": labelers})
    assert cai("run", "c.yaml", "-q")[0] == 0
    assert pilot_in(tmp_path / "out")["cascade"]["strong"]["n"] == 80


def test_probabilities_that_a_clamp_holds_back_are_asked_for_in_both_orders(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, label_pairs={**ADAPTIVE, "clamp": [0.3, 0.7]})
    _, _, err = cai("run", "c.yaml")
    found = pilot_in(tmp_path / "out")["labelers"]["main"]
    assert (found["policy"], "of its probabilities are held back by `clamp`" in err) == ("both", True), err


def test_a_clamp_that_holds_next_to_none_back_changes_nothing(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, label_pairs={**ADAPTIVE, "clamp": [0.01, 0.99]})
    _, _, err = cai("run", "c.yaml")
    assert (pilot_in(tmp_path / "out")["labelers"]["main"]["policy"], "warning" in err) == ("one_call", False), err
