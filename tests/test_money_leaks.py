"""`cai config check` says where money leaks, with figures of the config it reads; what is shipped leaks nowhere."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from outside import ROOT, Cai, write_rows

from cai_cli import config as configs
from cai_cli.engine import plan
from cai_cli.engine.advice import bills, buried, give, json_forms, json_leaks, prefixes, separate
from cai_cli.engine.advice.asked import STAND_IN, asked, tokens
from cai_cli.engine.advice.inputs import read
from cai_cli.engine.advice.look import Look
from cai_cli.shipped import shipped

TODAY = datetime.date(2026, 11, 20)
MONEY = (json_leaks, buried, prefixes, separate, bills)
HAIKU = "model: {name: claude-haiku-5-5, max_tokens: 1024}\n"
SONNET = "model: {name: claude-sonnet-5-5, max_tokens: 1024}\n"
Rows = Sequence[dict[str, Any]]
Check = Callable[..., dict[str, str]]


def record(n: int) -> dict[str, Any]:
    orders = [{"id": n, "total": 12.5, "paid": True}, {"id": 2, "total": 8.0, "paid": False}]
    return {"name": f"Ann Smith {n}", "age": 31, "address": {"city": "Paris", "zip": "75001"}, "tags": ["new"], "orders": orders}


def prompts(text: Callable[[int], str] = lambda n: f"How do I paint wall {n}?") -> Rows:
    return [{"prompt": text(n), "kind": "harmful" if n % 2 else "harmless"} for n in range(30)]


def leaks(path: Path, *overrides: str, today: datetime.date = TODAY) -> dict[str, str]:
    """What is said of money, by its key."""
    config = configs.load(path, overrides)
    steps = [step for name in plan.alone_of(config) for step in plan.steps_of(config, [name])]
    steps = [*plan.steps_of(config, plan.sections_of(config)), *steps]
    seen = read(config, steps[0].reads[0] == "pairs")
    questions = asked(steps, seen.first if seen else STAND_IN)
    look = Look(config=config, steps={step.name: step for step in steps}, seen=seen, asked=questions, today=today)
    return {".".join(map(str, one.path)): one.line() for part in MONEY for one in part.advice(look)}


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def run(text: str, rows: Rows = prompts(), *overrides: str, today: datetime.date = TODAY) -> dict[str, str]:
        write_rows(tmp_path / "prompts.jsonl", rows)
        (tmp_path / "c.yaml").write_text(f"name: x\noutput: out\nprompts: {{path: prompts.jsonl, kind: kind}}\n{text}")
        return leaks(tmp_path / "c.yaml", *overrides, today=today)

    return run


# JSON


def test_tokens_are_about_those_of_english_and_an_indentation_is_one() -> None:
    english = shipped("prompts", "critique-general.md").read_text("utf-8")
    assert 0.8 < json_forms.tokens(english) / (len(english) / 4) < 1.1
    two, eight = (json_forms.tokens(json.dumps(record(1), indent=width)) for width in (2, 8))
    assert two == eight > json_forms.tokens(json.dumps(record(1)))


@pytest.mark.parametrize(
    "text", ["", "[see the note]", "{not json}", "a {b} [1] c", "[[[[", '{"a": ' * 3000, "{" * 5000, '"{' * 99]
)
def test_what_is_no_json_is_none_and_takes_no_time(text: str) -> None:
    assert list(json_forms.blocks(text)) == []


@pytest.mark.parametrize("depth", [50, 300, 900])
def test_json_that_is_nested_deeply_ends_nothing(depth: int) -> None:
    text = '{"a":' * depth + "1" + "}" * depth
    assert all(json.loads(one.compact) for one in json_forms.blocks(text))


@pytest.mark.parametrize("text", ["[" + "\n" * 100_000, "{" + " " * 100_000, '{"a":"' + '\\"' * 50_000, '[{"a": 1}' * 20_000])
def test_hostile_texts_take_no_time(text: str) -> None:
    before = time.process_time()
    assert sum(one.forms.as_is for one in json_forms.blocks(text)) < 1000
    assert json_forms.tokens(text) > 0
    assert time.process_time() - before < 2


def test_json_is_found_in_the_middle_of_a_text_and_in_a_template() -> None:
    (found,) = json_forms.blocks(f"Look at this: {json.dumps(record(1), indent=2)} and say [what] you think.")
    assert json.loads(found.text) == json.loads(found.compact) == record(1)
    assert found.forms.as_is > found.forms.compact > found.forms.prose > 20
    (sketch,) = json_forms.in_template(
        'Reply:\n{\n  "critique": {{ critique }},\n  "sure": <a number>\n}\n{% if x %}y{% endif %}'
    )
    assert sketch.compact == '{"critique": xxxxxxxxxxxxxx,"sure": <a number>}'


def test_rows_of_pretty_json_are_told_in_three_forms_with_what_they_cost(check: Check) -> None:
    rows = prompts(lambda n: json.dumps(record(n), indent=2))
    said = check(SONNET + "generate: {samples: 3}\n", rows)["prompts.path"]
    forms = [json_forms.tokens(rows[0]["prompt"]), json_forms.tokens(json.dumps(record(0), separators=(",", ":")))]
    assert (
        f"30 of 30 rows hold JSON, pretty-printed: a row has about {forms[0]} tokens as it stands, {forms[1]} on one line" in said
    )
    saved = (forms[0] - forms[1]) * 3 * 1000
    dollars = saved * 2 / 1e6
    assert f"each goes into 3 calls, so 1,000 rows pay for {round(saved, -3):,} tokens, ${dollars:.2f} too many" in said


def test_the_line_that_is_proposed_mends_it(check: Check, tmp_path: Path) -> None:
    rows = prompts(lambda n: json.dumps(record(n) | {"exact": [1.0, 12345678901234567890, "\u00e9"]}, indent=2))
    said = check("model: {provider: simulated}\ngenerate: {}\n", rows)["prompts.path"]
    assert "$" not in said.partition(" too many")[0]
    line = said.partition("write it on one line: ")[2].replace("python3", sys.executable)
    code, end, files = line.rpartition("' <")
    line = code.replace(" ", "\n         ").replace("\n         ", " ", 2) + end + files  # as a terminal folds it
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)
    after = [json.loads(one) for one in (tmp_path / "compact.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in after] == [
        json.dumps(json.loads(row["prompt"]), ensure_ascii=False, separators=(",", ":")) for row in rows
    ]
    assert "pretty" not in check("model: {provider: simulated}\ngenerate: {}\n", after).get("prompts.path", "")


def test_json_inside_a_text_is_mended_where_it_is_made_and_prose_is_proposed_for_what_is_compact(check: Check) -> None:
    inside = check(HAIKU + "generate: {}\n", prompts(lambda n: f"Check: {json.dumps(record(n), indent=2)}"))["prompts.path"]
    assert "json.dumps(value, separators=(',', ':'))" in inside
    compact = prompts(lambda n: json.dumps(record(n), separators=(",", ":")))
    assert "as prose: name Ann, city Paris" in check(HAIKU + "generate: {}\n", compact)["prompts.path"]
    assert check(HAIKU + "generate: {}\n", [*compact[:5], *prompts()]) == {}


def test_given_pairs_are_looked_at_with_both_responses(check: Check) -> None:
    pairs = [
        {"prompt": f"What is {n}?", "chosen": json.dumps(record(n), indent=2), "rejected": "No.", "kind": "a"} for n in range(9)
    ]
    said = check(SONNET + "label_pairs: {principles: 0, pairs: given}\n", pairs)["prompts.path"]
    assert "9 of 9 rows hold JSON, pretty-printed" in said
    assert "each goes into 2 calls" in said
    assert "json.dumps" in said


def test_what_no_stage_of_a_run_reads_is_not_priced(check: Check) -> None:
    said = check(HAIKU + "label_pairs: {principles: 0}\n", prompts(lambda n: json.dumps(record(n), indent=2)))
    assert "every stage that is shown a row pays for it again" in said["prompts.path"]


def test_pretty_json_in_a_template_an_exemplar_and_a_system_prompt(check: Check, tmp_path: Path) -> None:
    shown = json.dumps(record(1), indent=2)
    general = shipped("prompts", "critique-general.md").read_text("utf-8")
    (tmp_path / "critique-mine.md").write_text(general.replace("Your task:", f"As in:\n{shown}\nYour task:"))
    system = json.dumps(f"Reply as in {json.dumps({'kind': 'a', 'text': 'b', 'sure': 0.5, 'why': 'c'}, indent=2)}")
    exemplar = {"conversation": [{"role": "user", "content": shown}], "request": "r", "response": "s", "critique": "c",
                "severity": "none"}  # fmt: skip
    (tmp_path / "mine.yaml").write_text(json.dumps({"stage": "critique", "exemplars": [exemplar]}))
    critique = "critique: {principles: 0, template: mine, exemplars: 1, exemplar_file: mine.yaml}\n"
    found = check(HAIKU + f"generate: {{systems: [{system}]}}\n{critique}")
    lines = shown.count("\n") + 1
    assert f"the template critique-mine spells out JSON over {lines} lines" in found["critique.template"]
    assert f"the exemplars spell out JSON over {lines} lines" in found["critique.exemplar_file"]
    assert 'as in {"kind":"a","text":"b","sure":0.5,"why":"c"}, or say it in prose' in found["generate.systems.0"]
    assert "1,000 calls pay for" in found["generate.systems.0"]


# What stands in the middle


def long_system(middle: str, end: str = "") -> str:
    filler = [f"Sentence {n} tells a little about the tone of the answers.\n" for n in range(140)]
    return "".join([*filler[:70], f"{middle}\n", *filler[70:], end])


def test_an_instruction_in_the_middle_of_a_long_text_is_told_with_its_line(check: Check) -> None:
    text = long_system("Never give the dose of a medicine.")
    found = check(HAIKU + f"generate: {{systems: [{json.dumps(text)}]}}\n")
    said = found["generate.systems.0"]
    assert f"of about {len(text) // 4:,} tokens stands 'Never give the dose of a medicine.' in line 71 of it" in said
    assert "Liu et al. 2023, arXiv 2307.03172" in said
    for fine in (
        long_system("Sentence 70 tells nothing."),
        long_system("Never give the dose.", "Never give the dose."),
        "Never give the dose. " * 50,
    ):
        assert check(HAIKU + f"generate: {{systems: [{json.dumps(fine)}]}}\n") == {}


def test_the_middle_of_a_template_counts_too(check: Check, tmp_path: Path) -> None:
    general = shipped("prompts", "critique-general.md").read_text("utf-8")
    long = long_system("You must quote it.\nOnly one quote is taken.")
    (tmp_path / "critique-mine.md").write_text(general.replace("The conversation:", f"{long}\n\nThe conversation:"))
    said = check(HAIKU + "generate: {}\ncritique: {principles: 0, template: mine}\n")["critique.template"]
    assert "'You must quote it.' in line" in said
    assert ", and 1 other" in said


# What stands before every question


def words(count: int) -> str:
    """A text of so many tokens."""
    return json.dumps("kind tone. " * (4 * count // 11 + 1))


def test_a_long_beginning_is_told_with_both_bills(check: Check) -> None:
    long = f"generate: {{systems: [{words(4000)}]}}\n"
    said = check(SONNET + long)["generate.systems.0"]
    assert "about 4,001 tokens stand before every question, 100% of what is asked" in said
    assert "1,000 calls pay $8.00 for them without caching and $0.41 with caching, which is on; leave out" in said
    off = check(SONNET.replace("}", ", prompt_caching: 'off'}") + long)["generate.systems.0"]
    assert "which is off; leave prompt_caching at auto, or leave out" in off
    other = "model: {provider: openai, name: gpt-5, price: {input: 1, output: 1}}\n"
    assert "pay $4.00 for them, and no caching is known of gpt-5" in check(other + long)["generate.systems.0"]
    free = check(other.replace("1", "0") + long)["generate.systems.0"]
    assert "every call pays for them, or waits while they are read" in free


def test_where_no_prompts_are_named_yet_only_what_hangs_on_none_is_told(tmp_path: Path) -> None:
    text = f"generate: {{systems: [{words(4000)}]}}\ncritique: {{exemplars: 2, principles: 3}}\nscore: {{}}\n"
    (tmp_path / "c.yaml").write_text(f"name: x\noutput: out\nconstitution: general\n{SONNET}{text}")
    assert list(leaks(tmp_path / "c.yaml")) == ["generate.systems.0"]


def test_a_beginning_just_short_of_the_minimum_is_told_with_what_a_little_more_would_save(check: Check) -> None:
    said = check(SONNET + f"generate: {{systems: [{words(480)}]}}\n")["generate.systems.0"]
    assert "about 481 tokens stand before every question, and claude-sonnet-5-5 caches from 512 on" in said
    assert "1,000 calls pay $0.96 for them, and $0.05 with 31 more; say what helps the model in 31 tokens more" in said
    assert check(SONNET + f"generate: {{systems: [{words(400)}]}}\n") == {}
    assert check(SONNET + f"generate: {{systems: [{words(520)}]}}\n") == {}


def test_more_exemplars_are_proposed_where_a_stage_takes_them(check: Check, tmp_path: Path) -> None:
    general = shipped("prompts", "critique-general.md").read_text("utf-8")
    missing = 490 - plan_constant(check, tmp_path)
    (tmp_path / "critique-mine.md").write_text(
        general.replace("\nReply with", f"\n{json.loads(words(missing))}\n\nReply with", 1)
    )
    said = check(SONNET + "generate: {}\ncritique: {principles: 0, template: mine}\n")["critique.template"]
    assert "caches from 512 on" in said
    assert "write exemplars: 1, or " in said


def plan_constant(check: Check, folder: Path) -> int:
    """The constant tokens of the shipped critique."""
    from cai_cli.caching import constant_tokens

    check(SONNET + "generate: {}\ncritique: {principles: 0}\n")
    config = configs.load(folder / "c.yaml")
    seen = read(config, False)
    assert seen is not None
    questions = asked(plan.steps_of(config, plan.sections_of(config)), seen.first)
    return constant_tokens(questions.of("critique")[0])


def test_exemplars_that_are_longer_than_the_data_are_told_with_both_numbers(check: Check) -> None:
    exemplars = "generate: {}\ncritique: {principles: 0, exemplars: 2}\n"
    uncached = HAIKU.replace("}", ", prompt_caching: 'off'}")
    said = check(uncached + exemplars)["critique.exemplars"]
    assert "2 of them take about 1," in said
    assert "1,000 calls pay $0.1" in said
    assert "take shorter ones, or none where the model does well without" in said
    long = check(uncached + exemplars, prompts(lambda n: f"What of {n}? " + "It was a long day. " * 240))["critique.exemplars"]
    assert "write exemplars: 1, or shorter ones" in long
    unpriced = check("model: {provider: openai, name: own}\n" + exemplars)["critique.exemplars"]
    assert "they cost more than the data" in unpriced
    longer = prompts(lambda n: f"What of {n}? " + "It was a long day. " * 40)
    assert check(HAIKU + exemplars, longer) == {}, "read from the cache they cost a tenth"
    assert set(check(uncached + exemplars, longer)) == {"critique.exemplars"}


# One call where several are asked


def test_what_is_asked_one_by_one_is_told_with_what_one_call_would_save(check: Check) -> None:
    text = "generate: {samples: 1}\ncritique: {principles: 3}\nconstitution: constitutions/general.yaml\nscore: {}\n"
    found = check(SONNET + text)
    assert set(found) == {"critique.principles", "score.criteria"}
    assert "each response is shown 3 times, once a principle: 1,000 prompts pay for" in found["critique.principles"]
    assert "write critique: {together: true}" in found["critique.principles"]
    assert "each response is shown 4 times" in found["score.criteria"]
    for kept in ("true", "false"):
        assert check(SONNET + text, prompts(), f"critique.together={kept}", f"score.together={kept}") == {}
    assert check("model: {provider: simulated}\n" + text) == {}
    unpriced = check("model: {provider: openai, name: own}\n" + text)["score.criteria"]
    assert "$" not in unpriced


def test_what_is_said_to_be_saved_is_what_together_saves(check: Check, tmp_path: Path) -> None:
    text = "generate: {samples: 1}\ncritique: {principles: 3}\nconstitution: general\nscore: {}\n"
    said = check(SONNET.replace("1024", "4096") + text)

    def spent(stage: str, *overrides: str) -> float:
        config = configs.load(tmp_path / "c.yaml", overrides)
        seen = read(config, False)
        assert seen is not None
        played = asked(plan.steps_of(config, plan.sections_of(config)), seen.first)
        return sum(map(tokens, played.of(stage))) / played.prompts * 1000

    for stage, key in (("critique", "critique.principles"), ("score", "score.criteria")):
        told = int(said[key].partition("prompts pay for ")[2].partition(" tokens")[0].replace(",", ""))
        assert told == pytest.approx(spent(stage) - spent(stage, f"{stage}.together=true"), rel=0.1)


def test_scores_of_pairs_are_asked_one_by_one_too(check: Check) -> None:
    said = check(SONNET + "generate: {}\nlabel_pairs: {principles: 0, scores: true}\n")["score.criteria"]
    assert "each response is shown 4 times" in said


def test_together_needs_room_for_all_of_them(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", prompts())
    text = "critique: {principles: 3, together: true}\nconstitution: general\nscore: {together: true}\ngenerate: {}\n"
    small = "model: {provider: simulated, max_tokens: 200}\n"
    (tmp_path / "c.yaml").write_text(f"name: x\noutput: out\nprompts: {{path: prompts.jsonl, kind: kind}}\n{small}{text}")
    code, _, err = cai("config", "check", "c.yaml")
    assert code == 0
    assert "200 for 3 critiques with quotes and suggestions as JSON" in err
    assert "200 for 4 scores with their reasons as JSON" in err


# The bill


def test_a_cap_that_covers_less_than_half_is_told(check: Check) -> None:
    text = SONNET + "generate: {samples: 4}\n"
    said = check(text + "limits: {budget_usd: 0.01}\n")["limits.budget_usd"]
    assert "$0.01 is enough for about 1 prompt of 30: by a first estimate they cost $0." in said
    assert "cai estimate tells it closer" in said
    assert check(text + "limits: {budget_usd: 5}\n") == {}
    assert check("model: {provider: openai, name: own}\ngenerate: {}\nlimits: {budget_usd: 0}\n") == {}


def test_an_old_price_list_is_told_and_one_of_ones_own_that_says_otherwise(check: Check, tmp_path: Path) -> None:
    text = SONNET + "generate: {}\n"
    later = TODAY + datetime.timedelta(days=400)
    assert "prices are of 2026-11-20" in check(text, today=later)["prices"]
    assert check("model: {provider: simulated}\ngenerate: {}\n", today=later) == {}

    def own(dated: str, cost: float) -> dict[str, str]:
        models = f"providers: {{anthropic: {{models: {{claude-sonnet-5-5: {{input: {cost}, output: 10.0}}}}}}}}\n"
        (tmp_path / "own.yaml").write_text(f"dated: '{dated}'\n{models}")
        return check("prices: own.yaml\n" + text)

    said = own("2026-06-01", 3.0)["prices"]
    assert "of 2026-06-01, it has $3.00 and $10.00 a million tokens for claude-sonnet-5-5" in said
    assert "the shipped list, of 2026-11-20, has $2.00 and $10.00 a million tokens" in said
    assert own("2026-06-01", 2.0) == {}
    assert own("2026-11-21", 3.0) == {}


# No false alarm


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_leak_nothing(path: Path) -> None:
    if path.stem != "prices":
        assert leaks(path) == {}


@pytest.mark.parametrize("purpose", ["try", "red-team", "prompts"])
def test_what_init_writes_leaks_nothing(cai: Cai, tmp_path: Path, purpose: str) -> None:
    write_rows(tmp_path / "own.jsonl", prompts())
    given = ["--prompts", "own.jsonl"] if purpose == "prompts" else ["--for", purpose]
    paid = ["--provider", "anthropic", "--model", "claude-haiku-5-5"]
    code, _, err = cai("init", "new", *given, *paid, "-y")
    assert code == 0, err
    assert leaks(tmp_path / "new" / "cai.yaml") == {}


def test_a_line_has_its_place_and_what_a_flag_set_is_told_of_the_flag(check: Check, tmp_path: Path) -> None:
    check(SONNET + "generate: {samples: 4}\nlimits: {budget_usd: 0.01}\n")
    config = configs.load(tmp_path / "c.yaml", ["limits.budget_usd=0.02"])
    steps = plan.steps_of(config, ["generate"])
    said = [one.place for one in give.on(config, steps, ["limits.budget_usd=0.02"], TODAY)]
    assert "--set limits.budget_usd" in said
