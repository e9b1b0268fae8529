"""cai generate"""

from __future__ import annotations

from cai_cli.cli._stage import stage_app

HELP = """Prompts to samples: systems x samples responses to each.

\b
Examples:
  cai generate configs/quickstart.yaml
  cai generate my.yaml --limit 20 --budget-usd 1
  cai generate my.yaml -i rows.jsonl -o - > out.jsonl
"""

app = stage_app("generate", HELP)
