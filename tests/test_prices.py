"""Prices: bands, caches, batches, names; and what nobody knows is not free."""

import datetime
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.flow import Model
from cai_cli.prices import Band, Price, price_of
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
