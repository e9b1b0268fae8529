"""cai critique"""

from __future__ import annotations

from cai_cli.cli._stage import stage_app

HELP = """Samples to samples with an open round: a critique against seeded principles. Reads the newer of generate and revise.

\b
Examples:
  cai critique configs/quickstart.yaml
  cai critique my.yaml --limit 20 --budget-usd 1
  cai critique my.yaml -i rows.jsonl -o - > out.jsonl
"""

app = stage_app("critique", HELP)
