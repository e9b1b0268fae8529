"""A config is read whole or not at all: every mistake at once, each with its place, in words that say what to type."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli import config
from cai_cli.config import Config
from cai_cli.errors import Exit, Fix
from cai_cli.settings import ModelSection
from cai_cli.stages import critique, expand, generate, label_pairs, revise
from cai_cli.tables import debias
from cai_cli.validation import validated

FREE = "name: demo\noutput: out\nmodel: {provider: simulated}\n"
PRINCIPLE = "{name: p, category: c, description: d, critique_prompt: find harm, revision_prompt: remove harm}"
CONSTITUTION = f"name: c\nversion: '1'\nprinciples:\n  - {PRINCIPLE}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config's folder, which is not the working directory."""
    (tmp_path / "work").mkdir()
    (tmp_path / "given").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "given"


def read(folder: Path, text: str, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None, **flags: Any) -> Config:
    path = folder / "c.yaml"
    path.write_text(text, "utf-8")
    return config.load(path, overrides, env or {}, {key.replace("__", "."): value for key, value in flags.items()})


def problems(
    folder: Path, text: str, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None, **flags: Any
) -> list[tuple[str, str]]:
    with pytest.raises(Fix) as caught:
        read(folder, text, overrides, env, **flags)
    assert caught.value.code == Exit.USAGE
    return [(message.removeprefix(f"{folder}/"), hint) for message, hint in caught.value.problems]


def test_a_minimal_config_has_defaults(folder: Path) -> None:
    read_config = read(folder, "name: demo\noutput: out\n")
    assert (read_config.name, read_config.seed, read_config.sections) == ("demo", 0, {})
    assert read_config.path == folder / "c.yaml"
    assert read_config.folder == folder
    assert read_config.output_path == Path("out")
    assert read_config.state_path == Path("out/.cai")
    assert read_config.constitution_path() is None
    assert read_config.prompts_path() is None
    assert read_config.max_outage_s == 6 * 3600
    assert (read_config.audit.rate, read_config.audit.agreement_at_least) == (0.05, 0.8)


def test_sections_are_found_by_their_settings_and_an_empty_one_counts(folder: Path) -> None:
    text = (
        FREE + "generate:\n  samples: 3\ncritique: {principles: 0}\nrevise:\nlabel_pairs: {principles: 0}\ndebias: {}\nlimits:\n"
    )
    read_config = read(folder, text)
    sampling = read_config.section(generate.Settings)
    assert sampling is not None
    assert sampling.samples == 3
    assert read_config.section(revise.Settings) == revise.Settings()
    assert read_config.section(debias.Settings) == debias.Settings()
    assert list(read_config.sections) == ["generate", "critique", "revise", "label_pairs", "debias"]
    assert read(folder, FREE).section(critique.Settings) is None


def test_a_stage_overrides_single_keys_of_the_model(folder: Path) -> None:
    text = "name: a\noutput: b\nmodel: {name: big, max_tokens: 9}\ngenerate: {model: {max_tokens: 7}}\n"
    text += "label_pairs: {principles: 0, labelers: [{name: x}, {name: y, model: {name: small}}]}\n"
    read_config = read(folder, text)
    own = read_config.section(generate.Settings)
    labeling = read_config.section(label_pairs.Settings)
    assert own is not None
    assert labeling is not None
    assert read_config.model_for(own).model().params == {"max_tokens": 7}
    assert [read_config.model_for(one).name for one in labeling.labelers] == ["big", "small"]


SEVEN = """\
name: my data
output: 3.10
model: {provider: simulated, max_tokns: 5}
limits:
  concurrency: fast
generate:
  sampels: 2
  systems: [a, a]
critique:
  principles: 1
  pick: wieghted
constitution: constitutions/generl.yaml
"""


def test_seven_mistakes_are_seven_messages_each_with_its_line(folder: Path) -> None:
    found = problems(folder, SEVEN)
    assert [message for message, _ in found] == [
        "c.yaml:1: 'name' must be text that matches ^[A-Za-z0-9._-]{1,64}$, not the text 'my data'",
        "c.yaml:2: 'output' must be text, not the number 3.10",
        "c.yaml:3: model: unknown key 'max_tokns'",
        "c.yaml:5: limits: 'concurrency' must be a whole number or 'auto', not the text 'fast'",
        "c.yaml:7: generate: unknown key 'sampels'",
        "c.yaml:8: generate.systems: the same system stands there twice; raise samples instead",
        "c.yaml:11: critique: 'pick' must be 'weighted', 'uniform', 'in_order' or 'all', not the text 'wieghted'",
        "c.yaml:12: 'constitution' names no file: 'constitutions/generl.yaml'",
    ]
    hints = dict(found)
    assert hints["c.yaml:2: 'output' must be text, not the number 3.10"] == "write '3.10' in quotes"
    assert hints["c.yaml:7: generate: unknown key 'sampels'"] == "did you mean 'samples'?"


@pytest.mark.parametrize(
    ("line", "what", "hint"),
    [
        ("colour: red", "unknown key 'colour'", "known are: audit, constitution"),
        ("label-pairs: {}", "unknown key 'label-pairs'", "did you mean 'label_pairs'?"),
        ("seed: 1.0", "'seed' must be a whole number, not the number 1.0", "write 1"),
        ("seed: '7'", "'seed' must be a whole number, not the text '7'", "write 7, without quotes"),
        ("seed: true", "'seed' must be a whole number, not true", ""),
        ("draw_offset: -1", "'draw_offset' must be at least 0, not the number -1", ""),
        ("constitution: 012", "'constitution' must be text, not the number 012", "write '012' in quotes"),
        ("constitution: ''", "'constitution' must be text, not empty text", ""),
        ("split: 5", "'split' must be keys and values, not the number 5", ""),
        ("split: {test: 1}", "split: 'test' must be less than 1, not the number 1", ""),
        ("audit: {rate: 2}", "audit: 'rate' must be at most 1, not the number 2", ""),
        ("shards: {rows: 0}", "shards: 'rows' must be at least 1, not the number 0", ""),
        ("prompts: {shuffle: yes}", "prompts: 'shuffle' must be true or false, not the text 'yes'", "write true"),
        ("prompts: {keep: a}", "prompts: 'keep' must be a list, not the text 'a'", ""),
        ("prompts: {path: null, keep: [1]}", "prompts: 'keep[0]' must be text, not the number 1", "write '1' in quotes"),
        ("generate: {systems: []}", "generate: 'systems' must be a list of at least 1, not an empty list", ""),
        ("generate: {model: {base_url: [1]}}", "generate.model: 'base_url[0]' must be text, not the number 1", "write '1'"),
        ("generate: {model: {api_key: x}}", "generate.model: unknown key 'api_key'", "keys come from the environment"),
        ("generate: {model: {provider: simulatd}}", "generate.model: 'provider' names no provider: 'simulatd'", "did you mean"),
        ("generate: {model: {provider: _http}}", "generate.model: 'provider' names no provider: '_http'", ""),
        ("generate: {model: {provider: anthropic}}", "generate.model: 'name' is missing: a stage asks this model", "add 'name"),
        ("critique: {scores: false, principles: 0}", "critique: 'scores' must be 'off' or 'per_round', not false", ""),
        ("critique: {}", "critique: there is no constitution to take principles from", "add 'constitution: "),
        ("critique: {principles: 0, template: gone}", "critique: there is no template 'gone' for critique", ""),
        ("revise: {stop: {severity: 1}}", "revise.stop: unknown key 'severity'", "did you mean 'severity_below'?"),
        ("label_pairs: {principles: 0, labelers: [{nme: x}]}", "label_pairs.labelers[0]: 'name' is missing", "add 'name: ...'"),
        ("label_pairs: {labelers: [{name: x}, {name: x}]}", "label_pairs.labelers[1]: 'name' is given twice: 'x'", ""),
        ("score: {criteria: [{name: x, description: d}, {name: x, description: e}]}",
         "score.criteria[1]: 'name' is given twice: 'x'", "scores are told apart by their criterion's name"),
        ("critique: false", "'critique' must be keys and values, not false", "write off"),
        ("label_pairs: {principles: 0, labelers: [main, {name: other}]}",
         "label_pairs: 'labelers[0]' must be keys and values, not the text 'main'", "write [{name: main}, {name: other}]"),
        ("revise: {labeler: main}", "revise: 'labeler' must be keys and values, not the text 'main'", "write {name: main}"),
        ("generate: {model: {base_url: []}}",
         "generate.model: 'base_url' must be text or a list of at least 1, not an empty list", ""),
        ("generate: {model: {base_url: ''}}", "generate.model: 'base_url' must be text or a list, not empty text", ""),
        ("revise: {accept: if_preferred, labeler: {name: j, model: {provider: nonsens}}}",
         "revise.labeler.model: 'provider' names no provider: 'nonsens'", "known are: anthropic"),
        ("revise: {accept: if_preferred, labeler: {name: j, model: {provider: openai}}}",
         "revise.labeler.model: 'name' is missing: a stage asks this model", "add 'name"),
        ("revise: {accept: if_preferred, labeler: {name: j, model: {world: {noice: 1}}}}",
         "revise.labeler.model.world: unknown key 'noice'", "did you mean 'noise'?"),
        ("generate: {model: {world: {noise: much, position: 1}}}", "generate.model.world.noise must be a number, not 'much'", ""),
        ("critique: {principles: 0, exemplars: 0, exemplar_file: nosuch}",
         "critique: there are no exemplars 'nosuch' for critique", "there are: general"),
        ("expand: {against: [c.yaml, nosuch.jsonl]}", "expand: 'against[1]' names no file or folder: 'nosuch.jsonl'", "a path"),
        ("limits: {max_outage: 1:30}", "limits: 'max_outage' is no length of time: '1:30'", "write 90s"),
        ("limits: {budget_usd: -1}", "limits: 'budget_usd' must be at least 0, not the number -1", ""),
        ("prompts: {path: gone.jsonl}", "prompts: 'path' names no file: 'gone.jsonl'", "a path is relative to the config"),
        ("prompts: {path: '-', dataset: x}", "prompts: 'dataset' and 'path' exclude one another", "keep one of them"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_plain_words(line: str, what: str, hint: str, folder: Path) -> None:
    found = dict(problems(folder, FREE + line + "\n"))
    assert f"c.yaml:4: {what}" in found
    assert found[f"c.yaml:4: {what}"].startswith(hint)


@pytest.mark.parametrize(
    ("clamp", "wrong"),
    [
        ("[0.4, 1.2]", ["'clamp[1]' must be at most 1, not the number 1.2"]),
        ("[a, b]", ["'clamp[0]' must be a number, not the text 'a'", "'clamp[1]' must be a number, not the text 'b'"]),
        ("[0.4]", ["'clamp' must be a list of at least 2, not a list of 1"]),
        ("[[0.4, x], 0.6]", ["'clamp[0]' must be a number, not a list of 2"]),
    ],
)
def test_a_wrong_value_in_a_list_is_not_a_list_too_short(clamp: str, wrong: list[str], folder: Path) -> None:
    found = problems(folder, FREE + f"label_pairs: {{principles: 0, reasoning: true, clamp: {clamp}}}\n")
    assert [message for message, _ in found] == [f"c.yaml:4: label_pairs: {one}" for one in wrong]


def test_name_and_output_are_required(folder: Path) -> None:
    assert problems(folder, "seed: 1\n") == [
        ("c.yaml:1: 'name' is missing", "add 'name: ...'"),
        ("c.yaml:1: 'output' is missing", "add 'output: ...'"),
    ]


def test_revise_needs_critique(folder: Path) -> None:
    assert problems(folder, FREE + "revise: {}\n")[0][0] == "c.yaml:4: revise: there is no critique to revise by"


def test_what_is_wrong_is_not_missing_too(folder: Path) -> None:
    assert [
        message for message, _ in problems(folder, "name: a\noutput: b\nconstitution: 5\nmodel: {name: 3.10}\ncritique: {}\n")
    ] == [
        "c.yaml:3: 'constitution' must be text, not the number 5",
        "c.yaml:4: model: 'name' must be text, not the number 3.10",
    ]


def test_an_unknown_provider_is_told_once(folder: Path) -> None:
    text = "name: a\noutput: b\nmodel: {provider: antropic}\ngenerate: {model: {max_tokens: 5}}\n"
    assert [message for message, _ in problems(folder, text)] == ["c.yaml:3: model: 'provider' names no provider: 'antropic'"]


def test_a_world_is_told_of_where_it_stands_and_once(folder: Path) -> None:
    text = "name: a\noutput: b\nmodel:\n  provider: simulated\n  world:\n    refusal_rat: 1\n    noise: 1\n    length: x\n"
    text += "generate:\n  model: {max_tokens: 5}\nlabel_pairs: {principles: 0}\n"
    assert [message for message, _ in problems(folder, text)] == [
        "c.yaml:6: model.world: unknown key 'refusal_rat'",
        "c.yaml:8: model.world.length must be a number, not 'x'",
    ]
    assert read(folder, text.replace("simulated", "anthropic\n  name: n")).model.provider == "anthropic"  # it has no world


PER_STAGE = "name: a\noutput: b\ncritique: off\nconstitution: constitutions/general.yaml\n"


def test_the_labeler_of_revisions_is_asked_only_where_revisions_are_compared(folder: Path) -> None:
    revised = PER_STAGE + "revise:\n  model: {name: m}\n"
    assert read(folder, revised + "  labeler: {name: j}\n").section(revise.Settings) is not None
    told = "revise.labeler.model: 'name' is missing: a stage asks this model"
    # the reviser's own model is not the labeler's default
    assert [message for message, _ in problems(folder, revised + "  accept: if_preferred\n")] == [f"c.yaml:5: {told}"]
    text = revised + "  accept: if_preferred\n  labeler:\n    name: j\n"
    assert [message for message, _ in problems(folder, text)] == [f"c.yaml:8: {told}"]
    assert read(folder, text + "    model: {name: other}\n").section(revise.Settings) is not None
    # where another stage asks the top-level model too, that is what is to be mended
    both = "c.yaml:1: model: 'name' is missing: a stage asks this model"
    assert [message for message, _ in problems(folder, text + "generate: {}\n")] == [both]


def test_exemplars_that_are_too_few_are_told_of_at_their_number(folder: Path) -> None:
    text = FREE + "critique:\n  principles: 0\n  exemplar_file: general\n  exemplars: 99\n"
    ((message, _),) = problems(folder, text)
    assert message.startswith("c.yaml:7: critique: ")
    assert "99 are asked for" in message


def test_debias_needs_no_model(folder: Path) -> None:
    assert "debias" in read(folder, "name: a\noutput: b\ndebias:\n").sections


def test_problems_of_the_constitution_come_along_with_their_own_lines(folder: Path) -> None:
    (folder / "own.yaml").write_text(CONSTITUTION + "weight: 1\n", "utf-8")
    found = [message for message, _ in problems(folder, FREE + "seed: x\nconstitution: own.yaml\n")]
    assert found[0].startswith("c.yaml:4: 'seed'")
    assert found[1].startswith("own.yaml:5: ")


def test_the_environment_never_shows_in_a_message(folder: Path) -> None:
    ((message, _),) = problems(folder, FREE + "prompts: {path: '${PLACE}/gone', shuffle: '${PLACE}'}\n", env={"PLACE": "canary"})[
        :1
    ]
    assert "shuffle" in message
    assert "canary" not in message


# Precedence


def test_flags_beat_overrides_beat_the_environment_beats_the_file(folder: Path) -> None:
    text = "name: a\noutput: file\nlimits: {budget_usd: 1, concurrency: 1}\nseed: 1\n"
    env = {"CAI_OUTPUT": "env", "CAI_BUDGET_USD": "2.5", "CAI_CONCURRENCY": "2", "CAI_STATE": "s", "CAI_SEED": "9"}
    assert read(folder, text).output == "file"
    by_env = read(folder, text, env=env)
    assert (by_env.output, by_env.state, by_env.limits.budget_usd, by_env.limits.concurrency, by_env.seed) == (
        "env",
        "s",
        2.5,
        2,
        1,
    )
    by_set = read(folder, text, ["output=set", "limits.concurrency=auto"], env)
    assert (by_set.output, by_set.limits.concurrency, by_set.limits.budget_usd) == ("set", "auto", 2.5)
    by_flag = read(folder, text, ["output=set"], env, output=Path("flag"), limits__budget_usd=3.0, seed=None)
    assert (by_flag.output, by_flag.limits.budget_usd, by_flag.seed) == ("flag", 3.0, 1)


def test_an_override_reaches_into_sections_lists_and_what_is_not_there(folder: Path) -> None:
    text = FREE + "label_pairs: {principles: 0, labelers: [{name: a}]}\ncritique:\n"
    overrides = ["label_pairs.labelers.0.name=b", "generate.systems=[null, be kind]", "critique.principles=0", "shards.rows=1e3"]
    read_config = read(folder, text, overrides)
    labeling, sampling = read_config.section(label_pairs.Settings), read_config.section(generate.Settings)
    assert labeling is not None
    assert sampling is not None
    assert labeling.labelers[0].name == "b"
    assert sampling.systems == [None, "be kind"]
    assert read_config.shards.rows == 1000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generate.sampels=2", "--set generate.sampels: generate: unknown key 'sampels'"),
        ("generate={samples: 0}", "--set generate: generate: 'samples' must be at least 1, not the number 0"),
        ("seed", "--set seed: a key, '=' and a value are needed"),
        (".seed=1", "--set .seed=1: a key, '=' and a value are needed"),
        ("name.first=1", "--set name.first: name is text, it has no 'first'"),
        ("seed=1_000", "--set seed:1: 1_000 is a number to some readers and text to others"),
        ("seed=[", "--set seed:1: this is not YAML: it ends too early"),
        ("output=3.10", "--set output: 'output' must be text, not the number 3.10"),
    ],
)
def test_a_mistake_in_an_override_names_the_override(override: str, message: str, folder: Path) -> None:
    assert problems(folder, FREE, [override])[0][0].startswith(message)


def test_mistakes_in_flags_and_variables_name_them(folder: Path) -> None:
    env = {"CAI_BUDGET_USD": "much", "CAI_STATE": " "}
    assert [message for message, _ in problems(folder, FREE, env=env, limits__concurrency=0)] == [
        "CAI_STATE is set, but empty",
        "--concurrency: limits: 'concurrency' must be at least 1 or 'auto', not the number 0",
        "CAI_BUDGET_USD: limits: 'budget_usd' must be a number, not the text 'much'",
    ]


# Files


def test_paths_are_looked_up_from_the_config_then_from_here_and_those_of_flags_from_here_first(folder: Path) -> None:
    (folder / "p.jsonl").touch()
    Path("p.jsonl").touch()
    Path("q.jsonl").touch()
    assert read(folder, FREE + "prompts: {path: p.jsonl}\n").prompts_path() == folder / "p.jsonl"
    assert read(folder, FREE + "prompts: {path: q.jsonl}\n").prompts_path() == Path("q.jsonl")
    assert read(folder, FREE, prompts__path="p.jsonl").prompts_path() == Path("p.jsonl")
    assert read(folder, FREE, prompts__path="-").prompts_path() == Path("-")
    against = "expand: {against: [p.jsonl, q.jsonl]}\n"
    assert _against(read(folder, FREE + against)) == [folder / "p.jsonl", Path("q.jsonl")]
    assert _against(read(folder, FREE, ["expand.against=[p.jsonl]"])) == [Path("p.jsonl")]


def _against(read_config: Config) -> list[Path]:
    section = read_config.section(expand.Settings)
    assert section is not None
    return [read_config.input_path(name, "expand.against") for name in section.against]


def test_a_constitution_is_the_configs_own_then_the_shipped_one(folder: Path) -> None:
    text = FREE + "constitution: constitutions/general.yaml\n"
    shipped = read(folder, text).constitution_path()
    assert shipped is not None
    assert shipped.parts[-3:] == ("configs", "constitutions", "general.yaml")
    assert read(folder, FREE + "constitution: general\n").constitution_path() == shipped, "by its name, too"
    (folder / "constitutions").mkdir()
    (folder / "constitutions" / "general.yaml").write_text(CONSTITUTION, "utf-8")
    assert read(folder, text).constitution_path() == folder / "constitutions" / "general.yaml"
    (folder / "general").write_text(CONSTITUTION, "utf-8")
    assert read(folder, FREE + "constitution: general\n").constitution_path() == folder / "general", "a file comes first"
    assert [hint for _, hint in problems(folder, FREE + "constitution: genral\n")] == ["did you mean 'general'?"]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1h30m", 5400), ("2d", 172800)])
def test_lengths_of_time(text: str, seconds: float, folder: Path) -> None:
    assert read(folder, FREE, [f"limits.max_outage={text}"]).max_outage_s == seconds


# The schema


def test_the_schema_names_every_section_and_says_what_each_key_means() -> None:
    schema = config.schema()
    assert {"name", "output", "model", "generate", "critique", "revise", "label_pairs", "debias"} <= schema["properties"].keys()
    assert set(schema["required"]) == {"name", "output"}
    assert schema["additionalProperties"] is False
    assert all(field.get("description") for field in schema["properties"].values())


def test_reading_a_config_imports_nothing_heavy(folder: Path) -> None:
    (folder / "c.yaml").write_text(FREE + "generate:\ncritique: {principles: 0}\nrevise:\n", "utf-8")
    code = "import sys, pathlib, cai_cli.config as c; c.load(pathlib.Path(sys.argv[1]), env={}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "c.yaml")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(config.__file__).parents[1],
    )
    imported = set(done.stdout.split())
    assert "cai_cli.stages.revise" in imported
    assert not imported & {
        "numpy",
        "scipy",
        "pandas",
        "datasets",
        "pyarrow",
        "anthropic",
        "openai",
        "aiohttp",
        "rich",
        "typer",
        "cai_cli.stages.label_pairs",
    }


# The law: whatever is in a section, a reader gets it, or mistakes in words, never a traceback


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "model", "stop", "labelers", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from([*label_pairs.Settings.model_fields, *revise.Settings.model_fields, "other"])


@given(
    st.dictionaries(KEYS, VALUES, max_size=4) | VALUES,
    st.sampled_from([label_pairs.Settings, revise.Settings, critique.Settings]),
)
def test_any_values_give_a_section_or_mistakes(raw: Any, kind: Any) -> None:
    section, mistakes = validated(kind, raw, ("part",), lambda path: "")
    assert section is not None, "what was wrong could not be taken out"
    assert all(one.what and one.path[0] == "part" for one in mistakes)
    again, none = validated(kind, section.model_dump(mode="json", exclude_unset=True), ("part",), lambda path: "")
    assert again == section
    assert none == []


def test_what_is_true_of_one_model_only_is_not_inherited_by_another() -> None:
    price, world = {"input": 0.01, "output": 0.02}, {"harm": 0.1}
    common = ModelSection(
        provider="simulated", name="a", max_tokens=9, price=price, base_url="http://127.0.0.1:1", key_env="K", logprobs=False,
        world=world, effort="low",
    )  # fmt: skip
    same = ModelSection(max_tokens=7).over(common)
    assert (same.name, same.price, same.base_url, same.world, same.max_tokens) == ("a", common.price, common.base_url, world, 7)
    named = ModelSection(name="b").over(common)
    assert (named.price, named.base_url, named.world, named.max_tokens) == (None, common.base_url, world, 9)
    other = ModelSection(provider="anthropic").over(common)
    assert (other.name, other.price, other.base_url, other.key_env, other.logprobs, other.world) == (
        "",
        None,
        None,
        None,
        None,
        None,
    )
    assert (other.max_tokens, other.effort) == (9, "low")
