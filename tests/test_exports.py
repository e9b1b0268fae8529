"""Exports: what a row becomes, what is left out and why, and the datasets that come of it, loaded as a user would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from exporting import Quiet, loaded, ran, rows_of
from hypothesis import given
from hypothesis import strategies as st

from cai_cli import exports, records
from cai_cli.config import Config
from cai_cli.engine import run, versions
from cai_cli.engine.export import Options, export
from cai_cli.engine.lock import Held, lock_file, locked
from cai_cli.errors import Exit, Fix
from cai_cli.exports import Left, critiques, preference, sft
from cai_cli.records import Chain, Preference, Sample, Turn, from_row

ROOT = Path(__file__).parent.parent
TURNS = (Turn(role="user", content="Hi"), Turn(role="assistant", content="Hello"), Turn(role="user", content="How are you?"))
SAMPLE = Sample(id="p-0", prompt_id="p", messages=TURNS, prompt=TURNS[-1].content, kind="harmless", response="Well, thanks.")
PAIR = Preference(
    id="p-0-1", prompt_id="p", messages=TURNS, prompt=TURNS[-1].content, response_a="Well.", response_b="Why?", p_a=0.8,
    confidence=0.8, weight=0.6, margin=1.386, chosen="Well.", rejected="Why?", flags=("votes_only",),
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return ran(tmp_path_factory.mktemp("tiny"))


# What a row becomes.


def test_a_conversation_ends_with_the_response_and_begins_with_a_system_turn_only_where_there_is_one() -> None:
    (plain,), (told,) = sft.convert(SAMPLE), sft.convert(replace(SAMPLE, system="Be brief."))
    assert isinstance(plain, sft.Example)
    assert isinstance(told, sft.Example)
    assert (plain.prompt, plain.completion) == (TURNS, (Turn(role="assistant", content="Well, thanks."),))
    assert (told.prompt, told.completion) == ((Turn(role="system", content="Be brief."), *TURNS), plain.completion)
    assert plain.source == "initial"


def test_in_one_list_a_conversation_is_the_same_turns() -> None:
    (row,), (apart,) = sft.convert(SAMPLE, exports.Asked(shape="messages")), sft.convert(SAMPLE)
    assert isinstance(row, sft.Conversation)
    assert isinstance(apart, sft.Example)
    assert row.messages == sft.turns_of(apart) == sft.turns_of(row) == (*TURNS, Turn(role="assistant", content="Well, thanks."))


def test_a_revised_response_says_so_and_an_unchanged_one_does_not() -> None:
    chain = Chain.begin(SAMPLE)
    (kept,), (revised,) = sft.convert(chain), sft.convert(replace(chain, response="Fine, and you?"))
    assert isinstance(kept, sft.Example)
    assert isinstance(revised, sft.Example)
    assert (kept.source, revised.source) == ("initial", "revised")
    assert revised.completion[0].content == "Fine, and you?"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"refused": True}, "refused"), ({"refused": True, "response": ""}, "refused"), ({"truncated": True}, "truncated"),
        ({"response": " \n"}, "empty"),
    ],
)  # fmt: skip
def test_what_sft_leaves_out(change: dict[str, Any], reason: str) -> None:
    assert list(sft.convert(replace(SAMPLE, **change))) == [Left(reason)]


def test_a_comparison_holds_lists_of_turns_and_numbers() -> None:
    (row,) = preference.convert(PAIR)
    assert asdict(row) == {
        "prompt": tuple(map(asdict, TURNS)), "chosen": ({"role": "assistant", "content": "Well."},),
        "rejected": ({"role": "assistant", "content": "Why?"},), "margin": 1.386, "weight": 0.6, "p_chosen": 0.8,
        "flipped": False, "id": "p-0-1", "prompt_id": "p", "kind": "", "flags": ("votes_only",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": ""}, "empty"), ({"rejected": "\n"}, "empty"), ({"rejected": "Well. "}, "identical"),
        ({"margin": None}, "unlabelled"),
    ],
)  # fmt: skip
def test_what_preference_leaves_out(change: dict[str, Any], reason: str) -> None:
    assert list(preference.convert(replace(PAIR, **change))) == [Left(reason)]


def test_a_tie_that_debias_kept_stays() -> None:
    (row,) = preference.convert(replace(PAIR, margin=0.0, weight=0.0, confidence=0.5))
    assert isinstance(row, preference.Comparison)


SAMPLES = st.builds(
    Sample, id=st.text(), prompt_id=st.text(), messages=st.just(TURNS), prompt=st.text(), system=st.text(), response=st.text(),
    refused=st.booleans(), truncated=st.booleans(),
)  # fmt: skip


@given(SAMPLES)
def test_every_sample_comes_out_once_and_unaltered_or_with_a_reason(sample: Sample) -> None:
    (outcome,) = sft.convert(sample)
    fit = bool(sample.response.strip()) and not sample.refused and not sample.truncated
    assert isinstance(outcome, sft.Example) == fit
    if isinstance(outcome, sft.Example):
        assert outcome.completion == (Turn(role="assistant", content=sample.response),)
        assert from_row(sft.Example, json.loads(json.dumps(asdict(outcome)))) == outcome


def test_no_column_has_a_name_that_trainers_stumble_over() -> None:
    columns = {name: {one["name"] for one in records.features(exports.find(name).SHAPE)} for name in exports.names()}
    assert not {"image", "images"} & set().union(*columns.values())
    assert {"prompt", "completion"} <= columns["sft"] & columns["critiques"]
    in_one_list = [{one["name"] for one in records.features(shape)} for shape in (sft.Conversation, critiques.Exchange)]
    assert all("messages" in found and "prompt" not in found for found in in_one_list)  # side by side, TRL reads another format
    assert {"prompt", "chosen", "rejected", "margin"} <= columns["preference"]


def test_an_export_that_is_not_there_is_a_problem_with_a_near_miss() -> None:
    with pytest.raises(Fix) as caught:
        exports.find("preferences")
    assert caught.value.hint == "did you mean 'preference'?"


def test_another_package_adds_an_export_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain_export.py").write_text("READS = ('generate',)\n")
    info = tmp_path / "plain_export-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain-export\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cai.exports]\nplain = plain_export\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert exports.names() == ["critiques", "hf_recipe", "hh", "kto", "plain", "preference", "reward", "sft"]
    assert exports.find("plain").READS == ("generate",)


PLAIN = """
from dataclasses import dataclass
from cai_cli.exports import Left

@dataclass(frozen=True, kw_only=True)
class Line:
    text: str
    id: str
    prompt_id: str

READS, SHAPE, VERSION, OPTIONS = ("generate",), Line, 1, ("rounds",)

def convert(record, asked):
    yield Left("refused") if record.refused else Line(text=asked.rounds, id=record.id, prompt_id=record.prompt_id)
"""


def test_an_export_of_another_package_is_written_like_our_own(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain_lines.py").write_text(PLAIN)
    info = tmp_path / "plain_lines-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain-lines\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cai.exports]\nlines = plain_lines\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    one = export(tiny, "lines", tmp_path / "training", options=Options(rounds="initial", format="parquet"))
    assert {row["text"] for _, row in rows_of(one.version)} == {"initial"}
    assert one.rows + one.left["refused"] == sum(1 for _ in rows_of(one.source))
    assert one.counts == {}


# What is written.


def test_counts_add_up_with_reasons(tiny: Config, tmp_path: Path) -> None:
    one = export(tiny, "sft", tmp_path)
    revised = versions.latest(tiny.output_path, "revise")
    assert revised is not None
    came_in = Counter("left" if row["refused"] or row["truncated"] else "fit" for _, row in rows_of(revised))
    assert (one.rows, one.left.total()) == (came_in["fit"], came_in["left"])
    assert came_in["left"] > 0
    assert set(one.left) <= {"refused", "truncated"}
    assert one.version.manifest["came_in"] == one.rows + one.left.total()
    assert one.version.manifest["parents"] == [{"stage": "revise", "fingerprint": revised.fingerprint}]
    assert one.version.manifest["lineage"]["revise"] == revised.fingerprint


@pytest.mark.parametrize("to", ["sft", "preference"])
def test_a_shard_and_a_split_hold_the_prompts_of_their_parents(tiny: Config, tmp_path: Path, to: str) -> None:
    one = export(tiny, to, tmp_path)
    assert one.version.shards == one.source.shards == 4
    for shard in range(4):
        parents = [(split, row["prompt_id"], row["id"]) for split, row in rows_of(one.source, shard)]
        here = [(split, row["prompt_id"], row["id"]) for split, row in rows_of(one.version, shard)]
        assert here == [row for row in parents if row in set(here)]
    assert {split for split, _ in rows_of(one.version)} == {"train", "test"}


def test_every_margin_is_a_number_and_chosen_and_rejected_differ(tiny: Config, tmp_path: Path) -> None:
    rows = [row for _, row in rows_of(export(tiny, "preference", tmp_path).version)]
    assert rows
    assert all(type(row["margin"]) is float and row["margin"] >= 0 and 0.5 <= row["p_chosen"] < 1 for row in rows)
    assert all(row["chosen"] != row["rejected"] for row in rows)


def test_the_same_again_is_nothing_new_and_another_shape_is_another_version(tiny: Config, tmp_path: Path) -> None:
    first, again = export(tiny, "sft", tmp_path), export(tiny, "sft", tmp_path)
    assert (first.unchanged, again.unchanged) == (False, True)
    assert again.version.path == first.version.path
    other = export(tiny, "sft", tmp_path, options=Options(shape="messages"))
    assert other.version.name.startswith("v0002-")
    assert (tmp_path / "sft" / "latest").resolve() == other.version.path
    assert first.version.path.is_dir()


def test_the_same_bytes_wherever_it_is_written(tiny: Config, tmp_path: Path) -> None:
    one, two = export(tiny, "preference", tmp_path / "one"), export(tiny, "preference", tmp_path / "two")
    assert one.version.manifest == two.version.manifest
    assert (one.version.path / "_manifest.json").read_bytes() == (two.version.path / "_manifest.json").read_bytes()


def test_a_kill_before_latest_was_set_leaves_one_version_not_two(tiny: Config, tmp_path: Path) -> None:
    first = export(tiny, "sft", tmp_path)
    (tmp_path / "sft" / "latest").unlink()
    again = export(tiny, "sft", tmp_path)
    assert again.version.path == first.version.path
    assert (tmp_path / "sft" / "latest").resolve() == first.version.path
    assert all(path.is_file() for path in again.version.files())


def test_the_default_folder_is_inside_the_output_and_shares_its_lock(tiny: Config) -> None:
    with locked(lock_file(tiny), "fail", "cai run"), pytest.raises(Held) as caught:
        export(tiny, "sft")
    assert caught.value.code == Exit.STOPPED
    assert export(tiny, "sft").path == tiny.output_path / "export"


def test_without_the_stage_nothing_is_made(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    for to, stage in (("preference", "debias"), ("sft", "generate")):
        with pytest.raises(Fix) as caught:
            export(config, to, tmp_path / "training")
        assert caught.value.code == Exit.INPUT
        assert f"`cai {stage} {config.path}`" in caught.value.hint
    assert not (tmp_path / "training").exists()
    assert not config.output_path.exists()


def test_the_folder_of_the_stages_is_refused(tiny: Config) -> None:
    card = (tiny.output_path / "README.md").read_bytes()
    with pytest.raises(Fix, match="holds the stages of a dataset"):
        export(tiny, "sft", tiny.output_path)
    assert (tiny.output_path / "README.md").read_bytes() == card


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b'"response":"') + len(b'"response":"')] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "a changed letter": flip, "a line less": lambda path: path.write_bytes(path.read_bytes().partition(b"\n")[2]),
    "no file": Path.unlink,
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_source_that_was_changed_since_it_was_published_is_refused_before_anything_is_written(
    what: str, tiny: Config, tmp_path: Path
) -> None:
    config = tiny.model_copy(update={"output": str(tmp_path / "out")})
    shutil.copytree(tiny.output_path, tmp_path / "out", symlinks=True)
    stage = tmp_path / "out" / "revise"
    version = (stage / "latest").readlink()
    paths = sorted((stage / version).glob("train-*"))[-2:]
    for path in paths:
        DAMAGE[what](path)
    with pytest.raises(Fix) as caught:
        export(config, "sft", tmp_path / "training")
    assert [message for message, _ in caught.value.problems] == [f"{path} was changed since it was published" for path in paths]
    assert caught.value.code == Exit.INPUT
    assert caught.value.problems[-1][1].startswith("delete that version's folder, then run the same command that made it")
    assert not (tmp_path / "training" / "sft").exists()


def test_what_a_changed_source_is_advised_brings_its_rows_back(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    run.execute(config, ["generate"], run.Options(), Quiet())
    source = versions.latest(config.output_path, "generate")
    assert source is not None
    flip(source.files()[0])
    with pytest.raises(Fix, match="was changed since it was published"):
        export(config, "sft")
    shutil.rmtree(source.path)
    again = run.execute(config, ["generate"], run.Options(), Quiet())
    assert again.stages["generate"]["requests"] == 0
    assert export(config, "sft").rows > 0


def test_an_export_of_what_was_run_anew_since_says_so(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    run.execute(config, ["generate", "critique", "revise"], run.Options(limit=2), Quiet())
    assert export(config, "sft").outdated == ()
    run.execute(config, ["generate"], run.Options(limit=3), Quiet())
    assert export(config, "sft").outdated == ("generate",)


# As a user loads it.

LOAD = """
import json, sys
from datasets import load_dataset
folder = sys.argv[1]
found = {}
for name in ("sft", "preference"):
    for key, where in ((name, (folder, name)), (f"{name}/latest", (f"{folder}/{name}/latest",))):
        for split, rows in load_dataset(*where).items():
            found[f"{key} {split}"] = [len(rows), sorted(rows.features), rows[0]["id"]]
    streamed = load_dataset(folder, name, split="train", streaming=True)
    found[f"{name} streamed"] = [sum(1 for _ in streamed), sorted(streamed.features), next(iter(streamed))["id"]]
print(json.dumps(found))
"""


def test_datasets_loads_it_by_name_by_version_and_as_a_stream(tiny: Config, tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    for to in ("sft", "preference"):
        counts.update(f"{to} {split}" for split, _ in rows_of(export(tiny, to, tmp_path / "training").version))
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD, str(tmp_path / "training")]
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for to in ("sft", "preference"):
        columns = sorted(one["name"] for one in records.features(exports.find(to).SHAPE))
        for key in (f"{to} train", f"{to} test", f"{to}/latest train", f"{to}/latest test", f"{to} streamed"):
            assert found[key][:2] == [counts[key.replace("/latest", "").replace("streamed", "train")], columns]
