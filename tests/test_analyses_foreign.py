"""Rows from elsewhere: whatever their columns hold, an analysis counts what it can read and breaks on nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cai_cli.analyses import Options, document, find

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([10**400, "a", "harmful"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
COLUMNS = (
    "id", "prompt_id", "prompt", "kind", "response", "initial_response", "refused", "stopped_by", "chosen", "rejected",
    "response_a", "response_b", "preference", "scores", "rounds", "claim", "meta", "sample",
)  # fmt: skip
CRITIQUE = st.fixed_dictionaries({}, optional=dict.fromkeys(("principle", "category", "severity", "needs_revision"), ANYTHING))
ROUND = st.fixed_dictionaries(
    {},
    optional={
        "critiques": st.lists(CRITIQUE, max_size=2) | ANYTHING, "revision": st.text(max_size=20) | ANYTHING, "accepted": ANYTHING,
        "severity": ANYTHING, "scores": ANYTHING,
    },
)  # fmt: skip
OWN = {
    "rounds": st.lists(ROUND, max_size=3) | ANYTHING, "pair": st.sampled_from(["tea", 1]) | ANYTHING,
    "stance": st.sampled_from(["pro", "contra"]) | ANYTHING,
}  # fmt: skip
ROW = st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, ANYTHING) | OWN)


@pytest.mark.parametrize("name", ["coverage", "cycles", "refusals", "boilerplate", "sycophancy"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(ROW, max_size=5))
def test_no_row_breaks_an_analysis(name: str, rows: list[dict[str, Any]]) -> None:
    module = find(name)
    analysis = module.analyse(rows, Options())
    assert analysis.rows == len(rows)
    assert analysis.sections or analysis.findings or analysis.warnings or analysis.unusable
    assert document(analysis)["analysis"] == name
