"""cai revise"""

from __future__ import annotations

from cai_cli.cli._stage import stage_app

HELP = """Samples with an open round to samples with it closed: a revision that answers the critique, or a stop.

\b
Examples:
  cai revise configs/quickstart.yaml
  cai revise my.yaml --limit 20 --budget-usd 1
  cai revise my.yaml -i rows.jsonl -o - > out.jsonl
"""

app = stage_app("revise", HELP)
