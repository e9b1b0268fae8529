"""Probes: labelers are asked again about pairs of which only the manner was changed; how their answers move is their bias."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import Server
from outside import SIMULATED, Cai, at, manifests, questions, rows_of, unbalanced, write_config, write_rows

from cai_cli import probes
from cai_cli.constitution import Criterion
from cai_cli.engine.probing import choose
from cai_cli.errors import Reject
from cai_cli.flow import Model, Reply, Request, play
from cai_cli.judging import ORDERS, Judge
from cai_cli.probing import Probing, Question, in_order
from cai_cli.prompts import find
from cai_cli.providers._judge import LENGTH_SD
from cai_cli.providers._sentences import write
from cai_cli.providers._world import World
from cai_cli.providers.simulated import reply_to
from cai_cli.records import Pair, Turn, Vote

CRITERION = Criterion(name="helpful", category="helpfulness", text="It is helpful.")
WORLD: dict[str, Any] = {"position": 0.6, "length": 0.5, "sycophancy": 0.4, "noise": 0.3, "logprobs": True}


def judge(name: str = "main") -> Judge:
    model = Model(provider="simulated", name=name, params={"max_tokens": 512})
    return Judge(name=name, model=model, template=find("general", "label", Path()), seed=7)


def probing(counts: dict[str, int] | None = None, names: Sequence[str] = ("main",)) -> Probing:
    judges = {name: judge(name) for name in names}
    return Probing(judges=judges, criteria={"helpful": CRITERION}, counts=counts or {"length": 3}, seed=7)


def vote(order: str = "ab", p_a: float | None = 0.7, **more: Any) -> Vote:
    verdict = "abstain" if p_a is None else "a" if p_a > 0.5 else "b"
    given = {"labeler": "main", "principle": "helpful", "model": "main", "basis": "stated"}
    return Vote(**given | {"order": order, "verdict": verdict, "p_a": p_a} | more)


def pair(n: int = 0, votes: Sequence[Vote] = (vote("ab"), vote("ba"))) -> Pair:
    texts = [" ".join(write("helpful", 5, "gardens", side, n)) for side in ("a", "b")]
    turn = Turn(role="user", content=f"How do I tend garden number {n}?")
    return Pair(
        id=f"p{n}-0-1", prompt_id=f"p{n}", messages=(turn,), prompt=turn.content, response_a=texts[0], response_b=texts[1],
        votes=tuple(votes),
    )  # fmt: skip


def judged(n: int, world: World) -> Pair:
    """A pair with the votes of the simulated judge, in both orders."""
    flows = [judge().vote(pair(n), CRITERION, order, 0) for order in ORDERS]
    return pair(n, [play(flow, lambda request: reply_to(request, world)) for flow in flows])


def asked(flow_of: Probing, one: Pair, dimension: str, world: World) -> tuple[list[Any], list[Request]]:
    """What a probe of a pair came to, and its requests."""
    question, requests = flow_of.question(one, dimension), list[Request]()
    assert question is not None

    def answer(request: Request) -> Reply:
        requests.append(request)
        return reply_to(request, world)

    return play(flow_of(question), answer), requests


# One pair


def test_every_vote_is_asked_for_again_about_the_changed_texts_and_in_the_same_words_else() -> None:
    one, world = pair(), World(logprobs=True)
    rows, requests = asked(probing(), one, "length", world)
    assert [(row.order, row.before_p_a, row.dimension, row.id, row.draw) for row in rows] == [
        ("ab", 0.7, "length", one.id, 0), ("ba", 0.7, "length", one.id, 0),
    ]  # fmt: skip
    assert {row.change for row in rows} == {rows[0].change} == {rows[0].length} != {0.0}
    variant = probes.find("length").variants(one, 7)
    assert variant is not None
    for request, order in zip(requests, ORDERS, strict=True):
        plain = judge().question(one, CRITERION, order, 0)
        assert (request.stage, request.row, request.about["probe"]) == ("debias", one.id, "length")
        assert request.options == plain.options
        assert request.schema == plain.schema
        texts = [(one.response_a, variant.pair.response_a), (one.response_b, variant.pair.response_b)]
        shown = plain.messages[-1].content
        for before, after in texts:
            shown = shown.replace(before, after)
        assert request.messages[-1].content == shown


def test_a_variant_that_brings_its_opposite_is_held_against_that_and_not_against_the_vote() -> None:
    rows, requests = asked(probing(), pair(votes=[vote("ab", 0.9, model="another")]), "sycophancy", World(sycophancy=3, noise=0))
    assert len(requests) == 2
    assert rows[0].before_p_a != 0.9
    toward_a = rows[0].after_p_a - rows[0].before_p_a
    assert toward_a * rows[0].change > 0


def test_which_votes_are_asked_for_again() -> None:
    later, stranger, other = vote(draw=1), vote(labeler="other"), vote(principle="kind")
    one = pair(votes=[vote(), vote(p_a=0.2), later, stranger, other, vote("ba", None)])
    rows, _ = asked(probing(), one, "length", World())
    assert [(row.order, row.before_p_a) for row in rows] == [("ab", 0.7)]
    both, _ = asked(probing(), one, "sycophancy", World())
    assert [row.order for row in both] == ["ab", "ba"]
    nothing = pair(votes=[stranger, other, vote(verdict="north"), vote("ba", None)])
    assert probing().question(nothing, "length") is None
    assert probing().strange(stranger) == "labeler 'other'"
    assert probing().strange(other) == "criterion 'kind'"
    assert probing().strange(vote(principle="")) == "criterion '' (they name none)"


def test_answers_that_are_none_are_kept_as_null_and_bare_verdicts_as_bare() -> None:
    bare = vote(p_a=1.0, basis="verdict")
    rows, _ = asked(probing(), pair(votes=[bare]), "length", World(unreadable_rate=1))
    assert [(row.before_p_a, row.bare_before, row.after_p_a, row.bare_after) for row in rows] == [(1.0, True, None, False)]
    foreign = [vote(p_a=0.0, basis=""), vote("ba", 0.3, basis="")]
    rows, _ = asked(probing(), pair(votes=foreign), "length", World(logprobs=True))
    assert [(row.order, row.bare_before, row.bare_after) for row in rows] == [("ab", True, False), ("ba", False, False)]


def test_what_fails_and_what_another_model_answers_is_a_reject_beside_the_others() -> None:
    question = probing(names=("main", "second")).question(pair(votes=[vote(), vote("ba"), vote(labeler="second")]), "length")
    assert question is not None

    def answer(request: Request) -> Reply | Reject:
        if request.about["order"] == "ba":
            return Reject("http_400", "no")
        return reply_to(request, World())

    flow = probing(names=("main", "second"))(question)
    outcomes: list[Any] = play(flow, answer)  # type: ignore[arg-type]
    assert [getattr(one, "reason", "") for one in outcomes] == ["", "http_400", "other_model"]
    assert outcomes[0].labeler == "main"
    assert "'main' gave the vote, 'second' answers now" in outcomes[2].detail


def test_mean_answers_move_by_what_was_changed() -> None:
    """A check of the sign: in a world that likes length alone, longer is better, whichever response was made longer."""
    world = World(length=2, noise=0, position=0, logprobs=True)
    moved = []
    for n in range(12):
        rows, _ = asked(probing(), judged(n, world), "length", world)
        moved += [math.copysign(1, row.change) * (row.after_p_a - row.before_p_a) for row in rows]
    assert min(moved) > 0
    assert statistics.mean(moved) > 0.1


# Which pairs


@given(st.permutations(range(12)), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_pairs_are_chosen_by_their_ids_alone_and_more_of_them_are_these_and_others(order: list[int], wanted: int) -> None:
    def ids(numbers: Sequence[int], count: int) -> list[str]:
        return [one.pair.id for one in choose(map(pair, numbers), probing({"length": count}), 7).questions["length"]]

    chosen = ids(order, wanted)
    assert len(chosen) == wanted
    assert chosen == ids(range(12), wanted)
    assert set(ids(order, max(1, wanted - 1))) <= set(chosen)


def test_each_probe_has_pairs_of_its_own_and_too_few_are_told() -> None:
    def short(n: int) -> Pair:
        return pair(n) if n < 4 else pair(n, votes=())

    chosen = choose(map(short, range(30)), probing({"length": 2, "sycophancy": 2, "bold": 9}), 7)
    assert {name: len(some) for name, some in chosen.questions.items()} == {"length": 2, "sycophancy": 2, "bold": 4}
    assert chosen.warnings == ["debias.probes.bold: 4 of 30 pairs can be varied that way, 9 were asked for"]
    assert [one.dimension for one in chosen.every] == ["bold"] * 4 + ["length"] * 2 + ["sycophancy"] * 2
    assert all(isinstance(one, Question) for one in chosen.every)


def test_rows_have_one_order() -> None:
    rows = [row for n in range(3) for row in asked(probing(), pair(n), "length", World())[0]]
    assert in_order(rows[::-1]) == in_order(rows) != rows[::-1]


# In a run

SYSTEMS = {"samples": 1, "systems": [None, "Answer briefly."]}  # a server that does not sample gives one answer to one body


def config(folder: Path, probes_: dict[str, Any], prompts: int = 30, **more: Any) -> Path:
    write_rows(folder / "prompts.jsonl", questions(prompts))
    sections: dict[str, Any] = {"critique": None, "revise": None, "debias": {"probes": probes_}}
    return write_config(folder, **sections | {"model": SIMULATED | {"world": WORLD}} | more)


def probed(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "debias/latest/_probes.jsonl").read_text().splitlines()]


def logit(p: float) -> float:
    p = min(max(p, 1e-4), 1 - 1e-4)
    return math.log(p / (1 - p))


def effect(rows: Sequence[dict[str, Any]], dimension: str) -> tuple[float, float]:
    """Least squares through the origin, with a standard error that knows that the two orders of a pair go together."""
    by_pair: dict[str, list[tuple[float, float]]] = {}
    for row in (row for row in rows if row["dimension"] == dimension):
        moved = logit(row["after_p_a"]) - logit(row["before_p_a"])
        by_pair.setdefault(row["id"], []).append((row["change"], moved))
    every = [one for some in by_pair.values() for one in some]
    size = math.fsum(x * x for x, _ in every)
    slope = math.fsum(x * y for x, y in every) / size
    scores = [math.fsum(x * (y - slope * x) for x, y in some) for some in by_pair.values()]
    return slope, math.sqrt(math.fsum(score**2 for score in scores)) / size


def test_a_run_recovers_the_biases_of_the_simulated_labeler_from_text_alone(cai: Cai, tmp_path: Path) -> None:
    """Position, length and sycophancy, each within its 95% interval; and the report says what identifies them."""
    config(tmp_path, {"length": 60, "sycophancy": 60}, prompts=90)
    assert cai("run", "c.yaml", "-q")[0] == 0
    rows = probed(tmp_path / "out")
    assert Counter(row["dimension"] for row in rows) == {"length": 120, "sycophancy": 120}
    for dimension, truth in (("length", 0.5 / LENGTH_SD), ("sycophancy", 0.4)):
        found, se = effect(rows, dimension)
        assert abs(found - truth) < 1.96 * se, f"{dimension}: {found:.3f}, se {se:.3f}, where the judge has {truth:.3f}"
        assert found > 4 * se
    labeler = json.loads((tmp_path / "out/debias/latest/_bias.json").read_bytes())["labelers"]["main"]
    for name, truth in (("position", 0.6), ("length", 0.5 / LENGTH_SD), ("sycophancy", 0.4)):
        low, high = (edge / (labeler[name].get("sd") or 1) for edge in labeler[name]["ci"])
        assert low < truth < high, name
    assert {labeler[name]["identified_by"] for name in ("length", "sycophancy")} == {"probe"}


@pytest.mark.parametrize(
    ("dimension", "world", "truth"),
    [
        ("authority", {"authority": 0.7}, 0.7), ("lists", {"markdown": 0.5}, 0.5), ("bold", {"markdown": 0.5}, 0.5),
        ("headers", {"markdown": 0.5}, 0.5), ("authority", {}, 0.0), ("sycophancy", {"sycophancy": 0}, 0.0),
        ("length", {"length": 0}, 0.0), ("length", {"length": -0.4}, -0.4 / LENGTH_SD),
        ("headers", {}, 0.0),
    ],
)  # fmt: skip
def test_each_taste_of_the_simulated_labeler_is_found_and_none_where_there_is_none(
    dimension: str, world: dict[str, float], truth: float
) -> None:
    there = World(**{"logprobs": True, "noise": 0.2, "length": 0.0, **world})
    rows = [asdict(row) for n in range(60) for row in asked(probing(), judged(n, there), dimension, there)[0]]
    slope, se = effect(rows, dimension)
    assert slope == pytest.approx(truth, abs=max(3 * se, 0.02))


def test_the_same_config_asks_nothing_and_more_probes_buy_only_the_new_ones(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, {"length": 5, "sycophancy": 3})
    code, out, _ = cai("run", "c.yaml", "--json")
    assert code == 0
    first = json.loads(out)["stages"]["debias"]
    assert (first["requests"], first["replayed"]) == (2 * 5 + 4 * 3, 0)
    again = json.loads(cai("run", "c.yaml", "--json")[1])
    assert again["unchanged"]
    assert again["stages"]["debias"]["requests"] == 0
    _, out, _ = cai("debias", "c.yaml", "--set", "debias.probes={length: 9, sycophancy: 3}", "--json")
    more = json.loads(out)["stages"]["debias"]
    assert (more["requests"], more["replayed"]) == (2 * 4, 22)
    assert more["version"].startswith("v0002")
    manifest = manifests(tmp_path / "out")["debias"]
    assert manifest["replies"] == 30
    assert manifest["tokens"]["in"] == manifest["models"][0]["tokens"]["in"] > 0
    assert not unbalanced(manifest)
    assert cai("verify", "c.yaml")[0] == 0


@pytest.mark.parametrize(
    "change",
    [
        "label_pairs.labelers=[{name: main, model: {name: bigger}}]", "label_pairs.reasoning=false", "seed=8",
        "debias.probes.length=4",
    ],
)  # fmt: skip
def test_what_the_answers_hang_on_makes_another_version(cai: Cai, tmp_path: Path, change: str) -> None:
    config(tmp_path, {"length": 3}, prompts=6)
    assert cai("run", "c.yaml", "-q")[0] == 0
    input_ = sorted((tmp_path / "out/label-pairs/latest").resolve().glob("train-*"))[0]
    asks = ("debias", "c.yaml", "-i", input_, "-o", "other", "--json")
    assert cai(*asks)[0] == 0
    code, out, err = cai(*asks, "--set", change)
    assert code == 0, err
    assert json.loads(out)["stages"]["debias"]["version"].startswith("v0002")
    assert not json.loads(out)["unchanged"]


def test_a_table_without_probes_hangs_on_no_labeler(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, {}, prompts=6)
    assert cai("run", "c.yaml", "-q")[0] == 0
    assert not (tmp_path / "out/debias/latest/_probes.jsonl").exists()
    input_ = sorted((tmp_path / "out/label-pairs/latest").resolve().glob("train-*"))[0]
    assert cai("debias", "c.yaml", "-i", input_, "-o", "other", "-q")[0] == 0
    _, out, _ = cai("debias", "c.yaml", "-i", input_, "-o", "other", "--json", "--set", "label_pairs.reasoning=false")
    assert json.loads(out)["unchanged"]


def test_rows_of_a_file_and_a_stream_are_probed_too(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, {"length": 4, "sycophancy": 2}, prompts=12)
    code, out, _ = cai("run", "c.yaml", "-o", "-")
    assert code == 0
    assert cai("run", "c.yaml", "-q")[0] == 0
    rows = rows_of(tmp_path / "out/debias/latest")
    assert [json.loads(line) for line in out.splitlines()] == rows
    given = write_rows(tmp_path / "pairs.jsonl", rows_of(tmp_path / "out/label-pairs/latest"))
    code, out, _ = cai("debias", "c.yaml", "-i", given, "-o", "-")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == rows
    code, out, _ = cai("debias", "c.yaml", "-i", given, "-o", "other", "--json")
    assert json.loads(out)["stages"]["debias"]["requests"] == 2 * 4 + 4 * 2  # an output of its own has a ledger of its own
    assert probed(tmp_path / "other") == probed(tmp_path / "out")


def test_too_few_pairs_and_votes_of_strangers_are_told_and_a_stranger_alone_is_an_error(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, {"length": 20}, prompts=8)
    code, _, err = cai("run", "c.yaml")
    assert code == 0
    said = json.loads((tmp_path / "out/debias/latest/_bias.json").read_bytes())["warnings"]
    assert any(line.startswith("fewer pairs were probed than debias.probes asks for: length 8 of 20; ") for line in said)
    assert "no model is known" not in err
    assert "warning: debias.probes.length: 8 of 8 pairs can be varied that way, 20 were asked for" in err
    rows = rows_of(tmp_path / "out/label-pairs/latest")
    for row in rows:
        row["votes"].append(row["votes"][0] | {"labeler": "somebody"})
        row["votes"][0]["model"] = ""
    given = write_rows(tmp_path / "pairs.jsonl", rows)
    code, _, err = cai("debias", "c.yaml", "-i", given, "-o", "other")
    assert code == 0
    assert "warning: probes leave 8 votes out: this config does not have their labeler 'somebody'" in err
    assert "warning: probes hold answers against 8 votes of which no model is known: if others gave them, effects blur" in err
    for row in rows:
        row["votes"] = [one | {"labeler": f"somebody{n}"} for n, one in enumerate(row["votes"] * 2)]
    write_rows(given, rows)
    code, _, err = cai("debias", "c.yaml", "-i", given, "-o", "other")
    assert code == 2
    assert "not one of the pairs' votes could be asked for again; this config does not have their labeler 'somebody0'" in err
    assert "and 3 more" in err
    assert "leave debias.probes out" in err


def test_answers_that_fail_are_counted_and_told(cai: Cai, tmp_path: Path, server: Server) -> None:
    config(tmp_path, {"length": 10}, prompts=12, model=at(server.url), generate=SYSTEMS)
    assert cai("run", "c.yaml", "-q", "--set", "debias.probes={}")[0] == 0
    server.reset(world={"reported_model": "somebody-else"})
    code, _, err = cai("debias", "c.yaml")
    assert code == 0
    assert "warning: probes: 20 of 20 answers are missing: 20 other_model; for others raise debias.probes, or ask all anew" in err
    server.reset(world={"unreadable_rate": 1})
    code, _, err = cai("debias", "c.yaml", "--set", "draw_offset=1", "--set", "limits.max_abstain_rate=1")
    assert code == 0
    assert "warning: probes: 100.0% of the answers are no verdict: refused, cut off, or not to be read" in err
    assert {row["after_p_a"] for row in probed(tmp_path / "out")} == {None}


@pytest.mark.parametrize(
    ("sections", "said", "hint"),
    [
        ({"debias": {"probes": {"lenght": 5}}}, "debias.probes: ", "did you mean 'length'?"),
        ({"debias": {"probes": {"length": 0}}}, "debias.probes", "debias.probes: 'length' must be at least 1"),
        ({"debias": {"probes": {"length": 5}}, "label_pairs": None},
         "debias.probes: there is no section label_pairs, whose labelers are asked again",
         "label_pairs: {labelers: [{name: main}]}"),
    ],
)  # fmt: skip
def test_probes_that_cannot_be_asked_are_told_before_anything_is(
    cai: Cai, tmp_path: Path, sections: dict[str, Any], said: str, hint: str
) -> None:
    config(tmp_path, {}, prompts=4)
    assert cai("run", "c.yaml", "-q")[0] == 0
    config(tmp_path, {}, prompts=4, **sections)
    code, _, err = cai("debias", "c.yaml")
    assert code == 2
    assert re.match(r"error: c\.yaml:\d+: ", err)
    assert said in err
    assert hint in err
    code, _, checked = cai("config", "check", "c.yaml")
    assert (code, checked.splitlines()[0]) == (2, err.splitlines()[0])


def test_a_check_says_whom_probes_ask(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, {"length": 3}, prompts=4)
    _, out, _ = cai("config", "check", "c.yaml")
    assert re.search(r"^debias +simulated small-world +label-general +those of the votes$", out, re.MULTILINE)


def test_a_dry_run_counts_what_probes_will_ask(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, {"length": 5, "sycophancy": 30}, prompts=20)
    planned = json.loads(cai("run", "c.yaml", "--dry-run", "--json")[1])
    assert not (tmp_path / "out").exists()
    done = json.loads(cai("run", "c.yaml", "--json")[1])
    assert planned["stages"]["debias"]["calls"] == done["stages"]["debias"]["requests"] == 2 * 5 + 4 * 20
    assert "debias.probes" in planned["assumed"]["probes"]
    alone = json.loads(cai("debias", "c.yaml", "--dry-run", "--json")[1])
    assert alone["stages"]["debias"]["calls"] == 90
    none = json.loads(cai("debias", "c.yaml", "--dry-run", "--json", "--set", "debias.probes={}")[1])
    assert (none["prompts_played"], none["stages"]["debias"]["calls"], "probes" in none["assumed"]) == (0, 0, False)


def test_a_dry_run_scales_what_it_saw_of_a_sample(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, {"length": 300, "bold": 10}, prompts=450)
    calls = json.loads(cai("run", "c.yaml", "--dry-run", "--json")[1])["stages"]["debias"]["calls"]
    assert calls == pytest.approx(2 * 310, abs=12)


def test_why_tells_the_probes_of_a_pair(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, {"length": 2}, prompts=4)
    assert cai("run", "c.yaml", "-q")[0] == 0
    asked_about = {row["id"] for row in probed(tmp_path / "out")}
    pairs = {row["id"] for row in rows_of(tmp_path / "out/label-pairs/latest")}
    assert len(asked_about) == 2
    for one in pairs:
        code, out, _ = cai("why", "c.yaml", one, "--json")
        found = [request for request in json.loads(out)["requests"] if request["stage"] == "debias"]
        assert code == 0
        assert [request["about"]["probe"] for request in found] == (["length", "length"] if one in asked_about else [])
