"""The small verbs, through the command line: init, config, constitution, export."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import Cai

from cai_cli import config as configs
from cai_cli import constitution, documents, prices
from cai_cli.cli.init import MODELS, _config, _name
from cai_cli.flow import Model
from cai_cli.shipped import shipped

ROOT = Path(__file__).parent.parent


def table(text: str) -> dict[str, list[str]]:
    """The lines of a table, by their first cell."""
    return {
        cells[0]: cells for line in text.splitlines() if (cells := [cell.strip() for cell in line.split("  ") if cell.strip()])
    }


# init


def test_a_new_folder_runs_and_exports_from_anywhere(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("CAI_", "ANTHROPIC"))} | {
        "PYTHONPATH": str(ROOT)
    }

    def command(*args: str, where: Path) -> str:
        done = subprocess.run([sys.executable, "-m", "cai_cli", *args], cwd=where, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = command("init", "my set", where=tmp_path)
    assert "cd 'my set'\n  cai run cai.yaml" in said
    folder = tmp_path / "my set"
    stages = orjson.loads(command("run", "cai.yaml", "--json", "-q", where=folder))["stages"]
    assert list(stages) == ["generate", "critique", "revise", "label-pairs", "debias"]
    done = orjson.loads(command("export", "cai.yaml", "--to", "sft", "--to", "preference", "--json", where=folder))["exports"]
    assert done["sft"]["rows"] == stages["revise"]["rows"] == 80
    assert 0 < done["preference"]["rows"] == stages["debias"]["rows"]
    assert (folder / "data" / "my-set" / "export" / "sft" / done["sft"]["version"] / "_manifest.json").is_file()
    assert (folder / ".gitignore").read_text() == "data/\n"


def test_init_overwrites_nothing_and_then_writes_nothing(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text("mine")
    code, _, err = cai("init", ".")
    assert code == 2
    assert "prompts.jsonl is there already" in err
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]
    assert (tmp_path / "prompts.jsonl").read_text() == "mine"


def test_init_for_the_real_api_names_a_model_with_a_price_and_a_budget(cai: Cai, tmp_path: Path) -> None:
    code, out, _ = cai("init", "real", "--provider", "anthropic")
    assert code == 0
    lines = [line.strip() for line in out.splitlines()[2:]]
    assert lines[:3] == ["cd real", "export ANTHROPIC_API_KEY=...", "cai run cai.yaml --dry-run"]
    assert lines[3:] == ["cai run cai.yaml --limit 5", "cai run cai.yaml", "cai export cai.yaml --to sft --to preference"]
    config = configs.load(tmp_path / "real" / "cai.yaml", env={})
    assert prices.price_of(Model(provider="anthropic", name=config.model.name)) is not None
    assert config.limits.budget_usd is not None


def test_init_refuses_a_provider_that_is_not_there_and_a_place_that_is_a_file(cai: Cai, tmp_path: Path) -> None:
    assert cai("init", "x", "--provider", "anthropi")[0] == 2
    (tmp_path / "file").write_text("")
    code, _, err = cai("init", "file/in/it")
    assert (code, "cannot be written" in err) == (74, True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_hint_in_a_simulated_config_is_a_config_for_the_real_api(tmp_path: Path) -> None:
    lines = _config("x", "simulated", MODELS["simulated"]).split("\n")
    real = [line.removeprefix("#   ") for line in lines if line.startswith(("#   model:", "#   limits:", "#   labelers:"))]
    assert [key for line in real for key in documents.loads(line, "hint").value] == ["model", "limits", "labelers"]


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="/"), min_size=1).filter(str.strip))
def test_whatever_a_folder_is_called_its_config_has_that_name_or_one_that_may_be(text: str) -> None:
    name = _name(Path("/somewhere") / text)
    value = documents.loads(_config(name, "simulated", text), "cai.yaml", env={}).value
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name)
    assert (value["name"], value["output"], value["model"]["name"]) == (name, f"data/{name}", text)


# config


def write(folder: Path, text: str) -> Path:
    (folder / "prompts.jsonl").write_text('{"prompt": "Hi"}\n')
    (folder / "cai.yaml").write_text(f"name: x\noutput: out\nprompts: {{path: prompts.jsonl}}\n{text}")
    return folder / "cai.yaml"


@pytest.mark.parametrize(
    ("name", "warned"), [("quickstart", ""), ("sl_cai", ""), ("expand", ""), ("rlaif", "of the family of the model")]
)
def test_the_shipped_configs_are_right_and_warn_of_nothing_but_what_needs_another_key(cai: Cai, name: str, warned: str) -> None:
    code, out, err = cai("config", "check", shipped("configs", f"{name}.yaml"))
    assert (code, err.count("\n"), warned in err) == (0, bool(warned), True)
    assert out.endswith(f"{name}.yaml\n")


@pytest.mark.parametrize("name", ["sl_cai", "rlaif"])
def test_every_model_that_a_shipped_config_asks_has_a_price(name: str) -> None:
    config = configs.load(shipped("configs", f"{name}.yaml"), env={})
    sections = [config.model_for(section) for section in config.sections.values()]
    labelers = [
        one.model.over(config.model)
        for section in config.sections.values()
        for one in getattr(section, "labelers", ())
        if one.model
    ]
    asked = {section.name for section in (*sections, *labelers)}
    assert all(prices.price_of(Model(provider="anthropic", name=model)) for model in asked), asked


def test_the_shipped_prompts_are_of_both_kinds_and_have_ids_of_their_own() -> None:
    rows = [orjson.loads(line) for line in shipped("configs", "quickstart_prompts.jsonl").read_bytes().splitlines()]
    assert len({row["id"] for row in rows}) == len({row["prompt"] for row in rows}) == len(rows) == 40
    assert {row["kind"] for row in rows} == {"harmful", "harmless"}


def test_check_says_what_each_stage_asks(cai: Cai, tmp_path: Path) -> None:
    text = """
constitution: constitutions/general.yaml
model: {provider: simulated, name: w}
generate: {model: {name: other}}
critique: {principles: 2}
revise: {}
label_pairs: {principles: 0, labelers: [{name: a}, {name: b, model: {name: v}}]}
"""
    code, out, err = cai("config", "check", write(tmp_path, text))
    assert (code, err) == (0, "")
    lines = table(out)
    assert lines["generate"] == ["generate", "simulated other", "none", "none"]
    assert lines["critique"] == ["critique", "simulated w", "critique-general", "general: 2 of 12, weighted"]
    assert lines["revise"][-1] == "those of the critiques"
    assert lines["label-pairs"][1:] == ["simulated w, simulated v", "label-general", "the built-in one"]


def test_check_names_the_stages_own_model_first_and_whose_the_other_is(cai: Cai, tmp_path: Path) -> None:
    text = """
constitution: constitutions/general.yaml
model: {provider: simulated, name: w}
generate: {}
critique: {}
revise: {accept: if_preferred, model: {name: writer}, labeler: {name: j, model: {name: judge}}}
"""
    path = write(tmp_path, text)

    def asked(*more: str) -> str:
        stages = json.loads(cai("config", "check", path, "--json", *more)[1])["stages"]
        return str(next(one["model"] for one in stages if one["stage"] == "revise"))

    assert asked() == "simulated writer, simulated judge (labeler j)"
    alone = ("--set", "revise.labeler=null", "--set", "revise.model=null")
    assert asked(*alone) == "simulated w, simulated w (labeler main)"


def test_check_shows_expand_as_any_stage_and_notes_what_it_lacks(cai: Cai, tmp_path: Path) -> None:
    text = "model: {provider: simulated, name: w}\nexpand: {model: {name: v}}\nlabel_pairs: {principles: 0, pairs: given}\n"
    code, out, err = cai("config", "check", write(tmp_path, text))
    assert (code, err) == (0, "")
    assert table(out)["expand"] == ["expand", "simulated v", "expand-general", "none"]
    (tmp_path / "c.yaml").write_text("name: x\noutput: out\nmodel: {name: claude-haiku-5-5}\nexpand: {}\n")
    code, out, err = cai("config", "check", "c.yaml")
    assert (code, table(out)["expand"][1]) == (0, "anthropic claude-haiku-5-5")
    assert "warning: c.yaml:1: limits.budget_usd: there is no budget_usd" in err
    assert "note: expand: no prompts are named" in err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("generate: {}", "note: generate: no prompts are named"),
        ("prompts: {kind: harmful}\ngenerate: {}", "note: generate: no prompts are named"),
        ("label_pairs: {pairs: given, principles: 0}", "note: label_pairs: no prompts are named"),
        ("label_pairs: {pairs: samples, principles: 0}", ""), ("debias: {}", ""),
    ],
)  # fmt: skip
def test_check_notes_that_a_run_will_need_prompts(text: str, told: str, cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"name: x\noutput: out\nmodel: {{provider: simulated}}\n{text}\n")
    code, out, err = cai("config", "check", "c.yaml")
    assert (code, out.splitlines()[-1]) == (0, "ok: c.yaml")
    assert (err.startswith(told), bool(err)) == (True, bool(told))
    if told:
        assert cai("run", "c.yaml", "-q")[0] != 0


NO_KEY = "note: no key is set for the model of {}: export {}=..."
OTHER = "base_url: https://models.example.org"


@pytest.mark.parametrize(
    ("model", "env", "told"),
    [
        ("", {}, NO_KEY.format("generate, critique", "ANTHROPIC_API_KEY")),
        ("", {"ANTHROPIC_API_KEY": "  "}, NO_KEY.format("generate, critique", "ANTHROPIC_API_KEY")),
        ("", {"ANTHROPIC_API_KEY": "sk-1f3b"}, ""), ("", {"ANTHROPIC_AUTH_TOKEN": "tok-9d21"}, ""),
        ("", {"ANTHROPIC_CUSTOM_HEADERS": "x-api-key: hdr-5c5c"}, ""),
        ("", {"ANTHROPIC_BASE_URL": "http://127.0.0.1:8000"}, ""), ("base_url: http://localhost:8000", {}, ""),
        ("key_env: MY_KEY", {"ANTHROPIC_API_KEY": "sk-1f3b"}, NO_KEY.format("generate, critique", "MY_KEY")),
        (f"{OTHER}, key_env: MY_KEY", {"MY_KEY": "own-77aa"}, ""),
        (f"{OTHER}, key_env: MY_KEY", {"ANTHROPIC_API_KEY": "sk-1f3b"}, NO_KEY.format("generate, critique", "MY_KEY")),
        (OTHER, {"ANTHROPIC_API_KEY": "sk-1f3b"}, "note: the model of generate, critique: no key is named for models"),
        ("", {"ANTHROPIC_API_KEY": "sk-sp lit"}, "note: the model of generate, critique: the value of ANTHROPIC_API_KEY holds"),
    ],
)  # fmt: skip
def test_check_notes_that_a_key_is_missing_and_shows_none(
    model: str, env: dict[str, str], told: str, cai: Cai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    sections = "limits: {budget_usd: 1}\nsplit: {test: 0.1}\ngenerate: {}\ncritique: {principles: 0}\n"
    text = f"model: {{name: claude-haiku-5-5{', ' if model else ''}{model}}}\n{sections}"
    code, out, err = cai("config", "check", write(tmp_path, text))
    assert (code, out.splitlines()[-1].startswith("ok:")) == (0, True)
    assert (err.startswith(told), err.count("\n")) == (True, bool(told))
    assert not any(value in out + err for name, value in env.items() if "URL" not in name and value.strip())


def test_check_tells_all_problems_and_asks_nothing(cai: Cai, tmp_path: Path) -> None:
    code, out, err = cai("config", "check", write(tmp_path, "generat: {}\nseed: many\n"))
    assert (code, out) == (2, "")
    assert "cai.yaml:4: unknown key 'generat'" in err
    assert "cai.yaml:5: 'seed' must be a whole number" in err
    assert not (tmp_path / "out").exists()


def test_the_schema_is_one_json_object_that_knows_every_stage(cai: Cai) -> None:
    code, out, err = cai("config", "schema")
    assert (code, err) == (0, "")
    assert {"name", "output", "generate", "critique", "revise", "label_pairs", "debias"} <= set(json.loads(out)["properties"])


# constitution


def entry(name: str, **over: Any) -> dict[str, Any]:
    values = {"name": name, "category": "honesty", "description": "d", "critique_prompt": f"c {name}", "revision_prompt": "r"}
    return values | over


def own(folder: Path, *principles: dict[str, Any]) -> Path:
    (folder / "own.yaml").write_text(json.dumps({"name": "own", "version": "3", "principles": principles}))
    return folder / "own.yaml"


def test_list_names_the_shipped_ones_and_the_given(cai: Cai, tmp_path: Path) -> None:
    code, out, _ = cai("constitution", "list", own(tmp_path, entry("p")))
    general = constitution.load(shipped("configs", "constitutions", "general.yaml"))
    counts = [str(len(general.principles)), str(len(general.preferences))]
    assert code == 0
    assert table(out)["general"] == ["general", general.version, *counts, "constitutions/general.yaml"]
    assert table(out)["own"][:4] == ["own", "3", "1", "1"]


def test_the_shipped_constitution_passes_its_own_check(cai: Cai) -> None:
    code, out, err = cai("constitution", "check", shipped("configs", "constitutions", "general.yaml"))
    assert (code, err) == (0, "")
    assert ": general " in out.splitlines()[-1]


@pytest.mark.parametrize("verb", [("check",), ("diff", "general")])
def test_a_shipped_constitution_is_found_by_its_name_and_a_file_goes_first(
    verb: tuple[str, ...], cai: Cai, tmp_path: Path
) -> None:
    code, out, err = cai("constitution", *verb, "safety")
    assert (code, err) == (0, "")
    assert "safety 1" in out
    own(tmp_path, entry("p")).rename(tmp_path / "safety")
    assert "own 3" in cai("constitution", *verb, "safety")[1]
    for near in ("saftey", "constitutions/safety.yaml"):
        code, out, err = cai("constitution", *verb, near)
        assert (code, out) == (2, "")
        assert err == f"error: there is no constitution '{near}'\nhint: did you mean 'safety'?\n"
    err = cai("constitution", *verb, "qqqq")[2]
    assert "hint: give a YAML file, or one of those that ship with cai: financial, general," in err


def test_check_warns_of_copies_idle_entries_missing_categories_and_one_sided_weight(cai: Cai, tmp_path: Path) -> None:
    path = own(
        tmp_path, entry("a", weight=9), entry("b", critique_prompt=" C  A"), entry("c", weight=0),
        entry("d", category="helpfulness", weight=0.5),
    )  # fmt: skip
    code, out, err = cai("constitution", "check", path)
    assert (code, out.splitlines()[-1]) == (0, f"ok: {path}: own 3")
    said = [line.removeprefix(f"warning: {path}: principles: ") for line in err.splitlines() if "principles: " in line]
    assert said == [
        "95% of the weight is on honesty: the other categories hardly come up",
        "86% of the weight is on 'a' alone",
        "none is about harmlessness; a model trained on this is not taught it",
        "'c' has weight 0: it is never picked",
        "'b' asks the same as 'a'",
    ]


def test_check_tells_where_a_constitution_is_wrong(cai: Cai, tmp_path: Path) -> None:
    path = own(tmp_path, entry("a"), entry("a", description=" "))
    code, out, err = cai("constitution", "check", path)
    assert (code, out) == (2, "")
    assert "is empty" in err


# export


def test_export_says_what_it_wrote_what_it_left_out_and_how_to_load_it(cai: Cai, tmp_path: Path) -> None:
    text = "model: {provider: simulated, max_tokens: 70, world: {refusal_rate: 0}}\ngenerate: {samples: 8}\n"
    config = write(tmp_path, text)
    assert cai("run", config, "-q")[0] == 0
    code, out, err = cai("export", config, "--to", "sft", "--to", "sft")
    assert (code, err) == (0, "")
    written = table(out)["sft"]
    left = int(written[3].removesuffix(" truncated"))
    assert int(written[2]) + left == 8
    assert 0 < left < 8
    assert 'datasets.load_dataset("out/export", "sft", split="train")' in out
    assert "trl.SFTTrainer" in out
    code, _, err = cai("export", config, "--to", "sft")
    assert (code, "nothing new" in err) == (0, True)


def test_export_of_a_stage_that_has_not_run_says_which_command_comes_first(cai: Cai, tmp_path: Path) -> None:
    config = write(tmp_path, "model: {provider: simulated}\ngenerate: {}\n")
    assert cai("run", config, "-q")[0] == 0
    code, out, err = cai("export", config, "--to", "sft", "--to", "preference")
    assert (code, out) == (65, "")
    assert f"cai run {config}" in err
    assert not (tmp_path / "out" / "export").exists()


def test_export_reads_the_output_that_it_is_given(cai: Cai, tmp_path: Path) -> None:
    config = write(tmp_path, "model: {provider: simulated}\ngenerate: {samples: 2}\n")
    assert cai("run", config, "-q", "-o", "other")[0] == 0
    for option, place in ((("-o", "other"), "other/export"), (("--output", "other", "--out", "training"), "training")):
        code, out, _ = cai("export", config, "--to", "sft", *option)
        assert (code, f'load_dataset("{place}"' in out) == (0, True)
        assert (tmp_path / place / "sft" / "latest").is_dir()
    assert not (tmp_path / "out").exists()


def test_an_export_without_rows_says_why(cai: Cai, tmp_path: Path) -> None:
    config = write(tmp_path, "model: {provider: simulated, max_tokens: 3}\ngenerate: {}\n")
    assert cai("run", config, "-q")[0] == 0
    code, out, err = cai("export", config, "--to", "sft")
    assert (code, out) == (65, "")
    assert err == (f"error: sft would be empty: 2 truncated\nhint: ask for longer replies: cai retry {config} --only truncated "
                   "--max-tokens 2048\n")  # fmt: skip


def test_a_cheap_verb_does_not_load_what_it_does_not_need(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['cai', 'init', sys.argv[1]]\nfrom cai_cli.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in ('numpy', 'datasets', 'anthropic', 'aiohttp', 'rich', 'scipy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x")]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "[]"
