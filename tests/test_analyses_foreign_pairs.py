"""Pairs, votes and samples from elsewhere: an analysis counts what it can read and breaks on nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_analyses_foreign import ANYTHING, COLUMNS, ROUND

from cai_cli.analyses import Options, document, find

VOTE = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("labeler", "principle", "draw", "confidence", "basis", "p_a", "order", "verdict"), ANYTHING)
)
VERDICTS = st.sampled_from(["a", "b", "tie", "abstain"])
SOUND = st.fixed_dictionaries(
    {"labeler": st.sampled_from("xyz"), "order": st.sampled_from(["ab", "ba"]), "verdict": VERDICTS, "draw": ANYTHING}
)
MORE = (
    "p_a", "gold", "consistent", "flags", "source_a", "source_b", "meta", "system", "model", "composite", "truncated", "model_a",
    "model_b",
)  # fmt: skip
OWN = {
    "votes": st.lists(VOTE | SOUND, max_size=3) | ANYTHING, "rounds": st.lists(ROUND, max_size=3) | ANYTHING,
    "preference": st.sampled_from(["a", "b", "tie"]) | ANYTHING, "gold": st.sampled_from(["a", "b", "tie"]) | ANYTHING,
}  # fmt: skip
ROW = st.fixed_dictionaries({}, optional=dict.fromkeys((*COLUMNS, *MORE), ANYTHING) | OWN)
ASKED = {
    "preferences": Options(by="meta.x"), "systems": Options(),
    "agreement": Options(columns=("preference", "gold"), other={"a": {"preference": "a"}}),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(ROW, max_size=5))
def test_no_row_breaks_an_analysis(name: str, rows: list[dict[str, Any]]) -> None:
    analysis = find(name).analyse(rows, ASKED[name])
    assert analysis.rows == len(rows)
    assert analysis.sections or analysis.warnings or not rows
    assert document(analysis)["analysis"] == name
