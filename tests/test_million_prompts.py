"""The benchmark of a million prompts runs, on a few."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import million_prompts


def test_it_counts_what_a_run_does(tmp_path: Path) -> None:
    million_prompts.write(tmp_path / "prompts.jsonl", 120)
    million_prompts.config(tmp_path)
    course = million_prompts.run(tmp_path, 120)
    assert course.replies == 120
    assert 10 < course.at_most() < million_prompts.MEGABYTES
    assert million_prompts.logged(tmp_path)["stages"]["generate"]["rows"] == 120
