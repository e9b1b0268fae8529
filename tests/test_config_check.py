"""`cai config check` warns of what a run allows and its results may suffer from: where, what, why, and what to write instead."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outside import Cai, questions, write_rows

from cai_cli import config as configs
from cai_cli.engine import plan
from cai_cli.engine.advice import give, inputs
from cai_cli.engine.advice.models import families
from cai_cli.flow import Model

PAID = "model: {name: claude-haiku-5-5, max_tokens: 1024}\nlimits: {budget_usd: 5}\nsplit: {test: 0.1}\n"
CONSTITUTION = "constitution: constitutions/general.yaml\n"
OTHER_JUDGE = "{name: o, model: {provider: openai, name: gpt-5, price: {input: 1, output: 1}}}"
Keys = dict[str, str]


def write(folder: Path, text: str, rows: list[dict[str, Any]] | None = None) -> Path:
    """A config, and prompts of both kinds where none are given."""
    if rows is None:
        rows = [{**row, "kind": "harmful" if n % 2 else "harmless"} for n, row in enumerate(questions(120))]
    write_rows(folder / "prompts.jsonl", rows)
    kind = ", kind: kind" if rows and "kind" in rows[0] else ""
    (folder / "c.yaml").write_text(f"name: x\noutput: out\nprompts: {{path: prompts.jsonl{kind}}}\n{text}")
    return folder / "c.yaml"


@pytest.fixture
def check(cai: Cai, tmp_path: Path) -> Callable[..., Keys]:
    """Gives the warnings: what each says, by its key."""

    def run(text: str, rows: list[dict[str, Any]] | None = None, *args: str) -> Keys:
        write(tmp_path, text, rows)
        code, out, err = cai("config", "check", "c.yaml", "--json", *args)
        assert (code, err) == (0, "")
        return {
            one["key"]: " | ".join([one["place"], one["what"], one["why"], one["write"]]) for one in json.loads(out)["warnings"]
        }

    return run


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("label_pairs: {principles: 0, orders: one}", "label_pairs.orders", "18% (a large one) to 56% (a small one)"),
        ("label_pairs: {principles: 0, clamp: [0.4, 0.6]}\ndebias: {}", "label_pairs.clamp", "min_confidence: 0.5"),
        ("label_pairs: {principles: 0, votes: 16}", "label_pairs.votes", "72.8 to 76.2% against 78.0%"),
        ("generate: {samples: 1}\nlabel_pairs: {principles: 0}", "generate.samples", "there is no pair"),
        ("label_pairs: {principles: 0}\ndebias: {length: off}", "debias.length", "59 and 61%"),
        ("generate: {}\ncritique: {principles: 0}\nrevise: {rounds: 5}", "revise.rounds", "Bai et al. 2022"),
        ("critique: off\nrevise: {}\nlabel_pairs: {principles: 0, pairs: initial_vs_revised}\ndebias: {}\n" + CONSTITUTION,
         "label_pairs.pairs", "80 to 90%"),
        ("generate: {}\nlabel_pairs: {principles: 0}\ndebias: {}", "debias.probes", "so it stays in the labels"),
        ("generate: {}\nlabel_pairs: {principles: 0}\ndebias: {}", "debias.probes", "debias: {probes: {length: 50}}, 100 calls"),
        ("label_pairs: {principles: 0}\ndebias: {length: off, probes: {length: 20}}", "debias.probes", "20 pairs are probed"),
        ("label_pairs: {principles: 0}\ndebias: {style: [lists, bold, complexity], probes: {bold: 20}}", "debias.style",
         "are worth to a judge | labels are corrected only by what a probe or gold shows | write probes: {lists"),
        ("label_pairs: {principles: 0}\ndebias: {style: [complexity]}", "debias.style", "cai audit sample"),
        ("generate: {}\nlabel_pairs: {principles: 0}", "label_pairs.labelers", "the only judge is the model that wrote"),
        ("generate: {}\nlabel_pairs: {principles: 0, labelers: [{name: s, model: {name: claude-opus-5}}]}",
         "label_pairs.labelers", "is of the family of the model that wrote"),
        ("generate: {}\ncritique: {principles: 0, model: {max_tokens: 200}}", "critique.model.max_tokens", "max_tokens: 1024"),
        ("generate: {}\ncritique: {principles: 0}\nrevise: {model: {max_tokens: 600}}", "revise.model.max_tokens", "2048 for"),
        ("generate: {}\nlabel_pairs: {principles: 0, model: {max_tokens: 100}}", "label_pairs.model.max_tokens", "verdict"),
        ("expand: {model: {max_tokens: 128}}", "expand.model.max_tokens", "10 prompts"),
        ("critique: {principles: 0, model: {thinking: {type: adaptive}}}", "model.max_tokens", "thinking counts towards it"),
        ("generate: {model: {name: claude-sonnet-4-5}}", "generate.model.name", "offered until 2026-11-30"),
        ("generate: {model: {name: my-own}}", "generate.model.price", "budget_usd cannot be kept"),
        ("generate: {model: {name: claude-sonnet-5.5}}", "generate.model.price", "did you mean 'claude-sonnet-5-5'?"),
        ("generate: {}\nlabel_pairs: {principles: 0}\naudit: {}", "audit.rate", "write rate: 0.42"),
        ("generate: {model: {temperature: 0.7}}", "generate.model.temperature", "400"),
        ("critique: {principles: 1, categories: {harmlessness: 20}}\n" + CONSTITUTION, "constitution", "principles: 9"),
    ],
)  # fmt: skip
def test_each_regret_is_told_with_its_key_its_reason_and_what_to_write(
    check: Callable[..., Keys], text: str, key: str, said: str
) -> None:
    found = check(PAID + text + "\n")
    assert said in found[key], found


@pytest.mark.parametrize(
    "text",
    [
        (
            f"generate: {{}}\nlabel_pairs: {{principles: 0, labelers: [{{name: s}}, {OTHER_JUDGE}]}}\n"
            "debias: {probes: {length: 50}}"
        ),
        "generate: {}\ncritique: {principles: 0}\nrevise: {rounds: 4}",
        "critique: {principles: 1}\n" + CONSTITUTION,
        "generate: {model: {name: claude-haiku-4-5, temperature: 0.7}}",
        "critique: {principles: 0, model: {max_tokens: 100, retry_truncated: true}}",
        "generate: {model: {provider: openai, name: llama, base_url: 'http://127.0.0.1:1', price: {input: 0, output: 0}}}",
    ],
)
def test_what_is_done_well_is_not_warned_of(check: Callable[..., Keys], text: str) -> None:
    assert check(PAID + text + "\n") == {}


def test_with_labels_by_people_no_probe_is_missing(check: Callable[..., Keys], tmp_path: Path) -> None:
    judged = f"label_pairs: {{principles: 0, labelers: [{{name: s}}, {OTHER_JUDGE}]}}\n"
    text = PAID + "generate: {}\n" + judged + "debias: {style: [lists]}\n"
    assert check(text).keys() == {"debias.probes", "debias.style"}
    assert check(text, None, "--set", "prompts.gold=true") == {}
    (tmp_path / "out" / "audit").mkdir(parents=True)
    (tmp_path / "out" / "audit" / "labels.jsonl").write_text("")
    assert check(text) == {}


def test_what_a_paid_run_lacks(check: Callable[..., Keys]) -> None:
    found = check("model: {name: claude-haiku-5-5}\ngenerate: {}\n")
    assert found.keys() == {"limits.budget_usd", "split.test"}
    assert check("model: {provider: simulated}\ngenerate: {}\n") == {}


def test_a_panel_of_another_family_is_no_self_preference_and_a_given_pair_has_no_writer(check: Callable[..., Keys]) -> None:
    judged = f"label_pairs: {{principles: 0, labelers: [{OTHER_JUDGE}]}}\n"
    assert check(PAID + "generate: {}\n" + judged) == {}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("claude-opus-5-5", {"Claude"}), ("us.anthropic.claude-sonnet-5-5-v1:0", {"Claude"}), ("gpt-5-mini", {"GPT"}),
        ("openai/o3", {"GPT"}), ("meta-llama/Llama-4-Scout", {"Llama"}), ("deepseek-r1-distill-qwen-32b", {"DeepSeek", "Qwen"}),
        ("gpt4all-falcon", {"p gpt4all-falcon"}), ("microsoft/phi-4", {"Phi"}), ("mixtral-8x7b", {"Mistral"}),
        ("gemma-3", {"Gemini"}), ("demo3", {"p demo3"}),
    ],
)  # fmt: skip
def test_families_are_told_by_name(name: str, found: set[str]) -> None:
    assert families(Model(provider="p", name=name)) == found


# The prompts


def kinds(**numbers: int) -> list[dict[str, str]]:
    return [{"prompt": f"What is {kind} {n}?", "kind": kind} for kind, number in numbers.items() for n in range(number)]


@pytest.mark.parametrize(
    ("rows", "key", "said"),
    [
        (kinds(harmful=3), "prompts.kind", "no harmless prompt among 3"),
        (kinds(Harmful=3, harmless=1), "prompts.kind", "it is 'Harmful' in 3 rows"),
        ([*kinds(harmful=1, harmless=1), *kinds(harmless=1)], "prompts.path", "1 prompts stand there more than once"),
        ([*kinds(harmful=1, harmless=1), {"kind": "harmful"}], "prompts.path", "1 of 3 rows cannot be used | 1 missing_column"),
        ([], "prompts", "holds no rows"),
    ],
)
def test_the_prompts_are_looked_at(check: Callable[..., Keys], rows: list[dict[str, str]], key: str, said: str) -> None:
    found = check("model: {provider: simulated}\ngenerate: {}\n", rows)
    assert said in found[key]
    assert len(found) == 1


def test_columns_that_no_row_has_are_told_before_a_run_stops_at_them(check: Callable[..., Keys], tmp_path: Path) -> None:
    keep = ("--set", "prompts.keep=[topic]")
    found = check("model: {provider: simulated}\ngenerate: {}\n", kinds(harmful=1, harmless=1), *keep)
    assert "there is no column 'topic'" in found["prompts"]
    assert "a run would stop there" in found["prompts"]


def test_only_so_many_rows_are_read(tmp_path: Path) -> None:
    write(tmp_path, "generate: {}\nmodel: {provider: simulated}\n", kinds(harmful=inputs.MOST_ROWS + 5))
    seen = inputs.read(configs.load(tmp_path / "c.yaml"), given=False)
    assert seen is not None
    assert (seen.rows, seen.whole) == (inputs.MOST_ROWS, False)


def test_given_pairs_are_read_as_pairs_and_may_share_a_prompt(check: Callable[..., Keys]) -> None:
    pairs = [{"prompt": "What is a kite?", "chosen": f"A toy {n}.", "rejected": f"A bird {n}."} for n in range(3)]
    assert check("model: {provider: simulated}\nlabel_pairs: {principles: 0, pairs: given}\n", pairs) == {}
    found = check("model: {provider: simulated}\nlabel_pairs: {principles: 0, pairs: given}\n", kinds(harmful=2))
    assert "2 of 2 rows cannot be used" in found["prompts.path"]


def test_few_pairs_are_told_where_biases_are_to_be_estimated(check: Callable[..., Keys]) -> None:
    text = PAID + f"generate: {{}}\nlabel_pairs: {{principles: 0, labelers: [{{name: s}}, {OTHER_JUDGE}]}}\ndebias: {{}}\n"
    found = check(text, kinds(harmful=20, harmless=20))
    assert list(found) == ["debias"]
    assert "at most 40 pairs" in found["debias"]


# What is printed


def test_a_warning_is_one_line_with_its_place_and_changes_no_exit_code(cai: Cai, tmp_path: Path) -> None:
    write(tmp_path, f"{PAID}generate: {{}}\ncritique: {{principles: 0}}\nrevise:\n  rounds: 6\n")
    code, out, err = cai("config", "check", "c.yaml")
    assert (code, out.splitlines()[-1]) == (0, "ok: c.yaml")
    assert err.startswith("warning: c.yaml:10: revise.rounds: 6 rounds: most harm goes in the first")
    assert (err.count("\n"), "; write rounds: 4 or fewer" in err) == (1, True)


def test_strict_makes_warnings_an_error_with_what_to_do(cai: Cai, tmp_path: Path) -> None:
    write(tmp_path, f"{PAID}generate: {{}}\ncritique: {{principles: 0}}\nrevise: {{rounds: 6}}\n")
    code, out, err = cai("config", "check", "c.yaml", "--strict")
    assert (code, "ok:" in out) == (2, False)
    assert err.endswith("error: c.yaml: 1 warning, and --strict wants none\nhint: mend what they name, or leave --strict out\n")
    code, out, err = cai("config", "check", "c.yaml", "--strict", "--json")
    assert (code, json.loads(out)["ok"]) == (2, False)
    code, out, err = cai("config", "check", "c.yaml", "--strict", "--set", "revise.rounds=2")
    assert (code, err) == (0, "")


def test_what_a_flag_set_is_told_of_the_flag(cai: Cai, tmp_path: Path) -> None:
    write(tmp_path, f"{PAID}generate: {{}}\ncritique: {{principles: 0}}\nrevise: {{}}\n")
    _, _, err = cai("config", "check", "c.yaml", "--set", "revise.rounds=9")
    assert err.startswith("warning: --set revise.rounds: revise.rounds: 9 rounds")


def test_text_of_a_file_cannot_move_the_cursor(cai: Cai, tmp_path: Path) -> None:
    write(tmp_path, "model: {provider: simulated}\ngenerate: {}\n", [{"prompt": "a", "kind": "Harmful \x1b[2J".strip()}])
    (tmp_path / "prompts.jsonl").write_text(
        json.dumps({"prompt": "a", "kind": "HARMFUL\x1b"}) + "\n" + json.dumps({"prompt": "b", "kind": "HARMLESS"}) + "\n"
    )
    _, out, err = cai("config", "check", "c.yaml")
    assert "\x1b" not in out + err


def test_a_retirement_is_told_before_it_comes_and_after(tmp_path: Path) -> None:
    write(tmp_path, PAID + "generate: {model: {name: claude-sonnet-4-5-20250929}}\n")
    config = configs.load(tmp_path / "c.yaml")
    steps = plan.steps_of(config, ["generate"])

    def said(day: str) -> list[str]:
        return [one.line() for one in give.on(config, steps, (), datetime.date.fromisoformat(day))]

    assert said("2026-08-01") == []
    assert "is offered until 2026-11-30" in said("2026-11-01")[0]
    assert "was offered until 2026-11-30: requests fail" in said("2026-12-01")[0]
