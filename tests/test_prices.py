"""Prices: bands, caches, batches, names; and what nobody knows is not free."""

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from outside import JUST_GENERATE, SIMULATED, Cai, questions, write_config, write_rows

from cai_cli import price_lists
from cai_cli.flow import Model
from cai_cli.price_lists import PriceList
from cai_cli.prices import Band, Price, as_of, dated, price_of, retires
from cai_cli.settings import ModelSection
from cai_cli.shipped import shipped

tokens = st.integers(0, 10_000_000)


def listed(name: str) -> Price:
    price = price_of(Model(provider="anthropic", name=name))
    assert price is not None
    return price


@pytest.mark.parametrize(
    ("name", "dollars_in", "dollars_out"),
    [
        ("claude-opus-5-5", 4, 20), ("claude-opus-4-5", 5, 25), ("claude-opus-5", 5, 25), ("claude-sonnet-5", 2, 10),
        ("claude-sonnet-5-5", 2, 10), ("claude-sonnet-4-6", 3, 15), ("claude-haiku-4-5", 1, 5), ("claude-mythos-5-1", 10, 50),
    ],
)  # fmt: skip
def test_a_million_tokens_cost_the_list_price(name: str, dollars_in: float, dollars_out: float) -> None:
    assert listed(name).dollars(1_000_000, 0) == pytest.approx(dollars_in)
    assert listed(name).dollars(0, 1_000_000) == pytest.approx(dollars_out)


@pytest.mark.parametrize("name", ["claude-haiku-4-5-20251001", "claude-sonnet-4-5-20250929", "claude-opus-4-5-20251101"])
def test_a_dated_name_costs_what_its_model_costs(name: str) -> None:
    assert listed(name) == listed(name[:-9])


@pytest.mark.parametrize("name", ["claude-fable-5-2", "claude-mythos-5-2", "claude-opus-9", "claude-opus-9-20270101", "opus-5",
                                  "",
                                  "claude-haiku-4-5-latest", "claude-haiku-4-5-2025"])  # fmt: skip
def test_an_unknown_model_has_no_price(name: str) -> None:
    assert price_of(Model(provider="anthropic", name=name)) is None


def test_another_provider_does_not_borrow_the_price_of_a_name() -> None:
    assert price_of(Model(provider="elsewhere", name="claude-opus-5-5")) is None


def test_the_simulated_model_is_free_unless_a_price_is_set() -> None:
    free, priced = (
        price_of(Model(provider="simulated", name="sim", price=price)) for price in (None, {"input": 1.0, "output": 2.0})
    )
    assert free is not None
    assert free.dollars(1_000_000, 1_000_000) == 0
    assert priced is not None
    assert priced.dollars(1_000_000, 1_000_000) == pytest.approx(3)


def test_the_configs_price_comes_first_and_keeps_the_rates() -> None:
    price = price_of(Model(provider="anthropic", name="claude-opus-5-5", price={"input": 2.0, "output": 9.0}))
    assert price is not None
    assert price.dollars(1_000_000, 1_000_000) == pytest.approx(11)
    assert price.dollars(0, 0, cache_read=1_000_000) == pytest.approx(2 * 0.05)
    assert price.dollars(1_000_000, 0, batch=True) == pytest.approx(1)


def test_the_configs_price_has_no_bands() -> None:
    price = price_of(Model(provider="anthropic", name="claude-haiku-5-5", price={"input": 1.0, "output": 1.0}))
    assert price is not None
    assert price.dollars(200_000, 0) == pytest.approx(0.2)


def test_a_price_for_an_unknown_model_has_its_providers_rates() -> None:
    price = price_of(Model(provider="anthropic", name="mine", price={"input": 1.0, "output": 1.0}))
    assert price is not None
    assert price.dollars(1_000_000, 0, batch=True) == pytest.approx(0.5)
    assert price.dollars(0, 0, cache_read=1_000_000) == pytest.approx(0.1)


def test_an_unknown_provider_gives_no_discounts() -> None:
    price = price_of(Model(provider="elsewhere", name="mine", price={"input": 1.0, "output": 1.0}))
    assert price is not None
    assert price.dollars(1_000_000, 0, batch=True) == price.dollars(0, 0, cache_read=1_000_000) == pytest.approx(1)


@pytest.mark.parametrize(("prompt", "dollars"), [(100_000, 0.01), (100_001, 0.0500005)])
def test_a_long_prompt_costs_more_as_a_whole(prompt: int, dollars: float) -> None:
    assert listed("claude-haiku-5-5").dollars(prompt, 0) == pytest.approx(dollars)
    assert listed("claude-haiku-5-5").dollars(1, 0, cache_read=prompt - 1) < dollars


def test_cached_tokens_count_towards_the_band() -> None:
    haiku = listed("claude-haiku-5-5")
    assert haiku.dollars(50_000, 1_000, cache_read=60_000) == pytest.approx((50_000 * 0.5 + 60_000 * 0.05 + 1_000 * 2.5) / 1e6)


@pytest.mark.parametrize(("name", "read"), [("claude-opus-5-5", 0.05), ("claude-sonnet-5-5", 0.05), ("claude-fable-5-1", 0.025),
                                            ("claude-mythos-5-1", 0.025), ("claude-opus-5", 0.1),
                                            ("claude-fable-5", 0.1)])  # fmt: skip
def test_cache_rates(name: str, read: float) -> None:
    price = listed(name)
    assert price.dollars(0, 0, cache_read=1_000_000) == pytest.approx(read * price.input)
    assert price.dollars(0, 0, cache_write=1_000_000) == pytest.approx(1.25 * price.input)
    assert price.dollars(0, 0, cache_write_1h=1_000_000) == pytest.approx(2 * price.input)


@given(tokens, tokens, tokens, tokens)
def test_a_batch_costs_half_and_more_tokens_never_cost_less(tokens_in: int, tokens_out: int, read: int, written: int) -> None:
    price = listed("claude-haiku-5-5")
    dollars = price.dollars(tokens_in, tokens_out, read, written)
    assert price.dollars(tokens_in, tokens_out, read, written, batch=True) == pytest.approx(dollars / 2)
    assert price.dollars(tokens_in + 1, tokens_out, read, written) > dollars
    assert price.dollars(tokens_in, tokens_out + 1, read, written) > dollars


def test_of_several_bands_the_highest_that_is_passed_holds() -> None:
    price = Price(input=1, output=1, above=(Band(prompt_tokens=10, input=2, output=2), Band(prompt_tokens=20, input=4, output=4)))
    assert [price.dollars(tokens, 0) * 1e6 / tokens for tokens in (10, 11, 20, 21)] == pytest.approx([1, 2, 2, 4])


def test_the_list_is_dated_and_positive() -> None:
    read = yaml.safe_load(shipped("configs", "prices.yaml").read_text("utf-8"))
    assert isinstance(read["dated"], datetime.date)
    for name in read["providers"]["anthropic"]["models"]:
        price = listed(name)
        assert re.fullmatch(r"claude-[a-z]+-\d(-\d)?", name)
        assert 0 < price.input < price.output
        assert [band.prompt_tokens for band in price.above] == sorted(band.prompt_tokens for band in price.above)


# What a config says of prices.


def test_a_price_may_say_what_caching_batches_and_long_prompts_cost() -> None:
    said = {"input": 2.0, "output": 9.0, "cache_read": 0.5, "cache_write": 1.0, "cache_write_1h": 3.0, "batch": 0.25}
    bands = [{"prompt_tokens": 20, "input": 8.0, "output": 9.0}, {"prompt_tokens": 10, "input": 4.0, "output": 9.0}]
    section = ModelSection.model_validate({"provider": "anthropic", "name": "mine", "price": {**said, "above": bands}})
    price = price_of(section.model())
    assert price is not None
    rates = [price.dollars(0, 0, **{name: 4}) * 1e6 / 8 for name in ("cache_read", "cache_write", "cache_write_1h")]
    assert rates == pytest.approx([0.5, 1.0, 3.0])
    assert [price.dollars(tokens, 0) * 1e6 / tokens for tokens in (10, 11, 21)] == pytest.approx([2, 4, 8])
    assert price.dollars(4, 0, batch=True) * 1e6 == pytest.approx(2)


LIST = """\
dated: 2026-11-01
providers:
  anthropic:
    default: {cache_read: 0.2}
    retires: {mine: 2027-01-01}
    models:
      mine: {input: 3, output: 9, above: [{prompt_tokens: 1000, input: 6, output: 18}], cache_minimum: 600}
      claude-haiku-5-5: {input: 1, output: 2}
  openai:
    models:
      gpt-5: {input: 1.25, output: 10, cache_read: 0.1, cache_write: 1}
"""


def model_of(prices: PriceList, provider: str, name: str, **more: Any) -> Model:
    return ModelSection.model_validate({"provider": provider, "name": name, **more}).model(prices)


def test_a_list_of_ones_own_goes_before_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(LIST)
    prices = price_lists.load(tmp_path / "mine.yaml")
    mine, haiku, gpt, dear = (
        price_of(model_of(prices, *named)) for named in (("anthropic", "mine"), ("anthropic", "claude-haiku-5-5"),
                                                        ("openai", "gpt-5"), ("anthropic", "claude-opus-5"))
    )  # fmt: skip
    assert mine == Price(input=3, output=9, cache_read=0.2, batch=0.5, above=(Band(prompt_tokens=1000, input=6, output=18),),
                         cache_minimum=600, dated="2026-11-01", retires=datetime.date(2027, 1, 1))  # fmt: skip
    assert haiku is not None
    assert (haiku.input, haiku.above, haiku.cache_read, haiku.cache_minimum) == (1, (), 0.2, 512)
    assert gpt is not None
    assert (gpt.input, gpt.cache_read, gpt.cache_write, gpt.batch) == (1.25, 0.1, 1, 1)
    assert dear == listed("claude-opus-5")
    assert price_of(model_of(prices, "anthropic", "claude-haiku-5-5-20261001")) == haiku
    assert price_of(model_of(prices, "anthropic", "yours")) is None
    own = price_of(model_of(prices, "anthropic", "mine", price={"input": 7.0, "output": 8.0}))
    assert own is not None
    assert (own.input, own.cache_read, own.above) == (7, 0.2, ())
    assert retires(model_of(prices, "anthropic", "mine")) == datetime.date(2027, 1, 1)
    assert retires(model_of(prices, "anthropic", "claude-sonnet-4-5")) == datetime.date(2026, 11, 30)


def test_which_prices_hold_is_told_by_their_day(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(LIST)
    prices = price_lists.load(tmp_path / "mine.yaml")
    ours, mine = (model_of(prices, "anthropic", name) for name in ("claude-opus-5", "mine"))
    stated = model_of(prices, "anthropic", "mine", price={"input": 7.0, "output": 8.0})
    assert as_of([ours]) == f"prices of {dated()}"
    assert as_of([ours, mine, ours]) == f"prices of 2026-11-01, {dated()}"
    assert as_of([mine, stated]) == "prices of 2026-11-01 and prices of the config"
    assert as_of([Model(provider="simulated", name="s"), Model(provider="anthropic", name="llama")]) == ""


WRONG = """\
dated: soon
provider: {}
providers:
  anthropic:
    default: {cache_read: 0.2, cache: 4}
    retires: {my-mode: 2027-01-01, my-model: never}
    models:
      my-model: {input: 3, output: 9, cach_read: 0.1}
      other: {input: x, output: 9}
      third: {output: 3}
"""


def test_all_that_is_wrong_in_a_list_is_told_with_its_line(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(WRONG)
    write_rows(tmp_path / "prompts.jsonl", questions(1))
    write_config(tmp_path, model=SIMULATED, prices="mine.yaml")
    code, _, err = cai("config", "check", "c.yaml")
    assert code == 2
    said = [line.removeprefix("error: ").removeprefix("hint: ") for line in err.splitlines()]
    assert said == [
        "mine.yaml:1: dated: must be a day such as 2026-11-20, not 'soon'",
        "mine.yaml:2: unknown key 'provider'", "did you mean 'providers'?",
        "mine.yaml:5: providers.anthropic.default: unknown key 'cache'", "did you mean 'cache_read'?",
        "mine.yaml:6: providers.anthropic.retires.my-model: must be a day such as 2026-11-20, not 'never'",
        "mine.yaml:6: retires: this file has no price of 'my-mode'", "did you mean 'my-model'?",
        "mine.yaml:8: providers.anthropic.models.my-model: unknown key 'cach_read'", "did you mean 'cache_read'?",
        "mine.yaml:9: providers.anthropic.models.other: 'input' must be a number, not the text 'x'",
        "mine.yaml:10: providers.anthropic.models.third: 'input' is missing", "add 'input: ...'",
    ]  # fmt: skip


def test_a_list_that_is_not_there_is_told_at_the_configs_line(cai: Cai, tmp_path: Path) -> None:
    write_config(tmp_path, model=SIMULATED, prices="nowhere.yaml")
    code, _, err = cai("config", "check", "c.yaml")
    assert code == 2
    assert re.search(r"c.yaml:\d+: 'prices' names no file: 'nowhere.yaml'", err)


def test_a_run_is_priced_by_the_configs_list_and_an_unknown_model_never_at_nothing(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(LIST)
    write_rows(tmp_path / "prompts.jsonl", questions(1))
    dollars = {}
    for name in ("mine", "yours"):
        model = {"provider": "anthropic", "name": name, "max_tokens": 100_000}
        write_config(tmp_path, model=model, prices="mine.yaml", **JUST_GENERATE, split={"test": 0.1})
        code, out, err = cai("run", "c.yaml", "--dry-run", "--json")
        assert code == 0, err
        told = json.loads(out)
        dollars[name] = told["dollars_at_most"]
        assert told["assumed"].get("dollars") == {"mine": "at prices of 2026-11-01", "yours": None}[name]
    assert dollars["mine"] == pytest.approx(2 * 100_000 * 9e-6, rel=0.01)
    assert dollars["yours"] is None
