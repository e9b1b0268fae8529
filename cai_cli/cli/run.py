"""cai run"""

from __future__ import annotations

from cai_cli.cli._stage import stage_app

HELP = """All stages that the config has a section for: prompts go through generate, critique, revise and label-pairs without
barriers between them; debias follows when all pairs are there.

\b
Examples:
  cai run configs/quickstart.yaml
  cai run my.yaml --limit 20 --budget-usd 1
  cai run my.yaml -i rows.jsonl -o - > out.jsonl
"""

app = stage_app(None, HELP)
