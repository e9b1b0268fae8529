"""The dataset card: what it tells people, that it follows from manifests alone, and that nothing in it can be more than text."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from outside import ROOT, manifests, questions, rows_of, write_config, write_rows

from cai_cli import config as configs
from cai_cli.config import Config
from cai_cli.engine import card_costs, card_limits, markdown, plan, run, versions
from cai_cli.engine.card import BEGIN, END, parsed, read_card, written
from cai_cli.engine.card_costs import Cost
from cai_cli.engine.export import export
from cai_cli.engine.run import Options
from cai_cli.prices import dated

STAGES = ("generate", "critique", "revise", "label-pairs", "debias")
SIMULATED: dict[str, Any] = {"provider": "simulated", "name": "small-world", "world": {"refusal_rate": 0.1, "empty_rate": 0.05}}
LABELERS: list[dict[str, Any]] = [{"name": "main"}, {"name": "second", "model": {"name": "other-world"}}]


class Quiet:
    """Looks on and says nothing."""

    def begin(self, snapshot: Any) -> None: ...
    def tick(self, snapshot: Any) -> None: ...
    def end(self, snapshot: Any) -> None: ...


def config_in(folder: Path, **sections: Any) -> Config:
    folder.mkdir(exist_ok=True)
    rows = [{**row, "kind": ("harmful", "harmless", "odd")[n % 3]} for n, row in enumerate(questions(24))]
    write_rows(folder / "prompts.jsonl", rows)
    given = {
        "output": str(folder / "out"), "model": SIMULATED,
        "prompts": {"path": "prompts.jsonl", "kind": "kind"}, "split": {"test": 0.3}, "limits": {"max_reject_rate": 1.0},
        "generate": {"samples": 2, "systems": [None, "A secret system prompt."]},
    }  # fmt: skip
    return configs.load(write_config(folder, **{**given, **sections}), env={})


def ran(config: Config, *names: str) -> Config:
    run.execute(config, names or plan.sections_of(config), Options(), Quiet())
    return config


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A config that was run, with rejects, refusals, two labelers and both exports."""
    config = ran(config_in(tmp_path_factory.mktemp("card"), label_pairs={"labelers": LABELERS}))
    for name in ("sft", "preference"):
        export(config, name)
    return config


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text("utf-8")


def part(card: str, name: str) -> str:
    """One part of a card, by its heading."""
    found = re.search(rf"^## {name}\n\n(.*?)(?=^## |^<!--)", card, re.DOTALL | re.MULTILINE)
    assert found, f"there is no part {name}"
    return found[1]


def cells(table: str) -> list[dict[str, str]]:
    """A markdown table's rows by its head."""
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    return [dict(zip(head, row, strict=True)) for row in rows]


# What it tells


def test_every_stage_stands_there_with_its_rows_its_splits_and_its_columns(made: Config) -> None:
    for row in cells(part(card_of(made.output_path), "What is in it")):
        stage = row["stage"].strip("`")
        version = versions.latest(made.output_path, stage)
        assert version is not None
        counts = {
            split: len(rows_of(version.path, f"{split}-*")) for split in ("train", "test") if rows_of(version.path, f"{split}-*")
        }
        assert row["version"] == f"`{version.name}`"
        assert row["rows"] == str(sum(counts.values()))
        assert row["splits"] == ", ".join(f"`{split}` {count}" for split, count in counts.items())
        (first, *_) = rows_of(version.path)
        assert re.findall(r"`([^`]+)`", row["columns"]) == list(first)


def test_how_it_was_made_names_settings_templates_and_parents(made: Config) -> None:
    rows = {row["stage"].strip("`"): row for row in cells(part(card_of(made.output_path), "How it was made"))}
    assert list(rows) == list(STAGES)
    assert "`samples=2`, `systems=2`" in rows["generate"]["settings"]
    assert "`labelers=main,second`" in rows["label-pairs"]["settings"]
    assert "`stop.severity_below=0.2`" in rows["revise"]["settings"]
    template = manifests(made.output_path)["critique"]["fingerprints"]["templates"]["critique/critique-general"]
    assert rows["critique"]["templates"] == f"`critique-general` `{template[:16]}`"
    assert rows["generate"]["made from"] == "24 prompts given"
    assert rows["revise"]["made from"] == f"`critique {manifests(made.output_path)['critique']['version']}`"


def test_the_constitution_is_named_with_its_hash_and_the_weight_of_its_categories(made: Config) -> None:
    told = part(card_of(made.output_path), "Constitution")
    fingerprint = manifests(made.output_path)["critique"]["fingerprints"]["constitution"]
    assert told.startswith(f"`general`, version 2, `{fingerprint[:16]}`:")
    rows = cells(told)
    assert [row["category"] for row in rows] == ["harmlessness", "helpfulness", "honesty"]
    assert sum(int(row["principles"]) for row in rows) == 12


def test_models_stand_by_stage_and_their_tokens_add_up_to_the_manifests(made: Config) -> None:
    rows = cells(part(card_of(made.output_path), "Models and cost"))
    for stage, manifest in manifests(made.output_path).items():
        mine = [row for row in rows if row["stage"] == f"`{stage}`"]
        for name, total in (("replies", manifest["replies"]), ("tokens in", manifest["tokens"]["in"])):
            assert sum(int(row[name].replace(",", "")) for row in mine) == total
    assert {row["model"] for row in rows if row["stage"] == "`label-pairs`"} == {"`small-world`", "`other-world`"}


def test_what_was_left_out_is_counted_by_reason(made: Config) -> None:
    rows = {row["stage"].strip("`"): row for row in cells(part(card_of(made.output_path), "What was left out"))}
    found = manifests(made.output_path)
    assert any(manifest["rejected"] for manifest in found.values())
    for stage, manifest in found.items():
        for reason, count in (manifest["rejected"] | manifest["filtered"]).items():
            told = rows[stage]["rejected"] + rows[stage]["filtered"]
            assert f"{count} `{reason}`" in told


def test_biases_are_those_of_the_report(made: Config) -> None:
    told = part(card_of(made.output_path), "Biases of the labels")
    report = json.loads((made.output_path / "debias/latest/_bias.json").read_bytes())
    for row in cells(told):
        position = report["labelers"][row["labeler"].strip("`")]["position"]
        assert row["position bias, log-odds"] == f"{position['b']:+.3f}"
        assert row["95% interval"] == f"{position['ci'][0]:+.3f} to {position['ci'][1]:+.3f}"
    assert told.count("\n- ") >= len(report["warnings"])


def test_an_exports_card_tells_the_whole_way_to_it(made: Config) -> None:
    """Its manifests hold what is behind them: the stages may be elsewhere, pruned, or gone."""
    card = card_of(made.output_path / "export")
    assert [row["stage"] for row in cells(part(card, "How it was made"))] == [f"`{n}`" for n in (*STAGES, "preference", "sft")]
    for name in ("Models and cost", "Biases of the labels", "What was left out", "Constitution"):
        assert part(card, name).startswith(part(card_of(made.output_path), name).rstrip())


def test_no_text_of_a_row_no_path_and_no_key_gets_into_a_card_or_a_manifest(made: Config, canary: str) -> None:
    output = made.output_path
    files = [*output.rglob("README.md"), *output.rglob("_manifest.json")]
    texts = [path.read_text("utf-8") for path in files]
    rows = [row for path in output.glob("*/latest") for row in rows_of(path)]
    said = {
        text for row in rows for text in (row.get("response"), row.get("prompt"), row.get("system")) if text and len(text) > 12
    }
    assert len(said) > 20
    for text in (*said, str(output), str(ROOT), canary):
        assert not any(text in one for one in texts)


def test_the_same_data_give_the_same_card_wherever_and_however_they_were_made(made: Config, tmp_path: Path) -> None:
    """Stage by stage, in another folder, four at once: the stages that are made one by one have other parents' numbers only."""
    limits = {"max_reject_rate": 1.0, "concurrency": 4}
    again = ran(config_in(tmp_path / "again", label_pairs={"labelers": LABELERS}, limits=limits))
    assert card_of(again.output_path) == card_of(made.output_path)
    ran(again)  # nothing new
    assert card_of(again.output_path) == card_of(made.output_path)


def test_rounds_that_were_made_one_by_one_are_all_counted(tmp_path: Path) -> None:
    config = config_in(tmp_path, model={"provider": "simulated", "name": "small-world"}, label_pairs=None, debias=None)
    ran(config, "generate")
    for _ in range(2):
        ran(config, "critique")
        ran(config, "revise")
    rows = cells(part(card_of(config.output_path), "How it was made"))
    assert [row["stage"].strip("`") for row in rows] == ["generate", "critique", "revise", "critique", "revise"]
    counted = [int(row["replies"]) for row in cells(part(card_of(config.output_path), "Models and cost"))]
    made = [version.manifest["replies"] for stage in STAGES[:3] for version in versions.all_of(config.output_path, stage)]
    assert sorted(counted) == sorted(made)


# Licence, and what people write


def test_a_licence_is_asked_for_and_never_guessed(made: Config, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(made.output_path, output, symlinks=True)
    told = part(card_of(output), "Licence")
    assert "license" not in read_card(output / "README.md").front
    assert told.startswith("None was given.")
    assert "`--license ID`" in told
    (output / "README.md").write_text(card_of(output).replace("---\n", "---\nlicense: cc-by-4.0\n", 1))
    given = written(read_card(output / "README.md"), "outside", {}).decode()
    assert part(given, "Licence").startswith("`cc-by-4.0`")
    assert read_card(output / "README.md").licence == "cc-by-4.0"


def test_what_is_known_stands_in_the_yaml_and_what_is_not_does_not(made: Config) -> None:
    front = yaml.safe_load(card_of(made.output_path).split("---\n")[1])
    assert (front["pretty_name"], front["size_categories"]) == ("outside", ["n<1K"])
    assert not {"license", "language", "tags"} & front.keys()


# Cost


def used(name: str = "claude-opus-5-5", provider: str = "anthropic", longest: int = 10) -> dict[str, Any]:
    tokens = {"in": 2_000_000, "out": 100_000, "longest_in": longest}
    return {"provider": provider, "name": name, "answered": name, "replies": 3, "tokens": tokens}


def facts(stage: str = "generate", **more: Any) -> dict[str, Any]:
    """What a manifest says of a version, as little as there can be."""
    return {
        "stage": stage, "version": "v0001-00000000", "fingerprint": stage, "parents": [], "rows": 100, "came_in": 100,
        "rejected": {}, "filtered": {}, "replies": 3, "models": [used()], "marks": {},
        "made_with": {"settings": {}, "constitution": None}, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (used(), Cost(10.0, 10.0)),  # 2 M at $4 and 0.1 M at $20
        (used("claude-haiku-5-5", longest=100_000), Cost(0.25, 0.25)),
        (
            used("claude-haiku-5-5", longest=100_001),
            Cost(0.25, 1.25),
        ),  # some prompts are in the dearer band, no one knows how many
        (used("small-world", "simulated"), Cost(0.0, 0.0)),
        (used("nobody-knows-it"), None),
    ],
)
def test_what_replies_cost_follows_from_tokens_and_the_price_list(row: dict[str, Any], expected: Cost | None) -> None:
    assert card_costs.cost(row) == expected


def test_a_cost_that_is_not_known_is_said_to_be_unknown_and_never_0() -> None:
    told = card_costs.told([facts(models=[used("nobody-knows-it")])])
    assert "| not known |" in told
    assert f"not known: no price of these models was on the list of {dated()}" in told
    told = card_costs.told([facts(models=[used()]), facts("revise", models=[used("nobody-knows-it")])])
    assert "Together $10.00 for the models whose price is known" in told
    told = card_costs.told([facts(replies=4)])  # one of four replies has no model
    assert "| `not recorded` |" in told
    assert "$0" not in told


# Limits


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (facts(models=[used("small-world", "simulated")]), "A simulated model answered for `generate`"),
        (facts(models=[{**used(), "answered": "another"}]), "others answered than were asked: `another`"),
        (facts(marks={"harmful": 3}), "No prompt is marked harmless"),
        (facts(marks={"harmless": 3}), "No prompt is marked harmful"),
        (facts(marks={"no_kind": 3}), "Which prompts ask for harm was not marked"),
        (facts(marks={"truncated": 2, "harmful": 1, "harmless": 1}), "2 of 100 responses in `generate` (2.0%) were cut off"),
        (facts(marks={"refused": 7}), "7 of 100 responses in `generate` (7.0%) were refused"),
        (facts(rejected={"empty": 10}), "10.0% of what came into `generate` was rejected"),
        (facts("label-pairs"), "`label-pairs` `v0001-00000000` worked on came from outside"),
        (facts(parents=[{"stage": "x", "fingerprint": "gone"}]), "made from a version that nothing is known of any more"),
        (facts("revise", made_with={"settings": {"accept": "always"}}), "Every revision was taken without being compared"),
        (facts("label-pairs", made_with={"settings": {"labelers": []}}), "One labeler judged all pairs"),
        (facts("label-pairs", made_with={"settings": {"orders": "one"}}), "judged in one order only"),
        ({key: value for key, value in facts().items() if key != "made_with"}, "an earlier version of cai"),
        (
            facts(fingerprints={"options": {"mix": [{"name": "help.jsonl", "taken": 5}]}}),
            "5 rows were mixed in from `help.jsonl`",
        ),
    ],
)
def test_limits_follow_from_the_data(version: dict[str, Any], sentence: str) -> None:
    assert any(sentence in one for one in card_limits.of([version], []))


def test_a_judge_that_wrote_the_texts_is_named() -> None:
    judged = facts("label-pairs", parents=[{"stage": "generate", "fingerprint": "generate"}])
    assert any("`claude-opus-5-5` judged texts that it wrote itself" in one for one in card_limits.of([facts(), judged], []))
    other = {**judged, "models": [used("claude-haiku-4-5")]}
    assert not any("wrote itself" in one for one in card_limits.of([facts(), other], []))


def constitution(**shares: float) -> dict[str, Any]:
    categories = {"principles": {name: {"count": 1, "share": share} for name, share in shares.items()}}
    return {"settings": {}, "constitution": {"name": "mine", "version": "1", "categories": categories}}


def test_a_one_sided_constitution_is_named() -> None:
    told = card_limits.of([facts(made_with=constitution(harmlessness=0.9, honesty=0.1))], [])
    assert any("90% of their weight is on harmlessness" in one for one in told)
    assert any("none is about helpfulness" in one for one in told)
    told = card_limits.of([facts(made_with=constitution(harmlessness=0.4, honesty=0.3, helpfulness=0.3))], [])
    assert not any("weight is on" in one or "none is about" in one for one in told)


def report(gold: int = 0, votes_only: bool = True, kept: float = 0.9) -> dict[str, Any]:
    labelers = {"main": {"votes": 9, "votes_only": votes_only}}
    return {"aggregation": {"labelers": labelers}, "calibration": {"gold": gold}, "after": {"kept_share": kept}}


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        (report(), "`main` gave verdicts without probabilities"),
        (report(), "No label was checked against people's"),
        (report(kept=0.75), "25.0% of the judged pairs are left out as too close to call"),
    ],
)
def test_limits_of_labels_follow_from_the_bias_report(known: Mapping[str, Any], sentence: str) -> None:
    assert any(sentence in one for one in card_limits.of([facts()], [known]))
    better = report(gold=50, votes_only=False, kept=1.0)
    assert not any(sentence in one for one in card_limits.of([facts()], [better]))


# Nothing in it can be more than text

TEXTS = st.text() | st.sampled_from(
    ["`", "|", "<!-- cai: end, yours from here on -->", "\n", "\x1b[31m", "-->", END, BEGIN, "[x](y)"]
)


@given(st.lists(TEXTS).map("".join))
def test_no_name_leaves_its_cell_its_line_or_the_marked_part(text: str) -> None:
    for shown in (markdown.code(text), markdown.prose(text)):
        assert "\n" not in shown
        assert "\x1b" not in shown
        assert parsed(f"{BEGIN}{shown}{END}rest", "").after == "rest"
    assert len(re.findall(r"(?<!\\)\|", markdown.table(("a",), [(markdown.code(text),)]).splitlines()[2])) == 2
    assert markdown.code(text).count("`") in (0, 2)
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]<>|]", markdown.prose(text))
