"""cai label-pairs"""

from __future__ import annotations

from cai_cli.cli._stage import stage_app

HELP = """Pairs of responses to pairs with votes: a labeler judges each in both orders.
Reads revise if there is one, else generate.

\b
Examples:
  cai label-pairs configs/quickstart.yaml
  cai label-pairs my.yaml --limit 20 --budget-usd 1
  cai label-pairs my.yaml -i rows.jsonl -o - > out.jsonl
"""

app = stage_app("label-pairs", HELP)
