"""cai score"""

from __future__ import annotations

from cai_cli.cli._stage import stage_app

HELP = """Samples to scored samples: each response rated from 1 to 10 on named criteria. Reads the newer of revise and generate.

\b
Examples:
  cai score my.yaml
  cai score my.yaml --limit 20 --budget-usd 1
  cai score my.yaml -i rows.jsonl -o - > scored.jsonl
"""

app = stage_app("score", HELP)
