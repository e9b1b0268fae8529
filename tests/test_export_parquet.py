"""Parquet exports, and the options of `cai export`: the same rows and features either way, loaded as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from exporting import ran, rows_of
from outside import ROOT, Cai

from cai_cli import exports
from cai_cli.config import Config
from cai_cli.engine.export import Options, export
from cai_cli.engine.parquet import as_parquet
from cai_cli.exports.kto import Judged
from cai_cli.records import Turn


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return ran(tmp_path_factory.mktemp("tiny"))


LOAD = """
import json, sys
from datasets import load_dataset
found = {}
for name in sys.argv[3:]:
    one, two = (load_dataset(folder, name) for folder in sys.argv[1:3])
    own = load_dataset(f"{sys.argv[2]}/{name}/latest")
    same = all(one[split].to_list() == two[split].to_list() == own[split].to_list() for split in one)
    found[name] = [one.keys() == two.keys() == own.keys(), str(one) != "", same,
                   all(one[split].features == two[split].features == own[split].features for split in one)]
print(json.dumps(found))
"""


def test_datasets_finds_the_same_rows_and_features_in_both_formats(tiny: Config, tmp_path: Path) -> None:
    for to in exports.names():
        export(tiny, to, tmp_path / "jsonl")
        export(tiny, to, tmp_path / "parquet", options=Options(format="parquet"))
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD, str(tmp_path / "jsonl"), str(tmp_path / "parquet"), *exports.names()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {to: [True] * 4 for to in exports.names()}


def test_the_same_rows_in_the_same_shards(tiny: Config, tmp_path: Path) -> None:
    for to in ("critiques", "preference"):
        plain = export(tiny, to, tmp_path / "jsonl")
        packed = export(tiny, to, tmp_path / "parquet", options=Options(format="parquet"))
        names = [file["name"].removesuffix(".parquet") for file in packed.version.manifest["files"] if file["shard"] is not None]
        assert names == [path.name.removesuffix(".jsonl") for path in plain.version.files()]
        assert list(rows_of(packed.version)) == list(rows_of(plain.version))
        assert packed.counts == plain.counts


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_compression_is_inside_of_parquet_and_around_jsonl(compression: str, tiny: Config, tmp_path: Path) -> None:
    from pyarrow import parquet

    packed = export(tiny, "hh", tmp_path / "p", options=Options(format="parquet", compression=compression))
    column = parquet.ParquetFile(packed.version.files()[0]).metadata.row_group(0).column(0)
    assert column.compression == {"none": "UNCOMPRESSED"}.get(compression, compression.upper())
    plain = export(tiny, "hh", tmp_path / "j", options=Options(compression=compression))
    ending = {"none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}[compression]
    assert all(path.name.endswith(ending) for path in plain.version.files())
    assert list(rows_of(plain.version)) == list(rows_of(packed.version))


def test_the_same_lines_give_the_same_bytes_and_no_value_another_type() -> None:
    row = Judged(
        prompt=(Turn(role="user", content="a\nb\u2028c"),), completion=(), label=True, p_better=1.0, comparisons=1, id="1",
        prompt_id="p", kind="",
    )  # fmt: skip
    lines = orjson.dumps(row) + b"\n"
    assert as_parquet(lines, Judged, "zstd") == as_parquet(lines, Judged, "zstd")
    import io

    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(as_parquet(lines * 2, Judged, "none")))
    assert table.to_pylist() == [orjson.loads(lines)] * 2
    assert {name: str(table.schema.field(name).type) for name in ("label", "p_better", "comparisons", "completion")} == {
        "label": "bool", "p_better": "double", "comparisons": "int64", "completion": "list<element: struct<role: string, "
        "content: string>>",
    }  # fmt: skip


# The command.


def test_the_command_says_of_each_format_what_is_in_it_and_what_trains_on_it(cai: Cai, tiny: Config) -> None:
    names = [word for to in ("sft", "kto", "hf_recipe", "critiques") for word in ("--to", to)]
    code, out, err = cai("export", tiny.path, *names, "--out", "training", "--format", "parquet")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["export", "sft", "kto", "hf_recipe", "critiques"]
    assert any(line.startswith("kto") and "desirable, " in line and "undesirable" in line for line in lines)
    at = lines.index('rows = datasets.load_dataset("training", "hf_recipe", split="train_sft")')
    assert lines[at + 1 : at + 4] == [
        'rows = rows.select_columns(["prompt", "chosen"])', 'rows = rows.rename_columns({"chosen": "completion"})',
        "trl.SFTTrainer(..., train_dataset=rows)",
    ]  # fmt: skip
    at = lines.index('rows = datasets.load_dataset("training", "hf_recipe", split="train_prefs")')
    assert lines[at + 1 : at + 3] == ["trl.DPOTrainer(..., train_dataset=rows)", "trl.RewardTrainer(..., train_dataset=rows)"]
    at = lines.index('rows = datasets.load_dataset("training", "critiques", split="train")')
    assert lines[at + 1] == "trl.SFTTrainer(..., train_dataset=rows)"
    assert "max_length" in lines[-1]


def test_the_answer_as_json_has_counts_and_what_was_mixed_in(cai: Cai, tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    arguments = ("--to", "sft", "--to", "kto", "--out", "training", "--mix", "h.jsonl:0.01", "--json")
    done = json.loads(cai("export", tiny.path, *arguments)[1])["exports"]
    assert done["kto"]["counts"].keys() == {"desirable", "undesirable"}
    (part,) = done["sft"]["mixed"]
    assert (part["name"], part["share"], part["available"]) == ("h.jsonl", 0.01, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "hard"], "--labels changes nothing in sft"), (["--public"], "--public says how something is uploaded"),
        (["--license", "mit"], "--license says how something is uploaded"), (["--mix", "x"], "there is no weight"),
        (["--rounds", "some"], "'some' is not one of"), (["--format", "csv"], "'csv' is not one of"),
    ],
)  # fmt: skip
def test_an_option_that_means_nothing_is_a_mistake_with_a_hint(options: list[str], said: str, cai: Cai, tiny: Config) -> None:
    code, out, err = cai("export", tiny.path, "--to", "sft", *options)
    assert (code, out) == (2, "")
    assert said in err
    assert "hint: " in err
