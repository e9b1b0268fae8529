"""cai debias"""

from __future__ import annotations

from cai_cli.cli._stage import stage_app

HELP = """Pairs with votes to preferences: measures what labelers owe to position, length and style, takes off what swaps, probes
or gold identify, and says all of it in _bias.json. Asks nothing, unless debias.probes has the labelers asked again about pairs of
which one thing was changed that is not content.

\b
Examples:
  cai debias configs/quickstart.yaml
  cai debias my.yaml --limit 20 --budget-usd 1
  cai debias my.yaml -i rows.jsonl -o - > out.jsonl
"""

app = stage_app("debias", HELP)
