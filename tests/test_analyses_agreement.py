"""Agreement beyond chance: coefficients against published and hand-worked values, and what an analysis makes of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cai_cli import chance
from cai_cli.analyses import Options, agreement
from cai_cli.analyses._result import Analysis, Number
from cai_cli.bias import agreement as symmetric
from cai_cli.bias.clusters import LIMIT, Totals
from cai_cli.bias.coefficients import AGREED, MISSING, Ratings, effective
from cai_cli.bias.estimate import FEW, Estimate
from cai_cli.bias.multiple import benjamini_hochberg
from cai_cli.errors import Exit, Fix

# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C: four observers, twelve units, nominal alpha .743
KRIPPENDORFF = """1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 ."""
MIRROR = (1, 0, 2)


def ratings(items: Any, raters: int, categories: int, mirror: Any = None) -> Ratings:
    """Items as rows of codes, each of a prompt of its own."""
    found = Ratings(raters, categories, mirror)
    for number, codes in enumerate(items):
        found.add(chance.unit("item", number), codes)
    return found


def from_table(table: list[list[int]]) -> list[tuple[int, int]]:
    return [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]


def test_alpha_is_that_of_the_published_example() -> None:
    columns = [[MISSING if cell == "." else int(cell) - 1 for cell in line.split()] for line in KRIPPENDORFF.splitlines()]
    found = ratings(zip(*columns, strict=True), 4, 5).panel()
    assert found.n == 11, "the unit that one observer rated says nothing"
    assert found.alpha.value == pytest.approx(0.743, abs=0.0005)


def test_coefficients_of_a_table_worked_by_hand() -> None:
    # raw .6; kappa: e = .6*.7 + .4*.3 = .54; AC1: q = .65, e = 2*.65*.35 = .455; alpha: 200 values, 130 and 70 of a kind
    found = ratings(from_table([[45, 15], [25, 15]]), 2, 2).two(0, 1)
    assert found.raw.value == pytest.approx(0.6)
    assert found.kappa.value == pytest.approx((0.6 - 0.54) / (1 - 0.54))
    assert found.ac1.value == pytest.approx((0.6 - 0.455) / (1 - 0.455))
    assert found.alpha.value == pytest.approx(1 - (199 * 80) / (200**2 - 130**2 - 70**2))


@given(st.lists(st.tuples(st.sampled_from((0, 1, 2)), st.sampled_from((0, 1, 2))), min_size=5, max_size=60), st.integers(0, 9))
@example([(2, 2)] * 5, 0)
def test_with_randomised_slots_they_are_those_of_the_bias_report(items: list[tuple[int, int]], seed: int) -> None:
    sides = np.array([1, -1, 0])[np.array(items)]
    prompt = np.array([chance.unit("item", number) for number in range(len(items))])
    mine, other = ratings(items, 2, 3, MIRROR).two(0, 1), symmetric.agreement(sides[:, 0], sides[:, 1], prompt, seed)
    for name in ("raw", "kappa", "ac1"):
        assert getattr(mine, name).value == pytest.approx(getattr(other, name).value, nan_ok=True), name


@given(st.lists(st.lists(st.sampled_from((MISSING, 0, 1, 2)), min_size=3, max_size=3), min_size=4, max_size=40), st.randoms())
def test_which_answer_is_called_a_changes_nothing(items: list[list[int]], random: Any) -> None:
    flip = {0: 1, 1: 0}
    turned = [[flip.get(code, code) for code in item] if random.random() < 0.5 else item for item in items]
    one, other = (ratings(these, 3, 3, MIRROR).panel() for these in (items, turned))
    for name in ("raw", "kappa", "ac1", "alpha"):
        left, right = getattr(one, name).value, getattr(other, name).value
        assert left == right or left == pytest.approx(right), name


def test_two_complete_raters_are_a_panel_of_two() -> None:
    found = ratings(from_table([[30, 5, 2], [4, 20, 6], [1, 3, 9]]), 2, 3)
    two, panel = found.two(0, 1), found.panel()
    for name in ("raw", "kappa", "ac1", "alpha"):
        assert getattr(two, name).value == pytest.approx(getattr(panel, name).value), name


def test_one_category_only_leaves_chance_agreement_undefined() -> None:
    found = ratings([(0, 0)] * 9, 2, 2).two(0, 1)
    assert (found.raw.value, found.kappa.value, found.ac1.value) == (1.0, None, None)


def test_the_interval_of_alpha_covers_the_truth() -> None:
    """Two raters that copy a fair coin with probability .8 each: both copy in .64, else agree by half; alpha is .64."""
    rng, inside = np.random.default_rng(20), 0
    for _ in range(150):
        truth = rng.integers(0, 2, 250)
        codes = np.where(rng.random((250, 2)) < 0.8, truth[:, np.newaxis], rng.integers(0, 2, (250, 2)))
        ci = ratings(codes.tolist(), 2, 2).two(0, 1).alpha.ci
        assert ci is not None
        inside += ci[0] <= 0.64 <= ci[1]
    assert 0.89 <= inside / 150 <= 0.99


def test_repeated_rows_of_a_prompt_do_not_narrow_the_interval() -> None:
    once, often = Ratings(2, 2), Ratings(2, 2)
    for number, codes in enumerate(from_table([[40, 20], [10, 30]])):
        once.add(chance.unit(number), codes)
        for _ in range(9):
            often.add(chance.unit(number), codes)
    narrow, wide = (one.two(0, 1).raw for one in (often, once))
    assert narrow.ci == pytest.approx(wide.ci)


@pytest.mark.parametrize(("prompts", "right"), [(5, 0.9), (10, 0.98), (20, 0.9)])
def test_intervals_cover_where_prompts_are_few_and_rows_of_one_are_alike(prompts: int, right: float) -> None:
    """Two raters that are right with one probability on most prompts, and with .6 on the rest: kappa is 2 * raw - 1."""
    rng, inside = np.random.default_rng(9), np.zeros(3)
    raw = 0.7 * (right**2 + (1 - right) ** 2) + 0.3 * (0.6**2 + 0.4**2)
    for _ in range(300):
        found = Ratings(2, 3, MIRROR)
        for prompt in range(prompts):
            sure = right if rng.random() < 0.7 else 0.6
            for _ in range(2):
                truth = rng.integers(2)
                found.add((prompt + 0.5) / prompts, [int(truth ^ (rng.random() > sure)) for _ in range(2)])
        two = found.two(0, 1)
        pairs = ((two.raw, raw), (two.kappa, 2 * raw - 1), (two.alpha, 2 * raw - 1))
        inside += [one.ci is None or one.ci[0] <= value <= one.ci[1] for one, value in pairs]
    assert (inside / 300).min() >= 0.92


def test_where_least_is_known_no_interval_claims_to_know() -> None:
    one_prompt, agreed = Ratings(2, 3, MIRROR), Ratings(2, 3, MIRROR)
    for number in range(3):
        one_prompt.add(0.5, (0, number % 2))
        agreed.add(number / 3, (number % 2, number % 2))
    assert (one_prompt.two(0, 1).kappa.ci, one_prompt.two(0, 1).kappa.warning) == (None, FEW)
    assert (agreed.two(0, 1).kappa.ci, agreed.two(0, 1).kappa.warning) == (None, AGREED)
    raw = agreed.two(0, 1).raw
    assert raw.value == 1
    assert raw.ci is not None
    assert raw.ci[0] < 0.5


def test_totals_are_whole_and_the_spread_stays_when_clusters_are_folded() -> None:
    totals, rng = Totals(1), np.random.default_rng(5)
    values = rng.normal(size=3 * LIMIT)
    for number, value in enumerate(values):
        totals.add(chance.unit(number), [value])
    assert len(totals.matrix()) <= LIMIT
    assert totals.total()[0] == pytest.approx(values.sum())
    spread = np.sqrt(len(totals.matrix()) * totals.matrix().var())
    assert spread == pytest.approx(np.sqrt((values**2).sum()), rel=0.1)


def test_a_panel_is_worth_what_its_correlation_leaves() -> None:
    worth = effective(5, Estimate(value=0.25, ci=(0.0, 1.0)))
    assert (worth.value, worth.ci) == (2.5, (1.0, 5.0))


@pytest.mark.parametrize("rho", [-1.0, -0.3, 0.0])
def test_a_panel_is_worth_no_more_than_its_members(rho: float) -> None:
    assert effective(2, Estimate(value=rho, ci=(-1.0, 0.5))).value == 2.0
    assert effective(5, Estimate()).value is None


def test_adjusted_p_values_are_those_of_the_procedure() -> None:
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert benjamini_hochberg([]) == []
    with pytest.raises(ValueError, match="lie in"):
        benjamini_hochberg([1.2])


# Rows.


def vote(labeler: str, verdict: str, order: str = "ab", draw: int = 0) -> dict[str, Any]:
    return {"labeler": labeler, "principle": "p", "order": order, "draw": draw, "verdict": verdict}


def row(number: int, *votes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": f"r{number}", "prompt_id": f"p{number}", "votes": list(votes), **more}


def table(found: Analysis, name: str) -> dict[Any, dict[str, Any]]:
    """A section's rows by their first cell, with numbers as values."""
    (section,) = [one for one in found.sections if one.name == name]
    plain = [{key: cell.value if isinstance(cell, Number) else cell for key, cell in one.items()} for one in section.rows]
    return {one[section.head[0].name]: one for one in plain}


def test_labelers_are_compared_with_each_other_with_gold_and_with_themselves() -> None:
    golds = ["a" if n % 2 else "b" for n in range(20)]
    rows = [
        row(n, vote("x", "a"), vote("x", "a", "ba"), vote("y", "a" if n < 15 else "b"), gold=gold) for n, gold in enumerate(golds)
    ]
    found = agreement.analyse(rows, Options())
    assert table(found, "labelers")["x / y"]["raw"] == 0.75
    assert table(found, "confusion_labelers")["a"] == {"said": "a", "then_a": 15, "then_b": 5}
    assert {name: one["raw"] for name, one in table(found, "gold").items()} == {"x": 0.5, "y": 0.45, "label": 0.35}
    assert table(found, "orders")["x"]["raw"] == 1.0
    assert "y" not in table(found, "orders"), "it was asked in one order"


def test_of_very_many_labelers_those_that_judged_most_are_compared() -> None:
    rows = [row(n, *(vote(f"l{k}", "a") for k in range(40) if k < 12 or n == 0)) for n in range(3)]
    found = agreement.analyse(rows, Options())
    assert table(found, "labelers")["all 12"]["rows"] == 3
    assert any("of 40 labelers the 12" in one for one in found.warnings)


def test_draws_of_one_question_are_compared() -> None:
    rows = [row(n, vote("x", "a"), vote("x", "a" if n < 9 else "b", draw=1)) for n in range(10)]
    assert table(agreement.analyse(rows, Options()), "draws")["x"]["raw"] == pytest.approx(0.9)


def test_columns_of_a_file_are_compared_as_categories() -> None:
    rows = [{"id": str(n), "mine": "yes", "yours": "yes" if n < 6 else "no"} for n in range(10)]
    found = agreement.analyse(rows, Options(columns=("mine", "yours")))
    assert table(found, "columns")["mine / yours"]["raw"] == pytest.approx(0.6)
    assert table(found, "confusion_columns")["yes"] == {"said": "yes", "then_yes": 6, "then_no": 4}


def test_another_file_is_matched_by_id_and_turned_where_its_sides_are_exchanged() -> None:
    rows = [{"id": str(n), "preference": "a", "source_a": "s0", "source_b": "s1"} for n in range(10)]
    other = {
        str(n): {"preference": "b" if n < 4 else "a", "source_a": "s1" if n < 4 else "s0", "source_b": "s0" if n < 4 else "s1"}
        for n in range(8)
    }
    found = agreement.analyse(rows, Options(columns=("preference",), other=other))
    assert table(found, "files")["preference"] == {
        "between": "preference",
        "rows": 8,
        "raw": 1.0,
        "kappa": 1.0,
        "ac1": 1.0,
        "alpha": 1.0,
    }
    assert any("2 of 10 rows have no match" in warning for warning in found.warnings)


def test_a_column_of_texts_is_refused() -> None:
    rows = [{"id": str(n), "one": f"text {n}", "two": f"text {n}"} for n in range(40)]
    with pytest.raises(Fix, match="more than 12 values") as caught:
        agreement.analyse(rows, Options(columns=("one", "two")))
    assert caught.value.code == Exit.INPUT


def test_one_column_alone_is_answered_with_what_to_name() -> None:
    found = agreement.analyse([{"id": "1", "mine": "yes"}], Options(columns=("mine",)))
    assert any("'mine' alone" in one and "--with" in one for one in found.warnings)


def test_what_is_missing_is_said_by_name() -> None:
    found = agreement.analyse([{"id": "1"}], Options())
    assert found.sections == ()
    assert [word for word in ("votes", "gold") if not any(word in one for one in found.warnings)] == []


def test_the_same_rows_give_the_same_numbers_in_any_order() -> None:
    rows = [row(n, vote("x", "a" if n % 3 else "b"), vote("y", "a" if n % 4 else "tie"), gold="a") for n in range(40)]
    one, other = agreement.analyse(rows, Options()), agreement.analyse(rows[::-1], Options())
    assert one.sections == other.sections
